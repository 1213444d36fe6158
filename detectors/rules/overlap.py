"""``overlap``: both sides speak at once for so large a share of a window.

The share is of the whole window, also at the call's begin. On a mixed channel nobody can tell.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Moment, Scene, Watch
from detectors.rules.pending import STOP_LATE_MS
from streams.events import CallEnded, CallEvent, Emotion, SpeechStarted, SpeechStopped

NAMES: Final = ("overlap",)
_MOST: Final = 256


class OverlapState(Struct, frozen=True, array_like=True):
    agent_ms: int | None = None
    """Since when the agent speaks; ``None``: silent."""
    customer_ms: int | None = None
    both: tuple[tuple[int, int], ...] = ()
    """When both spoke, within the window."""
    counted_ms: int = 0
    """What was before has been told."""


class Overlap(Watch, frozen=True, kw_only=True):
    share: float
    window_ms: int

    state_type = OverlapState

    def fresh(self) -> OverlapState:
        return OverlapState()

    def wake_at(self, state: OverlapState) -> int | None:
        reached = self._reached(state)
        return None if reached is None else reached + STOP_LATE_MS

    def on_wake(self, state: OverlapState, now_ms: int, scene: Scene) -> tuple[OverlapState, Moment | None]:
        reached = self._reached(state)
        return (state, None) if reached is None else self._told(state, reached)

    def on_event(
        self, state: OverlapState, event: CallEvent | Emotion, scene: Scene
    ) -> tuple[OverlapState, Moment | None]:
        if isinstance(event, SpeechStarted):
            if event.channel == "agent" and state.agent_ms is None:
                return replace(state, agent_ms=event.media_ms), None
            if event.channel == "customer" and state.customer_ms is None:
                return replace(state, customer_ms=event.media_ms), None
        elif isinstance(event, SpeechStopped | CallEnded):
            if isinstance(event, SpeechStopped) and event.channel == "unknown":
                return state, None
            return self._stopped(state, event)
        return state, None

    def _stopped(
        self, state: OverlapState, event: SpeechStopped | CallEnded
    ) -> tuple[OverlapState, Moment | None]:
        reached, since, at = self._reached(state), self._since(state), event.media_ms
        told: Moment | None = None
        if reached is not None and reached <= at:
            state, told = self._told(state, reached)
            since = reached
        if since is not None and at > since:
            kept = [span for span in state.both if span[1] > at - self.window_ms]
            state = replace(state, both=(*kept, (since, at))[-_MOST:])
        if isinstance(event, CallEnded):
            return replace(state, agent_ms=None, customer_ms=None), told
        if event.channel == "agent":
            return replace(state, agent_ms=None), told
        return replace(state, customer_ms=None), told

    @staticmethod
    def _since(state: OverlapState) -> int | None:
        """Since when both speak."""
        if state.agent_ms is None or state.customer_ms is None:
            return None
        return max(state.agent_ms, state.customer_ms, state.counted_ms)

    def _reached(self, state: OverlapState) -> int | None:
        """When the share is reached if both go on. While both speak the share never falls."""
        since = self._since(state)
        if since is None:
            return None
        needed = max(1, round(self.share * self.window_ms))

        def covered(at: int) -> int:
            begin = at - self.window_ms
            spans = (*state.both, (since, at))
            return sum(max(0, min(stop, at) - max(start, begin)) for start, stop in spans)

        low, high = since, since + needed
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if covered(middle) >= needed else (middle + 1, high)
        return low

    def _told(self, state: OverlapState, at_ms: int) -> tuple[OverlapState, Moment]:
        begin = at_ms - self.window_ms
        first = min((start for start, stop in state.both if stop > begin), default=self._since(state) or 0)
        moment = Moment(max(first, begin, 0), at_ms, "unknown", f"{self.share * 100:g} %")
        return replace(state, both=(), counted_ms=at_ms), moment


def build(form: Form, book: Book) -> Condition | None:
    fields = form.fields("overlap", ("share", "seconds"), ("share",))
    if fields is None or "share" not in fields:
        return None
    share = fields["share"].number("share", 0.01, 1)
    seconds = fields["seconds"].number("seconds", 1, 600) if "seconds" in fields else 60
    if share is None or seconds is None:
        return None
    return book.watch(lambda number: Overlap(number=number, share=share, window_ms=round(seconds * 1000)))
