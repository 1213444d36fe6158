"""Which rules an utterance can concern at all: those of which it holds a phrase or a pattern.

A pack of many rules must not cost each utterance a look at every one of them. A condition that knows what
must occur where it holds has a method ``clues()``; of one that has none nothing is known, and its rule is
judged every time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from detectors.rules.model import Condition, Rule, Turn


class Clues(NamedTuple):
    """Numbers of phrases and patterns, one of which occurs wherever the condition holds."""

    phrases: frozenset[int] = frozenset()
    patterns: frozenset[int] = frozenset()


NEVER: Final = Clues()
"""Holds nowhere by what is said."""


def clues(condition: Condition) -> Clues | None:
    """``None``: it may hold whatever is said."""
    ask = getattr(condition, "clues", None)
    found: Clues | None = ask() if ask is not None else None
    return found


def of_any(conditions: Iterable[Condition]) -> Clues | None:
    """Where one of them must hold."""
    phrases: frozenset[int] = frozenset()
    patterns: frozenset[int] = frozenset()
    for condition in conditions:
        found = clues(condition)
        if found is None:
            return None
        phrases, patterns = phrases | found.phrases, patterns | found.patterns
    return Clues(phrases, patterns)


def of_all(conditions: Iterable[Condition]) -> Clues | None:
    """Where all of them must hold: those of the pickiest."""
    known = [found for condition in conditions if (found := clues(condition)) is not None]
    return min(known, key=lambda found: len(found.phrases) + len(found.patterns), default=None)


class Index:
    """Rules by their clues; rules that are off are left out."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = [rule for rule in rules if rule.mode != "off"]
        self._places = {rule.id: place for place, rule in enumerate(self._rules)}
        self._always: list[int] = []
        self._phrases: dict[int, list[int]] = {}
        self._patterns: dict[int, list[int]] = {}
        for place, rule in enumerate(self._rules):
            found = clues(rule.when)
            if found is None:
                self._always.append(place)
                continue
            for number in found.phrases:
                self._phrases.setdefault(number, []).append(place)
            for number in found.patterns:
                self._patterns.setdefault(number, []).append(place)

    def rule(self, rule_id: str) -> Rule:
        """Raises ``KeyError`` for an id that is unknown or off."""
        return self._rules[self._places[rule_id]]

    def rules(self, turn: Turn, told: Iterable[str]) -> list[Rule]:
        """Those that may hold in the turn, and those ``told`` by their watches, in the pack's order."""
        places = set(self._always)
        for number in turn.hits:
            places.update(self._phrases.get(number, ()))
        for number in turn.patterns:
            places.update(self._patterns.get(number, ()))
        places.update(self._places[rule_id] for rule_id in told)
        return [self._rules[place] for place in sorted(places)]
