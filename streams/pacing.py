"""In a call that comes faster than speech the model lags behind by minutes of media time, and rules on what
was left unsaid, or on speech without text, would speak up about words that are only waiting to be read.

So what was heard is held back until the words before it are there, as on a call that comes at the pace of
speech: the same call gives the same alerts, live or replayed. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from streams.events import CallEvent

LEAD_MS: Final = 3_000
"""What is heard runs so far ahead of the words, about as on a live call."""

Entry = tuple[int, CallEvent | None]
"""How far the call was heard, and what was noticed there; ``None``: timers may be served up to there."""


class Pacing:
    """What was heard and may not be told to the detectors yet, in order."""

    def __init__(self, lead_ms: int = LEAD_MS) -> None:
        self._lead_ms = lead_ms
        self._owed: dict[str, int] = {}
        """How far the call was heard when each utterance was cut whose words are not there."""
        self._held: deque[Entry] = deque()

    def cut(self, utterance_id: str, heard_ms: int) -> None:
        self._owed[utterance_id] = heard_ms

    def hold(self, heard_ms: int, event: CallEvent | None) -> None:
        if event is None and self._held and self._held[-1][1] is None:
            self._held.pop()
        self._held.append((heard_ms, event))

    def due(self) -> Iterator[Entry]:
        """What may be told now."""
        first = min(self._owed.values(), default=None)
        while self._held and (first is None or self._held[0][0] <= first + self._lead_ms):
            yield self._held.popleft()

    def read(self, utterance_id: str) -> Iterator[Entry]:
        """The words of an utterance are there: what has to be told before them.

        Timers that would run ahead of other words are left out; later ones will serve them.
        """
        cut = self._owed.pop(utterance_id, None)
        first = min(self._owed.values(), default=cut)
        while cut is not None and first is not None and self._held and self._held[0][0] <= cut:
            heard_ms, event = self._held.popleft()
            if event is not None or heard_ms <= first + self._lead_ms:
                yield heard_ms, event

    def rest(self) -> Iterator[Entry]:
        """The call has ended: everything."""
        self._owed.clear()
        return self.due()
