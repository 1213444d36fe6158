"""Which part of a partial transcript will stay: what two readings in a row agree on. Pure.

After LocalAgreement-2 (Liu et al. 2020, "Low-Latency Sequence-to-Sequence Speech Recognition and Translation
by Partial Hypothesis Selection"), on characters: Mandarin has no words to count. There the agreement ends at
the first difference; here it ends where the *last* run of equal characters ends, because a window that
begins in the middle of a breath often gets its first syllable wrong, each time differently, and the rest
right.
"""

from __future__ import annotations

import unicodedata

from rapidfuzz.distance import Levenshtein

RUN = 3
"""Characters in a row that must be equal: fewer agree by chance."""
SHARE = 0.5
"""Of the characters up to there, at least so many must have a partner in the reading before."""
BEHIND = 2
"""Characters that must follow even what two readings agree on: the speaker may yet take it back."""
ALONE, ALONE_SURE = 4, 2
"""Characters that must follow where only one reading has it: about a second of speech, or half of it where
the model is sure."""
SURE = 0.8
"""Mean probability per token."""


def settled(before: str, now: str, confidence: float = 0.0) -> int:
    """How many characters from the start of ``now`` will hardly change any more."""
    places = [index for index, character in enumerate(now) if _counts(character)]
    alone = ALONE_SURE if confidence >= SURE else ALONE
    agreed = min(_agreed(before, now, places), len(places) - BEHIND)
    count = max(agreed, len(places) - alone, 0)
    return places[count - 1] + 1 if count else 0


def _agreed(before: str, now: str, places: list[int]) -> int:
    """Characters of ``now``, punctuation not counted, that ``before`` bears out."""
    old = "".join(character for character in before if _counts(character))
    new = "".join(now[index] for index in places)
    end = matched = 0
    for block in Levenshtein.editops(old, new).as_matching_blocks():
        matched += block.size
        if block.size >= RUN and matched >= SHARE * (block.b + block.size):
            end = block.b + block.size
    return end


def _counts(character: str) -> bool:
    return unicodedata.category(character)[0] not in "PZSC"
