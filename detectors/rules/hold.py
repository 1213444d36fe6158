"""``hold``: the customer is still on hold after so long."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Moment, Scene, Watch
from streams.events import CallEnded, CallEvent, Emotion, Hold

NAMES: Final = ("hold",)
_TOLD_LATE_MS: Final = {"telephony": 500, "music": 3000}
"""How much later the end of a hold may be told: that the music is over takes a while to hear."""


class HoldState(Struct, frozen=True, array_like=True):
    since_ms: int | None = None
    """When the present hold began."""
    late_ms: int = 0
    told: bool = False


class OnHold(Watch, frozen=True, kw_only=True):
    limit_ms: int

    state_type = HoldState

    def fresh(self) -> HoldState:
        return HoldState()

    def wake_at(self, state: HoldState) -> int | None:
        if state.since_ms is None or state.told:
            return None
        return state.since_ms + self.limit_ms + state.late_ms

    def on_wake(self, state: HoldState, now_ms: int, scene: Scene) -> tuple[HoldState, Moment | None]:
        return self._told(state)

    def on_event(
        self, state: HoldState, event: CallEvent | Emotion, scene: Scene
    ) -> tuple[HoldState, Moment | None]:
        if isinstance(event, Hold) and event.held:
            if state.since_ms is not None:
                return state, None
            return HoldState(event.media_ms, _TOLD_LATE_MS[event.source]), None
        if isinstance(event, Hold | CallEnded) and state.since_ms is not None:
            over = not state.told and event.media_ms >= state.since_ms + self.limit_ms
            return HoldState(), self._told(state)[1] if over else None
        return state, None

    def _told(self, state: HoldState) -> tuple[HoldState, Moment | None]:
        if state.since_ms is None:
            return state, None
        end = state.since_ms + self.limit_ms
        moment = Moment(state.since_ms, end, "unknown", f"{self.limit_ms / 1000:g} s", "timer")
        return HoldState(state.since_ms, state.late_ms, True), moment


def build(form: Form, book: Book) -> Condition | None:
    fields = form.fields("hold", ("seconds",), ("seconds",))
    if fields is None or "seconds" not in fields:
        return None
    seconds = fields["seconds"].number("seconds", 1, 7200)
    if seconds is None:
        return None
    return book.watch(lambda number: OnHold(number=number, limit_ms=round(seconds * 1000)))
