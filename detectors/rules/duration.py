"""``duration``: the call is longer than so. Told once, at that moment."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Moment, Scene, Watch
from streams.events import CallEnded, CallEvent, Emotion

NAMES: Final = ("duration",)


class DurationState(Struct, frozen=True, array_like=True):
    over: bool = False
    """It was told, or the call has ended before."""


class Duration(Watch, frozen=True, kw_only=True):
    limit_ms: int

    state_type = DurationState

    def fresh(self) -> DurationState:
        return DurationState()

    def wake_at(self, state: DurationState) -> int | None:
        return None if state.over else self.limit_ms

    def on_wake(self, state: DurationState, now_ms: int, scene: Scene) -> tuple[DurationState, Moment | None]:
        return DurationState(over=True), self._told()

    def on_event(
        self, state: DurationState, event: CallEvent | Emotion, scene: Scene
    ) -> tuple[DurationState, Moment | None]:
        if not isinstance(event, CallEnded) or state.over:
            return state, None
        return DurationState(over=True), self._told() if event.media_ms >= self.limit_ms else None

    def _told(self) -> Moment:
        return Moment(0, self.limit_ms, "unknown", f"{self.limit_ms / 1000:g} s", "timer")


def build(form: Form, book: Book) -> Condition | None:
    fields = form.fields("duration", ("seconds",), ("seconds",))
    if fields is None or "seconds" not in fields:
        return None
    seconds = fields["seconds"].number("seconds", 1, 86_400)
    if seconds is None:
        return None
    return book.watch(lambda number: Duration(number=number, limit_ms=round(seconds * 1000)))
