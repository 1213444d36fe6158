"""``phrase``: something is said, recognised by character or by sound."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from detectors.mandarin import normalise
from detectors.rules.clues import Clues
from detectors.rules.form import Form
from detectors.rules.lexicon import GAP, Hit
from detectors.rules.model import Book, Condition, Found, Scene, Turn
from detectors.scope import is_denied, is_warning
from detectors.sounds import spelt

NAMES: Final = ("phrase",)
SHORT: Final = 2
"""Phrases of so few syllables match by sound only when ``match: pinyin`` asks for it."""


class Phrase(Struct, frozen=True):
    """Any, all, or at least ``least`` of some phrases; ``none`` of others."""

    numbers: tuple[int, ...]
    texts: tuple[str, ...]
    by_sound: tuple[bool, ...]
    """For each phrase, whether a match by sound counts."""
    least: int
    none: tuple[int, ...] = ()
    guard: tuple[str, ...] = ()
    """Ordinary words that sound like a phrase: heard as written here, they are no match."""
    negation: bool | None = None
    warning: bool | None = None
    min_confidence: float | None = None
    wanted: frozenset[int] = frozenset()

    def clues(self) -> Clues:
        return Clues(phrases=self.wanted)

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        if self.wanted.isdisjoint(turn.hits):
            return None
        if any(number in turn.hits for number in self.none):
            return None
        spans: list[tuple[int, int]] = []
        expected: list[str] = []
        exact = True
        confidence = 1.0
        for number, text, by_sound in zip(self.numbers, self.texts, self.by_sound, strict=True):
            hit = self._best(scene, turn, turn.hits.get(number, ()), by_sound)
            if hit is None:
                continue
            span = turn.place(hit.start, hit.end)
            if span is None:
                continue
            spans.append(span)
            expected.append(text)
            exact = exact and hit.exact
            confidence = min(confidence, hit.confidence)
        if len(spans) < max(1, self.least):
            return None
        order = sorted(range(len(spans)), key=lambda i: (spans[i][0], -spans[i][1]))
        heard = turn.transcript.confidence
        return Found(
            spans=_disjoint([spans[i] for i in order]),
            expected=tuple(dict.fromkeys(expected[i] for i in order)),
            how="exact" if exact else "pinyin",
            confidence=confidence if heard is None else round(confidence * heard, 3),
        )

    def _best(self, scene: Scene, turn: Turn, hits: Iterable[Hit], by_sound: bool) -> Hit | None:
        rule = scene.rule
        least = rule.min_confidence if self.min_confidence is None else self.min_confidence
        heard = turn.transcript.confidence
        best: Hit | None = None
        for hit in hits:
            if not hit.exact:
                if not by_sound or (heard is not None and heard < least):
                    continue
                if any(word in turn.normal.text[hit.start : hit.end] for word in self.guard):
                    continue
            if turn.place(hit.start, hit.end) is None:
                continue
            negation = rule.negation if self.negation is None else self.negation
            if negation and is_denied(turn.normal, hit.start, hit.end):
                continue
            warning = rule.warning if self.warning is None else self.warning
            if warning and is_warning(turn.normal, hit.start, hit.end):
                continue
            if best is None or (hit.cost, hit.start) < (best.cost, best.start):
                best = hit
        return best


def build(form: Form, book: Book) -> Condition | None:
    fields: dict[str, Form]
    if form.is_mapping:
        known = (
            "any",
            "all",
            "of",
            "at_least",
            "none",
            "match",
            "guard",
            "negation",
            "warning",
            "min_confidence",
        )
        fields = form.fields("phrase", known) or {}
    else:
        fields = {"any": form}
    match = fields["match"].choice("match", ("auto", "exact", "pinyin")) if "match" in fields else "auto"
    given = [name for name in ("any", "all", "of") if name in fields]
    if len(given) != 1:
        form.problem(f"expected one of any, all, of in phrase, came {', '.join(given) or 'none'}")
        return None
    numbers: list[int] = []
    texts: list[str] = []
    by_sound: list[bool] = []
    if fields[given[0]].is_list and not fields[given[0]].node.value:
        fields[given[0]].problem("expected at least one phrase, came none")
    for item, text in fields[given[0]].texts("a phrase"):
        size = syllables(item, text)
        if size is None:
            continue
        if match == "pinyin" and size < 2:
            item.problem(f"expected a phrase of two syllables or more for match: pinyin, came {text!r}")
        numbers.append(book.phrase(text))
        texts.append(text)
        by_sound.append(match == "pinyin" or (match == "auto" and size > SHORT))
    least = len(numbers) if given[0] == "all" else 1
    if given[0] == "of":
        count = fields["at_least"].number("at_least", 1, len(numbers) or 1) if "at_least" in fields else None
        if "at_least" not in fields:
            form.problem("expected at_least beside of in phrase, came none")
        least = int(count or 1)
    elif "at_least" in fields:
        fields["at_least"].problem("expected at_least only beside of, came it beside " + given[0])
    none = (
        [book.phrase(t) for item, t in fields["none"].texts("a phrase") if syllables(item, t)]
        if "none" in fields
        else []
    )
    guard = [normalise(t).text for _, t in fields["guard"].texts("a word")] if "guard" in fields else []
    low = fields["min_confidence"].number("min_confidence", 0, 1) if "min_confidence" in fields else None
    return Phrase(
        numbers=tuple(numbers),
        texts=tuple(texts),
        by_sound=tuple(by_sound),
        least=least,
        none=tuple(none),
        guard=tuple(guard),
        negation=fields["negation"].flag("negation") if "negation" in fields else None,
        warning=fields["warning"].flag("warning") if "warning" in fields else None,
        min_confidence=low,
        wanted=frozenset(numbers),
    )


def syllables(item: Form, text: str) -> int | None:
    """Number of syllables, or ``None`` after noting that the phrase can never be heard."""
    parts = [spelt(part)[1] for part in text.split(GAP)]
    if not all(parts):
        item.problem(
            f"expected a phrase that can be heard, came {text!r}: nothing is left of it (or of a part)"
        )
        return None
    return sum(len(part) for part in parts)


def _disjoint(spans: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    kept: list[tuple[int, int]] = []
    for start, end in spans:
        if kept and start < kept[-1][1]:
            kept[-1] = (kept[-1][0], max(end, kept[-1][1]))
        else:
            kept.append((start, end))
    return tuple(kept)
