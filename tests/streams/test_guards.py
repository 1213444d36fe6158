import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.guards import Reading, decided, recited, rejected, suspicious, without_loops

PROMPT = "以下是银行客服的普通话通话。保本保息、稳赚不赔、验证码、转账、投诉。"


def reading(text="您好请问有什么可以帮您", tokens=None, log_probability=-0.3, no_speech=0.01, seconds=3.0):
    return Reading(text, len(text) if tokens is None else tokens, log_probability, no_speech, seconds)


def test_an_ordinary_reading_is_believed():
    assert rejected(reading(), PROMPT) is None
    assert suspicious(reading()) is None


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (reading(""), "empty"),
        (reading("。。。"), "empty"),
        (reading("请不吝点赞订阅转发打赏支持"), "phantom"),
        (reading("中文字幕由某某提供"), "phantom"),
        (reading("嗯", log_probability=-0.9, no_speech=0.9), "no_speech"),
        (reading(log_probability=-2.0), "log_probability"),
        (reading("好的" * 40, seconds=60), "compression"),
        (reading("一二三四五六七八九十百千万", seconds=0.5), "rate"),
        (reading("以下是银行客服的普通话通话保本保息"), "prompt"),
    ],
)
def test_what_nobody_said_is_rejected(wrong, why):
    assert rejected(wrong, PROMPT) == why


def test_a_single_phrase_of_the_prompt_may_well_have_been_said():
    assert rejected(reading("稳赚不赔", seconds=1.5), PROMPT) is None


@pytest.mark.parametrize(
    ("doubtful", "why"),
    [
        (reading(log_probability=-0.9), "log_probability"),
        (reading("我想问一下" * 6, tokens=12), "compression"),
        (reading(tokens=40), "rate"),
    ],
)
def test_a_doubtful_reading_is_worth_a_second_one(doubtful, why):
    assert suspicious(doubtful) == why


def test_a_loop_is_cut_to_one_and_numbers_are_left_alone():
    assert without_loops("好的好的好的好的好的") == "好的"
    assert without_loops("卡号是6666666666") == "卡号是6666666666"
    assert without_loops("对对对，是这样") == "对对对，是这样"


@given(st.text(max_size=60))
def test_cutting_loops_never_makes_a_text_longer(text):
    assert len(without_loops(text)) <= len(text)


def test_a_text_put_together_from_the_prompt_is_refused_when_the_model_was_not_sure():
    prompt = "以下是银行客服的普通话通话。保本保息、收益翻倍、转到我个人账户"
    said = "收益翻倍或转到我个人账户"
    assert rejected(reading(said, log_probability=-0.7), prompt) == "prompt"
    assert rejected(reading(said, log_probability=-0.2), prompt) is None
    assert rejected(reading("我们这个产品是保本保息的您放心", log_probability=-0.7), prompt) is None


def test_a_reading_that_the_model_hardly_believes_is_refused():
    assert rejected(reading(log_probability=-1.05), "") == "log_probability"
    assert rejected(reading(log_probability=-0.95), "") is None


@pytest.mark.parametrize(
    "said", ["保本保息", "稳赚不赔。", "嗯，验证码", "保本保", "保本保息我现在就帮您提交申请"]
)
def test_a_text_with_words_of_the_prompt_may_have_them_from_there(said):
    assert recited(reading(said), PROMPT)


@pytest.mark.parametrize("said", ["可以的", "我想投诉", "", "。"])
def test_a_text_that_has_words_of_its_own_is_the_callers(said):
    assert not recited(reading(said), PROMPT)


def test_a_run_across_two_words_of_the_prompt_is_none_of_its_words():
    assert not recited(reading("息稳赚"), PROMPT)


@pytest.mark.parametrize(
    ("told", "untold", "by"),
    [
        ("保本保息", "薄奔保锡", "told"),
        ("保本保息", "可以的", "untold"),
        ("保本保息，稳赚不赔", "薄奔保锡，我先问一下", "untold"),
        ("保本保息，我想问一下", "好，我想问一下", "untold"),
        ("保本保息", "", "untold"),
    ],
)
def test_words_of_the_prompt_stay_where_the_reading_without_it_sounds_like_them(told, untold, by):
    one, other = reading(told), reading(untold)
    assert decided(one, other, PROMPT) is {"told": one, "untold": other}[by]


@given(st.text(max_size=30), st.text(max_size=30))
def test_of_two_readings_one_is_taken(told, untold):
    one, other = reading(told), reading(untold)
    assert decided(one, other, told + "、" + PROMPT) in (one, other)
