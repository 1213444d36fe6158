"""What a pack says to sentences that somebody tries on it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.rehearsal import MOST_NEAR, RELAXED, Rehearsal, placed, rehearse
from detectors.rules import DEFAULT_PACK, load_pack, parse_pack
from detectors.rules.model import TestTurn
from streams.events import CallInfo

PACK = """\
id: little
version: "1"
rules:
  - {{id: redline.one, name: {{zh: 一, en: One}}, severity: critical, role: agent, {more}when: {when}}}
"""
BANK = load_pack(DEFAULT_PACK)


def tried(when: str, *turns: tuple[Any, str], more: str = "", **call: Any) -> Rehearsal:
    pack = parse_pack(PACK.format(when=when, more=more), "little.yaml")
    spoken = [TestTurn(role=role, text=text) for role, text in turns]
    return rehearse(pack, spoken, CallInfo(call_id="x", **call))


PHRASE = "{phrase: [保本保息]}"


def test_what_fires_is_told_with_its_turn_its_place_and_how_it_matched() -> None:
    found = tried(PHRASE, ("customer", "您好"), ("agent", "宝本宝息"))
    (one,) = found.fired
    assert (one.turn, one.spans, one.how, one.expected) == (1, ((0, 4),), "pinyin", ("保本保息",))
    assert found.nearly == ()


@pytest.mark.parametrize(
    ("why", "when", "turn", "more"),
    [
        ("denied", PHRASE, ("agent", "不保本保息"), ""),
        ("warning", PHRASE, ("agent", "凡是说保本保息的都是骗子"), ""),
        ("other_side", PHRASE, ("customer", "你们保本保息"), ""),
        ("off", PHRASE, ("agent", "保本保息"), "mode: off, "),
        ("not_now", PHRASE, ("agent", "保本保息"), "queues: [贷款], "),
        ("unless", PHRASE, ("agent", "保本保息，这是假的"), "unless: {phrase: [这是假的]}, "),
        ("too_far", "{near: {a: [保本], b: [收益], distance: 2}}", ("agent", "保本的啊产品有收益"), ""),
        (
            "less_similar",
            "{similar: {any: [这个产品绝对不会亏钱], score: 0.9}}",
            ("agent", "这个产品肯定不会亏钱"),
            "",
        ),
    ],
)
def test_a_rule_that_one_thing_keeps_from_firing_says_which(
    why: str, when: str, turn: tuple[Any, str], more: str
) -> None:
    found = tried(when, turn, more=more)
    assert found.fired == ()
    assert [(one.rule_id, one.why) for one in found.nearly] == [("redline.one", why)]


def test_where_several_things_do_all_of_them_are_named() -> None:
    (one,) = tried(PHRASE, ("customer", "不保本保息")).nearly
    assert (one.why, one.needs) == ("several", ("other_side", "denied"))


def test_what_fired_a_moment_ago_says_that_it_rests() -> None:
    found = tried(PHRASE, ("agent", "保本保息"), ("agent", "保本保息"), more="cooldown: 60, ")
    assert [one.turn for one in found.fired] == [0]
    assert [(one.turn, one.why) for one in found.nearly] == [(1, "cooldown")]


def test_of_several_conditions_it_is_told_which_hold() -> None:
    (one,) = tried("{all: [{phrase: [保本保息]}, {phrase: [银行存款]}]}", ("agent", "保本保息")).nearly
    assert one.why == "parts"
    assert [(clause.operator, clause.holds) for clause in one.clauses] == [
        ("phrase", True),
        ("phrase", False),
    ]


def test_a_phrase_that_was_said_almost_is_named() -> None:
    (one,) = tried("{phrase: [绝对不会亏本]}", ("agent", "绝对不会赔本")).nearly
    assert (one.why, one.words) == ("sounds_like", ("绝对不会亏本",))
    assert 0.7 < (one.score or 0) < 1


def test_scripts_judge_a_whole_call_only() -> None:
    turns = [TestTurn(role="agent", text="这款理财产品您买吗"), TestTurn(role="customer", text="好的")]
    assert not [one for one in rehearse(BANK, turns).fired if one.rule_id.startswith("script.")]
    assert [one for one in rehearse(BANK, turns, whole=True).fired if one.rule_id.startswith("script.")]


def test_every_relaxation_leaves_every_rule_of_the_bank_a_rule() -> None:
    for _, relax in RELAXED:
        for rule in BANK.rules:
            assert relax(rule).id == rule.id


TURNS = st.lists(
    st.builds(
        TestTurn,
        role=st.sampled_from(["agent", "customer", "unknown"]),
        text=st.one_of(st.text(max_size=30), st.sampled_from(["我们保本保息", "我要投诉", "把验证码告诉我"])),
        start_ms=st.one_of(st.none(), st.integers(0, 100_000)),
    ),
    max_size=6,
)


@given(TURNS)
@settings(max_examples=15)
def test_whatever_is_said_the_answer_stays_within_its_bounds(turns: list[TestTurn]) -> None:
    found = rehearse(BANK, turns)
    assert len(found.nearly) <= MOST_NEAR
    for fired in found.fired:
        assert all(0 <= a <= b <= len(fired.text) for a, b in fired.spans)
    for near in found.nearly:
        assert 0 <= near.turn < len(turns)
        assert all(0 <= a <= b <= len(turns[near.turn].text) for a, b in near.spans)
    starts = [(turn.role, turn.start_ms) for turn in placed(turns)]
    assert len(set(starts)) == len(starts)
