"""A call put together from what several connections bring: all of it on one media time. Pure.

Each connection counts its own time: from its first sample, or as its peer stamps it. The call's media time is
that of its first connection; where another one begins on it, the clock at which its audio came in tells.

What the connections of one call may do:

* **come late, or come back**: their audio begins where the clock says, and what was missed is a ``Gap``;
* **bring a moment twice**: what the channel has heard is not heard again;
* **run by another clock**: two sound cards differ by some ten parts in a million, half a second after an
  hour. Where a connection has run away from the call, silence is put in, or left out, in a quiet moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from msgspec.structs import replace

from streams.audio import rms_dbfs
from streams.events import SAMPLE_RATE, AudioFrame, Channel, Gap

SLACK_MS: Final = 2
"""Media time is rounded to whole milliseconds."""
GAP_MS: Final = 60
"""What a returning connection missed less than this is no gap."""
LATE_MS: Final = 500
"""A channel that begins so much after the call has missed something."""
OWN_TIME_MS: Final = 2_000
"""A connection whose first stamp is behind this goes on with the call's own media time: it is the same
stream over a new connection. A new stream counts from 0."""
NEAR_MS: Final = 60_000
"""Its stamps are believed only so close to the call's time."""

APART_MS: Final = 120
"""A connection beside others is put right when it has run away by so much: speech of both sides would seem to
overlap, or not to."""
ALONE_MS: Final = 1_000
"""One that brings the whole call, without stamps: its peer sent nothing for a while, and went on."""
LOOK_S: Final = 10.0
"""Over which the connection's earliest audio is looked for: the rest was held up on its way."""
LOST_LOOK_S: Final = 2.0
"""The same, where it is further behind than ``ALONE_MS``."""
QUIET_DB: Final = -45.0
PATIENCE_S: Final = 5.0
"""So long a quiet moment is waited for."""


