"""``similar``: a whole sentence said nearly so, by character or by sound, anywhere in an utterance.

The score is the share of characters (or syllables) that sentence and speech have in common, in order, of
the longer of the two: one character in ten said otherwise, left out or put in makes about 0.9.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from msgspec import Struct
from rapidfuzz import fuzz
from rapidfuzz.distance import Indel, LCSseq

from detectors.mandarin import normalise
from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Found, Scene, Turn
from detectors.scope import is_denied, is_warning
from detectors.sounds import Heard, Sound, listen

NAMES: Final = ("similar",)
SCORE: Final = 0.8
_SHORTEST: Final = 4
_LONGEST: Final = 200


class Sentence(Struct, frozen=True):
    text: str
    """As the pack has it."""
    plain: str
    sounds: tuple[Sound, ...]


class _Place(NamedTuple):
    start: int
    end: int
    score: float
    sentence: Sentence


class Similar(Struct, frozen=True):
    sentences: tuple[Sentence, ...]
    least: float
    negation: bool | None = None
    warning: bool | None = None
    min_confidence: float | None = None

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        normal, rule, heard = turn.normal, scene.rule, turn.transcript.confidence
        if not normal.text:
            return None
        gate = rule.min_confidence if self.min_confidence is None else self.min_confidence
        negation = rule.negation if self.negation is None else self.negation
        warning = rule.warning if self.warning is None else self.warning
        best: _Place | None = None
        for sentence in self.sentences:
            place = self._by_character(sentence, turn)
            if place is None and (heard is None or heard >= gate):
                place = self._by_sound(sentence, turn)
            if place is None or (best is not None and place.score <= best.score):
                continue
            if negation and is_denied(normal, place.start, place.end):
                continue
            if warning and is_warning(normal, place.start, place.end):
                continue
            best = place
        span = None if best is None else turn.place(best.start, best.end)
        if best is None or span is None:
            return None
        return Found(
            spans=(span,),
            expected=(best.sentence.text,),
            how="similar",
            confidence=round(best.score * (1.0 if heard is None else heard), 3),
        )

    def _by_character(self, sentence: Sentence, turn: Turn) -> _Place | None:
        text = turn.normal.text
        if not _may(sentence.plain, _characters(text), self.least):
            return None
        found = _closest(sentence.plain, text, self.least)
        if found is not None and turn.place(found[0], found[1]) is None:
            # It lies in the tail: what is new of this turn is held against the sentence alone.
            first = found[1]
            found = _closest(sentence.plain, text[first:], self.least)
            if found is not None:
                found = found[0] + first, found[1] + first, found[2]
        return None if found is None else _Place(*found, sentence)

    def _by_sound(self, sentence: Sentence, turn: Turn) -> _Place | None:
        heard, kinds = _heard(turn.normal.text)
        if not _may(sentence.sounds, kinds, self.least):
            return None
        found = _closest(sentence.sounds, heard.sounds, self.least)
        if found is None:
            return None
        start, end = heard.starts[found[0]], heard.ends[found[1] - 1]
        return _Place(start, end, found[2], sentence) if turn.place(start, end) is not None else None


def _may(wanted: Sequence[Hashable], there: frozenset[Hashable], least: float) -> bool:
    """Whether enough of the sentence occurs at all; most sentences are done with here."""
    return sum(map(there.__contains__, wanted)) >= least * len(wanted)


def _closest(
    wanted: Sequence[Hashable], said: Sequence[Hashable], least: float
) -> tuple[int, int, float] | None:
    """Start, end and score of the part of ``said`` that is most like ``wanted``."""
    if len(said) <= len(wanted):
        start, end = 0, len(said)
    else:
        # The window is as long as the sentence; what was put in may have pushed its ends out.
        window = fuzz.partial_ratio_alignment(wanted, said, score_cutoff=100 * max(0.3, 2 - 1 / least))
        if window is None:
            return None
        spare = len(wanted) // 4
        start, end = max(0, window.dest_start - spare), window.dest_end + spare
    part = said[start:end]
    same = [(code.dest_start, code.dest_end) for code in Indel.opcodes(wanted, part) if code.tag == "equal"]
    if not same:
        return None
    score = _likeness(wanted, part, same)
    # What stands beside the sentence is something else, even where a character is the same by chance.
    while len(same) > 1:
        shorter, fewer = max((_likeness(wanted, part, kept), kept) for kept in (same[1:], same[:-1]))
        if shorter < score:
            break
        score, same = shorter, fewer
    return (start + same[0][0], start + same[-1][1], score) if score >= least else None


def _likeness(wanted: Sequence[Hashable], said: Sequence[Hashable], same: list[tuple[int, int]]) -> float:
    return float(LCSseq.normalized_similarity(wanted, said[same[0][0] : same[-1][1]]))


@lru_cache(maxsize=32)
def _characters(text: str) -> frozenset[str]:
    return frozenset(text)


@lru_cache(maxsize=32)
def _heard(text: str) -> tuple[Heard, frozenset[Sound]]:
    """The same turn is held against many sentences."""
    heard = listen(text)
    return heard, frozenset(heard.sounds)


def build(form: Form, book: Book) -> Condition | None:
    fields: dict[str, Form]
    if form.is_mapping:
        known = ("any", "score", "negation", "warning", "min_confidence")
        fields = form.fields("similar", known, ("any",)) or {}
        if "any" not in fields:
            return None
    else:
        fields = {"any": form}
    items = fields["any"].texts("a sentence")
    if fields["any"].is_list and not fields["any"].node.value:
        fields["any"].problem("expected at least one sentence, came none")
    sentences: list[Sentence] = []
    for item, text in items:
        plain = normalise(text).text
        if not _SHORTEST <= len(plain) <= _LONGEST:
            item.problem(
                f"expected a sentence of {_SHORTEST} to {_LONGEST} characters (of normalised text), "
                f"came {len(plain)}; phrase finds shorter ones"
            )
            continue
        sentences.append(Sentence(text, plain, listen(plain).sounds))
    least = fields["score"].number("score", 0.5, 1) if "score" in fields else SCORE
    return Similar(
        sentences=tuple(sentences),
        least=least or SCORE,
        negation=fields["negation"].flag("negation") if "negation" in fields else None,
        warning=fields["warning"].flag("warning") if "warning" in fields else None,
        min_confidence=(
            fields["min_confidence"].number("min_confidence", 0, 1) if "min_confidence" in fields else None
        ),
    )
