from hypothesis import given
from hypothesis import strategies as st

from streams.bias import OPENING, bias, spoken
from streams.events import CallInfo


def test_the_rules_words_follow_what_kind_of_speech_comes():
    assert bias(CallInfo(call_id="c"), ["保本保息", "验证码"]) == f"{OPENING}保本保息、验证码。"


def test_without_rules_the_model_still_learns_what_kind_of_speech_comes():
    assert bias(CallInfo(call_id="c"), []) == OPENING


def test_the_calls_own_names_come_before_the_rules_words():
    call = CallInfo(call_id="c", attributes={"agent_name": "张伟", "product": "稳健增利三号", "seat": "七号"})
    assert bias(call, ["保本保息"]) == f"{OPENING}稳健增利三号、张伟、保本保息。"


def test_a_name_that_is_a_rules_word_too_is_told_once():
    call = CallInfo(call_id="c", attributes={"product": "保本保息"})
    assert bias(call, ["保本保息"]) == f"{OPENING}保本保息。"


def test_what_nobody_says_aloud_is_left_out():
    assert spoken("SKU-20931") == ""
    assert spoken("稳健增利三号（A 类）") == "稳健增利三号"
    assert spoken("一" * 17) == ""


@given(st.text(max_size=80))
def test_telephony_cannot_put_a_sentence_into_the_prompt(value):
    told = bias(CallInfo(call_id="c", attributes={"product": value}), [])
    assert len(told) <= len(OPENING) + 17
    assert "\n" not in told
