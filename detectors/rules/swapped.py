"""``swapped``: what an agent says when a call begins was said on the customer's channel, and not on the
agent's: the channels are connected the wrong way round. For those who run the service.

It is told when the call's first ``seconds`` are over, from its first sound on, and all that was said in them
is known: where a loudspeaker is heard by the customer's microphone, the greeting is on both channels, and
nothing is swapped. On a mixed channel nobody knows who speaks.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from detectors.rules.form import Form
from detectors.rules.inner import Inner, seen
from detectors.rules.model import Book, Condition, Moment, Scene, Turn, Watch
from detectors.rules.pending import START_LATE_MS, Pending, owes, spoke, transcribed
from detectors.rules.shapes import Schema, condition, mapping, number
from streams.events import CallEnded, CallEvent, Emotion, SpeechStarted, SpeechStopped

NAMES: Final = ("swapped",)
SCHEMA: Final[Schema] = mapping(
    {
        "of": condition("座席开场所说。 What agents say when a call begins."),
        "seconds": number(5, 300, "通话开头多久（秒）。 How long the call's beginning is."),
    },
    ("of", "seconds"),
    "座席的开场白只在客户一路。 The agent's greeting is heard on the customer's channel only.",
)
WAIT_MS: Final = 15_000
"""Media time behind the deadline after which no transcript is waited for."""


class SwappedState(Struct, frozen=True, array_like=True):
    first_ms: int | None = None
    """When the call's first sound of speech began."""
    pending: Pending = ()
    said: Moment | None = None
    """On the customer's channel."""
    passed: bool = False
    """The beginning is over, and every start of speech in it has been told."""
    over: bool = False
    """It was told, or can not come true any more."""


class Swapped(Watch, frozen=True, kw_only=True):
    of: Condition
    limit_ms: int

    state_type = SwappedState

    def fresh(self) -> SwappedState:
        return SwappedState()

    def wake_at(self, state: SwappedState) -> int | None:
        if state.first_ms is None or state.over:
            return None
        return state.first_ms + self.limit_ms + (WAIT_MS if state.passed else START_LATE_MS)

    def on_wake(self, state: SwappedState, now_ms: int, scene: Scene) -> tuple[SwappedState, Moment | None]:
        gave_up = state.passed
        return self._settled(replace(state, passed=True), gave_up)

    def on_event(
        self, state: SwappedState, event: CallEvent | Emotion, scene: Scene
    ) -> tuple[SwappedState, Moment | None]:
        if state.over:
            return state, None
        if isinstance(event, SpeechStarted | SpeechStopped):
            first = event.media_ms if state.first_ms is None else state.first_ms
            return replace(state, first_ms=first, pending=spoke(state.pending, event)), None
        if isinstance(event, CallEnded):
            # So short a call is judged by what is known of it.
            return self._settled(replace(state, passed=True), False)
        return state, None

    def on_turn(self, state: SwappedState, scene: Scene, turn: Turn) -> tuple[SwappedState, Moment | None]:
        heard = turn.transcript
        if state.over or not turn.is_speech or not heard.final:
            return state, None
        first = heard.start_ms if state.first_ms is None else min(state.first_ms, heard.start_ms)
        state = replace(state, first_ms=first, pending=transcribed(state.pending, heard))
        if heard.start_ms <= first + self.limit_ms and (moment := seen(self.of, scene, turn)) is not None:
            if turn.role != "customer":
                return SwappedState(over=True), None
            state = replace(state, said=state.said or moment)
        return self._settled(state, False) if state.passed else (state, None)

    def _settled(self, state: SwappedState, gave_up: bool) -> tuple[SwappedState, Moment | None]:
        limit = (state.first_ms or 0) + self.limit_ms
        if state.passed and not gave_up and owes(state.pending, limit, lambda _: True):
            return state, None
        return SwappedState(over=True), state.said


def build(form: Form, book: Book, inner: Inner) -> Condition | None:
    fields = form.fields("swapped", ("of", "seconds"), ("of", "seconds"))
    if fields is None or "of" not in fields or "seconds" not in fields:
        return None
    seconds = fields["seconds"].number("seconds", 5, 300)
    before = len(book.watches)
    of = inner(fields["of"])
    if len(book.watches) > before:
        fields["of"].problem("expected a condition on what is said in swapped, came one that takes time")
        return None
    if of is None or seconds is None:
        return None
    return book.watch(lambda number: Swapped(number=number, of=of, limit_ms=round(seconds * 1000)))
