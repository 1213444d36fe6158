"""``sentiment``: how pleased or displeased a speaker's words have been over their last turns.

The mean of ``detectors.polarity`` over so many of the speaker's turns with words, this one the last. It
holds in a turn that itself points that way: the fourth neutral turn after three bad ones tells nothing new.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from detectors.polarity import Witness, score, witnesses
from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Found, Scene, Turn

NAMES: Final = ("sentiment",)
_MOST_TURNS: Final = 10


class Sentiment(Struct, frozen=True):
    limit: float
    """-1 to 1; the mean must lie beyond it."""
    sign: int
    """-1: below the limit; 1: above."""
    turns: int

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        said = _said(turn)
        here = score(said)
        if here * self.sign <= min(0.0, self.limit * self.sign):
            return None
        scores = [here, *(score(_said(earlier)) for earlier in self._before(scene, turn))]
        if len(scores) < self.turns or sum(scores) / len(scores) * self.sign <= self.limit * self.sign:
            return None
        telling = [word for word in said if word.weight * self.sign > 0]
        spans = (turn.place(word.start, word.end) for word in telling)
        return Found(
            spans=tuple(dict.fromkeys(span for span in spans if span is not None)),
            how="signal",
            confidence=turn.transcript.confidence,
        )

    def _before(self, scene: Scene, now: Turn) -> list[Turn]:
        """The speaker's turns with words before ``now``, as many as are wanted."""
        earlier = [
            turn
            for turn in reversed(scene.turns)
            if turn is not now
            and turn.role == now.role
            and turn.normal.text
            and turn.transcript.start_ms <= now.transcript.start_ms
        ]
        return earlier[: self.turns - 1]


def _said(turn: Turn) -> list[Witness]:
    """What counts of a turn: not what lies in the tail, which is the turn before."""
    return [word for word in witnesses(turn.normal) if turn.place(word.start, word.end) is not None]


def build(form: Form, book: Book) -> Condition | None:
    fields = form.fields("sentiment", ("below", "above", "turns"))
    if fields is None:
        return None
    given = [name for name in ("below", "above") if name in fields]
    if len(given) != 1:
        form.problem(f"expected one of below, above in sentiment, came {' and '.join(given) or 'none'}")
        return None
    limit = fields[given[0]].number(given[0], -1, 1)
    turns = fields["turns"].number("turns", 1, _MOST_TURNS) if "turns" in fields else 1
    if limit is None or turns is None:
        return None
    return Sentiment(limit=limit, sign=-1 if given[0] == "below" else 1, turns=int(turns))
