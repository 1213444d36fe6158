"""What a pack says to a few sentences that somebody tries on it: what fires, what nearly does, and why not.

A rule nearly fires where it would if one thing about it were otherwise (said by the other side, not denied,
not excused …): all rules are asked again with that one thing relaxed, through the panel that runs on calls.
What no such question finds is looked at by its words: conditions of which a part holds, phrases that were
said almost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, cast

from msgspec import Struct
from msgspec.structs import replace
from rapidfuzz import fuzz

from detectors.dialogues import play
from detectors.rules.case_form import CALL_ID
from detectors.rules.combinators import All, By, Framed, Not, Own
from detectors.rules.combinators import Any as Either
from detectors.rules.model import Condition, Pack, Rule, Scene, TestCase, TestTurn, Turn, Watch
from detectors.rules.near import Near
from detectors.rules.phrase import Phrase
from detectors.rules.regex import Regex
from detectors.rules.similar import Similar
from detectors.sounds import sounds_of, spelt
from streams.events import CallInfo, Channel, Detection, Match, Transcript

MOST_TURNS: Final = 20
LONGEST_TEXT: Final = 500
"""Characters of one turn."""
MOST_NEAR: Final = 12
_CHARACTER_MS: Final = 200
_PAUSE_MS: Final = 2000
_ALIKE: Final = 78.0
"""Of 100: share of the syllables that a phrase and what was said have in common, in order."""
_SHORTEST_ALIKE: Final = 4
"""Shorter phrases are like too much."""
_LESS_SIMILAR: Final = 0.15
_FARTHER: Final = 3

Why = Literal[
    "off",
    "not_now",
    "other_side",
    "question",
    "denied",
    "warning",
    "unless",
    "doubtful",
    "too_far",
    "less_similar",
    "cooldown",
    "several",
    "parts",
    "sounds_like",
]
"""What keeps a rule from firing. ``not_now``: its dates, hours or queues; ``several``: more than one of the
others; ``parts``: only some of its conditions hold; ``sounds_like``: a phrase was said almost."""


class Fired(Struct, frozen=True, kw_only=True):
    rule_id: str
    turn: int | None
    """Index of the turn in whose words it was found; ``None``: it is about no single one."""
    role: Channel
    shadow: bool
    how: Match
    confidence: float | None
    text: str
    spans: tuple[tuple[int, int], ...]
    """Ranges of ``text``, in code points."""
    expected: tuple[str, ...]
    """What the rule has where the words were found."""
    start_ms: int
    end_ms: int


class Clause(Struct, frozen=True, kw_only=True):
    """One condition of a rule on a turn."""

    operator: str
    holds: bool
    how: Match | None = None
    words: tuple[str, ...] = ()
    """What it looks for: what was found of it, else the first few."""
    spans: tuple[tuple[int, int], ...] = ()
    """Of the turn's text."""


class Nearly(Struct, frozen=True, kw_only=True):
    rule_id: str
    turn: int
    why: Why
    needs: tuple[Why, ...] = ()
    """Of ``several``: all that would have to be otherwise."""
    how: Match | None = None
    words: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    score: float | None = None
    """0 to 1, of ``sounds_like``."""
    clauses: tuple[Clause, ...] = ()


class Rehearsal(Struct, frozen=True, kw_only=True):
    fired: tuple[Fired, ...]
    nearly: tuple[Nearly, ...]


def rehearse(
    pack: Pack, turns: Sequence[TestTurn], call: CallInfo | None = None, *, whole: bool = False
) -> Rehearsal:
    """Play the turns to the pack. ``whole``: they are a call from begin to end, so scripts judge too."""
    timed = placed(turns)
    case = TestCase(
        name="", line=0, turns=timed, call=None if call is None else replace(call, call_id=CALL_ID)
    )
    if not whole:
        pack = replace(pack, scripts=())
    by_utterance = {f"{CALL_ID}:{turn.role}:{turn.start_ms}": index for index, turn in enumerate(timed)}
    fired = [_fired(detection, by_utterance) for detection in _played(pack, case)]
    nearly = _nearly(
        replace(pack, scripts=()), case, by_utterance, {(one.rule_id, one.turn) for one in fired}
    )
    return Rehearsal(fired=tuple(fired), nearly=tuple(nearly[:MOST_NEAR]))


def placed(turns: Sequence[TestTurn]) -> tuple[TestTurn, ...]:
    """With times; those without follow each other after a pause. No two of one side begin together."""
    out: list[TestTurn] = []
    clock, begun = 0, set[tuple[Channel, int]]()
    for turn in turns:
        start = turn.start_ms if turn.start_ms is not None else clock + _PAUSE_MS
        while (turn.role, start) in begun:
            start += 1
        begun.add((turn.role, start))
        end = turn.end_ms if turn.end_ms is not None else start + _CHARACTER_MS * len(turn.text)
        clock = max(clock, end)
        out.append(replace(turn, start_ms=start, end_ms=max(start, end)))
    return tuple(out)


