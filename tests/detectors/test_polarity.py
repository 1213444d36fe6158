from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.mandarin import normalise
from detectors.polarity import polarity, score, witnesses


@pytest.mark.parametrize(
    "text",
    ["你们这个服务太差了", "气死我了", "我很不满意", "等了很久了，还没解决", "骗子", "慢死了", "不太满意"],
)
def test_complaints_are_below_zero(text: str) -> None:
    assert polarity(text) <= -0.4


@pytest.mark.parametrize("text", ["非常满意", "服务真好，谢谢您", "太好了", "真的很耐心"])
def test_praise_is_above_zero(text: str) -> None:
    assert polarity(text) >= 0.4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "😀",
        "嗯",
        "好",
        "您好，请问有什么可以帮您",
        "我想查一下余额",
        "麻烦您帮我查一下",
        "差不多",
        "请稍等，让您久等了",
        "您的投诉编号是六位数字",
        "不好意思",
        "贵姓",
    ],
)
def test_everyday_words_say_nothing(text: str) -> None:
    assert polarity(text) == 0


def test_a_negation_turns_a_word_round_and_a_pause_ends_it() -> None:
    assert polarity("满意") > 0 > polarity("不是很满意") > polarity("不满意")
    assert polarity("不，满意") == polarity("满意")
    assert polarity("我不生气") > 0 > polarity("我生气")
    assert polarity("没有不满意") > 0


def test_degree_words_before_and_behind_make_a_word_stronger_or_weaker() -> None:
    assert polarity("有点生气") > polarity("生气") > polarity("非常生气")
    assert polarity("着急死了") < polarity("着急")


def test_a_witness_says_where_it_stands_with_what_belongs_to_it() -> None:
    normal = normalise("我觉得，真的不是很满意啊")
    (word,) = witnesses(normal)
    assert normal.text[word.start : word.end] == "真的不是很满意"


@settings(deadline=None)
@given(st.text(max_size=80))
def test_any_text_has_a_score_between_minus_one_and_one(text: str) -> None:
    normal = normalise(text)
    found = witnesses(normal)
    assert -1 <= score(found) <= 1
    assert all(0 <= a.start < a.end <= len(normal.text) for a in found)
    assert all(one.end <= other.start for one, other in pairwise(found))


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["不", "很", "满意", "生气", "，", "死了", "太", "没有", "的"]), max_size=2500)
)
def test_words_without_end_are_no_trouble(words: list[str]) -> None:
    assert -1 <= polarity("".join(words)) <= 1
