from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.detectors.stream import heard, matched, pack, problems, said

NEAR = "{near: {a: [承诺], b: [收益, 回报], distance: 4}}"


def test_two_phrases_close_together_are_found_where_they_stand() -> None:
    (found,) = heard(pack(NEAR), said("我们，承诺给您的嗯收益很高", start=1000, end=2300))
    assert matched(found) == ("承诺给您的嗯收益",)
    assert (found.media_start_ms, found.media_end_ms) == (1300, 2100)
    assert found.evidence.expected == ("承诺", "收益")


def test_two_phrases_too_far_apart_are_not() -> None:
    rules = pack(NEAR)
    assert len(heard(rules, said("承诺一二三四收益".replace("一二三四", "给您们的")))) == 1
    assert heard(rules, said("承诺给您们大家的收益")) == []
    assert heard(rules, said("我承诺"), said("有收益", start=9000)) == []


def test_the_order_counts_only_where_it_is_asked_for() -> None:
    ordered = pack("{near: {a: [承诺], b: [收益], ordered: true}}")
    assert len(heard(pack(NEAR), said("收益我承诺"))) == 1
    assert heard(ordered, said("收益我承诺")) == []
    assert len(heard(ordered, said("收益我承诺有收益"))) == 1


def test_phrases_that_overlap_are_not_near_but_one() -> None:
    assert heard(pack("{near: {a: [收益], b: [收益率]}}"), said("收益率")) == []
    assert len(heard(pack("{near: {a: [收益], b: [高收益, 承诺]}}"), said("承诺有高收益"))) == 1


def test_a_pair_cut_by_an_endpoint_is_found_and_one_in_the_first_half_not_twice() -> None:
    rules = pack(NEAR)
    (found,) = heard(rules, said("这个我承诺。", end=2000), said("有收益的", start=2300, end=3000))
    assert matched(found) == ("有收益",)
    assert found.anchor_ms == 2300
    assert len(heard(rules, said("我承诺收益", end=2000), said("放心吧", start=2300, end=3000))) == 1
    assert len(heard(rules, said("我承诺收益", end=2000), said("的收益", start=2300, end=3000))) == 1


def test_a_denied_or_quoted_pair_does_not_count_unless_the_rule_says_so() -> None:
    assert heard(pack(NEAR), said("我们不承诺收益")) == []
    assert heard(pack(NEAR), said("凡是承诺收益的都是骗子")) == []
    assert len(heard(pack("{near: {a: [承诺], b: [收益], negation: false}}"), said("不承诺收益"))) == 1


def test_longer_phrases_are_known_by_sound_where_the_transcript_is_sure_enough() -> None:
    rules = pack("{near: {a: [保本保息], b: [放心]}}")
    (found,) = heard(rules, said("薄奔保锡请放心", confidence=0.9))
    assert found.evidence.how == "pinyin"
    assert heard(rules, said("薄奔保锡请放心", confidence=0.1)) == []


def test_a_partial_raises_early_and_the_final_withdraws_what_it_does_not_hold() -> None:
    early, withdrawn = heard(pack(NEAR), said("承诺收益", final=False, end=3000), said("称赞收益", end=3000))
    assert (early.withdrawn, withdrawn.withdrawn) == (False, True)


def test_odd_texts_are_no_trouble() -> None:
    rules = pack("{near: {a: [保], b: [本], distance: 0}}")
    assert heard(rules, said(""), said("😀"), said("保"), said("本保")) != []
    assert heard(rules, said(""), said("😀"), said("保", start=5000)) == []
    assert len(heard(rules, said("保本" * 5000))) == 1
    assert heard(rules, said("不保本，" * 2500)) == []


@settings(deadline=None)
@given(st.integers(0, 12), st.booleans())
def test_the_distance_is_exact(between: int, swapped: bool) -> None:
    one, other = ("收益", "承诺") if swapped else ("承诺", "收益")
    text = one + "天地玄黄宇宙洪荒日月盈昃"[:between] + other
    assert bool(heard(pack(NEAR), said(text))) == (between <= 4)


@pytest.mark.parametrize(
    ("options", "said_so"),
    [
        ("{a: [承诺]}", "expected 'b' in near, came none"),
        ("{a: [承诺], b: []}", "t.yaml:4:98: expected at least one phrase, came none"),
        ("{a: [嗯], b: [收益]}", "expected a phrase that can be heard"),
        ("{a: [承诺], b: [收益], distance: -1}", "expected distance (characters) as a number from 0 to 200"),
        ("{a: [承诺], b: [收益], order: true}", "did you mean 'ordered'?"),
        ("承诺", "expected near as a mapping"),
    ],
)
def test_a_broken_near_is_refused_with_a_reason(options: str, said_so: str) -> None:
    assert any(said_so in problem for problem in problems(f"{{near: {options}}}"))
