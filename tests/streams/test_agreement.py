from hypothesis import given
from hypothesis import strategies as st

from streams.agreement import agreed


def test_what_both_readings_begin_with_is_agreed():
    assert agreed("我推荐您买这一款", "我推荐您买这一款保本") == "我推荐您买这一款"


def test_a_last_word_that_changes_is_not_agreed():
    assert agreed("我推荐您卖", "我推荐您买这一款") == "我推荐您"


def test_a_first_syllable_that_changes_each_time_does_not_spoil_the_rest():
    assert agreed("以我推荐您买这一款宝", "一我推荐您买这一款保本保息") == "一我推荐您买这一款"


def test_two_readings_that_only_share_a_few_characters_agree_on_nothing():
    assert agreed("今天天气不错我们走", "完全不同的另外一句很长的话我们走") == ""


def test_punctuation_need_not_agree():
    assert agreed("好的,我知道了", "好的。我知道了，再见") == "好的。我知道了"


def test_nothing_before_means_nothing_agreed():
    assert agreed("", "你好") == ""
    assert agreed("你好", "") == ""


@given(st.text(max_size=30), st.text(max_size=30))
def test_it_is_a_beginning_of_the_newer_reading(before, now):
    assert now.startswith(agreed(before, now))


@given(st.text(alphabet="保本收益您好转账", min_size=3, max_size=30))
def test_two_equal_readings_agree_on_everything(text):
    assert agreed(text, text) == text
