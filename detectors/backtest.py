"""A pack over calls of the past: what it finds in them, beside what was found while they ran.

The store keeps words, not sounds. Speech edges are those of the utterances, personal data is masked, and
how loud a voice was or who put whom on hold is not there; rules that need it are said to be ``limited``,
so that nobody takes a hit that cannot be found again for one that is gone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, Literal

from msgspec import Struct, structs

from detectors.emotion import EmotionDetector
from detectors.panel import Panel
from detectors.rules.loader import AROUND, LEAVES
from detectors.rules.model import Pack, Patterns, Rule
from detectors.rules.regex import Regex
from streams.events import (
    AlertState,
    CallEnded,
    CallEvent,
    CallInfo,
    CallStarted,
    Channel,
    Detection,
    Emotion,
    Finding,
    SpeechStarted,
    SpeechStopped,
    Transcript,
)

NOT_STORED: Final = ("energy", "hold", "hangup", "entity", "audio")
"""Operators that look at what the store does not hold, or holds masked."""
DIGITS: Final = "digits"
"""Beside those: a pattern that asks for a long number, of which the store holds asterisks."""
_LONG_NUMBER: Final = re.compile(r"(?:\\d|\[0-9\])(?:\{([4-9]|\d\d)|(?:\\d|\[0-9\]){3})")
PREROLL_MS: Final = 300
"""By so much an utterance begins before its speech."""
_JOINED_MS: Final = 100
"""Utterances of one channel so close together were cut in the middle of speech."""
_HANGOVER_MS: Final = 500
_ALIKE_MS: Final = 5_000
"""Hits of one rule so far apart may still be the same: alerts move to the words once these are located."""


class StoredCall(Struct, frozen=True, kw_only=True):
    """What is left of a call that has ended."""

    call: CallInfo
    media_ms: int
    """Its length."""
    reason: Literal["hangup", "disconnected", "interrupted", "error"]
    finals: tuple[Transcript, ...]
    """Those without text too: somebody spoke."""
    emotions: tuple[Emotion, ...] = ()
    """As they were found while the call ran."""

    def events(self) -> list[CallEvent | Emotion]:
        """What its detectors saw, as far as it is known: edges by media time, transcripts a little later."""
        events: list[CallEvent | Emotion] = []
        by_channel: dict[Channel, list[Transcript]] = defaultdict(list)
        for final in sorted(self.finals, key=lambda t: (t.start_ms, t.utterance_id)):
            by_channel[final.role].append(final)
        for channel, finals in by_channel.items():
            for start, end in _speech(finals):
                events += [
                    SpeechStarted(call_id=self.call.call_id, channel=channel, media_ms=start),
                    SpeechStopped(call_id=self.call.call_id, channel=channel, media_ms=end),
                ]
        # An emotion is told right before the transcript of its utterance.
        events += [*self.emotions, *self.finals]
        events.sort(key=lambda e: e.media_ms + (_HANGOVER_MS if isinstance(e, Transcript | Emotion) else 0))
        ended = max([self.media_ms, *(final.end_ms for final in self.finals)])
        return [
            CallStarted(call=self.call),
            *events,
            CallEnded(call_id=self.call.call_id, media_ms=ended, reason=self.reason),
        ]


class Hit(Struct, frozen=True, kw_only=True):
    """That a rule fired, and where; without any words."""

    call_id: str
    rule_id: str
    start_ms: int
    end_ms: int
    utterance_id: str | None = None
    rule_version: str | None = None
    state: AlertState | None = None
    """What people made of the alert; ``None`` for what this pack finds and for what raised no alert."""
    shadow: bool = False


class RuleDiff(Struct, frozen=True, kw_only=True):
    """One rule over all calls: then and now."""

    rule_id: str
    same: tuple[Hit, ...] = ()
    """As they were found then."""
    new: tuple[Hit, ...] = ()
    gone: tuple[Hit, ...] = ()
    limited: tuple[str, ...] = ()
    """Operators of the rule that the stored calls do not tell enough for."""


def drive(detector: Panel, events: Iterable[CallEvent | Emotion]) -> Iterator[Finding]:
    """What the detector says to the events, woken in between whenever it asked for it."""
    now_ms = 0
    for event in events:
        # A transcript comes later than its media time says: it brings no clock.
        if not isinstance(event, Transcript | Emotion):
            before: int | None = None
            while (wake := detector.wake_at()) is not None and wake <= event.media_ms and wake != before:
                before, now_ms = wake, max(now_ms, wake)
                yield from detector.on_wake(now_ms)
        yield from detector.on_event(event)


def replay(pack: Pack, stored: StoredCall) -> list[Hit]:
    """What the pack finds in a call, in order of media time."""
    found: dict[tuple[str, Channel, int], Detection] = {}
    # Of a stored call nobody knows how it sounded: feelings are those of its words.
    panel = Panel(stored.call, pack, EmotionDetector(stored.call))
    for finding in drive(panel, stored.events()):
        if isinstance(finding, Detection):
            key = (finding.rule_id, finding.role, finding.anchor_ms)
            if finding.withdrawn:
                found.pop(key, None)
            else:
                found[key] = finding
    hits = [
        Hit(
            call_id=d.call_id,
            rule_id=d.rule_id,
            start_ms=d.media_start_ms,
            end_ms=d.media_end_ms,
            utterance_id=d.utterance_id,
            shadow=d.shadow,
        )
        for d in found.values()
    ]
    return sorted(hits, key=lambda hit: (hit.start_ms, hit.rule_id))


def compare(pack: Pack, then: Sequence[Hit], now: Sequence[Hit]) -> list[RuleDiff]:
    """Hits of the same calls, by rule: first those of the pack in its order, then those that it lacks."""
    before, after = _grouped(then), _grouped(now)
    known = {rule.id: rule for rule in pack.raising}
    order = [*known, *sorted((before.keys() | after.keys()) - known.keys())]
    diffs: list[RuleDiff] = []
    for rule_id in order:
        left, right = before.get(rule_id, []), after.get(rule_id, [])
        pairs = _pairs(left, right)
        diffs.append(
            RuleDiff(
                rule_id=rule_id,
                same=tuple(left[a] for a in sorted(pairs)),
                new=tuple(hit for i, hit in enumerate(right) if i not in pairs.values()),
                gone=tuple(hit for i, hit in enumerate(left) if i not in pairs),
                limited=limits(known[rule_id], pack.patterns) if rule_id in known else (),
            )
        )
    return diffs


def judged(hits: Sequence[Hit], known: Sequence[Hit]) -> list[Hit]:
    """The hits with what people made of the same ones of ``known``, by rule."""
    before, after = _grouped(known), _grouped(hits)
    out: list[Hit] = []
    for rule_id, found in after.items():
        pairs = _pairs(found, before.get(rule_id, []))
        for index, hit in enumerate(found):
            twin = before[rule_id][pairs[index]] if index in pairs else None
            out.append(hit if twin is None else structs.replace(hit, state=twin.state))
    return sorted(out, key=lambda hit: (hit.call_id, hit.start_ms, hit.rule_id))


def twins(one: Sequence[Hit], other: Sequence[Hit]) -> dict[int, int]:
    """Index into ``one`` → index into ``other`` of what lies at the same place, whichever rules found it."""
    return _pairs(one, other)


def limits(rule: Rule, patterns: Patterns | None = None) -> tuple[str, ...]:
    """Operators of the rule that look at what the store does not hold; ``digits`` only with ``patterns``."""
    operators = {**LEAVES, **AROUND}
    modules = {operators[name].__name__: name for name in NOT_STORED if name in operators}
    found: set[str] = {modules[name] for name in _modules(rule) if name in modules}
    if patterns is not None and any(
        _LONG_NUMBER.search(patterns.compiled[number].pattern)
        for part in _parts(rule)
        if isinstance(part, Regex)
        for number in part.numbers
    ):
        found.add(DIGITS)
    return tuple(sorted(found))


def _modules(rule: Rule) -> Collection[str]:
    """Of every condition that stands in the rule."""
    return {type(part).__module__ for part in _parts(rule)}


def _parts(rule: Rule) -> Iterator[Struct]:
    """Every condition that stands in the rule, and what they are made of."""
    waiting: list[object] = [rule.when, rule.unless, *rule.watches]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Struct):
            yield part
            waiting += structs.asdict(part).values()
        elif isinstance(part, tuple | list):
            waiting += part


def _speech(finals: Iterable[Transcript]) -> Iterator[tuple[int, int]]:
    """Stretches of speech of one channel; its utterances in order."""
    current: tuple[int, int] | None = None
    for final in finals:
        if current is not None and final.start_ms - current[1] <= _JOINED_MS:
            current = (current[0], max(current[1], final.end_ms))
            continue
        if current is not None:
            yield current
        current = (min(final.start_ms + PREROLL_MS, final.end_ms), final.end_ms)
    if current is not None:
        yield current


def _grouped(hits: Iterable[Hit]) -> dict[str, list[Hit]]:
    groups: dict[str, list[Hit]] = defaultdict(list)
    for hit in hits:
        groups[hit.rule_id].append(hit)
    return groups


def _pairs(then: Sequence[Hit], now: Sequence[Hit]) -> dict[int, int]:
    """Index into ``then`` → index into ``now`` of the same hit; each at most once, the closest first.

    Hits in the same utterance are the same; else those of one call that overlap or nearly do.
    """
    by_call: dict[str, list[int]] = defaultdict(list)
    for index, hit in enumerate(now):
        by_call[hit.call_id].append(index)
    candidates: list[tuple[int, int, int]] = []
    for a, hit in enumerate(then):
        for b in by_call[hit.call_id]:
            other = now[b]
            apart = max(0, hit.start_ms - other.end_ms, other.start_ms - hit.end_ms)
            if hit.utterance_id is not None and hit.utterance_id == other.utterance_id:
                candidates.append((-1, a, b))
            elif apart <= _ALIKE_MS:
                candidates.append((apart, a, b))
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, a, b in sorted(candidates):
        if a not in pairs and b not in taken:
            pairs[a] = b
            taken.add(b)
    return pairs
