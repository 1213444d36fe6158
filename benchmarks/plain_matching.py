"""Plain character matching, for comparison: the same rules with their phrases as a word list would find them.

A phrase counts where exactly its characters stand in the text as it was written (of one with a gap, its
parts in order). No normalised numbers, no sounds, no patterns, no look at denials and warnings, no
``unless``. Who must say it, cooldowns and how a rule combines its phrases stay as they are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping

from msgspec import Struct, structs

from detectors.mandarin import Normal
from detectors.rules.lexicon import GAP, WIDEST_GAP, Hit, Lexicon
from detectors.rules.model import Pack, Patterns


class PlainLexicon(Lexicon):
    """Phrases by number, found by their characters alone."""

    def __init__(self, phrases: Mapping[int, str]) -> None:
        super().__init__(())
        self._texts = {number: text.split(GAP) for number, text in phrases.items()}

    def scan(self, normal: Normal) -> dict[int, list[Hit]]:
        hits: dict[int, list[Hit]] = {}
        for number, parts in self._texts.items():
            for start, end in _places(normal.source, parts):
                # Rules speak of places in the normalised text.
                first, last = bisect_right(normal.ends, start), bisect_left(normal.starts, end)
                if first < last:
                    hit = Hit(number, first, last, cost=0.0, exact=True, confidence=1.0)
                    hits.setdefault(number, []).append(hit)
        return hits


def _places(text: str, parts: list[str]) -> Iterator[tuple[int, int]]:
    start = text.find(parts[0])
    while start >= 0:
        end = start + len(parts[0])
        for part in parts[1:]:
            at = text.find(part, end, end + WIDEST_GAP + len(part))
            if at < 0:
                break
            end = at + len(part)
        else:
            yield start, end
        start = text.find(parts[0], start + 1)


def phrases_of(value: object) -> dict[int, str]:
    """Every phrase in a condition, by its number in the pack."""
    found: dict[int, str] = {}
    if isinstance(value, Struct):
        numbers, texts = getattr(value, "numbers", ()), getattr(value, "texts", ())
        found.update(zip(numbers, texts, strict=False))
        value = structs.astuple(value)
    if isinstance(value, tuple):
        for part in value:
            found |= phrases_of(part)
    return found


def plain(pack: Pack) -> Pack:
    """The pack as plain character matching would run it."""
    phrases = {number: text for rule in pack.rules for number, text in phrases_of(rule.when).items()}
    rules = [structs.replace(rule, unless=None, negation=False, warning=False) for rule in pack.rules]
    return structs.replace(pack, rules=tuple(rules), lexicon=PlainLexicon(phrases), patterns=Patterns(()))
