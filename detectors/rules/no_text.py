"""``no_text``: so many seconds of speech, and no transcript with text since. For those who run the service:
a call must never be lost in silence.

When both sides speak at once that time counts once, and time on hold does not: music with singing in it is
speech to whoever listens for speech. Nor does time in which no audio comes: of what was being said then
nobody knows the end. Told once until there is text again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Moment, Scene, Turn, Watch
from detectors.rules.pending import STOP_LATE_MS
from streams.events import (
    CallEnded,
    CallEvent,
    Channel,
    Emotion,
    Hold,
    SpeechStarted,
    SpeechStopped,
    Trouble,
)

NAMES: Final = ("no_text",)
_NEVER: Final = 1 << 60
_MOST: Final = 256

Spans = tuple[tuple[int, int], ...]


class NoTextState(Struct, frozen=True, array_like=True):
    since_ms: int = 0
    """End of the last transcript with text."""
    speaking: tuple[tuple[Channel, int], ...] = ()
    """Who speaks, since when."""
    spoken: Spans = ()
    """When somebody spoke since, in order and apart."""
    told: bool = False
    hold_ms: int | None = None
    """When the present hold began."""
    back_ms: int = 0
    """When the last one ended."""


class NoText(Watch, frozen=True, kw_only=True):
    limit_ms: int

    state_type = NoTextState

    def fresh(self) -> NoTextState:
        return NoTextState()

    def wake_at(self, state: NoTextState) -> int | None:
        reached = self._reached(state)
        return None if reached is None else reached + STOP_LATE_MS

    def on_wake(self, state: NoTextState, now_ms: int, scene: Scene) -> tuple[NoTextState, Moment | None]:
        return self._told(state, now_ms)

    def on_event(
        self, state: NoTextState, event: CallEvent | Emotion, scene: Scene
    ) -> tuple[NoTextState, Moment | None]:
        if isinstance(event, SpeechStarted):
            if all(channel != event.channel for channel, _ in state.speaking):
                state = replace(state, speaking=(*state.speaking, (event.channel, event.media_ms)))
            return state, None
        if isinstance(event, Hold):
            return self._on_hold(state, event.held, event.media_ms), None
        if isinstance(event, Trouble) and event.kind == "silent":
            return self._on_hold(state, event.present, event.since_ms), None
        if not isinstance(event, SpeechStopped | CallEnded):
            return state, None
        silent = [
            (channel, start)
            for channel, start in state.speaking
            if isinstance(event, CallEnded) or channel == event.channel
        ]
        spans = [self._span(state, start, event.media_ms) for _, start in silent]
        state = replace(
            state,
            speaking=tuple(one for one in state.speaking if one not in silent),
            spoken=() if state.told else _merged([*state.spoken, *spans])[-_MOST:],
        )
        return self._told(state, event.media_ms)

    def on_turn(self, state: NoTextState, scene: Scene, turn: Turn) -> tuple[NoTextState, Moment | None]:
        said = turn.transcript
        if not turn.is_speech or not said.final or not said.text or said.end_ms <= state.since_ms:
            return state, None
        rest = _merged((max(start, said.end_ms), stop) for start, stop in state.spoken)
        return replace(state, since_ms=said.end_ms, spoken=rest, told=False), None

    def _told(self, state: NoTextState, now_ms: int) -> tuple[NoTextState, Moment | None]:
        reached = self._reached(state)
        if reached is None or reached > now_ms:
            return state, None
        spans = self._spans(state)
        moment = Moment(spans[0][0], reached, "unknown", f"{self.limit_ms / 1000:g} s", "timer")
        return replace(state, told=True, spoken=()), moment

    def _reached(self, state: NoTextState) -> int | None:
        """When there was, or will be, so much speech without text if those who speak go on."""
        if state.told:
            return None
        left = self.limit_ms
        for start, stop in self._spans(state):
            if stop - start >= left:
                return start + left
            left -= stop - start
        return None

    @staticmethod
    def _spans(state: NoTextState) -> Spans:
        going_on = [NoText._span(state, start, _NEVER) for _, start in state.speaking]
        return _merged([*state.spoken, *going_on])

    @staticmethod
    def _span(state: NoTextState, start: int, stop: int) -> tuple[int, int]:
        """What counts of it."""
        stop = stop if state.hold_ms is None else min(stop, state.hold_ms)
        return max(start, state.since_ms, state.back_ms), stop

    @staticmethod
    def _on_hold(state: NoTextState, held: bool, media_ms: int) -> NoTextState:
        if held:
            return state if state.hold_ms is not None else replace(state, hold_ms=media_ms)
        if state.hold_ms is None:
            return state
        before = [NoText._span(state, start, _NEVER) for _, start in state.speaking]
        spoken = () if state.told else _merged([*state.spoken, *before])[-_MOST:]
        return replace(state, spoken=spoken, hold_ms=None, back_ms=media_ms)


def _merged(spans: Iterable[tuple[int, int]]) -> Spans:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if stop <= start:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)


def build(form: Form, book: Book) -> Condition | None:
    fields = form.fields("no_text", ("speech",), ("speech",))
    if fields is None or "speech" not in fields:
        return None
    seconds = fields["speech"].number("speech (seconds)", 5, 600)
    if seconds is None:
        return None
    return book.watch(lambda number: NoText(number=number, limit_ms=round(seconds * 1000)))
