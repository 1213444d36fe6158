from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.normalise import comparable

CHINESE = st.text(
    alphabet="零一二三四五十百千万亿点年元两的我是VvＡ0123456789.%， 。萬塊錢百分之", max_size=30
)


@pytest.mark.parametrize(
    ("written", "other"),
    [
        ("一点二万元", "1.2 萬元"),
        ("一九九零年后", "1990年後"),
        ("V二V", "Ｖ２ｖ"),
        ("L O G O", "logo"),
        ("百分之三点五", "3.5%"),
        ("四千万炒股", "4000万炒股"),
        ("你好，世界！", "你好世界"),
        ("十七年", "17年"),
    ],
)
def test_two_ways_of_writing_the_same_are_equal(written: str, other: str) -> None:
    assert comparable(written) == comparable(other)


def test_fillers_are_kept() -> None:
    assert comparable("嗯，那个好") == "嗯那个好"


def test_words_with_a_numeral_in_them_stay_words() -> None:
    assert comparable("一定十分一起") == "一定十分一起"


@given(CHINESE)
def test_comparing_twice_changes_nothing(text: str) -> None:
    once = comparable(text)
    assert once == comparable(once)


@given(st.text(max_size=40))
def test_nothing_but_letters_digits_and_percent_is_left(text: str) -> None:
    assert all(c.isalnum() or c == "%" or not c.isascii() for c in comparable(text))
