"""Which part of a partial transcript will stay: what two readings in a row agree on. Pure.

LocalAgreement-2 (Liu et al. 2020, "Low-Latency Sequence-to-Sequence Speech Recognition and Translation by
Partial Hypothesis Selection"), on characters: Mandarin has no words to count.
"""

from __future__ import annotations

import unicodedata


def agreed(before: str, now: str) -> str:
    """The beginning of ``now`` that ``before`` has as well; punctuation and spaces need not agree."""
    end = 0
    old = iter(character for character in before if _counts(character))
    for index, character in enumerate(now):
        if not _counts(character):
            continue
        if next(old, None) != character:
            break
        end = index + 1
    return now[:end]


def _counts(character: str) -> bool:
    return unicodedata.category(character)[0] not in "PZSC"
