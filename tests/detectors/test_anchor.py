from __future__ import annotations

import pytest

from detectors.rules import Pack
from tests.detectors.stream import heard, matched, pack, problems, said, speech


def pushy(where: str, limits: str = ", turns: 2", role: str = "agent") -> Pack:
    """The agent's 再考虑 as seen from the customer's 不需要."""
    refusal = "{phrase: {any: [不需要], negation: false}, role: customer}"
    return pack(f"{{phrase: [再考虑], anchor: {{of: {refusal}, where: {where}{limits}}}}}", role)


REFUSAL = said("我不需要", role="customer", start=10_000)
PUSH = said("您再考虑一下", start=12_000)
EARLY = said("您再考虑一下", start=7000)


def test_what_stands_after_its_anchor_is_raised_where_it_stands() -> None:
    (found,) = heard(pushy("after"), REFUSAL, PUSH)
    assert matched(found) == ("再考虑",)
    assert (found.media_start_ms, found.media_end_ms) == (12_100, 12_400)
    assert heard(pushy("after"), EARLY, REFUSAL) == []
    assert heard(pushy("after"), PUSH) == []


def test_what_stands_before_its_anchor_is_raised_when_the_anchor_is_said() -> None:
    (found,) = heard(pushy("before"), EARLY, REFUSAL)
    assert found.role == "customer"
    assert matched(found) == ("不需要",)
    assert (found.media_start_ms, found.anchor_ms) == (10_100, 10_000)
    assert found.utterance_id == REFUSAL.utterance_id
    assert heard(pushy("before"), REFUSAL, PUSH) == []


def test_around_is_either_and_current_is_the_same_turn() -> None:
    assert len(heard(pushy("around"), EARLY, REFUSAL)) == 1
    assert len(heard(pushy("around"), REFUSAL, PUSH)) == 1
    current = pack("{phrase: [再考虑], anchor: {of: {phrase: [收益]}, where: current}}")
    assert len(heard(current, said("收益好您再考虑一下"))) == 1
    assert heard(current, said("收益好"), said("您再考虑一下", start=5000)) == []


def test_within_one_turn_the_order_of_the_words_decides() -> None:
    rules = {
        where: pack(f"{{phrase: [再考虑], anchor: {{of: {{phrase: [收益]}}, where: {where}, turns: 1}}}}")
        for where in ("after", "before", "around")
    }
    first, second = said("收益好您再考虑一下"), said("您再考虑一下收益好")
    assert [bool(heard(rules[w], first)) for w in ("after", "before", "around")] == [True, False, True]
    assert [bool(heard(rules[w], second)) for w in ("after", "before", "around")] == [False, True, True]


def test_the_scope_ends_after_so_many_turns_or_seconds() -> None:
    fillers = [said("好", role="customer", start=t) for t in (12_000, 14_000)]
    late = said("您再考虑一下", start=16_000)
    for where in ("after", "around"):
        assert heard(pushy(where), REFUSAL, *fillers, late) == []
        assert len(heard(pushy(where, ", turns: 3"), REFUSAL, *fillers, late)) == 1
        assert len(heard(pushy(where, ", seconds: 6"), REFUSAL, late)) == 1
        assert heard(pushy(where, ", seconds: 5"), REFUSAL, late) == []
    assert len(heard(pushy("before", ", seconds: 3"), EARLY, REFUSAL)) == 1
    assert heard(pushy("before", ", seconds: 2"), EARLY, REFUSAL) == []


def test_media_time_decides_when_transcripts_come_in_the_other_order() -> None:
    (found,) = heard(pushy("before"), REFUSAL, EARLY)
    assert matched(found) == ("再考虑",), "it came true with the transcript that came last"
    assert len(heard(pushy("around"), PUSH, REFUSAL)) == 1


def test_an_anchor_without_a_role_is_one_of_the_rules_own_role() -> None:
    rules = pack("{phrase: [再考虑], anchor: {of: {phrase: [收益]}, where: after, turns: 3}}")
    assert heard(rules, said("收益呢", role="customer"), said("您再考虑一下", start=5000)) == []
    assert len(heard(rules, said("收益好"), said("您再考虑一下", start=5000))) == 1
    before = pack(
        "{phrase: [再考虑], anchor: {of: {phrase: [收益], role: customer}, where: before, turns: 3}}"
    )
    customers = said("我再考虑", role="customer", start=1000), said("收益呢", role="customer", start=5000)
    assert heard(before, *customers) == [], "the condition, too, is the agent's"