class Timeline:
    """Media time of one call.

    ``zero_s``: clock at media time 0, where it is known before any audio came.
    """

    def __init__(self, call_id: str, channels: Sequence[Channel], zero_s: float | None = None) -> None:
        self.call_id = call_id
        self.channels = tuple(channels)
        self.zero_s = zero_s
        self.before_ms = 0
        """How far the call was heard before this began, by somebody else."""
        self.reach: dict[Channel, int] = {}
        """Media time up to which a channel has been given out."""

    def at(self, clock_s: float) -> int:
        """Media time at a clock; 0 before the call's first sample."""
        return 0 if self.zero_s is None else max(0, round((clock_s - self.zero_s) * 1000))

    @property
    def media_ms(self) -> int:
        """How far the call has been given out: its furthest channel."""
        return max(self.reach.values(), default=0)

    def placed(self, item: AudioFrame | Gap) -> AudioFrame | Gap | None:
        """An item whose time is the call's, less what its channel has had; ``None`` where that is all."""
        start, end = item.media_ms, item.media_ms + item.duration_ms
        reach = self.reach.get(item.channel, 0)
        if end <= reach - SLACK_MS:
            return None
        if start < reach - SLACK_MS:
            heard = reach - start
            if isinstance(item, Gap):
                item = replace(item, media_ms=reach, duration_ms=end - reach)
            else:
                item = replace(item, media_ms=reach, pcm=item.pcm[heard * SAMPLE_RATE // 1000 * 2 :])
                if not item.pcm:
                    return None
        self.reach[item.channel] = max(reach, end)
        return item

    def missing(self, channel: Channel, start_ms: int) -> Gap | None:
        """What a channel has missed that goes on at ``start_ms``."""
        reach = self.reach.get(channel)
        since = self.before_ms if reach is None else reach
        if start_ms - since <= (LATE_MS if reach is None else GAP_MS):
            return None
        self.reach[channel] = start_ms
        return Gap(
            call_id=self.call_id,
            channel=channel,
            media_ms=since,
            duration_ms=start_ms - since,
            reason="missing",
        )


class Placement:
    """Where one connection stands on its call's timeline.

    Args:
        channels: that come over it.
        stamped: its peer stamps its audio, so that a pause of the peer shows in its times.
    """

    def __init__(self, timeline: Timeline, channels: Iterable[Channel], stamped: bool) -> None:
        self._timeline = timeline
        self.channels = tuple(channels)
        alone = set(self.channels) >= set(timeline.channels)
        self._limit_ms = (None if stamped else ALONE_MS) if alone else APART_MS
        self._offset_ms: int | None = None
        """From the connection's time to the call's; ``None`` before its first audio."""
        self._begun: set[Channel] = set()
        self._end_ms = 0
        """Of the connection's newest audio, in the call's time."""
        self._looked_s: float | None = None
        """Clock at which the present look began."""
        self._lead_ms: int | None = None
        """The most by which audio came before its time by the call's clock, in this look; mostly below 0."""
        self._owed: tuple[int, float] | None = None
        """A correction that waits for a quiet moment: by how much, and since when."""

    def place(self, items: Sequence[AudioFrame | Gap], arrived_s: float) -> list[AudioFrame | Gap]:
        """The same on the call's media time, in order, without what its channels have had.

        ``arrived_s``: clock at which the newest of it came in.
        """
        if not items:
            return []
        if self._offset_ms is None:
            self._offset_ms = self._begin(items, arrived_s)
        elif self._limit_ms is not None:
            self._correct(items, arrived_s)
        out: list[AudioFrame | Gap] = []
        for item in items:
            moved = replace(item, media_ms=item.media_ms + self._offset_ms) if self._offset_ms else item
            if item.channel not in self._begun:
                self._begun.add(item.channel)
                if (gap := self._timeline.missing(item.channel, moved.media_ms)) is not None:
                    out.append(gap)
            if (placed := self._timeline.placed(moved)) is not None:
                out.append(placed)
        self._end_ms = max(self._end_ms, _end(items) + self._offset_ms)
        self._look(arrived_s)
        return out

    def _begin(self, items: Sequence[AudioFrame | Gap], arrived_s: float) -> int:
        first, end = min(item.media_ms for item in items), _end(items)
        if self._timeline.zero_s is None:
            self._timeline.zero_s = arrived_s - end / 1000
            return 0
        now_ms = self._timeline.at(arrived_s)
        if first > OWN_TIME_MS and abs(end - now_ms) <= NEAR_MS:
            return 0
        return now_ms - end if now_ms - end + first >= 0 else -first

    def _look(self, arrived_s: float) -> None:
        """See how far the connection is from the call's clock."""
        if self._limit_ms is None or self._owed is not None:
            return
        lead_ms = self._end_ms - self._timeline.at(arrived_s)
        if self._looked_s is None or self._lead_ms is None:
            self._looked_s, self._lead_ms = arrived_s, lead_ms
            return
        self._lead_ms = max(self._lead_ms, lead_ms)
        enough = LOST_LOOK_S if self._lead_ms < -ALONE_MS else LOOK_S
        if arrived_s - self._looked_s >= enough:
            if abs(self._lead_ms) > self._limit_ms:
                self._owed = (-self._lead_ms, arrived_s)
            self._looked_s = self._lead_ms = None

    def _correct(self, items: Sequence[AudioFrame | Gap], arrived_s: float) -> None:
        """Put in silence, or leave out audio (see ``Timeline.placed``), where it does no harm."""
        if self._owed is None or self._offset_ms is None:
            return
        owed_ms, since_s = self._owed
        quiet = all(
            rms_dbfs(np.frombuffer(item.pcm, "<i2")) < QUIET_DB
            for item in items
            if isinstance(item, AudioFrame)
        )
        if not quiet and arrived_s - since_s < PATIENCE_S:
            return
        self._offset_ms += owed_ms
        self._owed = None
        if owed_ms > ALONE_MS:
            # So much is no drift: the peer sent nothing.
            self._begun.clear()


def _end(items: Sequence[AudioFrame | Gap]) -> int:
    return max(item.media_ms + item.duration_ms for item in items)
