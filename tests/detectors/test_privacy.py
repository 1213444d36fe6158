from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.privacy import redact


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("卡号6222021234567890123", "卡号***************0123"),
        ("卡号是六二二二零二一三四五六七八九零一二三", "卡号是**************零一二三"),
        ("手机号幺三八零零零零一二三四", "手机号*******一二三四"),
        ("11010119900307123X是我的", "**************123X是我的"),
        ("验证码是385291", "验证码是******"),
        ("密码三八五二九一", "密码******"),
        ("CVV是 123", "CVV是 ***"),
        ("385291这个验证码", "******这个验证码"),
        ("我转了五万块", "我转了五万块"),
        ("一共12345678元", "一共12345678元"),
        ("请打12378", "请打12378"),
        ("尾号1234", "尾号1234"),
        ("4008888888", "4008888888"),
        ("2024-05-06", "2024-05-06"),
    ],
)
def test_private_numbers_are_masked_and_money_stays(said: str, shown: str) -> None:
    assert shown == redact(said)


@given(st.text())
def test_masking_keeps_the_length_and_every_other_character(text: str) -> None:
    masked = redact(text)
    assert len(text) == len(masked)
    assert all(b in (a, "*") for a, b in zip(text, masked, strict=True))


@given(st.text(alphabet="0123456789", min_size=16, max_size=19), st.sampled_from(["", "我的卡号是", "card "]))
def test_a_card_number_never_survives(digits: str, before: str) -> None:
    masked = redact(before + digits)[len(before) :]
    assert "*" * (len(digits) - 4) + digits[-4:] == masked


@given(st.text(alphabet="零一二三四五六七八九", min_size=4, max_size=8))
def test_a_spoken_code_is_masked_whole(code: str) -> None:
    assert "验证码" + "*" * len(code) == redact("验证码" + code)
