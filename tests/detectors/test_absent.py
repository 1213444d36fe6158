from __future__ import annotations

import pytest

from detectors.rules import PackError
from streams.events import CallInfo
from tests.detectors.live import ended, found, heard, pack, progress, said, stream, when, wrote

GREETING = pack("{absent: {of: {phrase: [您好]}, by: 10}}")
FIRST = pack("{absent: {of: {phrase: [您好]}, by: 10, after: first_speech}}")
RISK = pack("{absent: {of: {phrase: [投资有风险]}, by: 60, after: {phrase: [推荐理财]}}}")
IDENTITY = pack("{absent: {of: {phrase: [核实身份]}, before: {phrase: [您的余额]}}}")


def test_what_nobody_says_is_told_at_the_deadline() -> None:
    (one,) = found(GREETING, until=20_000)
    assert (one.media_start_ms, one.media_end_ms, one.anchor_ms) == (0, 10_000, 0)
    assert (one.role, one.utterance_id, one.evidence.how) == ("agent", None, "timer")
    assert one.evidence.expected == ("您好",)
    assert when(GREETING, until=20_000) == [10_500], "a start of speech is told up to half a second late"


def test_what_was_said_in_time_is_not_told() -> None:
    assert found(GREETING, said("您好请讲", 1000, 3000), until=60_000) == []
    assert found(GREETING, said("您好", 1000, 3000, "customer"), until=60_000) != [], "not by the customer"


def test_what_was_said_before_the_deadline_and_written_after_it_is_in_time() -> None:
    assert found(GREETING, said("您好", 8000, 9900, late=6000), until=60_000) == []


def test_it_is_not_told_while_an_utterance_that_began_in_time_goes_on() -> None:
    assert found(GREETING, said("我是一号座席您好", 9900, 14_000, late=3000), until=60_000) == []
    assert when(GREETING, said("我是一号座席", 9900, 14_000, late=3000), until=60_000) == [17_000]
    (one,) = found(GREETING, said("我是一号座席", 9900, 14_000, late=3000), until=60_000)
    assert (one.media_end_ms, one.anchor_ms, one.utterance_id) == (10_000, 0, None)


def test_what_the_other_side_still_says_is_not_waited_for() -> None:
    assert when(GREETING, said("你们怎么不说话", 9000, 14_000, "customer"), until=60_000) == [10_500]


def test_a_transcript_that_never_comes_is_waited_for_no_longer_than_fifteen_seconds() -> None:
    assert when(GREETING, heard(9000, 12_000), until=60_000) == [25_000]


def test_a_hard_cut_does_not_end_the_wait_for_what_began_in_time() -> None:
    long = heard(9000, 20_500)
    first, second = wrote("我们", 9000, 18_900, late=1000), wrote("您好", 18_900, 20_500)
    assert when(GREETING, long, [first, second], until=60_000) == [19_900], "the rest began too late"


def test_an_utterance_that_began_after_the_deadline_is_too_late() -> None:
    assert when(GREETING, said("您好", 10_001, 11_000), until=60_000) == [10_500]


def test_the_first_speech_is_that_of_who_has_to_say_it() -> None:
    customer = said("喂喂", 1000, 2000, "customer")
    assert found(FIRST, customer, until=60_000) == [], "an agent who never speaks has no first word"
    (one,) = found(FIRST, customer, said("请讲", 5000, 6000), until=60_000)
    assert (one.anchor_ms, one.media_end_ms) == (5000, 15_000)
    assert found(FIRST, customer, said("您好", 5000, 6000), until=60_000) == []


def test_a_sound_without_words_is_no_first_speech() -> None:
    cough = said("", 1000, 1500)
    assert found(FIRST, cough, until=60_000) == []
    (one,) = found(FIRST, cough, said("请讲", 9000, 9500), until=60_000)
    assert (one.anchor_ms, one.media_end_ms) == (9000, 19_000)
    (one,) = found(FIRST, said("", 1000, 1500, late=9000), said("请讲", 9000, 9500), until=60_000)
    assert one.anchor_ms == 9000


def test_a_deadline_may_follow_something_that_was_said() -> None:
    assert found(RISK, said("您好", 1000, 2000), until=120_000) == []
    (one,) = found(RISK, said("给您推荐理财", 1000, 2000), until=120_000)
    assert (one.anchor_ms, one.media_end_ms) == (2000, 62_000)
    told = said("给您推荐理财", 1000, 2000), said("投资有风险", 50_000, 52_000)
    assert found(RISK, *told, until=120_000) == []
    same = said("投资有风险但是推荐理财", 1000, 4000)
    assert found(RISK, same, until=120_000) == [], "one utterance holds both"
    before = said("投资有风险", 1000, 2000), said("给您推荐理财", 3000, 4000)
    assert len(found(RISK, *before, until=120_000)) == 1, "what was said before does not count"


def test_what_arms_it_may_be_written_after_what_it_asks_for() -> None:
    rules = pack(
        "{absent: {of: {phrase: [帮您转接]}, by: 30, after: {phrase: [找你们领导], role: customer}}}"
    )
    late = said("找你们领导", 1000, 3000, "customer", late=9000)
    assert found(rules, late, said("帮您转接", 4000, 5000, late=500), until=90_000) == []
    (one,) = found(rules, late, said("您别急", 4000, 5000), until=90_000)
    assert (one.role, one.anchor_ms, one.media_end_ms) == ("agent", 3000, 33_000)


def test_the_first_time_arms_it_and_it_is_told_once_in_a_call() -> None:
    offers = [said("给您推荐理财", at, at + 1000) for at in (1000, 30_000, 200_000)]
    assert [d.anchor_ms for d in found(RISK, *offers, until=400_000)] == [2000]


