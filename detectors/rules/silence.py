"""``silence``: nobody speaks for so long. A timer: it fires while it is still silent.

The start of speech is told up to half a second of media time after it happened (speech must be long
enough to be speech), so the timer waits that much longer before it speaks up, and then names the true
times. Whether it fires depends on the speech edges alone, not on when it is woken.

Time on hold does not count, unless ``hold: true``: a silence is as long as what is left of it without that.
"""

from __future__ import annotations

from typing import Final, cast

from msgspec import Struct
from msgspec.structs import replace

from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Moment, Scene, Watch
from streams.events import CallEnded, CallEvent, Channel, Emotion, Hold, SpeechStarted, SpeechStopped

NAMES: Final = ("silence",)
GRACE_MS: Final = 500
_CHANNELS: Final = ("agent", "customer")


class SilenceState(Struct, frozen=True, array_like=True):
    speaking: tuple[Channel, ...] = ()
    armed_ms: int | None = None
    """When the present silence began."""
    fired: bool = False
    """The present silence has been reported."""
    held_ms: int = 0
    """How much of the present silence was time on hold."""
    hold_ms: int | None = None
    """When the present hold began."""


class Silence(Watch, frozen=True, kw_only=True):
    limit_ms: int
    between: tuple[Channel, ...]
    """The channels that must all be silent; ``unknown`` (mixed mono) always counts."""
    from_start: bool
    """Whether the silence before the first word counts."""
    hold: bool
    """Whether time on hold counts."""

    state_type = SilenceState

    def fresh(self) -> SilenceState:
        return SilenceState(armed_ms=0 if self.from_start else None)

    def wake_at(self, state: SilenceState) -> int | None:
        if state.armed_ms is None or state.fired or state.speaking or state.hold_ms is not None:
            return None
        return state.armed_ms + self.limit_ms + state.held_ms + GRACE_MS

    def on_wake(self, state: SilenceState, now_ms: int, scene: Scene) -> tuple[SilenceState, Moment | None]:
        wake = self.wake_at(state)
        if wake is None or now_ms < wake:
            return state, None
        return replace(state, fired=True), self._told(state)

    def on_event(
        self, state: SilenceState, event: CallEvent | Emotion, scene: Scene
    ) -> tuple[SilenceState, Moment | None]:
        """Tells of a silence also when this event ends it too late and nobody was woken."""
        if isinstance(event, SpeechStarted | SpeechStopped):
            if event.channel != "unknown" and event.channel not in self.between:
                return state, None
            others = tuple(sorted(set(state.speaking) - {event.channel}))
            if isinstance(event, SpeechStopped):
                if event.channel not in state.speaking:
                    return state, None
                armed = None if others else max(event.media_ms, state.armed_ms or 0)
                return SilenceState(others, armed, hold_ms=state.hold_ms), None
            told = self._overdue(state, event.media_ms)
            speaking: tuple[Channel, ...] = tuple(sorted((*others, event.channel)))
            return SilenceState(speaking, hold_ms=state.hold_ms), told
        if isinstance(event, CallEnded):
            return SilenceState(), self._overdue(state, event.media_ms)
        if isinstance(event, Hold) and not self.hold:
            return self._on_hold(state, event)
        return state, None

    def _on_hold(self, state: SilenceState, event: Hold) -> tuple[SilenceState, Moment | None]:
        if event.held == (state.hold_ms is not None):
            return state, None
        told = self._overdue(state, event.media_ms)
        fired = state.fired or told is not None
        if state.hold_ms is None:
            return replace(state, fired=fired, hold_ms=event.media_ms), told
        begun = max(state.hold_ms, state.armed_ms or 0)
        held = state.held_ms + (max(0, event.media_ms - begun) if state.armed_ms is not None else 0)
        return replace(state, fired=fired, hold_ms=None, held_ms=held), told

    def _overdue(self, state: SilenceState, media_ms: int) -> Moment | None:
        if state.armed_ms is None or state.fired or state.speaking:
            return None
        if state.hold_ms is not None:
            media_ms = min(media_ms, max(state.hold_ms, state.armed_ms))
        silent = media_ms - state.armed_ms - state.held_ms
        return self._told(state) if silent >= self.limit_ms else None

    def _told(self, state: SilenceState) -> Moment | None:
        if state.armed_ms is None:
            return None
        role: Channel = self.between[0] if len(self.between) == 1 else "unknown"
        end = state.armed_ms + self.limit_ms + state.held_ms
        return Moment(state.armed_ms, end, role, f"{self.limit_ms / 1000:g} s", "timer")


def build(form: Form, book: Book) -> Condition | None:
    fields = form.fields("silence", ("seconds", "between", "from_start", "hold"), ("seconds",))
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
    hold = fields["hold"].flag("hold") if "hold" in fields else False
    if seconds is None:
        return None
    return book.watch(
        lambda number: Silence(
            number=number,
            limit_ms=round(seconds * 1000),
            between=tuple(between) or ("agent", "customer"),
            from_start=bool(from_start),
            hold=bool(hold),
        )
    )
