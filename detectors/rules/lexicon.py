"""All phrases of a pack in one index, by character and by sound, so that many cost about what one does.

By character: an Aho-Corasick automaton over normalised text. By sound: a sieve over all phrases leaves few
candidates, which are then verified syllable by syllable against a budget that grows with the phrase's
length. A phrase may have gaps: ``验证码…告诉我`` is two parts in order with a few characters
between them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import ahocorasick

from detectors.mandarin import Normal
from detectors.rules.sieve import Sieve
from detectors.sounds import Heard, Sound, cost, listen, share_class, spelt

GAP: Final = "…"
WIDEST_GAP: Final = 8
"""Characters that may stand between the parts of a phrase."""
_EXTRA_SOUND: Final = 0.7
"""Cost of a syllable too many or too few."""
_WORST_SLIP: Final = 0.3
"""A syllable that differs more is another syllable: 他的手机号 is not 您的手机号."""
_NEVER: Final = 9.0
_TIGHT: Final = 0.1
"""What three syllables that stand alone may differ by; as part of a longer phrase they may differ more."""
_STRICT: Final = 2
"""Phrases of so few syllables must sound exactly alike."""
_SHORTEST_ELASTIC: Final = 7
"""Phrases of fewer syllables must keep their number of syllables."""
_SHORTEST_DOUBLE: Final = 10
"""The budget of fewer syllables does not bear one too many and one too few."""


class Hit(NamedTuple):
    """A phrase found in a normalised text."""

    phrase: int
    start: int
    end: int
    """Indices into the normalised text."""
    cost: float
    """0 when it sounds alike or is the same, else the summed cost of the slips."""
    exact: bool
    confidence: float
    """1 for an exact match; less the more sounds had to be excused."""


class _Part(NamedTuple):
    text: str
    sounds: tuple[Sound, ...]
    budget: float


class _Found(NamedTuple):
    start: int
    end: int
    cost: float
    exact: bool


def budget(syllables: int) -> float:
    """Total cost of slips that a phrase of so many syllables may show.

    Phrases of two syllables must sound exactly alike; so must the short parts of a phrase with gaps.
    """
    if syllables <= _STRICT:
        return 0.0
    return {3: 0.3, 4: 0.4, 5: 0.5, 6: 0.6, 7: 0.9, 8: 1.1}.get(syllables, min(1.6, 0.14 * syllables))


class Lexicon:
    """Phrases by number, in the order in which they were given. Immutable; shared by all calls."""

    def __init__(self, phrases: Iterable[str]) -> None:
        self._phrases: list[tuple[int, ...]] = []
        self._parts: list[_Part] = []
        self._by_first: dict[int, list[int]] = {}
        self._single: dict[int, list[int]] = {}
        numbers: dict[str, int] = {}
        for number, phrase in enumerate(phrases):
            parts: list[int] = []
            for text in phrase.split(GAP):
                plain, sounds = spelt(text)
                if not plain:
                    continue
                if plain not in numbers:
                    numbers[plain] = len(self._parts)
                    self._parts.append(_Part(plain, sounds, budget(len(sounds))))
                parts.append(numbers[plain])
            self._phrases.append(tuple(parts))
            if len(parts) == 1:
                self._single.setdefault(parts[0], []).append(number)
            elif parts:
                self._by_first.setdefault(parts[0], []).append(number)
        self._automaton = ahocorasick.Automaton()
        for part, entry in enumerate(self._parts):
            self._automaton.add_word(entry.text, part)
        if self._parts:
            self._automaton.make_automaton()
        self._sieve = Sieve(
            [part.sounds for part in self._parts],
            slip=_WORST_SLIP,
            strict=_STRICT,
            elastic=_SHORTEST_ELASTIC,
            double=_SHORTEST_DOUBLE,
        )

    def __len__(self) -> int:
        return len(self._phrases)

    def scan(self, normal: Normal) -> dict[int, list[Hit]]:
        """Every phrase in the text, by its number; at most one hit for a place, the cheapest."""
        if not self._parts or not normal.text:
            return {}
        found: dict[int, dict[int, _Found]] = {}
        for last, part in self._automaton.iter(normal.text):
            end = last + 1
            start = end - len(self._parts[part].text)
            if not (normal.cuts_number(start) or normal.cuts_number(end)):
                found.setdefault(part, {})[start] = _Found(start, end, 0.0, True)
        self._scan_sounds(normal, listen(normal.text), found)
        hits: dict[int, list[Hit]] = {}
        for part, places in found.items():
            alone = self._single.get(part)
            if alone:
                entry = self._parts[part]
                kept = [f for _, f in sorted(places.items()) if f.exact or _bears(entry, normal, f)]
                for number in alone if kept else ():
                    hits[number] = [self._hit(number, (place,)) for place in kept]
            for number in self._by_first.get(part, ()):
                joined = self._join(number, found)
                if joined:
                    hits[number] = joined
        return hits

    def _scan_sounds(self, normal: Normal, heard: Heard, found: dict[int, dict[int, _Found]]) -> None:
        sounds = heard.sounds
        parts = self._parts
        for part, at in self._sieve.aligned(sounds):
            self._try(part, at, normal, heard, found)
        seen: set[tuple[int, int]] = set()
        for part, at in self._sieve.shifted(sounds):
            if _elastic_at(parts[part], sounds, at) is None:
                continue
            for first in (at, at + 1, at - 1):
                if (part, first) not in seen:
                    seen.add((part, first))
                    self._try(part, first, normal, heard, found)

    def _try(
        self, part: int, first: int, normal: Normal, heard: Heard, found: dict[int, dict[int, _Found]]
    ) -> None:
        """Note the part if it is heard at ``first`` or, where it is long, one sound beside."""
        sounds, starts, ends = heard
        entry = self._parts[part]
        if not _anchored(entry.sounds, sounds, first):
            return
        places = found.get(part)
        if first >= 0 and places is not None:
            known = places.get(starts[first])
            if known is not None and known.exact:
                return
        verified = _verify(entry, sounds, first)
        if verified is None:
            return
        begin, stop, total = verified
        # Half a number is another number.
        if _inside(starts, begin) or _inside(starts, stop):
            return
        if normal.cuts_number(starts[begin]) or normal.cuts_number(ends[stop - 1]):
            return
        # Nobody pauses within a phrase that is also misheard.
        if any(starts[begin] < pause < ends[stop - 1] for pause in normal.breaks):
            return
        places = found.setdefault(part, {})
        before = places.get(starts[begin])
        if before is None or (not before.exact and total < before.cost):
            places[starts[begin]] = _Found(starts[begin], ends[stop - 1], total, False)

    def _join(self, number: int, found: dict[int, dict[int, _Found]]) -> list[Hit]:
        first, *rest = self._phrases[number]
        if any(part not in found for part in rest):
            return []
        hits: list[Hit] = []
        for _, place in sorted(found[first].items()):
            chain = [place]
            for part in rest:
                here = chain[-1].end
                following = [f for s, f in found[part].items() if here <= s <= here + WIDEST_GAP]
                if not following:
                    break
                chain.append(min(following, key=lambda f: (f.start, f.cost)))
            else:
                hits.append(self._hit(number, tuple(chain)))
        return hits

    def _hit(self, number: int, chain: tuple[_Found, ...]) -> Hit:
        total = sum(f.cost for f in chain)
        exact = all(f.exact for f in chain)
        size = sum(len(self._parts[part].sounds) for part in self._phrases[number])
        confidence = 1.0 if exact else round(max(0.0, 0.97 - 1.6 * total / max(1, size)), 3)
        return Hit(number, chain[0].start, chain[-1].end, total, exact, confidence)


def _bears(part: _Part, normal: Normal, found: _Found) -> bool:
    """Whether a match by sound says enough to stand alone: the shorter it is, and the more of it was
    misheard, the more of its characters must have been written as expected."""
    size = len(part.sounds)
    heard = normal.text[found.start : found.end]
    same = sum(1 for a, b in zip(part.text, heard, strict=False) if a == b)
    if size <= 2:
        return True  # asked for by the rule, alike in every sound
    if size == 3:
        return found.cost <= _TIGHT and same >= 2
    return same >= (1 if found.cost == 0.0 else 2)


def _inside(starts: tuple[int, ...], boundary: int) -> bool:
    """Whether the boundary lies between two sounds of one number read as a whole."""
    return 0 < boundary < len(starts) and starts[boundary] == starts[boundary - 1]


def _verify(part: _Part, sounds: tuple[Sound, ...], first: int) -> tuple[int, int, float] | None:
    """First sound, end and cost of the part near ``first``, or ``None`` if it is not there."""
    wanted, allowed = part.sounds, part.budget
    size = len(wanted)
    if first >= 0 and first + size <= len(sounds):
        total = 0.0
        for offset in range(size):
            one, other = wanted[offset], sounds[first + offset]
            if one != other:
                slip = cost(one, other)
                total += slip
                if slip > _WORST_SLIP or total > allowed:
                    break
        else:
            return first, first + size, total
    if size < _SHORTEST_ELASTIC:
        return None
    return _elastic(part, sounds, first)


def _anchored(wanted: tuple[Sound, ...], sounds: tuple[Sound, ...], first: int) -> bool:
    """Whether two neighbouring sounds, at an even place or at the end, are of the classes they should be."""
    size = len(wanted)
    for anchor in (*range(0, size - 1, 2), size - 2):
        at = first + anchor
        if (
            0 <= at < len(sounds) - 1
            and share_class(wanted[anchor], sounds[at])
            and share_class(wanted[anchor + 1], sounds[at + 1])
        ):
            return True
    return False


def _elastic(part: _Part, sounds: tuple[Sound, ...], first: int) -> tuple[int, int, float] | None:
    """Weighted edit distance with one syllable too many or too few, anywhere inside."""
    best: tuple[int, int, float] | None = None
    for begin in (first, first + 1, first - 1):
        found = _elastic_at(part, sounds, begin) if 0 <= begin < len(sounds) else None
        if found is not None and (best is None or found[2] < best[2]):
            best = found
    return best


def _elastic_at(part: _Part, sounds: tuple[Sound, ...], begin: int) -> tuple[int, int, float] | None:
    wanted, allowed = part.sounds, part.budget
    size = len(wanted)
    window = sounds[begin : begin + size + 1]
    previous = [0.0] + [_NEVER] * len(window)
    for row, sound in enumerate(wanted, 1):
        current = [_NEVER] * (len(window) + 1)
        low, high = max(1, row - 1), min(len(window), row + 1)
        for column in range(low, high + 1):
            slip = cost(sound, window[column - 1])
            current[column] = previous[column - 1] + (slip if slip <= _WORST_SLIP else _NEVER)
            if 1 < row < size:
                # The first and the last syllable must be there, or half a phrase would do.
                current[column] = min(current[column], previous[column] + _EXTRA_SOUND)
                current[column] = min(current[column], current[column - 1] + _EXTRA_SOUND)
        previous = current
        if min(previous) > allowed:
            return None
    best: tuple[int, int, float] | None = None
    for length in (size, size - 1, size + 1):
        total = previous[length] if length <= len(window) else _NEVER
        if total <= allowed and (best is None or total < best[2]):
            best = (begin, begin + length, total)
    return best
