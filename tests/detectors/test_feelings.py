"""What words alone say of a feeling: as customers and agents of a bank speak."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.feelings import FEELINGS, words


@pytest.mark.parametrize(
    ("text", "feeling", "least", "most"),
    [
        ("你们这是什么态度，气死我了！", "angry", 7, 10),
        ("你他妈的会不会办事", "angry", 9, 10),
        ("凭什么扣我的钱", "angry", 5, 8),
        ("你们就是骗子，我跟你们没完", "angry", 9, 10),
        ("我对你们的服务非常不满意", "displeased", 5, 8),
        ("打了好几次都没人管", "displeased", 4, 8),
        ("怎么还没到账，等了半天了", "displeased", 3, 6),
        ("我特别着急，家里等着用钱", "anxious", 5, 8),
        ("我妈的卡在他妈妈那里，麻烦您查一下", "calm", 0, 0),
        ("这个安全不安全，满不满一年", "calm", 0, 0),
        ("我害怕钱被骗走了怎么办", "anxious", 5, 8),
        ("我真的撑不住了，走投无路", "sad", 6, 10),
        ("活着没意思，我不想活了", "sad", 9, 10),
        ("太好了，太感谢你们了，服务很好", "pleased", 6, 10),
        ("谢谢您", "pleased", 2, 5),
        ("我想查一下信用卡账单", "calm", 0, 0),
        ("嗯，对，好的", "calm", 0, 0),
        ("", "calm", 0, 0),
    ],
)
def test_what_a_customer_says(text, feeling, least, most):
    found = words(text, "customer")
    assert found.feeling == feeling
    assert least <= found.level <= most


@pytest.mark.parametrize("text", ["我不着急，你慢慢来", "没有生气，就是问一下", "我不担心", "我并不是很着急"])
def test_a_denied_feeling_is_none(text):
    assert words(text, "customer").feeling == "calm"


@pytest.mark.parametrize("text", ["我不满意", "一点也不高兴", "我不是很满意"])
def test_pleasure_denied_is_displeasure(text):
    found = words(text, "customer")
    assert found.feeling == "displeased"
    assert found.level >= 2


def test_intensity_tells_in_both_directions():
    plain = words("我生气", "customer").level
    assert words("我非常生气", "customer").level > plain
    assert words("我有点生气", "customer").level < plain
    assert words("烦死了", "customer").level > words("烦", "customer").level


def test_a_comma_ends_the_reach_of_a_negation():
    assert words("不，生气", "customer").feeling == "angry"


@pytest.mark.parametrize(
    "text",
    [
        "您别着急，我帮您看一下",
        "非常理解您的心情，让您担心了",
        "请您不要生气",
        "您先别难过",
        "抱歉给您带来麻烦，让您久等了",
        "感谢您的来电，请问有什么可以帮您",
        "谢谢，再见",
    ],
)
def test_an_agents_courtesy_and_comfort_are_no_feeling_of_the_agent(text):
    found = words(text, "agent")
    assert found.level < 6.5
    assert found.feeling in ("calm", "pleased")


@pytest.mark.parametrize("text", ["你有病吧", "你他妈闭嘴", "滚蛋，别再打来了"])
def test_an_agent_who_abuses_is_angry(text):
    found = words(text, "agent")
    assert found.feeling == "angry"
    assert found.level >= 7


def test_traditional_characters_and_fillers_change_nothing():
    assert words("我 嗯 很 生氣", "customer") == words("我很生气", "customer")


def test_more_of_the_same_is_more_but_never_more_than_ten():
    once, often = words("我很生气", "customer"), words("我很生气" * 30, "customer")
    assert once.level < often.level <= 10


@given(st.text(max_size=80), st.sampled_from(["agent", "customer", "unknown"]))
def test_any_text_has_a_level(text, role):
    found = words(text, role)
    assert 0 <= found.level <= 10
    assert (found.feeling == "calm") == (found.level == 0)
    assert set(found.scores) == set(FEELINGS)
