"""``repeat``: a speaker says nearly the same several times. Who has to say it again was not understood.

Compared is what was said in each turn, normalised, without the end of the turn before. What is said again
may stand within more words, as long as it is at least half of them.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from msgspec import Struct
from rapidfuzz import fuzz

from detectors.mandarin import normalise
from detectors.rules.combinators import MOST_TURNS, Window
from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Found, Scene, Turn

NAMES: Final = ("repeat",)
_COMPARED: Final = 200
"""Characters of a turn that are compared; nobody says more twice."""


class Repeat(Struct, frozen=True):
    times: int
    """How often it must have been said, this turn included."""
    similarity: float
    """0 to 1; 1 is the same to the character."""
    shortest: int
    """Characters of normalised text below which a turn is too short to count."""
    window: Window
    excepted: tuple[str, ...]
    """Normalised phrases that say nothing; what is left of a turn without them must be long enough."""

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        text = self._counting(turn)
        if text is None:
            return None
        likenesses = [
            likeness
            for earlier in self.window.reaches(scene, turn)
            if earlier.role == turn.role
            and (other := self._counting(earlier)) is not None
            and (likeness := _likeness(text, other)) >= self.similarity
        ]
        if len(likenesses) < self.times - 1:
            return None
        likenesses.sort(reverse=True)
        confidence = round(likenesses[self.times - 2], 3)
        return Found(spans=((0, len(turn.transcript.text)),), how="similar", confidence=confidence)

    def _counting(self, turn: Turn) -> str | None:
        """What is compared of a turn; ``None`` if too little of it counts."""
        normal = turn.normal
        first = bisect_left(normal.starts, len(turn.tail))
        text = normal.text[first : first + _COMPARED]
        if len(text) < self.shortest:
            return None
        left = text
        for phrase in self.excepted:
            left = left.replace(phrase, "")
        return text if len(left) >= self.shortest else None


def _likeness(one: str, other: str) -> float:
    short, long = sorted((one, other), key=len)
    whole = fuzz.ratio(short, long)
    if len(long) > len(short) and 2 * len(short) >= len(long):
        whole = max(whole, fuzz.partial_ratio(short, long))
    return float(whole) / 100


def build(form: Form, book: Book) -> Condition | None:
    fields = form.fields("repeat", ("times", "similarity", "min_characters", "seconds", "turns", "except"))
    if fields is None:
        return None
    times = fields["times"].number("times", 2, MOST_TURNS) if "times" in fields else 2
    similarity = fields["similarity"].number("similarity", 0.5, 1) if "similarity" in fields else 0.75
    shortest = fields["min_characters"].number("min_characters", 2, 100) if "min_characters" in fields else 6
    seconds = fields["seconds"].number("seconds", 1, 600) if "seconds" in fields else 120
    turns = fields["turns"].number("turns", 1, MOST_TURNS) if "turns" in fields else None
    excepted: list[str] = []
    for item, text in fields["except"].texts("a phrase") if "except" in fields else ():
        plain = normalise(text).text
        if not plain:
            item.problem(f"expected a phrase that can be heard, came {text!r}: nothing is left of it")
            continue
        excepted.append(plain)
    if times is None or similarity is None or shortest is None or seconds is None:
        return None
    window = Window(round(seconds * 1000), None if turns is None else int(turns))
    # The longest first: 好的好的 is taken out before 好的 tears it apart.
    excepted.sort(key=len, reverse=True)
    return Repeat(int(times), similarity, int(shortest), window, tuple(excepted))
