"""What a rule pack is once it has been read: rules, their conditions, and what conditions look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

import re2
from msgspec import Struct

from detectors.mandarin import Normal, normalise
from detectors.rules.lexicon import Hit, Lexicon
from streams.events import Channel, Match, RuleCard, Severity, Transcript

Role = Literal["agent", "customer", "any"]
Mode = Literal["live", "shadow", "off"]
Action = Literal["alert", "marker", "hint", "webhook", "coach"]

HOT_WORDS: Final = 24
_SEVERITIES: Final = ("critical", "warning", "info")
_QUESTION: Final = ("吗", "么", "呢")


class Found(Struct, frozen=True):
    """Where a condition holds. Ranges are of the utterance's own text."""

    spans: tuple[tuple[int, int], ...] = ()
    expected: tuple[str, ...] = ()
    how: Match = "exact"
    confidence: float | None = None


class Turn:
    """One transcript made ready for matching.

    ``tail`` is the end of what the same speaker said right before, when an endpoint may have cut a phrase
    in two; phrases that reach across the joint count here, those that lie in the tail do not.
    """

    def __init__(self, transcript: Transcript, tail: str, lexicon: Lexicon, patterns: Patterns) -> None:
        self.transcript = transcript
        self.tail = tail
        self.normal: Normal = normalise(tail + transcript.text)
        self.hits: dict[int, list[Hit]] = lexicon.scan(self.normal)
        self.patterns: frozenset[int] = patterns.present(self.normal.text)

    @property
    def role(self) -> Channel:
        return self.transcript.role

    @property
    def is_question(self) -> bool:
        text = self.transcript.text.rstrip(" 。.")
        return text.endswith(("?", "？")) or self.normal.text.endswith(_QUESTION)

    def place(self, start: int, end: int) -> tuple[int, int] | None:
        """Range in the transcript's text of a range of the normalised text; ``None`` if it has no part."""
        if end <= start:
            return None
        first, last = self.normal.span(start, end)
        first, last = first - len(self.tail), last - len(self.tail)
        return (max(0, first), last) if last > 0 else None


class Patterns:
    """All regular expressions of a pack; which of them occur is found in one pass."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self.compiled = [re2.compile(p) for p in patterns]
        self._set = re2.Set.SearchSet(_options()) if patterns else None
        if self._set is not None:
            for pattern in patterns:
                self._set.Add(pattern)
            self._set.Compile()

    def present(self, text: str) -> frozenset[int]:
        if self._set is None or not text:
            return frozenset()
        return frozenset(self._set.Match(text) or ())


def _options() -> re2.Options:
    options = re2.Options()
    options.max_mem = 256 << 20
    return options


class Scene:
    """What is known when a turn is judged: the turns so far, and how the rule wants to be read."""

    def __init__(self, turns: Sequence[Turn], rule: Rule, patterns: Patterns) -> None:
        self.turns = turns
        self.rule = rule
        self.patterns = patterns

    @property
    def now(self) -> Turn:
        return self.turns[-1]


class Condition(Protocol):
    """Part of a rule. Immutable; all state is in the scene."""

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        """Where the condition holds in ``turn``, which is one of the scene's turns."""
        ...


class Book:
    """Collects the phrases and patterns of all conditions while a pack is read."""

    def __init__(self) -> None:
        self.phrases: dict[str, int] = {}
        self.patterns: dict[str, int] = {}

    def phrase(self, text: str) -> int:
        return self.phrases.setdefault(text, len(self.phrases))

    def pattern(self, pattern: str) -> int:
        return self.patterns.setdefault(pattern, len(self.patterns))


class TestTurn(Struct, frozen=True):
    __test__ = False
    role: Channel
    text: str
    start_ms: int | None = None
    end_ms: int | None = None


class TestCase(Struct, frozen=True):
    """A dialogue and what it must raise. ``expect`` holds every rule; ``misses`` one that must not fire."""

    __test__ = False
    name: str
    line: int
    turns: tuple[TestTurn, ...]
    expect: tuple[str, ...] | None = None
    hits: str | None = None
    misses: str | None = None
    ends_ms: int | None = None


class Rule(Struct, frozen=True, kw_only=True):
    id: str
    name: Mapping[str, str]
    severity: Severity
    role: Role
    when: Condition
    unless: Condition | None = None
    cooldown_ms: int = 0
    mode: Mode = "live"
    actions: tuple[Action, ...] = ("alert", "marker")
    hint: Mapping[str, str] | None = None
    negation: bool = True
    """A negation before the phrase cancels it."""
    warning: bool = True
    """A phrase quoted as a warning does not count."""
    min_confidence: float = 0.0
    """Transcripts below it are matched by character only."""
    hot: tuple[str, ...] = ()
    tests: tuple[TestCase, ...] = ()

    def concerns(self, role: Channel) -> bool:
        """Whether the rule judges what is said on this channel; on a mixed one nobody is left out."""
        return self.role == "any" or role == "unknown" or self.role == role


class Pack(Struct, frozen=True, kw_only=True):
    """A compiled rule pack; shared by all calls that run under it."""

    id: str
    version: str
    """Declared version, ``+`` and eight hexadecimal digits of the file's hash."""
    name: Mapping[str, str]
    rules: tuple[Rule, ...]
    lexicon: Lexicon
    patterns: Patterns

    def card(self, rule_id: str) -> RuleCard:
        """What raising needs to know. Raises ``KeyError`` for an id that the pack does not hold."""
        for rule in self.rules:
            if rule.id == rule_id:
                hint = dict(rule.hint) if rule.hint else None
                return RuleCard(
                    id=rule.id,
                    version=self.version,
                    name=dict(rule.name),
                    severity=rule.severity,
                    actions=rule.actions,
                    hint=hint,
                )
        raise KeyError(rule_id)

    def hot_words(self) -> tuple[str, ...]:
        """Words the speech model should expect, most severe rules first, then turn by turn between rules.

        Before all of them numbers: of 幺二三七八 nothing that is said before or after gives the sense.
        """
        words: list[str] = []
        for severity in _SEVERITIES:
            lists = [list(r.hot) for r in self.rules if r.severity == severity and r.mode != "off"]
            while any(lists):
                for queue in lists:
                    if queue and (word := queue.pop(0)) not in words:
                        words.append(word)
        words.sort(key=lambda word: not word.isdigit())
        return tuple(words[:HOT_WORDS])
