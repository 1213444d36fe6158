"""Ears on running calls: what a call sounds like goes to whoever listens to it at this moment.

Bounds: each pair of ears keeps ``KEPT_MS`` of each channel and drops the oldest; a browser that is slow hears
what is now, not what was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from streams.audio import Samples
from streams.events import SAMPLE_RATE, AudioFrame, CallInfo, Channel
from streams.runner import FrameSink

Wanted = Literal["agent", "customer", "both"]
PER_MS = SAMPLE_RATE // 1000
KEPT_MS = 1_000
LEAD_MS = 200
"""Of a channel's newest sound to what is played: audio comes in rounds, and is played evenly."""
SLACK_MS = 100
"""What is played may be so much further behind than that, after an uneven moment or by drift."""
LOOK_MS = 10_000
"""Over which it has to be, before it is put right."""


class Ears:
    """One listener: frames in as they come, 20 ms of sound out as they are played. No clock.

    Both channels stand at their media time. Where nothing has come there is silence, and time goes on; a
    frame that comes when its place is being played already, as of a channel that lags, sets time back, so
    that what follows is heard.
    """

    def __init__(self, wanted: Wanted, on_end: Callable[[], None] = lambda: None) -> None:
        """``on_end`` is told when the call is over."""
        self._wanted, self._on_end = wanted, on_end
        self._pieces: dict[Channel, list[tuple[int, Samples]]] = {}
        """Position in samples, and what lies there."""
        self._at: int | None = None
        """Position that is played next; ``None`` before the first frame."""
        self._newest = 0
        self._least: int | None = None
        """By how much frames ended before their time came to be played, at least, in this look."""
        self._looked = 0
        """``_newest`` when it began."""
        self.ended = False

    def end(self) -> None:
        """The call is over, or not heard here."""
        self.ended = True
        self._on_end()

    def hear(self, frame: AudioFrame) -> None:
        if self._wanted != "both" and frame.channel not in (self._wanted, "unknown"):
            return
        start = frame.media_ms * PER_MS
        samples = np.frombuffer(frame.pcm, "<i2")
        end = start + len(samples)
        self._newest = max(self._newest, end)
        pieces = self._pieces.setdefault(frame.channel, [])
        pieces.append((start, samples))
        oldest = self._newest - KEPT_MS * PER_MS
        while pieces and pieces[0][0] + len(pieces[0][1]) < oldest:
            pieces.pop(0)
        if self._at is None or start < self._at:
            # The first, or too late; a channel that lags by more than is kept cannot be waited for.
            self._move(max(end - LEAD_MS * PER_MS, oldest))
        elif self._at < oldest:
            self._move(self._newest - LEAD_MS * PER_MS)
        else:
            self._look(end - self._at)

    def _look(self, lead: int) -> None:
        """See whether less would be enough."""
        self._least = lead if self._least is None else min(self._least, lead)
        if self._at is not None and self._newest - self._looked >= LOOK_MS * PER_MS:
            spare = self._least - LEAD_MS * PER_MS
            self._move(self._at + (spare if spare > SLACK_MS * PER_MS else 0))

    def _move(self, position: int) -> None:
        self._at, self._least, self._looked = position, None, self._newest

    def take(self, count: int) -> Samples:
        """The next ``count`` samples, int16 at ``SAMPLE_RATE``: mixed, and silence where none came."""
        mixed = np.zeros(count, np.int32)
        if self._at is None:
            return mixed.astype(np.int16)
        for pieces in self._pieces.values():
            for start, samples in pieces:
                first, last = max(start, self._at), min(start + len(samples), self._at + count)
                if first < last:
                    mixed[first - self._at : last - self._at] += samples[first - start : last - start]
            while pieces and pieces[0][0] + len(pieces[0][1]) <= self._at + count:
                pieces.pop(0)
        self._at += count
        return np.clip(mixed, -32768, 32767).astype(np.int16)


class Listening:
    """All ears of one process; a ``FrameSink``. Costs nothing where nobody listens."""

    def __init__(self) -> None:
        self._ears: dict[str, list[Ears]] = {}
        self._running: set[str] = set()

    def __contains__(self, call_id: str) -> bool:
        """Whether a call is heard here."""
        return call_id in self._running

    def open(self, call_id: str, wanted: Wanted, on_end: Callable[[], None] = lambda: None) -> Ears:
        """Ears on a call; they have ended already where it is not heard here (any more)."""
        ears = Ears(wanted, on_end)
        if call_id not in self._running:
            ears.end()
            return ears
        self._ears.setdefault(call_id, []).append(ears)
        return ears

    def shut(self, call_id: str, ears: Ears) -> None:
        left = [one for one in self._ears.get(call_id, []) if one is not ears]
        if left:
            self._ears[call_id] = left
        else:
            self._ears.pop(call_id, None)

    def start(self, call: CallInfo, wire_rate: int) -> None:
        self._running.add(call.call_id)

    def frame(self, frame: AudioFrame) -> None:
        for ears in self._ears.get(frame.call_id, ()):
            ears.hear(frame)

    async def close(self, call_id: str, media_ms: int) -> None:
        self._running.discard(call_id)
        for ears in self._ears.pop(call_id, []):
            ears.end()


class Sinks:
    """Several sinks as one."""

    def __init__(self, sinks: Sequence[FrameSink]) -> None:
        self._sinks = tuple(sinks)
        self._frame: tuple[Callable[[AudioFrame], None], ...] = tuple(sink.frame for sink in sinks)

    def start(self, call: CallInfo, wire_rate: int) -> None:
        for sink in self._sinks:
            sink.start(call, wire_rate)

    def frame(self, frame: AudioFrame) -> None:
        for take in self._frame:
            take(frame)

    async def close(self, call_id: str, media_ms: int) -> None:
        for sink in self._sinks:
            await sink.close(call_id, media_ms)
