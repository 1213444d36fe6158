"""``turns``: so many utterances with words in them, of one side or of both. Told once."""

from __future__ import annotations

from typing import Final, cast

from msgspec import Struct

from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Moment, Scene, Turn, Watch
from streams.events import Channel

NAMES: Final = ("turns",)
_SIDES: Final = ("agent", "customer")


class TurnsState(Struct, frozen=True, array_like=True):
    count: int = 0


class Turns(Watch, frozen=True, kw_only=True):
    least: int
    of: Channel | None
    """``None``: of both. Those of a mixed channel count only then."""

    state_type = TurnsState

    def fresh(self) -> TurnsState:
        return TurnsState()

    def on_turn(self, state: TurnsState, scene: Scene, turn: Turn) -> tuple[TurnsState, Moment | None]:
        said = turn.transcript
        if not turn.is_speech or not said.final or not said.text or state.count >= self.least:
            return state, None
        if self.of is not None and said.role != self.of:
            return state, None
        state = TurnsState(state.count + 1)
        if state.count < self.least:
            return state, None
        return state, Moment(said.start_ms, said.end_ms, said.role, f"{self.least} ×", "count")


def build(form: Form, book: Book) -> Condition | None:
    fields = form.fields("turns", ("at_least", "of"), ("at_least",))
    if fields is None or "at_least" not in fields:
        return None
    least = fields["at_least"].number("at_least", 1, 10_000)
    of = fields["of"].choice("of", _SIDES) if "of" in fields else None
    if least is None or ("of" in fields and of is None):
        return None
    return book.watch(lambda number: Turns(number=number, least=int(least), of=cast("Channel | None", of)))