@pytest.mark.parametrize(("where", "fires"), [("after", True), ("before", False), ("around", True)])
def test_a_silence_is_anchored_by_its_own_time(where: str, fires: bool) -> None:
    rules = pack(
        f"{{silence: {{seconds: 15}}, anchor: {{of: {{phrase: [请稍等]}}, where: {where}, seconds: 5}}}}",
        "any",
    )
    events = [*speech(1000, 2000), said("请稍等", start=1000, end=2000), *speech(40_000, 41_000)]
    found = heard(rules, *events)
    assert [(d.media_start_ms, d.media_end_ms) for d in found] == ([(2000, 17_000)] if fires else [])


def test_a_silence_before_its_anchor_comes_true_with_the_words() -> None:
    rules = pack("{silence: {seconds: 15}, anchor: {of: {phrase: [久等]}, where: before, seconds: 5}}", "any")
    events = [*speech(1000, 2000), *speech(18_000, 19_000), said("久等了", start=18_000, end=19_000)]
    (found,) = heard(rules, *events)
    assert matched(found) == ("久等",)
    late = said("久等了", start=30_000, end=31_000)
    assert heard(rules, *events[:-1], *speech(30_000, 31_000), late) == []


def test_words_are_anchored_by_a_silence() -> None:
    rules = pack("{phrase: [久等], anchor: {of: {silence: {seconds: 15}}, where: after, seconds: 5}}")
    events = [*speech(1000, 2000), *speech(18_000, 19_000)]
    (found,) = heard(rules, *events, said("久等了", start=18_000, end=19_000))
    assert matched(found) == ("久等",)
    assert heard(rules, *speech(1000, 2000), *speech(5000, 6000), said("久等了", start=5000)) == []


def test_a_partial_is_judged_as_a_trial_and_leaves_nothing_behind() -> None:
    trial = said("我不需要", role="customer", start=10_000, final=False)
    final = said("我不知道", role="customer", start=10_000)
    assert heard(pushy("around"), trial, final, PUSH) == []
    partial = said("您再考虑一下", start=12_000, final=False)
    (found,) = heard(pushy("around"), REFUSAL, partial, PUSH)
    assert not found.withdrawn


def test_an_anchor_may_stand_under_unless_and_in_any() -> None:
    excused = pack("{phrase: [再考虑]}", more=", unless: {phrase: [收益], anchor: {of: {phrase: [风险]}, "
                   "where: after, turns: 2}}")  # fmt: skip
    assert len(heard(excused, said("收益好您再考虑"))) == 1
    assert heard(excused, said("有风险"), said("收益好您再考虑", start=5000)) == []


@pytest.mark.parametrize(
    ("anchor", "said_so"),
    [
        ("{of: {phrase: [收益]}, where: behind, turns: 1}", "expected where as one of before, after, around"),
        ("{of: {phrase: [收益]}, where: after}", "expected turns or seconds beside where: after, came none"),
        ("{of: {phrase: [收益]}, where: current, turns: 1}", "expected no turns beside where: current"),
        ("{of: {phrase: [收益]}, where: after, turns: 99}", "expected turns as a number from 1 to 20"),
        ("{where: after, turns: 1}", "t.yaml:4:102: expected 'of' in anchor, came none"),
        ("{of: {phrse: [收益]}, where: after, turns: 1}", "did you mean 'phrase'?"),
        ("[收益]", "expected anchor as a mapping, came a list"),
    ],
)
def test_a_broken_anchor_is_refused_with_a_reason(anchor: str, said_so: str) -> None:
    assert any(said_so in problem for problem in problems(f"{{phrase: [再考虑], anchor: {anchor}}}"))


def test_an_anchored_condition_inside_another_keeps_its_own_role() -> None:
    nested = ("{phrase: [再考虑], anchor: {where: after, turns: 3, of: {phrase: [不需要], role: customer, "
              "anchor: {of: {phrase: [收益]}, where: after, turns: 2}}}}")  # fmt: skip
    rules = pack(nested)
    unwanted = said("真的不需要", role="customer", start=10_000)
    assert heard(rules, unwanted, PUSH) == []
    (found,) = heard(rules, said("收益好", start=5000), unwanted, PUSH)
    assert (found.role, found.utterance_id) == ("agent", "c:agent:12000")


def test_an_anchor_that_takes_time_cannot_stand_under_unless() -> None:
    inner = "{phrase: [收益], anchor: {of: {phrase: [风险]}, where: before, turns: 2}}"
    assert any("came one that takes time" in p for p in problems("{not: " + inner + "}"))
