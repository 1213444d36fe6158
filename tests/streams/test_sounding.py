import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.guards import wordless
from streams.sounding import alike


@pytest.mark.parametrize(
    ("told", "untold"),
    [
        ("保本保息", "薄奔保锡"),
        ("稳赚不赔", "文状不赔"),
        ("收益翻倍", "我们是受益反倍的"),
        ("12378", "一二三七八"),
        ("验证码", "那个严正吗"),
    ],
)
def test_what_was_misheard_sounds_like_what_was_said(told, untold):
    assert alike(told, untold)


@pytest.mark.parametrize(
    ("told", "untold"),
    [
        ("国家担保", "可以的"),
        ("国家担保", "我先问一下"),
        ("保本保息", "嗯"),
        ("12378", "好的"),
        ("国家担保", ""),
        ("", "可以的"),
    ],
)
def test_what_has_nothing_in_common_does_not(told, untold):
    assert not alike(told, untold)


@given(st.text(min_size=1, max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_every_text_is_heard_within_itself(text, before, after):
    said = wordless(text)
    assert alike(said, said) == bool(said)
    assert alike(said, wordless(before) + said) in (True, False)
    assert isinstance(alike(said, wordless(before + after)), bool)