def _played(pack: Pack, case: TestCase) -> list[Detection]:
    held: dict[tuple[str, int], Detection] = {}
    for detection in play(pack, case):
        key = (detection.rule_id, detection.anchor_ms)
        if detection.withdrawn:
            held.pop(key, None)
        else:
            held[key] = detection
    return list(held.values())


def _fired(detection: Detection, by_utterance: dict[str, int]) -> Fired:
    evidence = detection.evidence
    return Fired(
        rule_id=detection.rule_id,
        turn=by_utterance.get(detection.utterance_id or ""),
        role=detection.role,
        shadow=detection.shadow,
        how=evidence.how,
        confidence=evidence.confidence,
        text=evidence.text,
        spans=evidence.spans,
        expected=evidence.expected,
        start_ms=detection.media_start_ms,
        end_ms=detection.media_end_ms,
    )


# ── one thing otherwise ───────────────────────────────────────────────────────────────────────────

Relax = Callable[[Rule], Rule]


def _live(rule: Rule) -> Rule:
    return replace(rule, mode="live") if rule.mode == "off" else rule


def _any_time(rule: Rule) -> Rule:
    return replace(rule, queues=(), effective=None)


def _anybody(rule: Rule) -> Rule:
    return replace(_each(rule, _of_anybody), role="any")


def _affirmed(rule: Rule) -> Rule:
    return replace(_each(rule, lambda leaf: _with(leaf, negation=False)), negation=False)


def _unexcused(rule: Rule) -> Rule:
    return replace(_each(rule, lambda leaf: _with(leaf, warning=False)), warning=False)


def _without_unless(rule: Rule) -> Rule:
    return replace(rule, unless=None)


def _farther(rule: Rule) -> Rule:
    return _each(
        rule,
        lambda leaf: (
            replace(leaf, distance=leaf.distance * _FARTHER + 5, ordered=False)
            if isinstance(leaf, Near)
            else leaf
        ),
    )


def _less_similar(rule: Rule) -> Rule:
    return _each(
        rule,
        lambda leaf: (
            replace(leaf, least=max(0.5, leaf.least - _LESS_SIMILAR)) if isinstance(leaf, Similar) else leaf
        ),
    )


def _at_once(rule: Rule) -> Rule:
    return replace(rule, cooldown_ms=0)


RELAXED: Final[tuple[tuple[Why, Relax], ...]] = (
    ("off", _live),
    ("not_now", _any_time),
    ("other_side", _anybody),
    ("denied", _affirmed),
    ("warning", _unexcused),
    ("unless", _without_unless),
    ("too_far", _farther),
    ("less_similar", _less_similar),
    ("cooldown", _at_once),
)


def _nearly(
    pack: Pack, case: TestCase, by_utterance: dict[str, int], fired: set[tuple[str, int | None]]
) -> list[Nearly]:
    found: dict[tuple[str, int], Nearly] = {}
    every: tuple[tuple[Why, Relax], ...] = (*RELAXED, ("several", _all_relaxed()))
    for why, relax in every:
        other = replace(pack, rules=tuple(relax(rule) for rule in pack.rules))
        for detection in _played(other, case):
            turn = by_utterance.get(detection.utterance_id or "")
            if turn is None or (detection.rule_id, turn) in fired or (detection.rule_id, turn) in found:
                continue
            evidence = detection.evidence
            found[detection.rule_id, turn] = Nearly(
                rule_id=detection.rule_id,
                turn=turn,
                why=why,
                how=evidence.how,
                words=evidence.expected or evidence.matched,
                spans=evidence.spans,
            )
    several = {key for key, one in found.items() if one.why == "several"}
    for why, _ in RELAXED if several else ():
        # What does not fire once this alone stays as it is needs it.
        relax = _all_relaxed(but=why)
        other = replace(pack, rules=tuple(relax(rule) for rule in pack.rules))
        still = {(one.rule_id, by_utterance.get(one.utterance_id or "")) for one in _played(other, case)}
        for key in several - still:
            found[key] = replace(found[key], needs=(*found[key].needs, why))
    known = {rule_id for rule_id, _ in (*fired, *found)}
    return [
        *sorted(found.values(), key=lambda one: (one.turn, one.why == "several")),
        *_by_words(pack, case, known),
    ]


def _all_relaxed(but: Why | None = None) -> Relax:
    def relaxed(rule: Rule) -> Rule:
        for why, relax in RELAXED:
            rule = rule if why == but else relax(rule)
        return rule

    return relaxed


def _each(rule: Rule, change: Callable[[Condition], Condition]) -> Rule:
    """With every condition changed that is not one of the watches, which take time."""
    return replace(rule, when=_changed(rule.when, change))


