"""What a rule pack is once it has been read: rules, their conditions, and what conditions look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from functools import cached_property
from types import NoneType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol

import re2
from msgspec import Struct

from detectors.mandarin import Normal, normalise
from detectors.rules.clues import NEVER, Clues, Index
from detectors.rules.lexicon import Hit, Lexicon
from streams.events import (
    CallEvent,
    CallInfo,
    Channel,
    Emotion,
    Feeling,
    Match,
    RuleCard,
    Severity,
    Step,
    Transcript,
    TroubleKind,
)

if TYPE_CHECKING:
    from detectors.rules.script import Script

Role = Literal["agent", "customer", "any"]
Mode = Literal["live", "shadow", "off"]
Action = Literal["alert", "marker", "hint", "webhook", "coach"]

HOT_WORDS: Final = 24
PATTERN_MEMORY: Final = 256 << 20
"""Bytes that all patterns of a pack may take together; RE2 then forgets what it can find out again."""
_SEVERITIES: Final = ("critical", "warning", "info")
_QUESTION: Final = ("吗", "么", "呢")


class Moment(Struct, frozen=True, array_like=True):
    """Something that happened on the stream, or did not happen in time; a ``Watch`` tells it."""

    start_ms: int
    end_ms: int
    role: Channel
    """Whose doing it was; ``unknown`` where it is nobody's, or both sides'."""
    text: str
    """For people: what was measured (``16 s``), or the utterance in which it came true."""
    how: Match = "signal"
    expected: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    """Ranges of ``text``."""
    confidence: float | None = None
    anchor_ms: int | None = None
    """What the alert's id comes of, where that is not the turn in which it is told, or ``start_ms``."""
    utterance_id: str | None = None
    """With ``anchor_ms``: the utterance that it is about, if it is about one."""


class Found(Struct, frozen=True):
    """Where a condition holds. Ranges are of the utterance's own text."""

    spans: tuple[tuple[int, int], ...] = ()
    expected: tuple[str, ...] = ()
    how: Match = "exact"
    confidence: float | None = None
    moment: Moment | None = None
    """Set where a watch made it true: its times are those of the detection."""


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
    def is_speech(self) -> bool:
        """Not so the turn that stands for a moment in which nothing was said, see ``instant``."""
        return bool(self.transcript.utterance_id)

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


_NO_LEXICON: Final = Lexicon(())


def instant(call_id: str, media_ms: int) -> Turn:
    """A turn without words: what conditions look at when a watch, not a speaker, makes them true."""
    transcript = Transcript(
        call_id=call_id,
        utterance_id="",
        role="unknown",
        start_ms=media_ms,
        end_ms=media_ms,
        text="",
        final=True,
    )
    return Turn(transcript, "", _NO_LEXICON, Patterns(()))


class Patterns:
    """All regular expressions of a pack; which of them occur is found in one pass.

    Raises ``re2.error`` when together they need more than ``PATTERN_MEMORY``.
    """

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
    options = quiet()
    options.max_mem = PATTERN_MEMORY
    return options


def quiet() -> re2.Options:
    """Errors are raised, and not printed to standard error as well."""
    options = re2.Options()
    options.log_errors = False
    return options


class Scene:
    """What is known when a condition is judged: the turns so far, the call, what the rule's watches told."""

    def __init__(
        self,
        turns: Sequence[Turn],
        rule: Rule,
        patterns: Patterns,
        call: CallInfo,
        now_ms: int,
        moments: Mapping[int, Moment] | None = None,
    ) -> None:
        self.turns = turns
        self.rule = rule
        self.patterns = patterns
        self.call = call
        self.now_ms = now_ms
        """Media time of what happens now: of the event, of the alarm, or the end of the turn."""
        self.moments: dict[int, Moment] = dict(moments or {})
        """By the watch's number: what has just come true."""


class Condition(Protocol):
    """Part of a rule. Immutable; all state is in the scene. May have ``clues()``, see ``clues.py``."""

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        """Where the condition holds in ``turn``: one of the scene's, or an ``instant``."""
        ...


