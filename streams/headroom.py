"""How much of the model's time is spoken for, and what may be spent of the rest. Pure: time is an argument.

Finals have to be computed, partials need not: they buy earlier alerts with what the finals leave. So the
pause between two partials of an utterance follows the share of time that the workers are busy, and stretches
well before finals would have to wait. A new call is taken while the finals of all calls would still fit if
in each of them somebody spoke all the time, by what a second of speech was seen to cost: a burst of calls is
judged by what they *will* cost, their first words are yet to come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class _Rate:
    """Seconds of work a second, over about the last ``horizon_s`` seconds."""

    horizon_s: float
    _sum: float = 0.0
    _at_s: float | None = None

    def add(self, seconds: float, now_s: float) -> None:
        self._sum = self.value(now_s) * self.horizon_s + seconds
        self._at_s = now_s if self._at_s is None else max(now_s, self._at_s)

    def value(self, now_s: float) -> float:
        if self._at_s is None:
            return 0.0
        return self._sum * math.exp(-max(0.0, now_s - self._at_s) / self.horizon_s) / self.horizon_s


@dataclass
class Headroom:
    """Feed it the time of each batch, and the speech of each final.

    Args:
        workers: batches that run at a time.
        call_cost: share of one worker that the finals of one call are thought to take, until it was
            seen: what a second of speech costs, since in a call there is about one of it per second.
    """

    workers: int
    call_cost: float = 0.05

    EASY, FULL = 0.55, 0.9
    """Shares of busy workers: below the first partials come at their best pace, from the second on none."""
    BUSY = 0.45
    """From this share on nothing is read twice."""
    PACE_MS, SLOW_PACE_MS = 650, 2_000
    MOST_FINALS = 0.85
    """Of the workers' time may go to finals; the rest is what hearing the calls takes of the same cores."""
    LEAST_SPEECH_S = 15.0
    """So much must have been read lately before its cost is believed."""
    LEARNING = 0.05

    _all: _Rate = field(default_factory=lambda: _Rate(3.0))
    _finals: _Rate = field(default_factory=lambda: _Rate(12.0))
    _speech: _Rate = field(default_factory=lambda: _Rate(12.0))

    def worked(self, seconds: float, finals: bool, now_s: float) -> None:
        """A batch has taken ``seconds`` of one worker; ``finals``: it could not have been given up."""
        self._all.add(seconds, now_s)
        if finals:
            self._finals.add(seconds, now_s)

    def was_final(self, seconds: float, now_s: float) -> None:
        """What was worked for a partial has become a final."""
        self._finals.add(seconds, now_s)

    def served(self, speech_s: float, now_s: float) -> None:
        """A final of so much speech is done: what it took was told before.

        By speech and not by calls: the first words of a call come late, and those of too many calls later
        still, so that in a burst the cost of a call would seem to fall.
        """
        self._speech.add(speech_s, now_s)
        if self._speech.value(now_s) * self._speech.horizon_s >= self.LEAST_SPEECH_S:
            seen = self._finals.value(now_s) / self._speech.value(now_s)
            self.call_cost += self.LEARNING * (seen - self.call_cost)

    def busy(self, now_s: float) -> float:
        """Share of the workers' time that was in use lately, 0 to 1 and a little above."""
        return self._all.value(now_s) / self.workers

    def partial_pace_ms(self, now_s: float) -> int | None:
        """Speech that an utterance has to grow by before its next partial; ``None``: no partials now."""
        share = (self.busy(now_s) - self.EASY) / (self.FULL - self.EASY)
        if share >= 1:
            return None
        return round(self.PACE_MS + max(0.0, share) * (self.SLOW_PACE_MS - self.PACE_MS))

    def is_busy(self, now_s: float) -> bool:
        """Whether an utterance that was read part by part should not be read again as a whole."""
        return self.busy(now_s) >= self.BUSY

    def has_room(self, calls: int) -> bool:
        """Whether the finals of ``calls`` calls and one more would fit."""
        return (calls + 1) * self.call_cost <= self.MOST_FINALS * self.workers
