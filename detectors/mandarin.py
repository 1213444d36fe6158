"""Mandarin text as matching wants it: one width, one script, one way of writing numbers.

``normalise`` gives a canonical text with a map back to the original, so that what matched can be shown
where it stands. Punctuation and fillers (嗯, 那个) are removed for matching only. Phrases of rules and
words of calls go through the same function: what is equal in speech becomes equal in text.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Final, NamedTuple

from opencc import OpenCC

_OPENCC: Final = OpenCC("t2s")

FILLERS: Final = frozenset("嗯呃啊哦噢喔唉哎诶欸呀嘛唔呵哟")
"""Single characters that carry no meaning for a rule."""
LONG_FILLERS: Final = ("那个", "这个", "就是说")

_LONG_BY_LAST: Final = {word[-1]: [w for w in LONG_FILLERS if w[-1] == word[-1]] for word in LONG_FILLERS}
_PAUSES: Final = frozenset(",，.。!！?？;；:：、…—~～\n")
_DIGITS: Final = {
    **dict(zip("零〇一二三四五六七八九", (0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9), strict=True)),
    "两": 2,
    "幺": 1,
}
_UNITS: Final = {"十": 10, "百": 100, "千": 1000, "万": 10_000, "亿": 100_000_000}
_NUMBER_TAIL: Final = frozenset("0123456789百千万十亿") | frozenset(_DIGITS)
_NO_START: Final = frozenset("百千万亿点.%分之")
_NO_END: Final = frozenset("点.之分")
_LONGEST_NUMBER: Final = 40
_AHEAD: Final = 3
"""Characters behind a number that decide whether it is one: 十分 is none, 十分钟 is."""

# 一 stays a word in 一定, 一样, 一起 …; 十 in 十分; 百 in 百分之.
_DIGIT: Final = r"(?:[零〇二三四五六七八九两幺0-9]|一(?![定样起直些旦般切律概共边再向味心手]))"
# 三万，十分满意: what is written as a number already ends before it, 五十分 does not.
_TEN: Final = r"十(?!分(?![之钟])|足)"
_RUN: Final = (
    rf"(?:{_DIGIT}|{_TEN})(?:{_DIGIT}|[千万亿]|{_TEN}|(?<![0-9])十|百(?!分)|点(?={_DIGIT}|十)|\.(?=[0-9]))*"
)
_NUMBERS: Final = re.compile(rf"百分(?:之(?P<share>{_RUN}|百)|百)|(?P<run>{_RUN})")
# 五六百, 二十五六, 三五万: about so much; no number that could be written.
_ABOUT: Final = re.compile(
    "[二三四五六七八九两一][二三四五六七八九](?=[十百千万亿])|[十百千万亿][一二三四五六七八九]{2}"
)
_DECIMAL: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def to_simplified(text: str) -> str:
    """Traditional characters to simplified ones, by words (OpenCC ``t2s``)."""
    return str(_OPENCC.convert(text))


class Normal(NamedTuple):
    """A normalised text and where each of its characters comes from."""

    source: str
    text: str
    starts: tuple[int, ...]
    """For each character of ``text``, where its origin begins in ``source``; never decreases."""
    ends: tuple[int, ...]
    """For each character of ``text``, where its origin ends in ``source``; never decreases."""
    breaks: tuple[int, ...]
    """Indices into ``text`` before which the speaker (or the model) made a pause: a comma, a full stop."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Range in ``source`` of the characters ``start`` to ``end`` (excluded) of ``text``."""
        return self.starts[start], self.ends[end - 1]

    def cuts_number(self, index: int) -> bool:
        """Whether the boundary before character ``index`` lies within a number."""
        text = self.text
        return (
            0 < index < len(text)
            and index not in self.breaks
            and (text[index].isdigit() or text[index] in ".%")
            and (text[index - 1].isdigit() or text[index - 1] == ".")
        )


@lru_cache(maxsize=32768)
def _fold(char: str) -> str:
    """One character in its plain form: half width, lower case, simplified; empty if it is not speech."""
    if char in FILLERS:
        return ""
    folded = char
    for _ in range(4):
        plain = unicodedata.normalize("NFKC", folded).lower()
        plain = "".join(str(_OPENCC.convert(c)) for c in plain)
        plain = "".join(c for c in plain if (c.isalnum() and c not in FILLERS) or c in ".%")
        if plain == folded:
            break
        folded = plain
    return folded


@lru_cache(maxsize=32768)
def _is_plain(char: str) -> bool:
    """Whether the character stays as it is whatever stands beside it, digits of a number apart."""
    return _fold(char) == char and char not in _PAUSES and char not in ".%" and char not in _LONG_BY_LAST


