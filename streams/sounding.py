"""Whether a text sounds like what another reading of the same audio has: by syllables, without tones. Pure.

Coarse on purpose: two readings of one clip differ as a small model mishears, in a consonant here and a vowel
there (保本保息, 薄奔保锡), or they have nothing in common. What a rule takes for its phrase is decided by the
rules' own ear, which is much finer.
"""

from __future__ import annotations

from functools import lru_cache

from pypinyin import Style, lazy_pinyin

ALIKE = 0.5
"""Of a text's initials and finals, so many must be heard, in their order and close together."""
_ACCENT = {"zh": "z", "ch": "c", "sh": "s"} | {
    "ang": "an", "eng": "en", "ing": "in", "iang": "ian", "uang": "uan",
}  # fmt: skip
"""What accents and a telephone do not keep apart."""
_DIGITS = str.maketrans("0123456789", "零一二三四五六七八九")


def alike(text: str, other: str) -> bool:
    """Whether ``other`` holds something that sounds like all of ``text``; both letters and digits only.

    False where one of them is empty.
    """
    wanted, heard = _halves(text), _halves(other)
    return bool(wanted) and _edits(wanted, heard) <= (1 - ALIKE) * len(wanted)


@lru_cache(maxsize=1024)
def _halves(text: str) -> tuple[str, ...]:
    """Initial and final of each syllable; a run of what is no Mandarin stands for itself, twice."""
    spoken = text.translate(_DIGITS)
    initials = lazy_pinyin(spoken, style=Style.INITIALS, strict=False)
    finals = lazy_pinyin(spoken, style=Style.FINALS, strict=False)
    return tuple(_ACCENT.get(half, half) for pair in zip(initials, finals, strict=True) for half in pair)


def _edits(wanted: tuple[str, ...], heard: tuple[str, ...]) -> int:
    """Edits that make some stretch of ``heard`` of ``wanted`` (Sellers 1980), the cheapest."""
    before = [0] * (len(heard) + 1)
    for row, half in enumerate(wanted, start=1):
        now = [row]
        for at, other in enumerate(heard, start=1):
            now.append(min(before[at - 1] + (half != other), before[at] + 1, now[at - 1] + 1))
        before = now
    return min(before)
