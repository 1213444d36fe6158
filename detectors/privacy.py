"""Numbers that nobody needs to read: cards, identity cards, telephones, one-time codes.

Masked character by character, so that ranges in the text stay valid. Sums of money stay.
"""

from __future__ import annotations

import re
from typing import Final

_SPOKEN: Final = dict(zip("零〇一二三四五六七八九幺洞", "0012345678910", strict=True))
_DIGIT: Final = "[0-9０-９零〇一二三四五六七八九幺洞]"
_BETWEEN: Final = r"(?:[ \t\-－—,，.．、·]|[嗯呃啊额哎]){0,3}"
_RUN: Final = re.compile(rf"{_DIGIT}(?:{_BETWEEN}{_DIGIT}){{2,63}}(?:{_BETWEEN}[XxＸｘ叉](?![A-Za-z]))?")
_CODE_WORD: Final = re.compile(
    r"验证码|校验码|确认码|动态码|动态密码|动态口令|口令|密码|认证码|驗證碼|密碼|安全码|后三位|后三码|[Cc][Vv][Vv]2?|CVN|PIN|pin码|短信码|授权码",
    re.IGNORECASE,
)
_CODE_REACH: Final = 14
"""Characters between a code word and its code."""
_KEPT: Final = 4
_MONEY_AFTER: Final = re.compile(
    r"\s*(?:多|来)?(?:块|元|圆|万|亿|千|百|十|角|毛|美|港|欧|日元|人民币|个点|%|％|年|期|个月)"
)
_MONEY_BEFORE: Final = re.compile(r"(?:[¥￥$€]|人民币|金额|余额|额度)\s*(?:是|为)?$")
_DATE: Final = re.compile(r"(?:19|20)[0-9]{2}[\-.年/ ][0-9]{1,2}[\-.月/ ][0-9]{1,2}")


def redact(text: str) -> str:
    """The text with its private numbers masked by ``*``, same length.

    Of numbers of eight and more digits (telephones, cards, identity cards) the last four stay; of codes of
    three to eight digits near 验证码, 密码, CVV nothing stays. Spoken digits (六二二二…, 幺三八…) count.
    """
    characters = list(text)
    code_words = [m.span() for m in _CODE_WORD.finditer(text)]
    for match in _RUN.finditer(text):
        start, end = match.span()
        digits = [i for i in range(start, end) if _is_digit(text[i])]
        count = len(digits)
        if _MONEY_AFTER.match(text, end) or _MONEY_BEFORE.search(text[:start]):
            continue
        near_code = any(0 <= start - b <= _CODE_REACH or 0 <= a - end <= _CODE_REACH for a, b in code_words)
        if near_code and 3 <= count <= 8:
            masked = digits
        elif count >= 8 and not _is_public(match.group(), text, digits):
            masked = digits[: max(0, count - _KEPT)]
        else:
            continue
        for index in masked:
            characters[index] = "*"
    return "".join(characters)


def _is_digit(char: str) -> bool:
    return char in _SPOKEN or "0" <= char <= "9" or "０" <= char <= "９" or char in "XxＸｘ叉"


def _is_public(run: str, text: str, digits: list[int]) -> bool:
    """Dates, and the hot lines that everybody may call."""
    if _DATE.fullmatch(run):
        return True
    plain = "".join(_SPOKEN.get(text[i], text[i]) for i in digits)
    return len(plain) == 10 and plain[:3] in ("400", "800")
