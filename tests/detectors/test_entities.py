from __future__ import annotations

from datetime import date

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from detectors.entities import Entity, entities, is_resident_id, passes_luhn
from detectors.mandarin import normalise

PHONE = "13800138000"
CARD = "6222021234567890003"
RESIDENT = "11010519491231002X"


def found(text: str) -> list[tuple[str, str]]:
    return [(one.kind, one.value) for one in entities(normalise(text))]


def check_digit(digits: str) -> str:
    return next(d for d in "0123456789" if passes_luhn(digits + d))


@st.composite
def cards(draw: st.DrawFn) -> str:
    first = draw(st.sampled_from(["62", "4", "51", "9558", "35"]))
    size = draw(st.integers(15, 18)) - len(first)
    digits = first + draw(st.text("0123456789", min_size=size, max_size=size))
    card = digits + check_digit(digits)
    # One in some thousand is an identity card as well, by chance.
    assume(not is_resident_id(card))
    return card


SPOKEN = ["零洞〇", "一幺", "二", "三", "四", "五", "六", "七", "八", "九"]
BETWEEN = ["", "", "", " ", "，", "-", "嗯", "，然后", "，那个，", "。"]


@st.composite
def saying(draw: st.DrawFn, digits: str) -> str:
    """The digits as people say them: written or spoken, with pauses, fillers and small words between."""
    said = ""
    for at, digit in enumerate(digits):
        ways = (
            [digit, chr(ord("０") + int(digit)), *SPOKEN[int(digit)]] if digit.isdecimal() else list("Xxｘ叉")
        )
        said += (draw(st.sampled_from(BETWEEN)) if at else "") + draw(st.sampled_from(ways))
    return said


@settings(max_examples=40, deadline=None)
@given(st.data(), cards())
def test_a_valid_card_is_found_however_it_is_said(data: st.DataObject, card: str) -> None:
    assert ("bank_card", card) in found(f"我的卡号是{data.draw(saying(card))}，记下了吗")


@settings(max_examples=40, deadline=None)
@given(st.data(), cards(), st.integers(0, 18), st.integers(1, 9))
def test_a_card_with_one_wrong_digit_is_none(data: st.DataObject, card: str, at: int, by: int) -> None:
    at %= len(card)
    wrong = card[:at] + str((int(card[at]) + by) % 10) + card[at + 1 :]
    kinds = [kind for kind, _ in found(f"我的卡号是{data.draw(saying(wrong))}，记下了吗")]
    assert "bank_card" not in kinds


@st.composite
def residents(draw: st.DrawFn) -> str:
    born = draw(st.dates(date(1900, 1, 1), date(2099, 12, 31)))
    body = "110105" + born.strftime("%Y%m%d") + draw(st.text("0123456789", min_size=3, max_size=3))
    return next(body + check for check in "0123456789X" if is_resident_id(body + check))


@settings(max_examples=40, deadline=None)
@given(st.data(), residents())
def test_a_valid_identity_card_is_found_however_it_is_said(data: st.DataObject, number: str) -> None:
    assert found(f"身份证{data.draw(saying(number))}") == [("resident_id", number)]


@settings(max_examples=40, deadline=None)
@given(st.data(), residents(), st.sampled_from("0123456789X"))
def test_an_identity_card_with_a_wrong_check_character_is_none(
    data: st.DataObject, number: str, check: str
) -> None:
    assume(check != number[-1])
    assert "resident_id" not in [kind for kind, _ in found(data.draw(saying(number[:-1] + check)))]


@settings(max_examples=40, deadline=None)
@given(st.data(), st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True))
def test_a_mobile_number_is_found_however_it_is_said(data: st.DataObject, phone: str) -> None:
    assert found(f"我的号码是{data.draw(saying(phone))}") == [("phone", phone)]


@settings(deadline=None)
@given(st.text(max_size=120))
def test_any_text_is_read_without_trouble_and_what_is_found_lies_in_it(text: str) -> None:
    normal = normalise(text)
    before = 0
    for one in entities(normal):
        assert before <= one.start < one.end <= len(normal.text)
        before = one.end


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (f"尾号6222，{CARD}", CARD),
        (f"{CARD}，{PHONE}", CARD),
        (f"{PHONE}，{CARD}。", CARD),
        ("4111 1111 1111 1111", "4111111111111111"),
        ("378282246310005", "378282246310005"),
    ],
)
def test_cards_are_found_beside_other_numbers(text: str, number: str) -> None:
    assert ("bank_card", number) in found(text)


