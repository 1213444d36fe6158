from hypothesis import given
from hypothesis import strategies as st

from streams.agreement import ALONE, BEHIND, settled


def kept(before, now):
    return now[: settled(before, now)]


def test_what_two_readings_agree_on_is_settled_once_two_characters_follow_it():
    assert kept("我推荐您买这一款", "我推荐您买这一款保本") == "我推荐您买这一款"
    assert kept("我推荐您买这一款", "我推荐您买这一款保") == "我推荐您买这一"
    assert BEHIND == 2


def test_a_word_that_changes_is_not_settled():
    assert kept("我推荐您卖", "我推荐您买") == "我推荐"


def test_a_first_syllable_that_changes_each_time_does_not_spoil_the_rest():
    assert kept("以我推荐您买这一款宝", "一我推荐您买这一款保本") == "一我推荐您买这一款"


def test_one_reading_alone_settles_what_is_more_than_a_second_old():
    assert kept("", "一二三四五六七八九十") == "一二三四五六"
    assert ALONE == 4


def test_a_reading_that_the_model_is_sure_of_settles_half_a_second_earlier():
    text = "一二三四五六七八九十"
    assert text[: settled("", text, confidence=0.9)] == "一二三四五六七八"


def test_two_readings_that_share_a_few_characters_by_chance_settle_nothing():
    assert kept("今天天气不错我们走", "另外一句我们走") == "另外一"


def test_punctuation_need_not_agree_and_does_not_count():
    assert kept("好的,我知道了那么再见", "好的。我知道了，那么再见") == "好的。我知道了，那么"


def test_nothing_before_and_little_now_settles_nothing():
    assert kept("", "你好") == ""
    assert kept("你好", "") == ""
    assert kept("", "，。！") == ""


@given(st.text(max_size=30), st.text(max_size=30))
def test_it_is_within_the_newer_reading(before, now):
    assert 0 <= settled(before, now) <= len(now)


@given(st.text(alphabet="保本收益您好转账", min_size=3, max_size=30))
def test_two_equal_readings_settle_all_but_the_end(text):
    assert settled(text, text) == len(text) - BEHIND
