"""How wrong a text is: character errors against a reference, and repetition loops."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from benchmarks.normalise import comparable

MOST_COMPRESSION = 2.4
"""Whisper's own threshold for a text that repeats itself (openai/whisper, transcribe.py)."""
MOST_CHARACTERS_PER_SECOND = 9.0
"""Nobody speaks Mandarin faster; newsreaders reach five to six."""
MOST_OF_REFERENCE = 1.5
_REPEATS = re.compile(r"(.{1,20}?)\1{2,}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Errors:
    """Edits of single characters that make the hypothesis the reference."""

    edits: int
    characters: int
    """Of the reference."""

    @property
    def rate(self) -> float | None:
        """0 is perfect; above 1 when more was written than was said. ``None`` without a reference."""
        return self.edits / self.characters if self.characters else None

    def __add__(self, other: Errors) -> Errors:
        return Errors(self.edits + other.edits, self.characters + other.characters)


def errors(reference: str, hypothesis: str) -> Errors:
    """Compare after ``comparable``."""
    wanted, got = comparable(reference), comparable(hypothesis)
    return Errors(int(Levenshtein.distance(wanted, got)), len(wanted))


def total(several: Iterable[Errors]) -> Errors:
    return sum(several, Errors(0, 0))


def repeated(text: str) -> int:
    """Characters that only repeat what stands directly before them, in units said three times or more."""
    plain = comparable(text)
    return sum(len(m.group()) - len(m.group(1)) for m in _REPEATS.finditer(plain) if not m.group(1).isdigit())


def is_loop(text: str, seconds: float, reference: str | None = None) -> bool:
    """Whether the model fell into a loop on a clip of ``seconds``.

    It did when the text compresses more than ``MOST_COMPRESSION`` times; or when it repeats a unit three
    times in a row and so becomes longer than anybody can say it in that time, or than
    ``MOST_OF_REFERENCE`` of what was said. A speaker who says 好的好的好的 is no loop.
    """
    raw = text.encode()
    if raw and len(raw) / len(zlib.compress(raw)) > MOST_COMPRESSION:
        return True
    if not repeated(text):
        return False
    length = len(comparable(text))
    if seconds > 0 and length / seconds > MOST_CHARACTERS_PER_SECOND:
        return True
    return reference is not None and length > MOST_OF_REFERENCE * len(comparable(reference))