def normalise(text: str) -> Normal:
    """The canonical form of ``text``. Normalising twice changes nothing."""
    characters: list[str] = []
    starts: list[int] = []
    pauses: list[int] = []
    for at, char in enumerate(text):
        if _is_plain(char):
            characters.append(char)
            starts.append(at)
            continue
        folded = _fold(char)
        if char in _PAUSES and not _is_decimal_point(text, at, characters):
            pauses.append(len(characters))
            continue
        for plain in folded:
            if plain == "." and not _is_decimal_point(text, at, characters):
                continue
            if plain == "%" and not (characters and characters[-1] in _NUMBER_TAIL):
                continue
            characters.append(plain)
            starts.append(at)
            for word in _LONG_BY_LAST.get(plain, ()):
                if len(characters) >= len(word) and "".join(characters[-len(word) :]) == word:
                    del characters[-len(word) :]
                    del starts[-len(word) :]
                    for index in range(len(pauses) - 1, -1, -1):
                        if pauses[index] <= len(characters):
                            break
                        pauses[index] = len(characters)
    ends = [at + 1 for at in starts]
    stripped = "".join(characters)
    wanted = sorted(set(pauses))
    if _NUMBERS.search(stripped) is None:
        return Normal(text, stripped, tuple(starts), tuple(ends), tuple(wanted))
    pieces: list[str] = []
    new_starts: list[int] = []
    new_ends: list[int] = []
    moved: dict[int, int] = {}
    done = size = 0

    def keep(until: int) -> None:
        nonlocal done, size
        pieces.append(stripped[done:until])
        new_starts.extend(starts[done:until])
        new_ends.extend(ends[done:until])
        for index in wanted[bisect_left(wanted, done) : bisect_right(wanted, until)]:
            moved[index] = size + index - done
        size += until - done
        done = until

    # 存了三万，五月到期: a pause ends a number, unless a unit follows that needs one before it.
    stops = [p for p in wanted if stripped[p : p + 1] not in _NO_START and stripped[p - 1 : p] not in _NO_END]
    stops = [p for p in stops if 0 < p < len(stripped)] + [len(stripped)]
    at = 0
    for stop in stops:
        while at < stop:
            # No farther than the pause and what a pattern looks ahead: a text of numbers is read once.
            match = _NUMBERS.search(stripped, at, stop + _AHEAD)
            if match is None or match.start() >= stop:
                break
            at = match.end()
            if at > stop:
                at = stop
                match = _NUMBERS.match(stripped, match.start(), stop)
                if match is None:
                    continue
            number = _number(match)
            if number is None or number == match.group():
                continue
            keep(match.start())
            pieces.append(number)
            new_starts.extend([starts[match.start()]] * len(number))
            new_ends.extend([ends[match.end() - 1]] * len(number))
            size += len(number)
            done = at = match.end()
        at = max(at, stop)
    keep(len(stripped))
    breaks = sorted({moved[p] for p in wanted if p in moved})
    return Normal(text, "".join(pieces), tuple(new_starts), tuple(new_ends), tuple(breaks))


def fold_pattern(pattern: str) -> str:
    """A regular expression whose literals stand in the script and the numerals of normalised text."""
    plain = "".join(str(_OPENCC.convert(c)) if c.isalpha() else c for c in pattern)
    return _NUMBERS.sub(lambda m: _number(m) or m.group(), plain)


def _is_decimal_point(text: str, at: int, before: list[str]) -> bool:
    if unicodedata.normalize("NFKC", text[at]) != "." or not before or not _is_digit(before[-1]):
        return False
    after = _fold(text[at + 1]) if at + 1 < len(text) else ""
    return bool(after) and _is_digit(after[0])


def _is_digit(char: str) -> bool:
    return "0" <= char <= "9"


def _number(match: re.Match[str]) -> str | None:
    share = match.group("share")
    if match.group("run") is None:
        number = "100" if share in (None, "百") else _value(share or "")
        return None if number is None else number + "%"
    return _value(match.group("run"))


def _value(run: str) -> str | None:
    """三万五 → 35000, 幺八六 → 186, 三点八五 → 3.85; ``None`` if it is no number after all.

    A run without a unit is spelled digit by digit and keeps its zeros, as telephone numbers need.
    """
    if len(run) > _LONGEST_NUMBER or _ABOUT.search(run):
        return None
    spelled = "".join(str(_DIGITS[c]) if c in _DIGITS else "." if c == "点" else c for c in run)
    parts = re.findall(r"[0-9.]+|[十百千万亿]", spelled)
    if any(part[0] not in _UNITS and not _DECIMAL.fullmatch(part) for part in parts):
        return None
    if not any(part in _UNITS for part in parts):
        return spelled
    with localcontext() as context:
        context.prec = 4 * _LONGEST_NUMBER
        total = section = Decimal(0)
        pending: Decimal | None = None
        last = 0
        for position, part in enumerate(parts):
            if part not in _UNITS:
                pending = Decimal(part)
                # 三万五 is 35,000; 三百零五 is 305.
                is_tail = position == len(parts) - 1 and last > 10 and part[0] != "0"
                if is_tail and len(part) == 1:
                    pending *= last // 10
                continue
            last = _UNITS[part]
            if last < 10_000:
                section += (Decimal(1) if pending is None else pending) * last
            else:
                section += pending or 0
                if last == 100_000_000:
                    total = (total + section) * last
                else:
                    total += section * last
                section = Decimal(0)
            pending = None
        total += section + (pending or 0)
        if total == total.to_integral_value():
            return str(int(total))
        return format(total.normalize(), "f")
