"""``regex``: a pattern over normalised text, in linear time (RE2), so that none can hang the stream."""

from __future__ import annotations

from typing import Final

import re2
from msgspec import Struct

from detectors.mandarin import FILLERS, LONG_FILLERS, fold_pattern
from detectors.rules.clues import Clues
from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Found, Scene, Turn, quiet
from detectors.scope import is_denied, is_warning

NAMES: Final = ("regex",)
_MOST: Final = 8
"""Matches of one pattern that are looked at in one turn."""


class Regex(Struct, frozen=True):
    numbers: tuple[int, ...]
    none: tuple[int, ...] = ()
    negation: bool | None = None
    warning: bool | None = None

    def clues(self) -> Clues:
        return Clues(patterns=frozenset(self.numbers))

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        present = turn.patterns
        if not present or any(number in present for number in self.none):
            return None
        negation = scene.rule.negation if self.negation is None else self.negation
        warning = scene.rule.warning if self.warning is None else self.warning
        for number in self.numbers:
            if number not in present:
                continue
            for count, match in enumerate(scene.patterns.compiled[number].finditer(turn.normal.text)):
                if count == _MOST:
                    break
                start, end = match.span()
                span = turn.place(start, end)
                if span is None:
                    continue
                if negation and is_denied(turn.normal, start, end):
                    continue
                if warning and is_warning(turn.normal, start, end):
                    continue
                return Found(spans=(span,), how="regex", confidence=turn.transcript.confidence)
        return None


def build(form: Form, book: Book) -> Condition | None:
    fields: dict[str, Form]
    if form.is_mapping:
        fields = form.fields("regex", ("pattern", "not_pattern", "negation", "warning"), ("pattern",)) or {}
        if "pattern" not in fields:
            return None
    else:
        fields = {"pattern": form}
    return Regex(
        numbers=_patterns(fields["pattern"], book),
        none=_patterns(fields["not_pattern"], book) if "not_pattern" in fields else (),
        negation=fields["negation"].flag("negation") if "negation" in fields else None,
        warning=fields["warning"].flag("warning") if "warning" in fields else None,
    )


def _patterns(form: Form, book: Book) -> tuple[int, ...]:
    numbers: list[int] = []
    for item, source in form.texts("a pattern"):
        gone = [word for word in (*LONG_FILLERS, *sorted(FILLERS)) if word in source]
        if gone:
            item.problem(
                f"expected a pattern over normalised text, came {gone[0]!r}, a filler that is removed from it"
            )
            continue
        pattern = fold_pattern(source)
        try:
            compiled = re2.compile(pattern, quiet())
        except re2.error as error:
            reason = error.args[0] if error.args else error
            if isinstance(reason, bytes):
                reason = reason.decode("utf-8", "replace")
            item.problem(f"expected a regular expression (RE2 syntax), came {source!r}: {reason}")
            continue
        if compiled.search("") is not None:
            item.problem(f"expected a pattern that needs at least one character, came {source!r}")
            continue
        numbers.append(book.pattern(pattern))
    return tuple(numbers)
