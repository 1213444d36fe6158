"""Whether audio comes at all, and as fast as it is spoken: else its sample rate is not what the peer says it
is. Pure.

Samples of 16 kHz that are taken for 8 kHz are twice as many as there is time for, and sound like a slow deep
voice; the other way round half of them are missing, and nobody hears speech in what there is. A network only
ever delays audio and then brings all of it, a peer that sends nothing while nobody speaks leaves pauses.
So the speed is taken over ``LOOK_S`` at a time, and believed when it was equally wrong ``LOOKS`` times in a
row, for the slow one without any pause.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from streams.events import Trouble

LOOK_S: Final = 5.0
LOOKS: Final = 3
FAST, SLOW = 1.3, 0.77
"""Media over clock; no two usual rates are closer to each other than 32 and 24 kHz."""
ALIKE: Final = 0.15
"""Looks that differ by less than this share tell of the same speed."""
PAUSE_S: Final = 0.5

SILENT_S: Final = 8.0
"""A call that is up and has brought nothing for so long is in trouble: longer than a network needs to find
another way, and no telephone sends nothing for so long unless it is on hold."""
MOST_SILENCES: Final = 10
"""Told of one call: a line that comes and goes must not flood anybody."""


class Speed(NamedTuple):
    """Audio has begun to come at a wrong speed, or comes at the right one again."""

    is_wrong: bool
    times: float
    """As fast as speech."""
    since_s: float
    """Clock at which that began."""


class _Look(NamedTuple):
    began_s: float
    times: float
    has_pause: bool


class Arrival:
    """How fast the audio of one connection comes."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._last_s = 0.0
        self._media_ms = 0
        self._has_pause = False
        self._looks: deque[_Look] = deque(maxlen=LOOKS)
        self._wrong = False

    def came(self, media_ms: int, now_s: float) -> Speed | None:
        """``media_ms`` of every channel of it have come at ``now_s``, gaps that the peer told included."""
        if self._began_s is None:
            # What came before this moment may have waited.
            self._began_s = self._last_s = now_s
            return None
        self._has_pause = self._has_pause or now_s - self._last_s > PAUSE_S
        self._media_ms += media_ms
        self._last_s = now_s
        passed_s = now_s - self._began_s
        if passed_s < LOOK_S:
            return None
        self._looks.append(_Look(self._began_s, self._media_ms / 1000 / passed_s, self._has_pause))
        self._began_s, self._media_ms, self._has_pause = now_s, 0, False
        return self._judge()

    def _judge(self) -> Speed | None:
        times = [look.times for look in self._looks]
        mean = sum(times) / len(times)
        if self._wrong:
            if not SLOW < times[-1] < FAST:
                return None
            self._wrong = False
            return Speed(False, times[-1], self._looks[-1].began_s)
        alike = len(times) == LOOKS and all(abs(t - mean) < ALIKE * mean for t in times)
        slow = mean <= SLOW and not any(look.has_pause for look in self._looks)
        if not alike or not (mean >= FAST or slow):
            return None
        self._wrong = True
        return Speed(True, mean, self._looks[0].began_s)


class Silence:
    """Whether a call that comes at the pace of speech, and is up, brings anything."""

    __slots__ = ("_count", "_told")

    def __init__(self) -> None:
        self._told = False
        self._count = 0

    def look(self, call_id: str, silent_s: float, media_ms: int) -> Trouble | None:
        """Nothing has come for ``silent_s``; ``media_ms``: how far the call was heard then."""
        if silent_s < SILENT_S or self._told or self._count >= MOST_SILENCES:
            return None
        self._told = True
        self._count += 1
        return _trouble(call_id, media_ms + int(silent_s * 1000), media_ms, f"{silent_s:.0f} s")

    def over(self, call_id: str, media_ms: int) -> Trouble | None:
        """Audio has come that begins at ``media_ms``."""
        if not self._told:
            return None
        self._told = False
        return _trouble(call_id, media_ms, media_ms, present=False)


def _trouble(call_id: str, now_ms: int, since_ms: int, measured: str = "", present: bool = True) -> Trouble:
    return Trouble(
        call_id=call_id,
        channel="unknown",
        kind="silent",
        present=present,
        media_ms=now_ms,
        since_ms=since_ms,
        measured=measured,
    )
