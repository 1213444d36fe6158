"""Runs the test dialogues that stand in a pack, through the panel that runs on calls."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from detectors.emotion import EmotionDetector
from detectors.panel import Panel
from detectors.rules.case_form import CALL_ID
from detectors.rules.model import Pack, TestCase, TestTurn
from detectors.rules.script import PREFIX
from streams.events import (
    CallEnded,
    CallEvent,
    CallInfo,
    CallStarted,
    Detection,
    Emotion,
    Finding,
    Hold,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    Trouble,
    Voice,
)

_CHARACTER_MS: Final = 200
_PAUSE_MS: Final = 2000
_PEAK_DB: Final = 6.0
_MOST_WAKES: Final = 1000
_LATE_MS: Final = 500
"""Transcripts come so long after what they hold."""


class TestResult(Struct, frozen=True):
    """How one dialogue of a pack went."""

    __test__ = False
    rule_id: str
    """The rule or script at which the dialogue stands."""
    name: str
    line: int
    passed: bool
    missing: tuple[str, ...]
    """Rules that had to fire and did not."""
    unexpected: tuple[str, ...]
    """Rules that fired and must not."""


def run_tests(pack: Pack, only: Collection[str] | None = None) -> list[TestResult]:
    """Every dialogue of the pack, in its order; ``only``: those that stand at these rules and scripts.

    A dialogue at a rule says which rules fire, one at a script what deviates from it; neither need know
    of the other, unless it names it.
    """
    results: list[TestResult] = []
    for rule in pack.rules:
        if only is None or rule.id in only:
            results += [_result(pack, rule.id, case, of_script=False) for case in rule.tests]
    for script in pack.scripts:
        if only is None or script.id in only:
            queue = script.queues[0] if script.queues else None
            for case in script.tests:
                call = case.call or CallInfo(call_id=CALL_ID, queue=queue)
                results.append(_result(pack, script.id, replace(case, call=call), of_script=True))
    return results


def _result(pack: Pack, at: str, case: TestCase, of_script: bool) -> TestResult:
    raised: set[str] = set()
    for detection in play(pack, case):
        (raised.discard if detection.withdrawn else raised.add)(detection.rule_id)
    wanted = set(case.expect) if case.expect is not None else {case.hits} if case.hits else set()
    missing = {w for w in wanted if w is not None} - raised
    if case.expect is not None:
        unexpected = {r for r in raised - wanted if r.startswith(PREFIX) == of_script}
    else:
        unexpected = raised & {case.misses}
    return TestResult(
        rule_id=at,
        name=case.name,
        line=case.line,
        passed=not missing and not unexpected,
        missing=tuple(sorted(missing)),
        unexpected=tuple(sorted(unexpected)),
    )


class _Told(NamedTuple):
    at_ms: int
    """When a call would tell it."""
    event: CallEvent | Emotion


def play(pack: Pack, case: TestCase) -> list[Detection]:
    """What the panel says to a dialogue. Turns without times follow each other after a pause."""
    call = case.call or CallInfo(call_id=CALL_ID)
    told: list[_Told] = []
    clock = 0
    for turn in case.turns:
        start = turn.start_ms if turn.start_ms is not None else clock + _PAUSE_MS
        end = turn.end_ms if turn.end_ms is not None else start + _CHARACTER_MS * len(turn.text)
        clock = max(clock, end)
        is_signal = turn.hold is not None or turn.trouble is not None
        told += _signalled(turn, start) if is_signal else _spoken(turn, start, end)
    ends = max(clock, case.ends_ms if case.ends_ms is not None else clock + _PAUSE_MS)
    told.sort(key=lambda one: one.at_ms)
    told.append(_Told(ends, CallEnded(call_id=CALL_ID, media_ms=ends, by=case.hung_up_by)))
    # A dialogue that says how somebody feels wants no second opinion.
    told_feelings = any(turn.feeling is not None for turn in case.turns)
    panel = Panel(call, pack, None if told_feelings else EmotionDetector(call))
    found: list[Finding] = panel.on_event(CallStarted(call=call))
    for at_ms, event in told:
        for _ in range(_MOST_WAKES):
            wake = panel.wake_at()
            if wake is None or wake > at_ms:
                break
            found += panel.on_wake(wake)
        found += panel.on_event(event)
    return [finding for finding in found if isinstance(finding, Detection)]


def _signalled(turn: TestTurn, at_ms: int) -> list[_Told]:
    if turn.trouble is not None:
        trouble = Trouble(
            call_id=CALL_ID,
            channel=turn.role,
            kind=turn.trouble,
            present=True,
            media_ms=at_ms,
            since_ms=at_ms,
        )
        return [_Told(at_ms, trouble)]
    hold = Hold(call_id=CALL_ID, media_ms=at_ms, held=bool(turn.hold), source="telephony")
    return [_Told(at_ms, hold)]


def _spoken(turn: TestTurn, start: int, end: int) -> list[_Told]:
    utterance_id = f"{CALL_ID}:{turn.role}:{start}"
    out = [
        _Told(start, SpeechStarted(call_id=CALL_ID, channel=turn.role, media_ms=start)),
        _Told(end, SpeechStopped(call_id=CALL_ID, channel=turn.role, media_ms=end)),
    ]
    if turn.loudness_db is not None:
        voice = Voice(
            call_id=CALL_ID,
            channel=turn.role,
            utterance_id=utterance_id,
            start_ms=start,
            end_ms=end,
            level_db=turn.loudness_db,
            peak_db=min(0.0, turn.loudness_db + _PEAK_DB),
            pitch_hz=None,
            pitch_spread=None,
            voiced=0.5,
            paused=0.1,
        )
        out.append(_Told(end, voice))
    if turn.feeling is not None:
        emotion = Emotion(
            call_id=CALL_ID,
            role=turn.role,
            utterance_id=utterance_id,
            media_start_ms=start,
            media_end_ms=end,
            feeling=turn.feeling,
            level=turn.level,
            trend=turn.trend,
            voice=turn.level,
            words=turn.level,
        )
        out.append(_Told(end + _LATE_MS, emotion))
    transcript = Transcript(
        call_id=CALL_ID,
        utterance_id=utterance_id,
        role=turn.role,
        start_ms=start,
        end_ms=end,
        text=turn.text,
        final=True,
    )
    out.append(_Told(end + _LATE_MS, transcript))
    return out
