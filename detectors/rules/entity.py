"""``entity``: a card, an identity card, a telephone, a sum, a one-time code or an address is said.

A number may be said in several utterances, one after the other: those of the same speaker that end and
begin with digits are read as one, however long it is (the tail that other operators see is too short for
a card). The digits count in the utterance that completes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

from msgspec import Struct

from detectors.entities import KINDS, Entity, Kind, asks_for_code, continues, entities
from detectors.mandarin import Normal, normalise
from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Found, Scene, Turn

NAMES: Final = ("entity",)
_PAUSE_MS: Final = 3000
"""Between two groups of one number: long enough for the other side's 嗯, 对."""
_MOST_PARTS: Final = 8
"""Utterances in which one number is said."""
_KEPT: Final = 60
"""Characters of each that are read again."""
_ANSWER_MS: Final = 15_000
"""From the question for a one-time code to the begin of the answer."""
_ANSWER: Final = 0.5
"""Share of the answer that must be the code."""
_RICHEST: Final = 1e12


class EntityCondition(Struct, frozen=True):
    kinds: frozenset[Kind]
    least: float | None
    """Yuan; smaller sums do not count."""

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        if not turn.normal.text:
            return None
        asked = "one_time_code" in self.kinds and self._was_asked(scene, turn)
        for normal, offset in self._readings(scene, turn):
            placed = [
                (span, one.kind)
                for one in entities(normal, self.kinds, asked)
                if self._counts(one, normal, turn, asked)
                and (span := _place(normal, one, offset)) is not None
            ]
            if placed:
                return Found(
                    spans=tuple(dict.fromkeys(span for span, _ in placed)),
                    expected=tuple(dict.fromkeys(kind for _, kind in placed)),
                    how="entity",
                    confidence=turn.transcript.confidence,
                )
        return None

    def _counts(self, one: Entity, normal: Normal, turn: Turn, asked: bool) -> bool:
        if one.kind == "amount" and self.least is not None:
            return float(one.value) >= self.least
        if one.kind == "one_time_code" and asked and not asks_for_code(normal):
            return one.end - one.start >= _ANSWER * len(normalise(turn.transcript.text).text)
        return True

    def _readings(self, scene: Scene, turn: Turn) -> Iterator[tuple[Normal, int]]:
        """The utterance behind the ones whose number it may continue, the longest first, and by itself.

        With each the number of characters before the utterance's own.
        """
        parts = self._parts(scene, turn)
        for first in range(len(parts)):
            before = "".join(part[-_KEPT:] + "，" for part in parts[first:])
            yield normalise(before + turn.transcript.text), len(before)
        if parts:
            # What the tail holds of a number is but a part of it.
            yield normalise(turn.transcript.text), 0
        else:
            yield turn.normal, len(turn.tail)

    def _parts(self, scene: Scene, turn: Turn) -> list[str]:
        """What the speaker said right before, as far back as each goes on with a number."""
        parts: list[str] = []
        here = turn.transcript
        for earlier in reversed(scene.turns):
            said = earlier.transcript
            if earlier is turn or said.role != here.role or said.start_ms >= here.start_ms:
                continue
            if len(parts) == _MOST_PARTS or here.start_ms - said.end_ms > _PAUSE_MS:
                break
            if not continues(here.text, said.text):
                break
            parts.insert(0, said.text)
            here = said
        return parts

    def _was_asked(self, scene: Scene, turn: Turn) -> bool:
        """Whether the last thing that the other side said before is about a one-time code."""
        start = turn.transcript.start_ms
        for earlier in reversed(scene.turns):
            said = earlier.transcript
            if said.role != turn.role and said.start_ms < start and earlier.normal.text:
                return start - said.end_ms <= _ANSWER_MS and asks_for_code(earlier.normal)
        return False


def _place(normal: Normal, one: Entity, offset: int) -> tuple[int, int] | None:
    """Range in the utterance's own text; ``None`` if it has no part of it."""
    first, last = normal.span(one.start, one.end)
    return (max(0, first - offset), last - offset) if last > offset else None


def build(form: Form, book: Book) -> Condition | None:
    fields: dict[str, Form]
    if form.is_mapping:
        fields = form.fields("entity", ("any", "at_least"), ("any",)) or {}
        if "any" not in fields:
            return None
    else:
        fields = {"any": form}
    kinds = frozenset(
        cast(Kind, kind)
        for item in fields["any"].items("entity")
        if (kind := item.choice("an entity", KINDS)) is not None
    )
    if fields["any"].is_list and not fields["any"].node.value:
        fields["any"].problem(f"expected at least one of {', '.join(KINDS)}, came none")
    least: float | None = None
    if "at_least" in fields:
        least = fields["at_least"].number("at_least (yuan)", 0, _RICHEST)
        if "amount" not in kinds:
            fields["at_least"].problem("expected at_least only where any has amount, came it without")
    return EntityCondition(kinds, least)
