"""``silence``: nobody speaks for so long. A timer: it fires while it is still silent.

The start of speech is told up to half a second of media time after it happened (speech must be long
enough to be speech), so the timer waits that much longer before it speaks up, and then names the true
times. Whether it fires depends on the speech edges alone, not on when it is woken.
"""

from __future__ import annotations

from typing import Final, cast

from msgspec import Struct

from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Found, Scene, Turn
from streams.events import CallEnded, CallEvent, CallStarted, Channel, SpeechStarted, SpeechStopped

NAMES: Final = ("silence",)
GRACE_MS: Final = 500
_CHANNELS: Final = ("agent", "customer")


class Silence(Struct, frozen=True):
    limit_ms: int
    between: tuple[Channel, ...]
    """The channels that must all be silent; ``unknown`` (mixed mono) always counts."""
    from_start: bool
    """Whether the silence before the first word counts."""

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        return None  # no utterance makes a silence

    def fresh(self) -> SilenceState:
        return SilenceState(armed_ms=0 if self.from_start else None)

    def wake_at(self, state: SilenceState) -> int | None:
        if state.armed_ms is None or state.fired or state.speaking:
            return None
        return state.armed_ms + self.limit_ms + GRACE_MS

    def on_wake(self, state: SilenceState, now_ms: int) -> tuple[SilenceState, int | None]:
        """The state after the alarm, and when the silence began if it lasted long enough."""
        wake = self.wake_at(state)
        if wake is None or now_ms < wake:
            return state, None
        return SilenceState(state.speaking, state.armed_ms, True), state.armed_ms

    def on_event(self, state: SilenceState, event: CallEvent) -> tuple[SilenceState, int | None]:
        """The state after an event, and when a silence began that this event ends too late."""
        if isinstance(event, SpeechStarted | SpeechStopped):
            if event.channel != "unknown" and event.channel not in self.between:
                return state, None
            others = tuple(sorted(set(state.speaking) - {event.channel}))
            if isinstance(event, SpeechStopped):
                if event.channel not in state.speaking:
                    return state, None
                armed = None if others else max(event.media_ms, state.armed_ms or 0)
                return SilenceState(others, armed, False), None
            overdue = self._overdue(state, event.media_ms)
            speaking: tuple[Channel, ...] = tuple(sorted((*others, event.channel)))
            return SilenceState(speaking, None, False), overdue
        if isinstance(event, CallEnded):
            return SilenceState((), None, False), self._overdue(state, event.media_ms)
        if isinstance(event, CallStarted):
            return self.fresh(), None
        return state, None

    def _overdue(self, state: SilenceState, media_ms: int) -> int | None:
        if state.armed_ms is None or state.fired or state.speaking:
            return None
        return state.armed_ms if media_ms - state.armed_ms >= self.limit_ms else None


class SilenceState(Struct, frozen=True, array_like=True):
    speaking: tuple[Channel, ...] = ()
    armed_ms: int | None = None
    """When the present silence began."""
    fired: bool = False
    """The present silence has been reported."""


def build(form: Form, book: Book) -> Condition | None:
    fields = form.fields("silence", ("seconds", "between", "from_start"), ("seconds",))
    if fields is None or "seconds" not in fields:
        return None
    seconds = fields["seconds"].number("seconds", 1, 3600)
    between: list[Channel] = []
    if "between" in fields:
        for item in fields["between"].items("between"):
            role = item.choice("between", _CHANNELS)
            if role is not None:
                between.append(cast(Channel, role))
    from_start = fields["from_start"].flag("from_start") if "from_start" in fields else False
    if seconds is None:
        return None
    return Silence(round(seconds * 1000), tuple(between) or ("agent", "customer"), bool(from_start))
