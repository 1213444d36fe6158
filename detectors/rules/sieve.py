"""Which of many phrases may be heard at a place, asked of all at once: one bit for each phrase.

For each syllable of the phrases there is one number whose bits say in which of them a given sound would
pass there. What passes at every syllable is the intersection of a few numbers, and is nearly always empty:
thousands of phrases cost about what one does. What is left is for the lexicon to verify.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from detectors.sounds import Key, Sound, keys, near


class _Column(dict[Sound, int]):
    """One syllable of all phrases: by sound, those in which it passes here. Filled as sounds are met."""

    def __init__(self, slip: float) -> None:
        super().__init__()
        self.over = 0
        """Phrases that have ended before."""
        self.inner = 0
        """Phrases that go on after."""
        self._slip = slip
        self._alike: dict[Key, int] = {}
        """By sound, phrases that bear no slip here."""
        self._loose: dict[Key, int] = {}

    def add(self, bit: int, sound: Sound, strict: bool) -> None:
        by_key = self._alike if strict else self._loose
        for key in keys(sound):
            by_key[key] = by_key.get(key, 0) | bit

    def __missing__(self, sound: Sound) -> int:
        passing = self.over
        for by_key, most in ((self._alike, 0.0), (self._loose, self._slip)):
            for key in near(sound, most) if by_key else ():
                passing |= by_key.get(key, 0)
        self[sound] = passing
        return passing


class Sieve:
    """Phrases of two sounds or more, by their place in ``phrases``. Immutable but for what it remembers.

    ``slip`` is the most that a single syllable may differ by; phrases of ``strict`` syllables or fewer
    bear none. From ``elastic`` syllables on, one may be missing or too many (or both, from ``double`` on),
    but not the first nor the last.
    """

    def __init__(
        self, phrases: Sequence[tuple[Sound, ...]], slip: float, strict: int, elastic: int, double: int
    ) -> None:
        self._rigid = [number for number, sounds in enumerate(phrases) if 2 <= len(sounds) < elastic]
        self._elastic = [number for number, sounds in enumerate(phrases) if len(sounds) >= elastic]
        self._rigid_columns = _columns([phrases[n] for n in self._rigid], slip, strict)
        self._elastic_columns = _columns([phrases[n] for n in self._elastic], slip, strict)
        self._double = sum(1 << bit for bit, n in enumerate(self._elastic) if len(phrases[n]) >= double)

    def aligned(self, sounds: Sequence[Sound]) -> Iterator[tuple[int, int]]:
        """``(phrase, place)``: every sound of a short phrase passes, one by one, from that place on."""
        columns, size = self._rigid_columns, len(sounds)
        for at in range(size - 1 if columns else 0):
            alive = columns[0][sounds[at]] & columns[1][sounds[at + 1]]
            here = at + 2
            for column in columns[2:]:
                if not alive:
                    break
                alive &= column[sounds[here]] if here < size else column.over
                here += 1
            for bit in _bits(alive):
                yield self._rigid[bit], at

    def shifted(self, sounds: Sequence[Sound]) -> Iterator[tuple[int, int]]:
        """``(phrase, place)``: the sounds of a long phrase pass from that place on, with at most one too
        many and one too few among them."""
        columns, size = self._elastic_columns, len(sounds)
        for at in range(size - 2 if columns else 0):
            # Most of them fail among the first four syllables.
            first, second, third, fourth = columns[:4]
            alive = first[sounds[at]]
            if not alive:
                continue
            one, two = sounds[at + 1], sounds[at + 2]
            both = alive & second[one]
            without = alive & third[one]
            alive = (both | without | alive & third[two]) & self._double
            if both:
                passing = third[two] | fourth[two]
                if at + 3 < size:
                    passing |= third[sounds[at + 3]]
                alive |= both & passing
            if without:
                alive |= without & fourth[two]
            if alive:
                for bit in _bits(self._through(sounds, at, alive)):
                    yield self._elastic[bit], at

    def _through(self, sounds: Sequence[Sound], at: int, even: int) -> int:
        """Of the long phrases ``even``, whose first syllable passes at ``at``, those that get to their end.

        Kept apart: those whose sounds came one by one, with one too few, with one too many, with both.
        """
        size = len(sounds)
        few = many = both = 0
        for offset, column in enumerate(self._elastic_columns[1:], 1):
            here = at + offset
            inner = column.inner
            came_many = many
            passing = column[sounds[here]] if here < size else column.over
            missed = even & inner
            even &= passing
            before = column[sounds[here - 1]] if here - 1 < size else column.over
            few = few & before | missed
            after = column.over
            many = 0
            if here + 1 < size:
                after = column[sounds[here + 1]]
                many = even & inner
            many |= came_many & after
            both = both & passing | (came_many | few) & inner & self._double
            if not (even | few | many | both):
                return 0
        return even | few | many | both


def _columns(phrases: Sequence[tuple[Sound, ...]], slip: float, strict: int) -> list[_Column]:
    columns = [_Column(slip) for _ in range(max(map(len, phrases), default=0))]
    of_size = [0] * (len(columns) + 1)
    for number, sounds in enumerate(phrases):
        bit = 1 << number
        of_size[len(sounds)] |= bit
        for column, sound in zip(columns, sounds, strict=False):
            column.add(bit, sound, len(sounds) <= strict)
    for offset, column in enumerate(columns):
        column.over = sum(of_size[: offset + 1])
        column.inner = sum(of_size[offset + 2 :])
    return columns


def _bits(number: int) -> Iterator[int]:
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest
