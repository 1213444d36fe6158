"""How far a share can be trusted: Wilson's score interval.

E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22 (1927). Unlike the
usual interval it says something sensible of three judgements, and of a hundred without a single error.
"""

from __future__ import annotations

from math import sqrt
from typing import Final

Z: Final = 1.959964
"""Of the normal distribution, two-sided 95 %."""


def interval(right: int, judged: int) -> tuple[float, float] | None:
    """Between what the true share lies, 95 times of 100; ``None`` while nothing is judged."""
    if judged <= 0:
        return None
    share, square = right / judged, Z * Z
    middle = (share + square / (2 * judged)) / (1 + square / judged)
    reach = Z / (1 + square / judged) * sqrt(share * (1 - share) / judged + square / (4 * judged * judged))
    return max(0.0, middle - reach), min(1.0, middle + reach)
