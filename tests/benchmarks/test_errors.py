from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import Errors, errors, is_loop, repeated, total

PLAIN = st.text(alphabet="保本息稳赚赔验证码转账投诉", max_size=20)


def test_a_substitution_an_insertion_and_a_deletion_count_one_each() -> None:
    assert errors("身份核实", "身份合适").edits == 2
    assert errors("保本保息", "保本保息的").edits == 1
    assert errors("保本保息", "保本息").edits == 1


def test_the_rate_is_counted_over_all_characters_and_not_over_clips() -> None:
    assert total([Errors(1, 10), Errors(1, 2)]).rate == pytest.approx(2 / 12)


def test_without_a_reference_there_is_no_rate() -> None:
    assert total([]).rate is None


@given(PLAIN)
def test_a_text_has_no_errors_against_itself(text: str) -> None:
    assert errors(text, text).edits == 0


@given(PLAIN, PLAIN)
def test_errors_are_bounded_by_the_longer_text(reference: str, hypothesis: str) -> None:
    assert abs(len(reference) - len(hypothesis)) <= errors(reference, hypothesis).edits
    assert errors(reference, hypothesis).edits <= max(len(reference), len(hypothesis))


def test_a_text_that_repeats_itself_without_end_is_a_loop() -> None:
    assert is_loop("请注意安全" * 20, seconds=30.0)


def test_a_short_clip_with_more_repeats_than_can_be_said_is_a_loop() -> None:
    assert is_loop("日本" * 10, seconds=1.5)


def test_repeats_that_make_it_longer_than_the_reference_are_a_loop() -> None:
    assert is_loop("今天天气好好好好好好好好", seconds=8.0, reference="今天天气好")
    assert not is_loop("今天天气好好好好", seconds=8.0)


def test_a_speaker_who_says_it_three_times_is_no_loop() -> None:
    assert not is_loop("好的好的好的，谢谢", seconds=2.5, reference="好的好的好的谢谢")


def test_a_number_with_equal_digits_repeats_nothing() -> None:
    assert repeated("卡号66666666") == 0


@given(st.text(alphabet="保本息稳赚赔验证码", min_size=1, max_size=12), st.integers(12, 30))
def test_what_is_said_over_and_over_counts_as_repeated(unit: str, times: int) -> None:
    assert repeated(unit * times) >= len(unit) * (times - 1) // 2
