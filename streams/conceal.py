"""What stands in for a lost packet: the last of the voice, once more, fading. Pure.

The idea is that of ITU-T G.711 Appendix I: the last pitch period is repeated, for ``WHOLE_MS`` as it was and
then softer and softer, so that neither a click nor a hole in mid-word misleads whoever listens; after
``FADE_MS`` there is silence. Where the voice comes back, both run into each other (``crossfaded``).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from streams.audio import Samples

WHOLE_MS: Final = 10
FADE_MS: Final = 60
SHORTEST_MS, LONGEST_MS = 2.5, 15.0
"""Of a pitch period: 67 to 400 Hz."""
COMPARED_MS: Final = 20
"""The end of what was heard, for which an earlier place is looked for that looks the same."""
HISTORY_MS: Final = 40
"""What ``conceal`` needs of what was heard."""
OVERLAP_MS: Final = 5
"""Of what was made up and what comes next."""


def period(heard: Samples, rate: int) -> int:
    """Samples of the pitch period at the end of ``heard``: the lag at which it is most like itself."""
    compared = rate * COMPARED_MS // 1000
    shortest, longest = int(rate * SHORTEST_MS / 1000), int(rate * LONGEST_MS / 1000)
    longest = min(longest, len(heard) - compared)
    if longest <= shortest:
        return max(1, min(len(heard), shortest))
    tail = heard[-compared:].astype(np.float32)
    past = heard[-compared - longest : len(heard) - shortest].astype(np.float32)
    likeness = np.correlate(past, tail, "valid")
    energy = np.convolve(past * past, np.ones(compared, np.float32), "valid")
    best = int(np.argmax(likeness / np.sqrt(np.maximum(energy, 1.0))))
    return longest - best


def conceal(heard: Samples, count: int, rate: int) -> Samples:
    """``count`` samples to go on with behind ``heard`` (its last ``HISTORY_MS`` are enough).

    Never louder than what was heard.
    """
    if not count or not len(heard):
        return np.zeros(count, np.int16)
    length = period(heard, rate)
    cycle = heard[-length:]
    at = np.arange(count)
    faded = (at * 1000 / rate - WHOLE_MS) / (FADE_MS - WHOLE_MS)
    out: Samples = (cycle[at % length] * np.clip(1.0 - faded, 0.0, 1.0)).astype(np.int16)
    return out


def crossfaded(going: Samples, coming: Samples) -> Samples:
    """``coming``, its beginning mixed with ``going``, which fades out over its own length.

    Equal weights add up to one: never louder than the louder of the two.
    """
    count = min(len(going), len(coming))
    weight = np.arange(1, count + 1) / (count + 1)
    out = coming.copy()
    out[:count] = going[:count] * (1.0 - weight) + coming[:count] * weight
    return out
