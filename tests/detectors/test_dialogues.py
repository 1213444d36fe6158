"""The dialogues of a pack: what they may hold, and how they are judged."""

from __future__ import annotations

import pytest

from detectors.dialogues import TestResult, play, run_tests
from detectors.rules import PackError, parse_pack

RULE = (
    'id: t\nversion: "1"\nrules:\n  - id: t.rule\n    name: {zh: 规, en: R}\n    severity: info\n'
    "    role: customer\n"
)
SCRIPT = (
    "scripts:\n  - id: s\n    name: {zh: 流程, en: Flow}\n    queues: [vip]\n    nodes:\n"
    "      - {id: bye, name: {zh: 别, en: Bye}, role: agent, when: {phrase: [再见]}, at: end}\n"
)


def results(when: str, tests: str, script: str = "") -> list[TestResult]:
    written = "".join(f"      - {line}\n" for line in tests.splitlines())
    return run_tests(parse_pack(f"{RULE}    when: {when}\n    tests:\n{written}{script}", "t.yaml"))


def test_a_dialogue_says_what_the_telephony_knows() -> None:
    (hit, miss) = results(
        "{all: [{phrase: [我要投诉]}, {attribute: {name: product, is: fund}}]}",
        "{call: {queue: vip, attributes: {product: fund}}, turns: [{customer: 我要投诉}], expect: [t.rule]}\n"
        "{call: {attributes: {product: card}}, turns: [{customer: 我要投诉}], expect: []}",
    )
    assert hit.passed
    assert miss.passed


def test_a_dialogue_may_hold_signals_of_the_telephony_and_how_somebody_sounds() -> None:
    text = (
        f"{RULE}    when: {{phrase: [我要投诉]}}\n    tests:\n"
        "      - turns: [{agent: 请稍等, emotion: calm}, {hold: true, at: 20}, {hold: false, at: 30}, "
        "{customer: 我要投诉, start: 31, emotion: {feeling: angry, level: 9, trend: 2}, loudness: -12}, "
        "{hangup: customer, at: 40}]\n        expect: [t.rule]\n"
    )
    pack = parse_pack(text, "t.yaml")
    (case,) = pack.rules[0].tests
    assert (case.hung_up_by, case.ends_ms) == ("customer", 40_000)
    assert [(turn.hold, turn.start_ms) for turn in case.turns[1:3]] == [(True, 20_000), (False, 30_000)]
    assert (case.turns[3].feeling, case.turns[3].level, case.turns[3].loudness_db) == ("angry", 9, -12)
    assert [found.rule_id for found in play(pack, case)] == ["t.rule"]


def test_turns_may_overlap_and_timers_run_between_them() -> None:
    (result,) = results(
        "{silence: {seconds: 10}}",
        "{turns: [{agent: 请稍等一下, start: 1, end: 4}, {customer: 好, start: 2, end: 3}, "
        "{customer: 喂, start: 20}], expect: [t.rule]}",
    )
    assert result.passed


def test_a_dialogue_at_a_rule_does_not_speak_of_scripts_nor_the_other_way_round() -> None:
    tests = (
        "    tests:\n      - {turns: [{agent: 您好}, {customer: 我要投诉}], expect: [script.bye]}\n"
        "      - {turns: [{agent: 您好}, {agent: 再见}], expect: [script.bye]}\n"
        "      - {turns: [{agent: 您好}], expect: []}\n"
        "      - {turns: [{agent: 您好}], call: {queue: other}, expect: []}\n"
    )
    of_rule, *of_script = results(
        "{phrase: [我要投诉]}",
        "{turns: [{agent: 您好}, {customer: 我要投诉}], call: {queue: vip}, expect: [t.rule]}",
        SCRIPT + tests,
    )
    assert of_rule.passed
    assert [result.rule_id for result in of_script] == ["s"] * 4
    assert [result.passed for result in of_script] == [True, False, False, True]
    assert of_script[1].missing == ("script.bye",)
    assert of_script[2].unexpected == ("script.bye",)


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (
            "{agent: 您好, customer: 你好}",
            "expected one speaker (agent, customer, unknown), hold, hangup or trouble",
        ),
        ("{start: 1}", "came none"),
        ("{hold: true, start: 1}", "expected at beside hold, came start"),
        ("{hold: perhaps}", "expected hold as true or false"),
        ("{hangup: nobody}", "expected hangup as one of agent, customer, unknown"),
        ("{agent: 您好, at: 3}", "expected start and end beside what is said, came at"),
        ("{agent: 您好, emotion: cross}", "expected emotion as one of"),
        ("{agent: 您好, emotion: {level: 3}}", "expected 'feeling' in emotion"),
        ("{agent: 您好, loudness: 3}", "expected loudness (dB) as a number"),
        ("{hangup: agent}, {agent: 您好}", "expected hangup as the last turn"),
    ],
)
def test_a_turn_that_cannot_be_played_says_what_was_expected(turn: str, expected: str) -> None:
    with pytest.raises(PackError) as refused:
        results("{phrase: [我要投诉]}", f"{{turns: [{turn}], expect: []}}")
    assert any(expected in str(problem) for problem in refused.value.problems)
