"""``near``: one phrase close to another, so many characters of normalised text between them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from detectors.rules import phrase
from detectors.rules.clues import Clues
from detectors.rules.form import Form
from detectors.rules.lexicon import Hit
from detectors.rules.model import Book, Condition, Found, Scene, Turn
from detectors.scope import is_denied, is_warning

NAMES: Final = ("near",)
DISTANCE: Final = 8
_FARTHEST: Final = 200
_MOST: Final = 16
"""Pairs that are looked at in one turn, so that a text of nothing but phrases costs no more than another."""


class Side(Struct, frozen=True):
    """One of the two lists: the phrases' numbers, texts, and whether a match by sound counts."""

    numbers: tuple[int, ...]
    texts: tuple[str, ...]
    by_sound: tuple[bool, ...]

    def hits(self, turn: Turn, doubtful: bool) -> list[tuple[Hit, str]]:
        """In order of their places; of a ``doubtful`` transcript only what was written as expected."""
        found = [
            (hit, text)
            for number, text, by_sound in zip(self.numbers, self.texts, self.by_sound, strict=True)
            for hit in turn.hits.get(number, ())
            if hit.exact or (by_sound and not doubtful)
        ]
        return sorted(found, key=lambda one: (one[0].start, one[0].end))


class Near(Struct, frozen=True):
    a: Side
    b: Side
    distance: int
    ordered: bool
    """Whether ``a`` must come first."""
    negation: bool | None = None
    warning: bool | None = None
    min_confidence: float | None = None
    wanted: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())

    def clues(self) -> Clues:
        return Clues(phrases=min(self.wanted, key=len))

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        if any(numbers.isdisjoint(turn.hits) for numbers in self.wanted):
            return None
        rule, heard = scene.rule, turn.transcript.confidence
        least = rule.min_confidence if self.min_confidence is None else self.min_confidence
        doubtful = heard is not None and heard < least
        negation = rule.negation if self.negation is None else self.negation
        warning = rule.warning if self.warning is None else self.warning
        pairs = self._pairs(self.a.hits(turn, doubtful), self.b.hits(turn, doubtful))
        looked_at = 0
        for (one, text), (other, other_text) in pairs:
            start, end = one.start, max(one.end, other.end)
            span = turn.place(start, end)
            if span is None:
                continue
            looked_at += 1
            if looked_at > _MOST:
                break
            if negation and any(is_denied(turn.normal, hit.start, hit.end) for hit in (one, other)):
                continue
            if warning and is_warning(turn.normal, start, end):
                continue
            confidence = min(one.confidence, other.confidence)
            return Found(
                spans=(span,),
                expected=tuple(dict.fromkeys((text, other_text))),
                how="exact" if one.exact and other.exact else "pinyin",
                confidence=confidence if heard is None else round(confidence * heard, 3),
            )
        return None

    def _pairs(
        self, a: list[tuple[Hit, str]], b: list[tuple[Hit, str]]
    ) -> Iterator[tuple[tuple[Hit, str], tuple[Hit, str]]]:
        """Every hit with the last one of the other side that ends before it, where that is near enough."""
        sides = (sorted(a, key=_end), sorted(b, key=_end))
        ends = [[hit.end for hit, _ in side] for side in sides]
        both = [
            (hit.start, hit.end, side, (hit, text)) for side, hits in ((0, a), (1, b)) for hit, text in hits
        ]
        for start, _, side, one in sorted(both, key=lambda place: place[:3]):
            if self.ordered and side == 0:
                continue
            index = bisect_right(ends[1 - side], start) - 1
            if index >= 0 and start - ends[1 - side][index] <= self.distance:
                yield sides[1 - side][index], one


def _end(one: tuple[Hit, str]) -> tuple[int, int]:
    return one[0].end, one[0].start


def build(form: Form, book: Book) -> Condition | None:
    known = ("a", "b", "distance", "ordered", "negation", "warning", "min_confidence")
    fields = form.fields("near", known, ("a", "b"))
    if fields is None or "a" not in fields or "b" not in fields:
        return None
    distance: float | None = DISTANCE
    if "distance" in fields:
        distance = fields["distance"].number("distance (characters)", 0, _FARTHEST)
    a, b = (_side(fields[name], book) for name in ("a", "b"))
    return Near(
        a=a,
        b=b,
        distance=int(distance or 0),
        ordered=bool(fields["ordered"].flag("ordered")) if "ordered" in fields else False,
        negation=fields["negation"].flag("negation") if "negation" in fields else None,
        warning=fields["warning"].flag("warning") if "warning" in fields else None,
        min_confidence=(
            fields["min_confidence"].number("min_confidence", 0, 1) if "min_confidence" in fields else None
        ),
        wanted=(frozenset(a.numbers), frozenset(b.numbers)),
    )


def _side(form: Form, book: Book) -> Side:
    items = form.texts("a phrase")
    if form.is_list and not items and not form.node.value:
        form.problem("expected at least one phrase, came none")
    sizes = [(text, size) for item, text in items if (size := phrase.syllables(item, text)) is not None]
    return Side(
        numbers=tuple(book.phrase(text) for text, _ in sizes),
        texts=tuple(text for text, _ in sizes),
        by_sound=tuple(size > phrase.SHORT for _, size in sizes),
    )