class Watch(Struct, frozen=True, kw_only=True):
    """A condition that depends on more than one utterance's words: on time, on sounds, on what came before.

    It has state, one per call, which it is given and gives back: an immutable, serialisable value. When it
    comes true it tells a ``Moment``, and the rule in which it stands is judged there and then. Watches of a
    rule are served in the order of their numbers, inner ones first.

    A subclass overrides what it needs; none of them may look at a clock. Transcripts come later than the
    sounds around them, and those of the two channels in either order.
    """

    number: int
    """From ``Book.watch``: unique within a pack."""

    state_type: ClassVar[type] = NoneType

    def fresh(self) -> Any:
        """The state before the call's first event, of ``state_type``."""
        return None

    def on_event(self, state: Any, event: CallEvent | Emotion, scene: Scene) -> tuple[Any, Moment | None]:
        """Everything but transcripts."""
        return state, None

    def on_turn(self, state: Any, scene: Scene, turn: Turn) -> tuple[Any, Moment | None]:
        """A transcript (of either side), or an instant in which an inner watch came true.

        Partial transcripts come too, as a trial: the state that is given back for them is thrown away.
        """
        return state, None

    def wake_at(self, state: Any) -> int | None:
        """Media time at which ``on_wake`` is wanted; ``None``: not at all."""
        return None

    def on_wake(self, state: Any, now_ms: int, scene: Scene) -> tuple[Any, Moment | None]:
        """Perhaps late, never early."""
        return state, None

    def step(self, state: Any) -> Step | None:
        """What it has to say on the agent's checklist; its id and name are filled in by the engine."""
        return None

    def clues(self) -> Clues:
        """Without its moment it holds nowhere, and with it its rule is judged anyway."""
        return NEVER

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        moment = scene.moments.get(self.number)
        if moment is None:
            return None
        spans = moment.spans if turn.is_speech else ()
        return Found(spans, moment.expected, moment.how, moment.confidence, moment)


class Book:
    """Collects the phrases and patterns of all conditions while a pack is read."""

    def __init__(self) -> None:
        self.phrases: dict[str, int] = {}
        self.patterns: dict[str, int] = {}
        self.watches: list[Watch] = []

    def watch(self, make: Callable[[int], Watch]) -> Watch:
        """Number a watch. Call it when the conditions inside have been built: inner watches come first."""
        self.watches.append(make(len(self.watches)))
        return self.watches[-1]

    def phrase(self, text: str) -> int:
        return self.phrases.setdefault(text, len(self.phrases))

    def pattern(self, pattern: str) -> int:
        return self.patterns.setdefault(pattern, len(self.patterns))


class TestTurn(Struct, frozen=True, kw_only=True):
    """Something that happens in a dialogue: words, or a signal of the telephony at ``start_ms``."""

    __test__ = False
    role: Channel = "unknown"
    text: str = ""
    start_ms: int | None = None
    end_ms: int | None = None
    feeling: Feeling | None = None
    """How the speaker feels when it has been said."""
    level: float = 7.0
    """Of the feeling, 0 to 10."""
    trend: float = 0.0
    loudness_db: float | None = None
    """How loud it is said, relative to full scale."""
    hold: bool | None = None
    """The customer is put on hold, or taken back; nothing is said."""
    trouble: TroubleKind | None = None
    """Of the sound of ``role``; nothing is said."""


class TestCase(Struct, frozen=True, kw_only=True):
    """A dialogue and what it must raise. ``expect`` holds everything; ``misses`` one that must not fire."""

    __test__ = False
    name: str
    line: int
    turns: tuple[TestTurn, ...]
    expect: tuple[str, ...] | None = None
    hits: str | None = None
    misses: str | None = None
    ends_ms: int | None = None
    call: CallInfo | None = None
    """What the telephony knows."""
    hung_up_by: Channel | None = None


