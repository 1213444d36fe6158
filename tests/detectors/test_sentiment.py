from __future__ import annotations

import pytest

from detectors.rules import Pack
from streams.events import Transcript
from tests.detectors.stream import heard, matched, pack, problems, said


def feels(options: str) -> Pack:
    return pack(f"{{sentiment: {{{options}}}}}", role="customer")


def says(text: str, at: int) -> Transcript:
    return said(text, role="customer", start=at)


def test_displeasure_over_several_turns_is_raised_in_the_last_where_its_words_stand() -> None:
    turns = [says("你们太慢了", 1000), says("真是差劲", 5000), says("我说，气死我了", 9000)]
    (found,) = heard(feels("below: -0.4, turns: 3"), *turns)
    assert matched(found) == ("气死我了",)
    assert (found.media_start_ms, found.media_end_ms) == (9300, 9700)
    assert found.evidence.how == "signal"


def test_one_bad_turn_among_good_ones_and_too_few_turns_are_not() -> None:
    rules = feels("below: -0.4, turns: 3")
    assert heard(rules, says("谢谢你", 1000), says("服务真好", 5000), says("气死我了", 9000)) == []
    assert heard(rules, says("真差劲", 1000), says("气死我了", 5000)) == []
    others = [said("真差劲", role="agent", start=t) for t in (1000, 3000)]
    assert heard(rules, *others, says("气死我了", 5000)) == [], "the agent's turns are not the customer's"


def test_a_neutral_turn_after_bad_ones_raises_nothing_new() -> None:
    turns = [says("真差劲", 1000), says("气死我了", 5000), says("行吧", 9000)]
    assert heard(feels("below: -0.3, turns: 3"), *turns) == []


def test_turns_without_a_word_do_not_count() -> None:
    turns = [says("真差劲", 1000), says("嗯", 3000), says("", 4000), says("气死我了", 5000)]
    assert len(heard(feels("below: -0.4, turns: 2"), *turns)) == 1


def test_praise_counts_where_above_is_asked_for() -> None:
    (found,) = heard(feels("above: 0.5"), says("你的服务真好，谢谢您", 1000))
    assert matched(found) == ("服务真好", "谢谢您")
    assert heard(feels("above: 0.5"), says("谢谢您", 1000), says("太差了", 5000)) == []


def test_words_of_the_turn_before_are_not_counted_twice() -> None:
    turns = [says("我气死了", 1000), said("好吧", role="customer", start=1700, end=2500)]
    assert len(heard(feels("below: -0.4"), *turns)) == 1


def test_a_negation_cut_off_by_an_endpoint_still_turns_the_word_round() -> None:
    first = said("我真的不是很", role="customer", start=1000, end=2000)
    (found,) = heard(feels("below: -0.3"), first, said("满意", role="customer", start=2200, end=2600))
    assert matched(found) == ("满意",)


def test_a_partial_raises_and_a_final_without_it_withdraws() -> None:
    partial = said("气死我了", role="customer", final=False, end=2000)
    early, withdrawn = heard(feels("below: -0.4"), partial, said("其实我来", role="customer", end=2000))
    assert (early.withdrawn, withdrawn.withdrawn) == (False, True)


def test_odd_texts_are_no_trouble() -> None:
    rules = feels("below: -0.4")
    assert heard(rules, says("", 0), says("😀", 1000), says("气", 2000), says("好" * 10_000, 3000)) == []
    assert len(heard(rules, says("气死我了" * 2500, 1000))) == 1


@pytest.mark.parametrize(
    ("options", "said_so"),
    [
        ("{turns: 3}", "t.yaml:4:90: expected one of below, above in sentiment, came none"),
        ("{below: -0.4, above: 0.4}", "came below and above"),
        ("{below: -4}", "expected below as a number from -1 to 1, came '-4'"),
        ("{below: -0.4, turns: 0}", "expected turns as a number from 1 to 10"),
        ("{belw: -0.4}", "did you mean 'below'?"),
    ],
)
def test_a_broken_sentiment_is_refused_with_a_reason(options: str, said_so: str) -> None:
    assert any(said_so in problem for problem in problems(f"{{sentiment: {options}}}"))
