"""Numbers and places that people say: cards, identity cards, telephones, sums, one-time codes, addresses.

Pure recognition over normalised text, in which spoken digits are digits (六二二二, 幺三八), fillers are
gone and pauses are known. A number may be told in groups with pauses and small words between them (六二二二，
然后零二一二); it counts only as a whole: part of a longer number is no number, or a card with a wrong digit
would have a right one in it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator
from datetime import date
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Final, Literal, NamedTuple, get_args

import re2

from detectors.mandarin import Normal, normalise

Kind = Literal["bank_card", "resident_id", "phone", "amount", "one_time_code", "address"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


class Entity(NamedTuple):
    """Something recognised. Ranges are of the normalised text."""

    kind: Kind
    start: int
    end: int
    value: str
    """Digits without what stands between them (``X`` in an identity card); yuan; or the address as heard."""


def entities(normal: Normal, kinds: Collection[Kind] = KINDS, asked: bool = False) -> list[Entity]:
    """Everything of the wanted kinds, in order; none overlap.

    ``asked``: the other side has just asked for a one-time code, so the word need not stand here.
    Linear in the text's length. Numbers are told apart even where only one kind is wanted: the digits
    of a telephone are no sum of money.
    """
    found: list[Entity] = []
    for run in _runs(normal):
        found += _numbers(normal, run, asked)
    if "amount" in kinds:
        taken = [(one.start, one.end) for one in found]
        found += [
            sum_
            for sum_ in (*_amounts(normal), *_about(normal))
            if all(sum_.end <= a or b <= sum_.start for a, b in taken)
        ]
    if "address" in kinds:
        found += _addresses(normal)
    found = sorted((one for one in found if one.kind in kinds), key=lambda one: (one.start, -one.end))
    kept: list[Entity] = []
    for one in found:
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
    return kept


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of those before it (ISO/IEC 7812)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_resident_id(text: str) -> bool:
    """Province, date of birth and check character (ISO 7064 MOD 11-2, ``X`` for ten) of GB 11643."""
    if len(text) != 18 or not text[:17].isdecimal() or text[:2] not in _PROVINCES:
        return False
    try:
        born = date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(text, _WEIGHTS, strict=False))
    return 1900 <= born.year < 2100 and _CHECKS[total % 11] == text[17].upper()


_PROVINCES: Final = frozenset(
    str(number)
    for low, high in ((11, 15), (21, 23), (31, 37), (41, 46), (50, 54), (61, 65), (71, 71), (81, 83))
    for number in range(low, high + 1)
)
_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECKS: Final = "10X98765432"


def asks_for_code(normal: Normal) -> bool:
    """Whether somebody speaks of a one-time code, so that digits in answer to that are one."""
    return _CODE_WORD.search(normal.text) is not None


def continues(text: str, before: str) -> bool:
    """Whether ``text`` may go on with a number that ``before`` began: digits at the end and at the begin."""
    return (
        _BEGINS.match(normalise(text).text) is not None and _ENDS.search(normalise(before).text) is not None
    )


# ── numbers said digit by digit ───────────────────────────────────────────────────────────────────

_SPOKEN: Final = dict(zip("零〇洞一幺二三四五六七八九", "0001123456789", strict=True))
_DIGIT: Final = r"(?:[0-9零〇洞幺二三四五六七八九]|一(?![定样起直些旦般切律概共边再向味心手]))"
_JOINER: Final = r"(?:然后|接着|后面是|后面|后边是|后边|还有|再|是|对|横杠|杠)"
_RUN: Final = re.compile(rf"{_DIGIT}(?:{_JOINER}?{_DIGIT})*(?:{_JOINER}?(?:x(?![a-z])|叉|[艾爱埃]克斯))?")
_ONE: Final = re.compile(rf"{_DIGIT}|x|叉|[艾爱埃]克斯")
_FEWEST_DIGITS: Final = 4
_BEGINS: Final = re.compile(rf"{_JOINER}?(?:{_DIGIT}|x(?![a-z])|叉)")
_ENDS: Final = re.compile(rf"{_DIGIT}{_JOINER}?$")
_MOST_DIGITS: Final = 96
"""Who says more of them without a word between is no longer giving a number."""
_UNITS: Final = frozenset("十百千万亿")

_CARD: Final = re.compile(r"[4569][0-9]{15,18}|3[0-9]{15,18}|3[47][0-9]{13}")
_PHONE: Final = re.compile(
    r"(?:(?:00)?86)?1[3-9][0-9]{9}|0(?:10|2[0-9])[2-9][0-9]{7}|0[3-9][0-9]{2}[2-9][0-9]{6,7}"
)
_CODE: Final = re.compile(r"[0-9]{4,8}")
_HOTLINE: Final = re.compile(r"95[0-9]{3}|96[0-9]{3,4}|123[0-9]{2}|100[0-9]{2}")
_CODE_WORD: Final = re.compile(r"验证[码吗马]|校验码|动态码|动态密码|动态口令|确认码|认证码|授权码|短信码")
_CODE_BEFORE: Final = 14
_CODE_AFTER: Final = 8
"""Characters between the word and the code."""
_COUNTED: Final = re.compile(r"[.%元块年月日号点分秒位次天个人万亿多毛角美岁期遍]")
"""What follows a number that counts something."""
_LONGEST_PIECE: Final = 19


class _Run(NamedTuple):
    """Digits that belong together as they were said."""

    digits: str
    places: tuple[tuple[int, int], ...]
    """Where each stands in the normalised text."""
    cuts: tuple[int, ...]
    """Indices at which the speaker paused or put in a word, with both ends."""


def _runs(normal: Normal) -> Iterator[_Run]:
    breaks = frozenset(normal.breaks)
    for match in _RUN.finditer(normal.text):
        start, end = match.span()
        # 3.85 and 60% are no digits of a number.
        if (start and normal.text[start - 1] == ".") or normal.text[end : end + 1] in (".", "%"):
            continue
        groups: list[list[tuple[int, int]]] = []
        for one in _ONE.finditer(normal.text, start, end):
            if not groups or one.start() in breaks or one.start() != groups[-1][-1][1]:
                groups.append([])
            groups[-1].append(one.span())
        # 验证码123456，10分钟内有效: the last of several groups counts something.
        if len(groups) > 1 and _follows(_COUNTED, normal, end):
            groups.pop()
        together: list[list[tuple[int, int]]] = []
        for group in groups:
            if not _counts(normal, group[0][0], group[-1][1]):
                together.append(group)
                continue
            yield from _run(normal, together)
            together = []
        yield from _run(normal, together)


def _run(normal: Normal, groups: list[list[tuple[int, int]]]) -> Iterator[_Run]:
    places = tuple(place for group in groups for place in group)
    if not _FEWEST_DIGITS <= len(places) <= _MOST_DIGITS:
        return
    said = (normal.text[a:b] for a, b in places)
    digits = "".join(_SPOKEN.get(one, one if one.isdecimal() else "X") for one in said)
    yield _Run(digits, places, (0, *accumulate(len(group) for group in groups)))


def _counts(normal: Normal, start: int, end: int) -> bool:
    """Whether it was said as a number, with 万 or 百, not digit by digit."""
    first, last = normal.span(start, end)
    return not _UNITS.isdisjoint(normal.source[first:last])


def _kind(digits: str) -> Kind | None:
    """What the digits are by themselves. An identity card may pass for a card by chance, not the reverse."""
    if is_resident_id(digits):
        return "resident_id"
    if _PHONE.fullmatch(digits):
        return "phone"
    if _CARD.fullmatch(digits) and passes_luhn(digits):
        return "bank_card"
    return None


def _numbers(normal: Normal, run: _Run, asked: bool) -> Iterator[Entity]:
    for first, last in _pieces(run):
        digits = run.digits[first:last]
        start, end = run.places[first][0], run.places[last - 1][1]
        kind = _kind(digits)
        if kind is None and _may_be_code(digits) and not _follows(_COUNTED, normal, end):
            near = asked or _near_code_word(normal.text, start, end)
            kind = "one_time_code" if near else None
        if kind is not None:
            yield Entity(kind, start, end, digits)


def _may_be_code(digits: str) -> bool:
    return _CODE.fullmatch(digits) is not None and _HOTLINE.fullmatch(digits) is None


def _near_code_word(text: str, start: int, end: int) -> bool:
    before = text[max(0, start - _CODE_BEFORE - 4) : start]
    words = list(_CODE_WORD.finditer(before))
    if words and len(before) - words[-1].end() <= _CODE_BEFORE:
        return True
    return _CODE_WORD.search(text, end, end + _CODE_AFTER + 4) is not None


def _pieces(run: _Run) -> list[tuple[int, int]]:
    """The run as a whole where it is something, or short; else cut at pauses so that all of it is explained.

    What is left over, up to eight digits, may stand beside telephones; beside cards, whose check digit
    would be right by chance in one of ten cuts, only if it says their digits again.
    """
    size = len(run.digits)
    if _kind(run.digits) is not None or size <= 8:
        return [(0, size)]
    # For each cut, the best way of explaining what follows it: digits left over, then the pieces.
    best: dict[int, tuple[int, list[tuple[int, int]]]] = {size: (0, [])}
    for first in reversed(run.cuts[:-1]):
        ways: list[tuple[int, list[tuple[int, int]]]] = []
        for last in run.cuts:
            if not first < last <= first + _LONGEST_PIECE or last not in best:
                continue
            left, pieces = best[last]
            kind = _kind(run.digits[first:last])
            if kind is not None:
                ways.append((left, [(first, last), *pieces]))
            elif last - first <= 8 and left == 0:
                ways.append((last - first, [(first, last), *pieces]))
        if ways:
            best[first] = min(ways, key=lambda way: (way[0], len(way[1])))
    left, pieces = best.get(0, (0, []))
    return pieces if not left or _may_be_left(run.digits, pieces) else []


def _may_be_left(digits: str, pieces: list[tuple[int, int]]) -> bool:
    """Whether what is left over beside the pieces that are something may be."""
    said = [digits[first:last] for first, last in pieces]
    if all(_kind(one) in (None, "phone") for one in said):
        return True
    return len(digits) > _LONGEST_PIECE and all(
        _kind(one) is not None or before.endswith(one) or after.startswith(one)
        for before, one, after in zip(["", *said], said, [*said[1:], ""], strict=False)
    )


# ── sums of money ─────────────────────────────────────────────────────────────────────────────────

_SIZES: Final = {"十": 10, "百": 100, "千": 1000, "万": 10_000, "亿": 100_000_000}
_AMOUNT: Final = re.compile(
    r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<more>[多来几余]?)(?P<units>[十百千万亿]{0,3})"
    r"(?:(?P<coin>[毛角])钱?|(?P<money>块钱|块|元钱|元|圆|人民币|rmb|美元|美金|欧元|英镑)"
    r"(?:(?P<mao>[0-9])(?![0-9.个张次万元块])(?:[毛角](?:(?P<fen>[0-9])分?)?)?)?)?"
)
_OTHER: Final = re.compile(
    r"[%.人个名位户家次年月日号天时分秒点岁米里平张笔期股份条台倍成折度级步字吨斤克页周层楼栋室单元路线]"
    r"|公里|小时|积分|客户|粉丝|日元|韩元|卢布|泰铢"
)
"""What is counted where it is no money."""
_MONEY_WORD: Final = re.compile(
    r"(?:[转汇存取借贷还付花扣交充投亏赚欠][了过给出入的]{0,2}|余额|额度|金额|本金|利息|收益|工资|价格|总共|一共|款项?|限额|起投|保证金)"
    r"(?:是|为|有|大概|大约|差不多|将近|至少|最多|才|就|只|我|您|他|她){0,2}$"
)
_SIGNS: Final = ("¥", "￥")
_THOUSANDS: Final = re.compile(r"[0-9０-９]{1,3}(?:[,，][0-9０-９]{3})+(?:[.．][0-9０-９]+)?")
_ABOUT: Final = re.compile(
    r"(?<![零〇一二两三四五六七八九])(?:[二三四五六七八九]?十)?(?P<less>[一二两三四五六七八九])[二三四五六七八九](?=[十百千万亿])[十百千万亿]{1,3}"
    r"(?P<money>块钱|块|元钱|元|圆|人民币|rmb|美元|美金|欧元|英镑)?"
)
"""两三万 is two to three: it stays in words, and the smaller counts."""
_LARGEST: Final = 12
"""Digits of a sum; more are the number of something."""


def _amounts(normal: Normal) -> Iterator[Entity]:
    at = 0
    while match := _AMOUNT.search(normal.text, at):
        # 十万块，一年: what stands behind a pause belongs to something else.
        pauses = _within(normal.breaks, match.end("number"), match.end())
        if pauses:
            match = _AMOUNT.match(normal.text, match.start(), pauses[0]) or match
        at = match.end()
        *before, start = _begins(normal, match)
        for begin, end in pairwise([*before, start]):
            # A pause stands behind these: nothing follows them.
            value = _yuan(normal, begin, end, None)
            if value is not None:
                yield Entity("amount", begin, end, value)
        value = _yuan(normal, start, match.end("number"), match)
        if value is not None:
            yield Entity("amount", start, match.end(), value)


def _about(normal: Normal) -> Iterator[Entity]:
    text = normal.text
    for match in _ABOUT.finditer(text):
        start, end = match.span()
        if start and text[start - 1].isdigit():
            continue
        less = normalise(text[start : match.end("less")] + text[match.end("less") + 1 : end]).text
        number = re.match(r"[0-9]+", less)
        known = match["money"] is not None or not {"万", "亿"}.isdisjoint(match.group())
        named = _MONEY_WORD.search(text[max(0, start - 12) : start]) is not None
        if number is None or not (known or named) or _follows(_OTHER, normal, end):
            continue
        yield Entity("amount", start, end, number.group())


def _yuan(normal: Normal, start: int, end: int, match: re.Match[str] | None) -> str | None:
    """Value of the number at ``start`` to ``end``, with what ``match`` found behind it, if it is money."""
    number = normal.text[start:end]
    if len(number.partition(".")[0]) > _LARGEST:
        return None
    first, last = normal.span(start, end)
    said = normal.source[first:last]
    follows = match.groupdict() if match is not None else {}
    units = follows.get("units") or ""
    if follows.get("money") is None and follows.get("coin") is None:
        if match is not None and _follows(_OTHER, normal, match.end()):
            return None
        large = any(unit in said or unit in units for unit in "万亿")
        named = _MONEY_WORD.search(normal.text[max(0, start - 12) : start]) is not None
        signed = normal.source[:first].rstrip(" ").endswith(_SIGNS)
        if number[0] == "0" or not (signed or large or (named and (len(number) > 1 or units))):
            return None
    value = Decimal(number)
    for unit in units:
        value *= _SIZES[unit]
    if follows.get("coin") is not None:
        value /= 10
    value += Decimal(follows.get("mao") or 0) / 10 + Decimal(follows.get("fen") or 0) / 100
    return format(value.normalize(), "f")


def _begins(normal: Normal, match: re.Match[str]) -> list[int]:
    """Where numbers begin in it: a pause parts two numbers, a comma in 15,000 does not."""
    start, end = match.span("number")
    pauses = [at for at in _within(normal.breaks, start, end) if at > start]
    first, last = normal.span(start, end)
    if not pauses or _THOUSANDS.fullmatch(normal.source[first:last]):
        return [start]
    return [start, *pauses]


def _follows(pattern: re.Pattern[str], normal: Normal, at: int) -> bool:
    """Whether it stands right there, and not behind a pause."""
    return pattern.match(normal.text, at) is not None and not _within(normal.breaks, at, at + 1)


def _within(breaks: tuple[int, ...], start: int, end: int) -> tuple[int, ...]:
    return breaks[bisect_left(breaks, start) : bisect_left(breaks, end)]


# ── addresses ─────────────────────────────────────────────────────────────────────────────────────

_ROOM: Final = r"(?:\p{Han}{0,6}?[0-9]+(?:号楼|栋|幢|座|单元|层|楼|室|号|户|组|弄)){0,6}(?:[0-9]{3,4})?"
_REGION: Final = r"(?:\p{Han}{2,8}?(?:省|自治区))?(?:\p{Han}{2,8}?(?:市|州))?(?:\p{Han}{1,8}?(?:区|县|旗))?"
_ADDRESS: Final = re2.compile(
    rf"{_REGION}\p{{Han}}{{1,8}}?(?:路|大街|大道|街|胡同|巷)\p{{Han}}{{0,4}}?[0-9]+(?:号|弄|巷){_ROOM}"
    rf"|{_REGION}\p{{Han}}{{1,12}}?(?:小区|花园|家园|公寓|新村|大厦|广场|苑|山庄|公馆|村)\p{{Han}}{{0,3}}?[0-9]+"
    rf"(?:号楼|栋|幢|座|单元|号|室|楼|组|期){_ROOM}"
    rf"|\p{{Han}}{{2,8}}?(?:省|自治区|市|州)\p{{Han}}{{1,8}}?(?:区|县|市|旗)\p{{Han}}{{1,10}}?(?:路|街道|大道|街|镇|乡|村|小区|花园){_ROOM}"
    rf"|[0-9]+(?:号楼|栋|幢)[0-9]+(?:单元|层|楼|室|号){_ROOM}"
)
_LEAD_IN: Final = re.compile(
    r"(?:我们|我|你|您|他|她|家|公司|单位|现在|居住|住|地址|详细|具体|在|是|寄|送|邮|到|的|就|请|把|那|了|给|对|和|跟|麻烦|帮|卡)+"
)


def _addresses(normal: Normal) -> Iterator[Entity]:
    for match in _ADDRESS.finditer(normal.text):
        start, end = match.span()
        lead_in = _LEAD_IN.match(normal.text, start, end)
        start = lead_in.end() if lead_in is not None else start
        if end - start >= 4:
            yield Entity("address", start, end, normal.text[start:end])
