"""Runs the test dialogues that stand in a pack, through the panel that runs on calls."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from msgspec import Struct

from detectors.emotion import EmotionDetector
from detectors.panel import Panel
from detectors.rules.model import Pack, TestCase
from streams.events import (
    CallEnded,
    CallEvent,
    CallInfo,
    CallStarted,
    Detection,
    Finding,
    SpeechStarted,
    SpeechStopped,
    Transcript,
)

_CHARACTER_MS: Final = 200
_PAUSE_MS: Final = 2000
_HANGOVER_MS: Final = 500


class TestResult(Struct, frozen=True):
    """How one dialogue of a pack went."""

    __test__ = False
    rule_id: str
    """The rule at which the dialogue stands."""
    name: str
    line: int
    passed: bool
    missing: tuple[str, ...]
    """Rules that had to fire and did not."""
    unexpected: tuple[str, ...]
    """Rules that fired and must not."""


def run_tests(pack: Pack, only: Collection[str] | None = None) -> list[TestResult]:
    """Every dialogue of the pack, in its order; ``only``: those that stand at these rules."""
    results: list[TestResult] = []
    for rule in pack.rules:
        if only is not None and rule.id not in only:
            continue
        for case in rule.tests:
            raised = {d.rule_id for d in play(pack, case) if not d.withdrawn}
            wanted = set(case.expect) if case.expect is not None else {case.hits} if case.hits else set()
            missing = {w for w in wanted if w is not None} - raised
            unexpected = raised - wanted if case.expect is not None else raised & {case.misses}
            results.append(
                TestResult(
                    rule_id=rule.id,
                    name=case.name,
                    line=case.line,
                    passed=not missing and not unexpected,
                    missing=tuple(sorted(missing)),
                    unexpected=tuple(sorted(unexpected)),
                )
            )
    return results


def play(pack: Pack, case: TestCase) -> list[Detection]:
    """What the panel says to a dialogue. Turns without times follow each other after a pause."""
    call = CallInfo(call_id="test")
    events: list[CallEvent] = [CallStarted(call=call)]
    clock = 0
    for turn in case.turns:
        start = turn.start_ms if turn.start_ms is not None else clock + _PAUSE_MS
        end = turn.end_ms if turn.end_ms is not None else start + _CHARACTER_MS * len(turn.text)
        clock = max(clock, end)
        events += [
            SpeechStarted(call_id="test", channel=turn.role, media_ms=start),
            SpeechStopped(call_id="test", channel=turn.role, media_ms=end),
            Transcript(
                call_id="test",
                utterance_id=f"test:{turn.role}:{start}",
                role=turn.role,
                start_ms=start,
                end_ms=end,
                text=turn.text,
                final=True,
            ),
        ]
    ends = case.ends_ms if case.ends_ms is not None else clock + _PAUSE_MS
    events.append(CallEnded(call_id="test", media_ms=max(ends, clock)))
    # Edges in order of media time, transcripts a little after them, as on a call.
    events.sort(key=lambda e: e.media_ms + (_HANGOVER_MS if isinstance(e, Transcript) else 0))
    panel = Panel(call, pack, EmotionDetector(call))
    found: list[Finding] = []
    for event in events:
        wake = panel.wake_at()
        if wake is not None and not isinstance(event, Transcript) and wake <= event.media_ms:
            found += panel.on_wake(wake)
        found += panel.on_event(event)
    return [finding for finding in found if isinstance(finding, Detection)]