def _changed(condition: Condition, change: Callable[[Condition], Condition]) -> Condition:
    if isinstance(condition, Watch):
        return condition
    if isinstance(condition, Either | All):
        return replace(condition, parts=tuple(_changed(part, change) for part in condition.parts))
    if isinstance(condition, Not):
        return condition
    if isinstance(condition, By | Own | Framed):
        inner = replace(cast(Any, condition), inner=_changed(condition.inner, change))
        return change(inner)
    return change(condition)


def _of_anybody(condition: Condition) -> Condition:
    return condition.inner if isinstance(condition, By | Own) else condition


def _with(leaf: Condition, **fields: bool) -> Condition:
    if isinstance(leaf, Phrase | Regex | Near | Similar):
        return cast(Condition, replace(cast(Any, leaf), **fields))
    return leaf


# ── by the words ──────────────────────────────────────────────────────────────────────────────────


def _by_words(pack: Pack, case: TestCase, known: set[str]) -> list[Nearly]:
    turns = [_turn(pack, turn) for turn in case.turns]
    heard = [[sound for sound in sounds_of(turn.text) if sound] for turn in case.turns]
    call = case.call or CallInfo(call_id=CALL_ID)
    partly: list[Nearly] = []
    almost: list[Nearly] = []
    for rule in pack.rules:
        if rule.id in known:
            continue
        leaves = list(_leaves(rule.when))
        for index, turn in enumerate(turns):
            if not rule.concerns(turn.role):
                continue
            scene = Scene(turns[: index + 1], rule, pack.patterns, call, turn.transcript.end_ms)
            clauses = [_clause(leaf, scene, turn) for leaf in leaves]
            holding = [clause for clause in clauses if clause.holds and clause.spans]
            if holding:
                partly.append(
                    Nearly(
                        rule_id=rule.id,
                        turn=index,
                        why="parts",
                        how=holding[0].how,
                        words=holding[0].words,
                        spans=tuple(span for clause in holding for span in clause.spans),
                        clauses=tuple(clauses[:MOST_NEAR]),
                    )
                )
                break
            like = _like(leaves, heard[index])
            if like is not None:
                phrase, score = like
                almost.append(
                    Nearly(
                        rule_id=rule.id,
                        turn=index,
                        why="sounds_like",
                        words=(phrase,),
                        score=round(score / 100, 3),
                    )
                )
                break
    return [*partly, *sorted(almost, key=lambda one: -(one.score or 0))]


def _turn(pack: Pack, turn: TestTurn) -> Turn:
    transcript = Transcript(
        call_id=CALL_ID,
        utterance_id=f"{CALL_ID}:{turn.role}:{turn.start_ms}",
        role=turn.role,
        start_ms=turn.start_ms or 0,
        end_ms=turn.end_ms or 0,
        text=turn.text,
        final=True,
    )
    return Turn(transcript, "", pack.lexicon, pack.patterns)


def _leaves(condition: Condition) -> Iterator[Condition]:
    """Conditions on words, watches opened: what a sequence or a count is made of."""
    if isinstance(condition, Either | All):
        for part in condition.parts:
            yield from _leaves(part)
    elif isinstance(condition, By | Own | Framed):
        yield from _leaves(condition.inner)
    elif isinstance(condition, Watch):
        for name in ("steps", "of", "inner"):
            inner = getattr(condition, name, ())
            for part in inner if isinstance(inner, tuple) else (inner,):
                if isinstance(part, Struct) and hasattr(part, "find"):
                    yield from _leaves(part)
    elif not isinstance(condition, Not):
        yield condition


def _clause(leaf: Condition, scene: Scene, turn: Turn) -> Clause:
    found = leaf.find(scene, turn)
    operator = type(leaf).__module__.rsplit(".", 1)[-1]
    if found is None:
        return Clause(operator=operator, holds=False, words=_wanted(leaf))
    return Clause(operator=operator, holds=True, how=found.how, words=found.expected, spans=found.spans)


def _wanted(leaf: Condition) -> tuple[str, ...]:
    if isinstance(leaf, Phrase):
        return leaf.texts[:3]
    if isinstance(leaf, Near):
        return (*leaf.a.texts[:2], *leaf.b.texts[:2])
    if isinstance(leaf, Similar):
        return tuple(sentence.text for sentence in leaf.sentences[:2])
    return ()


def _like(leaves: Sequence[Condition], heard: Sequence[object]) -> tuple[str, float] | None:
    """The phrase that was said almost, if one was."""
    best: tuple[str, float] | None = None
    for leaf in leaves:
        for text in leaf.texts if isinstance(leaf, Phrase) else ():
            sounds = [sound for sound in spelt(text)[1] if sound]
            if not _SHORTEST_ALIKE <= len(sounds) <= len(heard) + 1:
                continue
            least = _ALIKE if best is None else best[1] + 0.01
            score = fuzz.partial_ratio(sounds, heard, score_cutoff=least)
            if score >= least:
                best = text, score
    return best
