"""``rate`` 语速: somebody speaks faster, or more slowly, than so many characters a minute of speech.

Measured over the final transcripts of the last ``seconds``, without the pauses between them, once they hold
``characters``. ``baseline`` compares with what the speaker's own rate was before. Told once until the rate
has come back. On a mixed channel two people speak, so nothing is measured there.
"""

from __future__ import annotations

from typing import Final, cast

from msgspec import Struct
from msgspec.structs import replace

from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Moment, Scene, Turn, Watch
from streams.events import CallEvent, Channel, Emotion, SpeechStarted

NAMES: Final = ("rate",)
_SIDES: Final = ("agent", "customer")
_PREROLL_MS: Final = 500
"""An utterance's first sample lies at most so long before its speech."""
_KNOWN_MS: Final = 10_000
"""Speech after which a speaker's own rate is known."""
_STARTS: Final = 8
_MOST: Final = 128


class Piece(Struct, frozen=True, array_like=True):
    start_ms: int
    end_ms: int
    characters: int


class RateState(Struct, frozen=True, array_like=True):
    starts: tuple[int, ...] = ()
    """Where speech began, of utterances that are not transcribed yet."""
    pieces: tuple[Piece, ...] = ()
    """Those in the window."""
    before_ms: int = 0
    """Speech before the window."""
    before: int = 0
    """Characters before the window."""
    told: bool = False


class Rate(Watch, frozen=True, kw_only=True):
    of: Channel
    above: float | None
    """Characters a minute."""
    below: float | None
    baseline: float | None
    """Times the speaker's own; below 1: more slowly than so."""
    window_ms: int
    characters: int

    state_type = RateState

    def fresh(self) -> RateState:
        return RateState()

    def on_event(
        self, state: RateState, event: CallEvent | Emotion, scene: Scene
    ) -> tuple[RateState, Moment | None]:
        if isinstance(event, SpeechStarted) and event.channel == self.of:
            return replace(state, starts=(*state.starts, event.media_ms)[-_STARTS:]), None
        return state, None

    def on_turn(self, state: RateState, scene: Scene, turn: Turn) -> tuple[RateState, Moment | None]:
        said = turn.transcript
        if not turn.is_speech or not said.final or said.role != self.of:
            return state, None
        start = next((s for s in state.starts if 0 <= s - said.start_ms <= _PREROLL_MS), said.start_ms)
        state = replace(state, starts=tuple(s for s in state.starts if s >= said.end_ms))
        count = sum(1 for character in said.text if character.isalnum())
        if not count or said.end_ms <= start:
            return state, None
        pieces = (*state.pieces, Piece(start, said.end_ms, count))
        gone = [p for p in pieces if p.end_ms <= said.end_ms - self.window_ms]
        state = replace(
            state,
            pieces=pieces[len(gone) :][-_MOST:],
            before_ms=state.before_ms + sum(p.end_ms - p.start_ms for p in gone),
            before=state.before + sum(p.characters for p in gone),
        )
        characters = sum(p.characters for p in state.pieces)
        if characters < self.characters:
            return state, None
        rate = characters * 60_000 / sum(p.end_ms - p.start_ms for p in state.pieces)
        holds = self._holds(state, rate)
        if not holds or state.told:
            return replace(state, told=holds), None
        first = state.pieces[0].start_ms
        return replace(state, told=True), Moment(first, said.end_ms, self.of, f"{rate:.0f} 字/min")

    def _holds(self, state: RateState, rate: float) -> bool:
        if self.above is not None:
            return rate > self.above
        if self.below is not None:
            return rate < self.below
        if self.baseline is None or state.before_ms < _KNOWN_MS:
            return False
        own = state.before * 60_000 / state.before_ms
        return rate > self.baseline * own if self.baseline > 1 else rate < self.baseline * own


def build(form: Form, book: Book) -> Condition | None:
    limits = ("above", "below", "baseline")
    fields = form.fields("rate", ("of", *limits, "seconds", "characters"), ("of",))
    if fields is None or "of" not in fields:
        return None
    of = fields["of"].choice("of", _SIDES)
    given = [name for name in limits if name in fields]
    if len(given) != 1:
        form.problem(f"expected one of above, below, baseline in rate, came {' and '.join(given) or 'none'}")
        return None
    low, high = (0.1, 5.0) if given[0] == "baseline" else (10.0, 2000.0)
    limit = fields[given[0]].number(given[0], low, high)
    seconds = fields["seconds"].number("seconds", 1, 600) if "seconds" in fields else 20
    characters = fields["characters"].number("characters", 1, 2000) if "characters" in fields else 40
    if of is None or limit is None or seconds is None or characters is None:
        return None
    return book.watch(
        lambda number: Rate(
            number=number,
            of=cast(Channel, of),
            above=limit if given[0] == "above" else None,
            below=limit if given[0] == "below" else None,
            baseline=limit if given[0] == "baseline" else None,
            window_ms=round(seconds * 1000),
            characters=int(characters),
        )
    )