@pytest.mark.parametrize(
    "text",
    [
        CARD[:-1] + "9",
        CARD + "1",
        "1" + CARD,
        f"{CARD[:16]}，{CARD[16:-1]}7",
        "0000000000000000",
        "1" * 10_000,
        "",
        "六",
        "😀",
    ],
)
def test_these_are_no_cards(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("幺三八零零幺三八零零零", PHONE),
        ("一三八，零零一三，八零零零", PHONE),
        ("+86 138-0013-8000", "8613800138000"),
        ("010-88886666", "01088886666"),
        ("零七五五二六六八八八八八", "075526688888"),
        ("13800138000，3456", PHONE),
    ],
)
def test_telephones_are_found(text: str, number: str) -> None:
    assert found(text) == [("phone", number)]


@pytest.mark.parametrize(
    "text", ["请拨打95588", "4008895588", "12345678901", "138001380001", "2026年11月22号"]
)
def test_hot_lines_dates_and_other_numbers_are_no_telephones(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "yuan"),
    [
        ("五万块钱", "50000"),
        ("给我转五万过来", "50000"),
        ("一万二", "12000"),
        ("三点五万", "35000"),
        ("3.5万元", "35000"),
        ("15,000元", "15000"),
        ("￥1,234.50", "1234.5"),
        ("三块五", "3.5"),
        ("十二块八毛五", "12.85"),
        ("五毛钱", "0.5"),
        ("一百二十三万四千五百元", "1234500"),
        ("两亿", "200000000"),
        ("二十多万块", "200000"),
        ("两三万", "20000"),
        ("二三十万", "200000"),
        ("十五六万", "150000"),
        ("余额还有1200", "1200"),
        ("扣了八十多块", "80"),
        ("五百美元", "500"),
    ],
)
def test_sums_are_read_in_yuan(text: str, yuan: str) -> None:
    assert found(text) == [("amount", yuan)]


@pytest.mark.parametrize(
    "text",
    [
        "五万人",
        "百分之五",
        "年化3.85%",
        "买一百股",
        "第3期",
        "还三个月",
        "请按1号键",
        "3点50",
        "五百强",
        "转一下",
    ],
)
def test_what_is_counted_otherwise_is_no_sum(text: str) -> None:
    assert found(text) == []


def test_a_pause_parts_two_sums_and_ends_one() -> None:
    assert found("存了三万，五月到期") == [("amount", "30000")]
    assert found("贷三十万，月供八千元") == [("amount", "300000"), ("amount", "8000")]
    assert found("投十万块，一年就好") == [("amount", "100000")]
    assert found("转了15，3000元") == [("amount", "15"), ("amount", "3000")]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("验证码是123456", "123456"),
        ("验证码一二三四", "1234"),
        ("四八二九一零，这是验证码", "482910"),
        ("验证码123456，十分钟内有效", "123456"),
        ("动态码是四八，二九，幺零", "482910"),
        ("校验码12345678", "12345678"),
    ],
)
def test_one_time_codes_stand_near_their_word(text: str, code: str) -> None:
    assert found(text) == [("one_time_code", code)]


@pytest.mark.parametrize(
    "text",
    [
        "123456",
        "您收到的六位验证码是多少",
        "验证码请拨打95588",
        "验证码123",
        "验证码123456789",
        "验证码2026年过期",
        "验证码我收到了，可是它一直没有反应，我昨天就打过电话了123456",
    ],
)
def test_digits_elsewhere_and_other_digits_are_no_codes(text: str) -> None:
    assert found(text) == []


def test_digits_alone_are_a_code_where_one_was_asked_for() -> None:
    assert entities(normalise("四八二九一零"), asked=True) == [Entity("one_time_code", 0, 6, "482910")]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("我住在上海市浦东新区张江路一百二十三号五栋三零二", "上海市浦东新区张江路123号5栋302"),
        ("寄到中山路88号", "中山路88号"),
        ("地址是阳光花园三号楼二单元五零二室", "阳光花园3号楼2单元502室"),
        ("家在湖南省长沙市岳麓区麓谷街道", "湖南省长沙市岳麓区麓谷街道"),
    ],
)
def test_addresses_are_found(text: str, address: str) -> None:
    assert found(text) == [("address", address)]


@pytest.mark.parametrize("text", ["我在路上", "附近的网点在哪", "三号线", "上海市", "您走哪条路", "二号窗口"])
def test_places_without_a_number_or_a_region_are_no_addresses(text: str) -> None:
    assert found(text) == []


def test_only_the_wanted_kinds_are_told_but_all_are_known() -> None:
    assert entities(normalise(f"卡号{CARD}"), ["amount", "phone"]) == []
    assert [e.kind for e in entities(normalise(f"转三万到{CARD}"), ["amount"])] == ["amount"]
