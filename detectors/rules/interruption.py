"""``interruption`` 抢话: one side begins to speak into what the other side is saying, and both go on.

The other side must have been speaking for a second, and both must go on for ``overlap`` milliseconds: a
嗯 or 对 in between is listening, not interrupting. On a mixed channel nobody can tell.
"""

from __future__ import annotations

from typing import Final, cast

from msgspec import Struct
from msgspec.structs import replace

from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Moment, Scene, Watch
from detectors.rules.pending import STOP_LATE_MS
from streams.events import CallEnded, CallEvent, Channel, Emotion, SpeechStarted, SpeechStopped

NAMES: Final = ("interruption",)
_SIDES: Final = ("agent", "customer")
_SPOKEN_MS: Final = 1000
"""What the other side must have said before."""
_BREATH_MS: Final = 700
"""Speech that goes on after a pause no longer than this was not given up."""


class Talk(Struct, frozen=True, array_like=True):
    """What one side says, breaths included."""

    start_ms: int
    stop_ms: int | None = None


class InterruptionState(Struct, frozen=True, array_like=True):
    by: Talk | None = None
    other: Talk | None = None
    begun_ms: int | None = None
    """Both sides speak since then; whether they go on is not known yet."""
    times: tuple[int, ...] = ()
    """Begins of those counted lately."""
    last_ms: int = -1
    """Begin of the last one that was counted."""


class Interruption(Watch, frozen=True, kw_only=True):
    by: Channel
    overlap_ms: int
    least: int
    window_ms: int

    state_type = InterruptionState

    def fresh(self) -> InterruptionState:
        return InterruptionState()

    def wake_at(self, state: InterruptionState) -> int | None:
        return None if state.begun_ms is None else state.begun_ms + self.overlap_ms + STOP_LATE_MS

    def on_wake(
        self, state: InterruptionState, now_ms: int, scene: Scene
    ) -> tuple[InterruptionState, Moment | None]:
        return self._decided(state)

    def on_event(
        self, state: InterruptionState, event: CallEvent | Emotion, scene: Scene
    ) -> tuple[InterruptionState, Moment | None]:
        if isinstance(event, CallEnded):
            if state.begun_ms is None or event.media_ms < state.begun_ms + self.overlap_ms:
                return replace(state, begun_ms=None), None
            return self._decided(state)
        if not isinstance(event, SpeechStarted | SpeechStopped) or event.channel not in _SIDES:
            return state, None
        ours = event.channel == self.by
        talk, at = state.by if ours else state.other, event.media_ms
        if isinstance(event, SpeechStopped):
            if talk is None or talk.stop_ms is not None:
                return state, None
            ended = Talk(talk.start_ms, max(at, talk.start_ms))
            state = replace(state, by=ended) if ours else replace(state, other=ended)
            return (state, None) if state.begun_ms is None else self._decided(state)
        if talk is None or (talk.stop_ms is not None and at - talk.stop_ms > _BREATH_MS):
            talk = Talk(at)
        else:
            talk = Talk(talk.start_ms)
        if not ours:
            return replace(state, other=talk), None
        state = replace(state, by=talk)
        if self._cuts_in(state, talk, at) and state.last_ms < talk.start_ms:
            state = replace(state, begun_ms=at)
        return state, None

    def _cuts_in(self, state: InterruptionState, talk: Talk, at_ms: int) -> bool:
        other = state.other
        if other is None or talk.start_ms - other.start_ms < _SPOKEN_MS:
            return False
        return other.stop_ms is None or other.stop_ms >= at_ms + self.overlap_ms

    def _decided(self, state: InterruptionState) -> tuple[InterruptionState, Moment | None]:
        """Both have gone on for long enough, or one of them has stopped before."""
        begun = state.begun_ms
        if begun is None:
            return state, None
        state = replace(state, begun_ms=None)
        end = begun + self.overlap_ms
        if any(t is None or (t.stop_ms is not None and t.stop_ms < end) for t in (state.by, state.other)):
            return state, None
        times = (*(t for t in state.times if t >= begun - self.window_ms), begun)
        if len(times) < self.least:
            return replace(state, times=times, last_ms=begun), None
        told = Moment(times[0], end, self.by, f"{len(times)} ×", "count" if self.least > 1 else "signal")
        return replace(state, times=(), last_ms=begun), told


def build(form: Form, book: Book) -> Condition | None:
    fields = form.fields("interruption", ("by", "overlap", "times", "seconds"), ("by",))
    if fields is None or "by" not in fields:
        return None
    by = fields["by"].choice("by", _SIDES)
    overlap = fields["overlap"].number("overlap (milliseconds)", 100, 5000) if "overlap" in fields else 300
    times = fields["times"].number("times", 1, 20) if "times" in fields else 1
    seconds = fields["seconds"].number("seconds", 1, 3600) if "seconds" in fields else 60
    if by is None or overlap is None or times is None or seconds is None:
        return None
    return book.watch(
        lambda number: Interruption(
            number=number,
            by=cast(Channel, by),
            overlap_ms=round(overlap),
            least=int(times),
            window_ms=round(seconds * 1000),
        )
    )
