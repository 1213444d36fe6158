"""How a speaker sounds in this call when it begins, and how far an utterance is from that.

A voice is judged against itself only: what is loud, high or fast for one speaker is nothing for another, and
lines differ more than feelings do. The baseline runs over the first seconds of the speaker's own speech
and then stays: who becomes louder all through a call must not become the measure of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Final

from msgspec import Struct

from streams.events import Transcript, Voice

SHAPES: Final = 12
"""Numbers in ``Voice.timbre``."""
SOUNDS: Final = (
    *("level", "peak", "pitch", "spread", "voiced", "paused", "rate", "overlap"),
    *(f"timbre_{n}" for n in range(SHAPES)),
)
"""What is compared, in this order."""

_USUAL: Final = (
    *(2.5, 2.5, 1.5, 1.5, 0.12, 0.12, 0.3, 0.2),
    *(1.2, 0.8, 0.7, 0.6, 0.5, 0.5, 0.8, 0.6, 0.5, 0.5, 0.4, 0.4),
)
"""By how much the calm utterances of one speaker usually differ: dB, semitones, shares, octaves of rate."""
_TRUST: Final = 4
"""Utterances that this is worth against what the speaker has shown."""
_KNOWN_S, _KNOWN = 6.0, 3
"""Speech, and utterances, after which there is a baseline."""
_FULL_S: Final = 15.0
"""Speech after which it stays as it is."""
_FAR: Final = 4.0
"""No number is further away than this: one that is was measured wrongly."""
_LEAST_MS: Final = 400

Sounds = tuple[float | None, ...]
"""As ``SOUNDS``; ``None`` where there was too little to measure."""


def sounds(voice: Voice, transcript: Transcript, overlap: float) -> Sounds:
    """What is compared of one utterance. ``overlap``: share of it in which the other side speaks too."""
    speech_s = max(0.1, (voice.end_ms - voice.start_ms) / 1000 * (1 - voice.paused))
    characters = sum(character.isalnum() for character in transcript.text)
    timbre: Sequence[float | None] = voice.timbre
    if len(timbre) != SHAPES:
        timbre = (None,) * SHAPES
    return (
        voice.level_db,
        voice.peak_db,
        12 * math.log2(voice.pitch_hz / 100) if voice.pitch_hz else None,
        voice.pitch_spread,
        voice.voiced,
        voice.paused,
        math.log2(characters / speech_s) if characters >= 4 else None,
        overlap,
        *timbre,
    )


class Baseline(Struct, array_like=True):
    """Of one speaker in one call."""

    heard_ms: int = 0
    utterances: list[Sounds] = []

    @property
    def is_known(self) -> bool:
        return len(self.utterances) >= _KNOWN and self.heard_ms >= _KNOWN_S * 1000

    def learn(self, heard: Sounds, length_ms: int) -> None:
        """Take one more utterance, until there are enough; the shortest tell nothing."""
        if self.heard_ms < _FULL_S * 1000 and length_ms >= _LEAST_MS:
            self.utterances = [*self.utterances, heard]
            self.heard_ms += length_ms

    def compare(self, heard: Sounds) -> list[float] | None:
        """z-scores as ``SOUNDS``, −4 to 4, 0 where nothing was measured; ``None`` while nothing is known."""
        if not self.is_known:
            return None
        out: list[float] = []
        for column, value, usual in zip(zip(*self.utterances, strict=True), heard, _USUAL, strict=True):
            shown = [known for known in column if known is not None]
            if value is None or not shown:
                out.append(0.0)
                continue
            middle = median(shown)
            spread = 1.4826 * median(abs(known - middle) for known in shown)
            # Five utterances show little of a spread: what is usual counts as some more.
            scale = math.sqrt((_TRUST * usual**2 + len(shown) * spread**2) / (_TRUST + len(shown)))
            out.append(round(min(_FAR, max(-_FAR, (value - middle) / scale)), 3))
        return out