def test_something_must_come_before_something_else() -> None:
    (one,) = found(IDENTITY, said("您的余额是五千", 5000, 8000), until=30_000)
    assert (one.anchor_ms, one.utterance_id) == (5000, "c:agent:5000")
    assert one.evidence.matched == ("您的余额",)
    assert one.evidence.expected == ("核实身份",)
    checked = said("先核实身份", 1000, 3000)
    assert found(IDENTITY, checked, said("您的余额是五千", 5000, 8000), until=30_000) == []
    assert found(IDENTITY, said("核实身份后您的余额", 5000, 8000), until=30_000) == []
    assert len(found(IDENTITY, said("您的余额五千核实身份", 5000, 8000), until=30_000)) == 1
    assert found(IDENTITY, said("好的", 5000, 8000), ended(30_000)) == []


def test_before_waits_for_what_the_other_side_began_to_say_earlier() -> None:
    rules = pack("{absent: {of: {phrase: [我同意], role: customer}, before: {phrase: [给您办理]}}}")
    done = said("给您办理", 6000, 7000, late=500)
    assert found(rules, said("我同意", 3000, 5000, "customer", late=6000), done, until=60_000) == []
    late = said("我不知道", 3000, 5000, "customer", late=6000)
    assert when(rules, late, done, until=60_000) == [11_000]


def test_the_end_of_the_call_ends_the_countdown() -> None:
    assert found(GREETING, ended(9000), until=60_000) == []
    (one,) = found(GREETING, ended(10_200), until=60_000)
    assert one.media_end_ms == 10_000
    assert found(GREETING, heard(8000, 9500), ended(10_200), until=60_000) == []
    last = heard(8000, 9500), ended(10_200), [wrote("再见", 8000, 9500, late=3000)]
    assert when(GREETING, *last, until=60_000) == [12_500], "finals come after the end"
    kept = heard(8000, 9500), ended(10_200), [wrote("您好", 8000, 9500, late=3000)]
    assert found(GREETING, *kept, until=60_000) == []
    assert len(found(IDENTITY, ended(9000), [wrote("您的余额", 7000, 8500, late=3000)])) == 1


def test_partials_settle_nothing() -> None:
    partial = wrote("您好", 8000, 8500, late=100, final=False)
    assert when(GREETING, said("你说", 8000, 9500), [partial], until=60_000) == [11_000]
    assert found(IDENTITY, [wrote("您的余额", 8000, 8500, late=100, final=False)], until=60_000) == []


def test_a_mixed_channel_is_everybody() -> None:
    assert found(GREETING, said("您好", 2000, 3000, "unknown"), until=60_000) == []
    assert when(FIRST, said("喂", 2000, 3000, "unknown"), until=60_000) == [12_500]


def test_with_what_is_known_of_the_call() -> None:
    rules = pack("{absent: {of: {phrase: [您好]}, by: 10}}", more=", queues: [wealth]")
    assert found(rules, until=60_000) == []
    assert len(found(rules, until=60_000, call=CallInfo(call_id="c", queue="wealth"))) == 1


def test_the_countdown_is_shown() -> None:
    states = [(p.media_ms, [(s.state, s.due_ms, s.done_ms) for s in p.steps]) for p in progress(RISK)]
    assert states == [(0, [("waiting", None, None)])]
    offer = said("给您推荐理财", 1000, 2000)
    done = progress(RISK, offer, said("投资有风险", 50_000, 52_000), until=120_000)
    assert [(s.state, s.due_ms, s.done_ms) for p in done for s in p.steps] == [
        ("waiting", None, None),
        ("due", 62_000, None),
        ("done", 62_000, 52_000),
    ]
    missed = progress(RISK, offer, until=120_000)[-1]
    assert (missed.script, missed.media_ms, missed.name["zh"]) == ("rules", 62_500, "不可遗漏")
    (step,) = missed.steps
    assert (step.id, step.name, step.state) == ("t.rule", {"zh": "规", "en": "R"}, "missed")


def test_a_line_on_the_checklist_before_something_else_has_no_deadline() -> None:
    turns = said("核实身份", 1000, 2000), said("您的余额", 5000, 8000)
    states = [(s.state, s.due_ms) for p in progress(IDENTITY, *turns, until=20_000) for s in p.steps]
    assert states == [("waiting", None), ("done", None)]
    missed = progress(IDENTITY, said("您的余额", 5000, 8000), until=20_000)[-1]
    assert missed.steps[0].state == "missed"


def test_rules_on_trial_show_nothing_to_the_agent() -> None:
    rules = pack("{absent: {of: {phrase: [您好]}, by: 10}}", more=", mode: shadow")
    (only,) = stream(rules, until=60_000)
    assert getattr(only.finding, "shadow", False), "counted, and nobody is told"


def test_a_pack_without_deadlines_has_no_checklist() -> None:
    assert progress(pack("{phrase: [您好]}"), said("您好", 1000, 2000)) == []


def test_a_deadline_or_a_turning_point_is_needed_and_only_one_of_them() -> None:
    with pytest.raises(PackError, match="expected one of by, before in absent, came none"):
        pack("{absent: {of: {phrase: [您好]}}}")
    with pytest.raises(PackError, match="expected one of by, before in absent, came by and before"):
        pack("{absent: {of: {phrase: [您好]}, by: 3, before: {phrase: [再见]}}}")
    with pytest.raises(PackError, match="did you mean 'first_speech'"):
        pack("{absent: {of: {phrase: [您好]}, by: 3, after: firstspeech}}")
