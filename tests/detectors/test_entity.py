from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.rules import Pack
from streams.events import Detection, Transcript
from tests.detectors.stream import heard, matched, pack, problems, said

CARD = "6222021234567890003"
"""Valid, and not already where one to four digits are still to come."""


def tells(kinds: str) -> Pack:
    return pack(f"{{entity: {kinds}}}", role="customer")


def parts(*texts: str, gap: int = 800, start: int = 1000) -> list[Transcript]:
    """One speaker's utterances one after the other, a second each."""
    return [
        said(text, role="customer", start=start + at * (1000 + gap), end=start + at * (1000 + gap) + 1000)
        for at, text in enumerate(texts)
    ]


def raised(rules: Pack, *events: Transcript) -> list[Detection]:
    return [d for d in heard(rules, *events) if not d.withdrawn]


def test_a_spoken_card_is_found_where_it_stands() -> None:
    text = "我的卡号是六二二二，零二幺二，三四五六，嗯，七八九零，零零三，对吧"
    (found,) = heard(tells("[bank_card]"), said(text, role="customer", start=0))
    assert matched(found) == ("六二二二，零二幺二，三四五六，嗯，七八九零，零零三",)
    assert (found.media_start_ms, found.media_end_ms) == (500, 3000)
    assert (found.evidence.how, found.evidence.expected) == ("entity", ("bank_card",))


def test_a_card_with_a_wrong_digit_is_not() -> None:
    rules = tells("[bank_card]")
    assert heard(rules, *parts("六二二二，零二幺二，三四五六，七八九零，零零四")) == []
    assert heard(rules, *parts("六二二二零二幺二三四五", "六七八九零零零四")) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 18), min_size=1, max_size=5, unique=True),
    st.sampled_from([0, 500, 1500, 3000]),
)
def test_a_card_said_in_several_utterances_is_found_in_the_one_that_completes_it(
    cuts: list[int], gap: int
) -> None:
    edges = [0, *sorted(cuts), len(CARD)]
    texts = [CARD[a:b] for a, b in pairwise(edges)]
    utterances = parts("我的卡号是" + texts[0], *texts[1:], gap=gap)
    found = raised(tells("bank_card"), *utterances)
    assert [d.anchor_ms for d in found] == [utterances[-1].start_ms]
    assert matched(found[0]) == (texts[-1],)


def test_a_number_does_not_go_on_after_a_long_pause_or_other_words() -> None:
    rules = tells("[bank_card]")
    first, rest = "六二二二零二一二三四五", "六七八九零零零三"
    assert len(heard(rules, *parts(first, rest))) == 1
    assert heard(rules, *parts(first, rest, gap=3001)) == []
    assert heard(rules, *parts(first, "等一下我看看", rest)) == []


def test_the_other_sides_echo_does_not_cut_a_number_in_two_nor_complete_it() -> None:
    rules = tells("[bank_card]")
    one, other = parts(CARD[:8], CARD[8:], gap=1500)
    echo = said("六二二二零二一二对吗", start=2200, end=3000)
    assert len(heard(rules, one, echo, other)) == 1
    assert heard(rules, one, said(CARD[8:], start=3500, end=4500)) == []


def test_a_number_that_was_whole_before_is_not_raised_again_by_what_follows() -> None:
    rules = tells("[bank_card, phone]")
    assert len(heard(rules, *parts(f"卡号是{CARD}", "是的"))) == 1
    assert len(heard(rules, *parts(f"卡号是{CARD}", "零零三"))) == 1
    two = heard(rules, *parts(f"卡号是{CARD}", "电话一三八零零一三八零零零"))
    assert [d.evidence.expected for d in two] == [("bank_card",), ("phone",)]


def test_a_sum_counts_from_so_many_yuan() -> None:
    rules = tells("{any: [amount], at_least: 50000}")
    (found,) = heard(rules, *parts("我要转五万块到那边"))
    assert matched(found) == ("五万块",)
    assert heard(rules, *parts("我要转四万九千块")) == []
    assert len(heard(tells("amount"), *parts("我要转一百块"))) == 1


def test_a_code_is_found_near_its_word_also_across_the_cut_or_in_answer_to_a_question() -> None:
    rules = tells("[one_time_code]")
    assert len(heard(rules, *parts("验证码是四八二九一零"))) == 1
    assert len(heard(rules, *parts("验证码是", "四八二九一零"))) == 1
    assert heard(rules, *parts("四八二九一零")) == []
    asked = said("请把验证码念给我", start=0, end=900)
    (found,) = heard(rules, asked, *parts("嗯，四八二九，一零"))
    assert matched(found) == ("四八二九，一零",)
    assert heard(rules, asked, *parts("我上个月工号四八二九一零那位帮我办的业务")) == []
    assert heard(rules, asked, said("请稍等", start=3000), *parts("四八二九一零", start=4000)) == []


def test_a_partial_raises_early_and_the_final_confirms_or_withdraws_it() -> None:
    partial = said(f"卡号{CARD}", role="customer", end=3000, final=False)
    early, confirmed = heard(tells("[bank_card]"), partial, said(f"我卡号{CARD}", role="customer", end=3000))
    assert early.anchor_ms == confirmed.anchor_ms
    assert matched(confirmed) == (CARD,)
    final = said(f"卡号{CARD}9", role="customer", end=3000)
    assert [d.withdrawn for d in heard(tells("[bank_card]"), partial, final)] == [False, True]


def test_several_things_in_one_utterance_are_one_detection() -> None:
    (found,) = heard(tells("[phone, amount]"), *parts("电话13800138000，转三万元"))
    assert matched(found) == ("13800138000", "三万元")
    assert found.evidence.expected == ("phone", "amount")


def test_odd_texts_are_no_trouble() -> None:
    rules = tells("[bank_card, resident_id, phone, amount, one_time_code, address]")
    assert heard(rules, *parts("", "😀", "一", "1" * 10_000, "1 " * 5000, "一，" * 5000, "路" * 10_000)) == []


@pytest.mark.parametrize(
    ("options", "said_so"),
    [
        ("[bankcard]", "t.yaml:4:88: expected an entity as one of bank_card, resident_id, phone, amount"),
        ("[bankcard]", "did you mean 'bank_card'?"),
        ("[]", "expected at least one of bank_card, resident_id"),
        ("{any: [phone], at_least: 5}", "expected at_least only where any has amount"),
        ("{any: [amount], at_least: viel}", "expected at_least (yuan) as a number from 0"),
        ("{at_least: 5}", "expected 'any' in entity, came none"),
    ],
)
def test_a_broken_entity_is_refused_with_a_reason(options: str, said_so: str) -> None:
    assert any(said_so in problem for problem in problems(f"{{entity: {options}}}"))
