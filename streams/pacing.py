"""In a call that comes faster than speech the model lags behind by minutes of media time, and rules on what
was left unsaid, or on speech without text, would speak up about words that are only waiting to be read.

So what was heard is held back until the words before it are there, as on a call that comes at the pace of
speech: the same call gives the same alerts, live or replayed. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import Struct, field

from streams.events import CallEvent

LEAD_MS: Final = 3_000
"""What is heard runs so far ahead of the words, about as on a live call."""

Entry = tuple[int, CallEvent | None]
"""How far the call was heard, and what was noticed there; ``None``: timers may be served up to there."""


class Pacing(Struct, kw_only=True):
    """What was heard and may not be told to the detectors yet, in order."""

    lead_ms: int = LEAD_MS
    owed: dict[str, int] = field(default_factory=dict)
    """How far the call was heard when each utterance was cut whose words are not there."""
    held: list[Entry] = field(default_factory=list)

    def cut(self, utterance_id: str, heard_ms: int) -> None:
        self.owed[utterance_id] = heard_ms

    def hold(self, heard_ms: int, event: CallEvent | None) -> None:
        if event is None and self.held and self.held[-1][1] is None:
            self.held.pop()
        self.held.append((heard_ms, event))

    def due(self) -> Iterator[Entry]:
        """What may be told now."""
        first = min(self.owed.values(), default=None)
        while self.held and (first is None or self.held[0][0] <= first + self.lead_ms):
            yield self.held.pop(0)

    def read(self, utterance_id: str) -> Iterator[Entry]:
        """The words of an utterance are there: what has to be told before them.

        Timers that would run ahead of other words are left out; later ones will serve them.
        """
        cut = self.owed.pop(utterance_id, None)
        first = min(self.owed.values(), default=cut)
        while cut is not None and first is not None and self.held and self.held[0][0] <= cut:
            heard_ms, event = self.held.pop(0)
            if event is not None or heard_ms <= first + self.lead_ms:
                yield heard_ms, event

    def rest(self) -> Iterator[Entry]:
        """The call has ended: everything."""
        self.owed.clear()
        return self.due()
