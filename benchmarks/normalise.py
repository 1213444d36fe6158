"""Two texts that say the same become the same: what a character error rate is counted on.

One script (OpenCC simplified), one width (NFKC), one case, numerals as digits, no punctuation, no spaces.
Unlike ``detectors.mandarin.normalise`` it keeps fillers: the reference writes them down where they were said.
"""

from __future__ import annotations

import re
import unicodedata

from detectors.mandarin import fold_pattern, to_simplified

_POINT = re.compile(r"(?<=[0-9])\.(?=[0-9])")
_KEPT_POINT = "点"
_MARKS = re.compile(r"[^\w%]|_")
_STRAY_PERCENT = re.compile(r"(?<![0-9])%")


def comparable(text: str) -> str:
    """``一点二万元`` and ``1.2 萬元`` both give ``12000元``. Comparing twice changes nothing.

    A number counts as many characters as it has digits: 四千万 is eight.
    """
    plain = to_simplified(unicodedata.normalize("NFKC", text)).casefold()
    plain = unicodedata.normalize("NFKC", plain)
    for _ in range(4):
        before = plain
        plain = _STRAY_PERCENT.sub("", _MARKS.sub("", _POINT.sub(_KEPT_POINT, plain)))
        plain = fold_pattern(plain)
        if plain == before:
            break
    return _MARKS.sub("", _POINT.sub(_KEPT_POINT, plain))
