from __future__ import annotations

from pathlib import Path

import pytest

from app.build import rules
from app.demo import truth
from benchmarks.detection import by_rule, confusions, figures, frames_of, heeded, latencies, on_text, said
from benchmarks.engine import Listened, telephone
from benchmarks.plain_matching import PlainLexicon, plain
from detectors.mandarin import normalise
from detectors.rules.loader import parse_pack
from detectors.rules.model import TestTurn
from streams.events import AudioFrame, Transcript

PACK = parse_pack(
    """
id: t
version: "1"
rules:
  - id: redline.a
    name: {zh: 甲, en: a}
    severity: critical
    role: agent
    actions: [marker]
    when: {any: [{phrase: [保本保息, 三万…告诉我]}, {regex: 稳赚}]}
    unless: {phrase: [开玩笑]}
""",
    "t.yaml",
)


def turn(text: str) -> TestTurn:
    return TestTurn(role="agent", text=text, start_ms=1000, end_ms=3000)


@pytest.mark.parametrize(
    ("text", "ours", "plainly"),
    [
        ("这款保本保息。", True, True),
        ("这款薄本保锡。", True, False),
        ("这款稳赚。", True, False),
        ("把三万块告诉我。", True, True),
        ("把30000块告诉我。", True, False),
        ("这款不保本保息。", False, True),
        ("保本保息，开玩笑。", False, True),
        ("今天天气很好。", False, False),
    ],
)
def test_plain_matching_sees_only_characters(text: str, ours: bool, plainly: bool) -> None:
    pack = heeded(PACK)
    assert [bool(on_text(p, [turn(text)])) for p in (pack, plain(pack))] == [ours, plainly]


def test_a_plain_match_is_placed_where_its_characters_stand() -> None:
    normal = normalise("嗯，三万五的那个保本保息")
    ((hit,),) = PlainLexicon({0: "保本保息"}).scan(normal).values()
    assert normal.text[hit.start : hit.end] == "保本保息"


def scripted(*turns: truth.Turn) -> truth.ScriptedCall:
    return truth.ScriptedCall("c", Path("c.ogg"), turns)


CALL = scripted(
    truth.Turn(1.0, 3.0, "agent", "这款保本保息", rules=("redline.a",)),
    truth.Turn(60.0, 63.0, "agent", "一定稳赚", rules=("redline.a",)),
    truth.Turn(70.0, 90.0, "agent", "", rules=("dynamics.dead_air",)),
)


def listened(*texts: tuple[int, str]) -> Listened:
    finals = [
        Transcript(
            call_id="c",
            utterance_id=f"c:agent:{start}",
            role="agent",
            start_ms=start,
            end_ms=start + 2500,
            text=text,
            final=True,
        )
        for start, text in texts
    ]
    turns = [TestTurn(role="agent", text=t.text, start_ms=t.start_ms, end_ms=t.end_ms) for t in finals]
    alerts = on_text(heeded(PACK), turns)
    return Listened("c", 90.0, finals, alerts, {alert.id: 4.5 for alert in alerts})


def test_what_was_misheard_is_shown_with_what_was_expected() -> None:
    one = listened((900, "这款薄本保锡"), (60_100, "一定问转"))
    assert figures([CALL], {"c": one.alerts})["recall"] == 0.5
    missed, by_sound = confusions([CALL], {"c": one}, {"c": one.alerts})
    assert (missed["how"], missed["expected"], missed["written"]) == ("missed", "一定稳赚", "一定问转")
    assert (by_sound["how"], by_sound["expected"], by_sound["written"]) == ("pinyin", "保本保息", "薄本保锡")


def test_latency_counts_from_the_end_of_the_phrase() -> None:
    one = listened((900, "这款保本保息"))
    assert latencies(truth.score([CALL], {"c": one.alerts}), {"c": one}) == [1.5]


def test_what_nobody_asked_for_is_counted_at_its_rule() -> None:
    one = listened((30_000, "一定稳赚"))
    score = truth.score([CALL], {"c": one.alerts}, families=("",))
    assert by_rule(score)["redline.a"] == {"hit": 0, "missed": 2, "unexpected": 1}
    assert figures([CALL], {"c": one.alerts})["precision"] == 0.0


def test_a_silence_is_no_turn() -> None:
    assert [t.text for t in said(CALL)] == ["这款保本保息", "一定稳赚"]


def test_rules_that_only_set_a_marker_are_counted_too() -> None:
    assert not on_text(PACK, [turn("这款保本保息")])
    assert on_text(heeded(PACK), [turn("这款保本保息")])


def test_a_call_is_heard_on_both_sides_as_long_as_it_is() -> None:
    frames = telephone({"agent": b"\xff" * 8000, "customer": b"\xff" * 4000})("c")
    heard = {"agent": 0, "customer": 0}
    for frame in frames:
        assert isinstance(frame, AudioFrame)
        heard[frame.channel] += frame.duration_ms
    assert heard == {"agent": 1000, "customer": 500}


def test_the_demo_calls_have_both_sides() -> None:
    call = truth.load(truth.CALLS)[0]
    assert {frame.channel for frame in frames_of(call)("c")} == {"agent", "customer"}


def test_the_default_pack_finds_what_was_really_said_in_the_demo_calls() -> None:
    calls, pack = truth.load(truth.CALLS), heeded(rules(None))
    found = figures(calls, {call.name: on_text(pack, said(call)) for call in calls})
    assert float(str(found["recall"])) >= 0.97
    assert float(str(found["precision"])) >= 0.97
