from __future__ import annotations

from detectors.rules import PackError
from tests.detectors.live import found, heard, in_order, pack, said, wrote

STEPS = (
    "{sequence: {steps: [{phrase: [推荐理财]}, {phrase: [不需要], role: customer}, {phrase: [再考虑]}], "
    "seconds: 60}}"
)
RULES = pack(STEPS)
OFFER = said("给您推荐理财", 1000, 3000)
REFUSAL = said("我不需要", 4000, 6000, "customer")
AGAIN = said("您再考虑一下", 7000, 9000)


def test_a_sequence_is_told_with_its_last_step() -> None:
    (one,) = found(RULES, OFFER, REFUSAL, AGAIN)
    assert (one.anchor_ms, one.utterance_id) == (7000, "c:agent:7000")
    assert (one.media_start_ms, one.media_end_ms) == (1667, 8333), "from the first phrase to the last"
    assert one.evidence.text == "您再考虑一下"
    assert one.evidence.matched == ("再考虑",)


def test_another_order_is_no_sequence() -> None:
    early = said("我不需要", 100, 900, "customer")
    assert found(RULES, early, OFFER, AGAIN) == []
    assert found(RULES, OFFER, AGAIN, said("不需要", 10_000, 11_000, "customer")) == []


def test_what_somebody_else_says_is_no_step() -> None:
    assert found(RULES, OFFER, said("我不需要", 4000, 6000), AGAIN) == []
    assert found(RULES, said("推荐理财", 1000, 3000, "customer"), REFUSAL, AGAIN) == []


def test_the_order_is_that_of_media_time_not_of_the_transcripts() -> None:
    late = said("我不需要", 4000, 6000, "customer", late=8000)
    (one,) = found(RULES, OFFER, late, AGAIN)
    assert (one.anchor_ms, one.utterance_id) == (7000, "c:agent:7000"), "told when the middle came in"


def test_too_much_time_between_the_first_and_the_last_step() -> None:
    assert len(found(RULES, OFFER, REFUSAL, said("再考虑", 61_600, 62_000))) == 1
    assert found(RULES, OFFER, REFUSAL, said("再考虑", 61_700, 62_000)) == []


def test_both_steps_in_one_utterance_count_in_their_order() -> None:
    rules = pack("{sequence: {steps: [{phrase: [保本]}, {phrase: [保息]}], seconds: 10}}")
    assert len(found(rules, said("保本然后保息", 1000, 3000))) == 1
    assert found(rules, said("保息然后保本", 1000, 3000)) == []
    twice = pack("{sequence: {steps: [{phrase: [保本]}, {phrase: [保本]}], seconds: 10}}")
    assert found(twice, said("保本", 1000, 3000)) == [], "one word is not two"
    assert len(found(twice, said("保本", 1000, 3000), said("保本", 4000, 5000))) == 1


def test_a_sequence_that_was_told_is_used_up() -> None:
    assert len(found(RULES, OFFER, REFUSAL, AGAIN, said("再考虑一下", 10_000, 12_000))) == 1
    twice = [
        turn
        for t in (1000, 20_000)
        for turn in (
            said("给您推荐理财", t, t + 900),
            said("不需要", t + 1000, t + 1900, "customer"),
            said("再考虑", t + 2000, t + 2900),
        )
    ]
    assert [d.anchor_ms for d in found(RULES, *twice)] == [3000, 22_000]


def test_a_partial_tells_it_early_and_the_final_decides() -> None:
    partial = wrote("再考虑", 7000, 8000, late=100, final=False)
    early, confirmed = found(RULES, OFFER, REFUSAL, AGAIN, [partial])
    assert early.anchor_ms == confirmed.anchor_ms
    raised, withdrawn = found(RULES, OFFER, REFUSAL, said("好的", 7000, 9000), [partial])
    assert (raised.withdrawn, withdrawn.withdrawn) == (False, True)


def test_a_step_may_be_something_that_is_heard() -> None:
    rules = pack("{sequence: {steps: [{phrase: [稍等]}, {silence: {seconds: 10}}], seconds: 30}}", "any")
    (one,) = found(rules, said("请您稍等", 1000, 3000), until=20_000)
    assert (one.media_start_ms, one.media_end_ms) == (2000, 13_000)
    assert found(rules, said("好的", 1000, 3000), until=20_000) == []


def test_a_mixed_channel_counts_for_both_sides() -> None:
    turns = in_order(
        said("给您推荐理财", 1000, 3000, "unknown"),
        said("我不需要", 4000, 6000, "unknown"),
        said("您再考虑一下", 7000, 9000, "unknown"),
    )
    assert len(found(RULES, turns)) == 1


def test_a_step_that_is_none_is_pointed_at() -> None:
    try:
        pack("{sequence: {steps: [{phrase: [保本]}], seconds: 0}}")
    except PackError as error:
        messages = [p.message for p in error.problems]
    assert messages == [
        "expected 2 to 8 conditions in steps, came 1",
        "expected seconds as a number from 1 to 3600, came '0'",
    ]


def test_nothing_said_is_nothing() -> None:
    assert found(RULES, heard(1000, 30_000), until=60_000) == []
