from hypothesis import given
from hypothesis import strategies as st

from streams.agreement import agreed


def test_what_both_readings_begin_with_is_agreed():
    assert agreed("我推荐您买这一款", "我推荐您买这一款保本") == "我推荐您买这一款"


def test_a_word_that_changes_ends_the_agreement():
    assert agreed("我推荐您卖", "我推荐您买这一款") == "我推荐您"


def test_punctuation_need_not_agree():
    assert agreed("好的,我知道了", "好的。我知道了，再见") == "好的。我知道了"


def test_nothing_before_means_nothing_agreed():
    assert agreed("", "你好") == ""


@given(st.text(max_size=30), st.text(max_size=30))
def test_it_is_a_beginning_of_the_newer_reading(before, now):
    assert now.startswith(agreed(before, now))


@given(st.text(max_size=30))
def test_two_equal_readings_agree_on_all_but_a_last_full_stop(text):
    assert agreed(text, text) == text or not any(c.isalnum() for c in text[len(agreed(text, text)) :])
