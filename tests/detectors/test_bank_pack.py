"""The default pack on ordinary talk, on risky talk, and on the demo calls as text."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from app.demo import truth
from detectors.panel import Panel
from detectors.rules import Pack, load_pack
from detectors.rules.loader import DEFAULT_PACK
from streams.events import (
    Alert,
    CallEnded,
    CallEvent,
    CallInfo,
    CallStarted,
    Channel,
    Detection,
    SpeechStarted,
    SpeechStopped,
    Transcript,
)

HERE = Path(__file__).parent
SPOKEN = ("redline.", "warning.", "signal.", "opportunity.")
CHARACTER_MS = 200
PAUSE_MS = 2000
HANGOVER_MS = 500


class Line(NamedTuple):
    """A turn: ``a: …`` the agent's, ``c: …`` the customer's; after ``#`` the rules that it must raise."""

    number: int
    role: Channel
    text: str
    rules: frozenset[str]


def calls_in(name: str) -> list[list[Line]]:
    """An empty line ends a call."""
    calls: list[list[Line]] = [[]]
    for number, raw in enumerate((HERE / name).read_text("utf-8").splitlines(), 1):
        if not raw.strip():
            calls.append([])
        if raw[:2] in ("a:", "c:"):
            text, _, rules = raw[2:].partition("#")
            role: Channel = "agent" if raw[0] == "a" else "customer"
            calls[-1].append(Line(number, role, text.strip(), frozenset(rules.split())))
    return [call for call in calls if call]


@cache
def bank() -> Pack:
    return load_pack(DEFAULT_PACK)


def said(role: Channel, text: str, start: int, end: int | None = None) -> Transcript:
    end = start + CHARACTER_MS * len(text) if end is None else end
    return Transcript(
        call_id="c", utterance_id=f"c:{role}:{start}", role=role, start_ms=start, end_ms=end, text=text,
        final=True,
    )  # fmt: skip


def raised(panel: Panel, event: CallEvent) -> list[Detection]:
    return [f for f in panel.on_event(event) if isinstance(f, Detection) and not f.withdrawn]


def rules_of(line: Line) -> set[str]:
    """What a turn raises that stands alone, as after a cooldown."""
    panel = Panel(CallInfo(call_id="c"), bank())
    return {d.rule_id for d in raised(panel, said(line.role, line.text, 1000))}


def rules_within(call: list[Line]) -> list[tuple[Line, set[str]]]:
    """What each turn raises in its call."""
    panel = Panel(CallInfo(call_id="c"), bank())
    clock, out = 0, []
    for line in call:
        transcript = said(line.role, line.text, clock + PAUSE_MS)
        clock = transcript.end_ms
        out.append((line, {d.rule_id for d in raised(panel, transcript)}))
    return out


@pytest.mark.parametrize("alone", [True, False], ids=["each turn alone", "as calls"])
def test_ordinary_talk_raises_no_redline_no_warning_and_no_signal(alone: bool) -> None:
    calls = calls_in("ordinary_turns.txt")
    assert sum(len(call) for call in calls) >= 400
    found = [pair for call in calls for pair in rules_within(call)]
    if alone:
        found = [(line, rules_of(line)) for line, _ in found]
    wrong = [
        (line.number, rule)
        for line, rules in found
        for rule in sorted(rules - line.rules)
        if rule.startswith(("redline.", "warning.", "signal."))
    ]
    assert wrong == []


def test_risky_talk_in_many_wordings_is_found() -> None:
    lines = [line for call in calls_in("risky_turns.txt") for line in call]
    missed = Counter[str]()
    wanted = Counter[str]()
    for line in lines:
        wanted.update(line.rules)
        missed.update(line.rules - rules_of(line))
    assert 1 - missed.total() / wanted.total() >= 0.95, missed


def test_the_demo_calls_as_text_are_judged_as_their_truth_says() -> None:
    calls = truth.load(truth.CALLS)
    scored = truth.score(calls, {call.name: alerts_of(call) for call in calls})
    assert scored.recall is not None
    assert scored.precision is not None
    assert scored.recall >= 0.97, scored.missed
    assert scored.precision >= 0.97, [(name, a.rule_id, a.media_start_ms) for name, a in scored.unexpected]


def alerts_of(call: truth.ScriptedCall) -> list[Alert]:
    """The call as if the model had heard every word, at the times of its turns."""
    info = CallInfo(call_id="c")
    events: list[CallEvent] = [CallStarted(call=info)]
    for turn in call.turns:
        start, end = round(turn.start * 1000), round(turn.end * 1000)
        if turn.text:
            events += [
                SpeechStarted(call_id="c", channel=turn.role, media_ms=start),
                SpeechStopped(call_id="c", channel=turn.role, media_ms=end),
                said(turn.role, turn.text, start, end),
            ]
    events.append(CallEnded(call_id="c", media_ms=round(call.turns[-1].end * 1000) + PAUSE_MS))
    events.sort(key=lambda e: e.media_ms + (HANGOVER_MS if isinstance(e, Transcript) else 0))
    panel = Panel(info, bank())
    found: list[Detection] = []
    for event in events:
        wake = panel.wake_at()
        if wake is not None and not isinstance(event, Transcript) and wake <= event.media_ms:
            found += [f for f in panel.on_wake(wake) if isinstance(f, Detection)]
        found += raised(panel, event)
    return [
        Alert(
            id=str(number),
            call_id=call.name,
            rule_id=d.rule_id,
            rule_version="",
            name={},
            severity="info",
            role=d.role,
            media_start_ms=d.media_start_ms,
            media_end_ms=d.media_end_ms,
            evidence=d.evidence,
        )
        for number, d in enumerate(found)
    ]


def test_every_rule_says_what_it_is_in_both_languages_and_how_grave() -> None:
    for rule in bank().rules:
        assert set(rule.name) == {"zh", "en"}, rule.id
        family = rule.id.split(".")[0]
        if family == "redline":
            assert rule.severity == "critical", rule.id
        elif family in ("warning", "script"):
            assert rule.severity == "warning", rule.id
        elif family == "opportunity":
            assert rule.severity == "info", rule.id
        elif family in ("dynamics", "emotion", "privacy"):
            assert rule.severity != "critical", rule.id


def test_every_rule_has_four_dialogues_and_those_of_words_one_of_both_sides() -> None:
    for rule in bank().rules:
        hits = [t for t in rule.tests if t.hits == rule.id or rule.id in (t.expect or ())]
        misses = [
            t for t in rule.tests if t.misses == rule.id or (t.expect is not None and rule.id not in t.expect)
        ]
        assert len(hits) >= 2, rule.id
        assert len(misses) >= 2, rule.id
        if rule.id.startswith(SPOKEN):
            assert any({turn.role for turn in t.turns} == {"agent", "customer"} for t in rule.tests), rule.id