class Effective(Struct, frozen=True, kw_only=True):
    """When a rule holds, by the wall clock of the pack's offset from UTC."""

    since: date | None = None
    until: date | None = None
    """Including that day."""
    hours: tuple[tuple[int, int], ...] = ()
    """Minutes of the day, begin included, end not; an end before the begin lies on the next day."""
    weekdays: frozenset[int] = frozenset()
    """1 (Monday) to 7; none named: all."""
    offset_minutes: int = 480

    def holds(self, started_at: str | None, media_ms: int) -> bool:
        """Where nobody knows when the call was (a recording), every rule holds."""
        if started_at is None:
            return True
        zone = timezone(timedelta(minutes=self.offset_minutes))
        moment = datetime.fromisoformat(started_at).astimezone(zone) + timedelta(milliseconds=media_ms)
        if self.since is not None and moment.date() < self.since:
            return False
        if self.until is not None and moment.date() > self.until:
            return False
        if self.weekdays and moment.isoweekday() not in self.weekdays:
            return False
        minute = moment.hour * 60 + moment.minute
        return not self.hours or any(
            begin <= minute < end if begin <= end else minute >= begin or minute < end
            for begin, end in self.hours
        )


class Part(Struct, frozen=True):
    """One file of a pack that is made of several."""

    file: str
    id: str
    version: str
    """Declared version, ``+`` and eight hexadecimal digits of the file's hash."""
    name: Mapping[str, str]


class Rule(Struct, frozen=True, kw_only=True):
    id: str
    name: Mapping[str, str]
    severity: Severity
    role: Role
    when: Condition
    watches: tuple[Watch, ...] = ()
    """All that stand in ``when``, inner ones first."""
    unless: Condition | None = None
    cooldown_ms: int = 0
    mode: Mode = "live"
    actions: tuple[Action, ...] = ("alert", "marker")
    hint: Mapping[str, str] | None = None
    advice: Mapping[str, str] | None = None
    negation: bool = True
    """A negation before the phrase cancels it."""
    warning: bool = True
    """A phrase quoted as a warning does not count."""
    min_confidence: float = 0.0
    """Transcripts below it are matched by character only."""
    hot: tuple[str, ...] = ()
    tests: tuple[TestCase, ...] = ()

    queues: tuple[str, ...] = ()
    """Queues in which it holds; none named: in all."""
    effective: Effective | None = None
    """Dates and hours in which it holds."""
    group: str | None = None
    score: float = 0.0
    version: str = ""
    """That of the file in which it stands."""

    def in_force(self, call: CallInfo, media_ms: int) -> bool:
        """Whether it holds in this call at this moment."""
        if self.queues and call.queue not in self.queues:
            return False
        return self.effective is None or self.effective.holds(call.started_at, media_ms)

    def concerns(self, role: Channel) -> bool:
        """Whether the rule judges what is said on this channel; on a mixed one nobody is left out."""
        return self.role == "any" or role == "unknown" or self.role == role


class Pack(Struct, frozen=True, kw_only=True, dict=True):
    """A compiled rule pack, of one file or of several; shared by all calls that run under it."""

    id: str
    version: str
    """Of one file its own version; of several their number, ``+`` and a hash of all."""
    parts: tuple[Part, ...] = ()
    name: Mapping[str, str]
    rules: tuple[Rule, ...]
    lexicon: Lexicon
    patterns: Patterns
    scripts: tuple[Script, ...] = ()

    @property
    def raising(self) -> Iterator[Rule]:
        """All that may raise something: the rules, and the nodes of the scripts."""
        yield from self.rules
        for script in self.scripts:
            yield from (node.rule for node in script.nodes)

    @cached_property
    def index(self) -> Index:
        return Index(self.rules)

    def card(self, rule_id: str) -> RuleCard:
        """What raising needs to know. Raises ``KeyError`` for an id that the pack does not hold."""
        for rule in self.raising:
            if rule.id == rule_id:
                hint = dict(rule.hint) if rule.hint else None
                advice = dict(rule.advice) if rule.advice else None
                return RuleCard(
                    id=rule.id,
                    version=rule.version or self.version,
                    name=dict(rule.name),
                    severity=rule.severity,
                    actions=rule.actions,
                    hint=hint,
                    advice=advice,
                    group=rule.group,
                    score=rule.score,
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
