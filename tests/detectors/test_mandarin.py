from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.mandarin import normalise, to_simplified
from detectors.rules.lexicon import Lexicon
from detectors.sounds import cost, listen, slip, sounds_of

SPEECH = st.text(
    alphabet="一二三四五六七八九十百千万亿零两幺点分之保本息稳赚不赔"
    "嗯啊那个这定样0123456789.,，。%％ ＡＢ臺灣產品３①½",
    max_size=40,
)


@pytest.mark.parametrize(
    ("spoken", "written"),
    [
        ("百分之三点八五", "3.85%"),
        ("３．８５％", "3.85%"),
        ("幺八六", "186"),
        ("一二三七八", "12378"),
        ("三万五", "35000"),
        ("3.5万", "35000"),
        ("12,000元", "12000元"),
        ("两百零五", "205"),
        ("百分之百", "100%"),
        ("百分百", "100%"),
        ("我們這個產品", "我们产品"),
        ("嗯，那个，保本！", "保本"),
        ("那那个个", ""),
        ("一定不会", "一定不会"),
        ("千万不要", "千万不要"),
        ("十分满意", "十分满意"),
        ("😀", ""),
    ],
)
def test_what_is_equal_in_speech_becomes_equal_in_text(spoken: str, written: str) -> None:
    assert written == normalise(spoken).text


@pytest.mark.parametrize("about", ["五六百块", "三五万", "二十五六岁", "一百二三十", "两三千", "十二三个"])
def test_about_so_much_is_no_number(about: str) -> None:
    assert normalise(about).text == about


def test_a_pause_ends_a_number() -> None:
    assert normalise("存了三万，五月到期").text == "存了300005月到期"
    satisfied = normalise("存了三万，十分满意").text
    assert satisfied == "存了30000十分满意" == normalise(satisfied).text
    assert normalise("五十分").text == "50分"


@given(st.one_of(SPEECH, st.text(max_size=40)))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text).text
    assert once == normalise(once).text


@given(st.one_of(SPEECH, st.text(max_size=40)))
def test_the_index_map_is_monotone_and_lies_within_the_original(text: str) -> None:
    normal = normalise(text)
    assert len(normal.text) == len(normal.starts) == len(normal.ends)
    assert list(normal.starts) == sorted(normal.starts)
    assert list(normal.ends) == sorted(normal.ends)
    assert all(0 <= a < b <= len(text) for a, b in zip(normal.starts, normal.ends, strict=True))
    assert all(0 <= index <= len(normal.text) for index in normal.breaks)


@given(SPEECH)
def test_every_character_has_at_least_one_sound(text: str) -> None:
    plain = normalise(text).text
    heard = listen(plain)
    assert len(heard.sounds) == len(heard.starts) == len(heard.ends)
    covered = {i for a, b in zip(heard.starts, heard.ends, strict=True) for i in range(a, b)}
    assert set(range(len(plain))) == covered


@given(
    st.text(alphabet="保本息稳赚不赔验证码告诉我投诉你们监管局国家担风险", min_size=4, max_size=12), SPEECH
)
def test_an_exact_match_implies_a_match_by_sound(phrase: str, before: str) -> None:
    wanted = sounds_of(phrase)
    text = normalise(before + "，" + phrase).text
    sounds = listen(text).sounds
    assert wanted == sounds[len(sounds) - len(wanted) :]
    hits = Lexicon([phrase]).scan(normalise(before + "，" + phrase))
    assert any(hit.exact and hit.cost == 0 for hit in hits[0])


PHRASES = [
    "保本保息",
    "百分之三点八五",
    "12378",
    "年化百分之十",
    "打12315投诉",
    "三个月",
    "5月到期",
    "转三万给我",
    "收益翻倍不亏",
    "验证码…告诉我",
    "保证每年百分之五的收益",
]
BY_SOUND = Lexicon(PHRASES)
BY_SOUND_ONLY = Lexicon(PHRASES)
BY_SOUND_ONLY._automaton = Lexicon(["z"])._automaton
HEARD = st.lists(
    st.one_of(
        st.sampled_from([p.replace("…", "") for p in PHRASES]),
        st.sampled_from(["薄本保锡", "打一二三一五投书", "收意翻倍不亏", "保正每年百分之五的收益"]),
        st.text(alphabet="一二三五七八十百千万亿点分之零.%0123456789，嗯月个保本给我", max_size=4),
    ),
    max_size=5,
).map("".join)


@given(HEARD)
def test_an_exact_match_is_a_match_by_sound_too(text: str) -> None:
    normal = normalise(text)
    by_sound = BY_SOUND_ONLY.scan(normal)
    for number, hits in BY_SOUND.scan(normal).items():
        for hit in hits:
            paused = any(hit.start < pause < hit.end for pause in normal.breaks)
            if hit.exact and not paused:
                assert any(
                    (other.start, other.cost) == (hit.start, 0.0) for other in by_sound.get(number, [])
                ), (normal, hit)


@given(HEARD)
def test_a_match_never_begins_or_ends_inside_a_number(text: str) -> None:
    normal = normalise(text)
    for hits in BY_SOUND.scan(normal).values():
        for hit in hits:
            assert not normal.cuts_number(hit.start)
            assert not normal.cuts_number(hit.end)


@given(HEARD)
def test_what_matched_is_found_again_where_it_stands_in_the_original(text: str) -> None:
    normal = normalise(text)
    for hits in BY_SOUND.scan(normal).values():
        for hit in hits:
            first, last = normal.span(hit.start, hit.end)
            assert 0 <= first < last <= len(text)
            if hit.exact:
                assert normalise(text[first:last]).text == normal.text[hit.start : hit.end]


@pytest.mark.parametrize(
    ("meant", "heard"),
    [
        ("保本保息", "薄奔保锡"),
        ("稳赚不赔", "文状不赔"),
        ("收益翻倍", "受益翻倍"),
        ("验证码…告诉我", "验正吗告诉我"),
    ],
)
def test_what_the_model_mishears_is_recognised_by_sound(meant: str, heard: str) -> None:
    (hit,) = Lexicon([meant]).scan(normalise("您看" + heard + "的"))[0]
    assert not hit.exact
    assert 0.5 < hit.confidence < 1


@pytest.mark.parametrize(
    ("phrase", "ordinary"),
    [
        ("绝对不亏", "我绝对不会再来"),
        ("他的手机号是", "您的手机号是多少"),
        ("12378", "123789"),
        ("找律师", "清朝历史研究"),
        ("了结自己", "这不是我说的"),
        ("转到个人", "找到本人"),
    ],
)
def test_ordinary_text_is_not_recognised(phrase: str, ordinary: str) -> None:
    assert Lexicon([phrase]).scan(normalise(ordinary)) == {}


@given(
    st.sampled_from(["zhang", "zan", "nin", "lv", "shi", "hong", "yue"]),
    st.sampled_from(["jia", "wu", "er", "si"]),
)
def test_a_slip_costs_the_same_both_ways_and_at_most_one(one: str, other: str) -> None:
    assert slip(one, other) == slip(other, one)
    assert 0 < slip(one, other) <= 1
    assert slip(one, one) == 0


def test_a_polyphone_sounds_like_each_of_its_readings() -> None:
    ((bank,), (line,), (walk,)) = (sounds_of("行"), sounds_of("航"), sounds_of("形"))
    assert cost(bank, line) == 0 == cost(bank, walk)


def test_traditional_text_becomes_simplified() -> None:
    assert to_simplified("臺灣產品") == "台湾产品"
