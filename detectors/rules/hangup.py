"""``hangup``: who hung up, how soon after the call's begin, or how soon after something was said.

A connection that broke is no hang-up. Who it was counts only where the telephony says so.
"""

from __future__ import annotations

from typing import Final, cast

from msgspec import Struct
from msgspec.structs import replace

from detectors.rules.combinators import own
from detectors.rules.form import Form
from detectors.rules.inner import Inner, order, seen
from detectors.rules.model import Book, Condition, Moment, Scene, Turn, Watch
from streams.events import CallEnded, CallEvent, Channel, Emotion

NAMES: Final = ("hangup",)
_SIDES: Final = ("agent", "customer")


class HangupState(Struct, frozen=True, array_like=True):
    last: Moment | None = None
    """When the condition that it comes ``after`` was last true."""
    ended_ms: int | None = None
    """When it happened, if all but what was said before is as asked for."""
    by: Channel | None = None
    told: bool = False


class Hangup(Watch, frozen=True, kw_only=True):
    by: Channel | None
    within_ms: int | None
    after: Condition | None
    after_ms: int
    """From the end of what was said."""

    state_type = HangupState

    def fresh(self) -> HangupState:
        return HangupState()

    def on_event(
        self, state: HangupState, event: CallEvent | Emotion, scene: Scene
    ) -> tuple[HangupState, Moment | None]:
        if not isinstance(event, CallEnded) or event.reason != "hangup" or state.ended_ms is not None:
            return state, None
        if self.by is not None and event.by != self.by:
            return state, None
        if self.within_ms is not None and event.media_ms > self.within_ms:
            return state, None
        return self._decided(replace(state, ended_ms=event.media_ms, by=event.by))

    def on_turn(self, state: HangupState, scene: Scene, turn: Turn) -> tuple[HangupState, Moment | None]:
        if self.after is None or not turn.transcript.final:
            return state, None
        moment = seen(self.after, scene, turn)
        if moment is None or (state.last is not None and order(moment) < order(state.last)):
            return state, None
        # Final transcripts may still come after the end.
        return self._decided(replace(state, last=moment))

    def _decided(self, state: HangupState) -> tuple[HangupState, Moment | None]:
        ended, last = state.ended_ms, state.last
        if ended is None or state.told:
            return state, None
        if self.after is None:
            told = Moment(ended, ended, state.by or "unknown", f"{ended / 1000:g} s", anchor_ms=ended)
        elif last is None or ended - last.end_ms > self.after_ms:
            return state, None
        else:
            told = replace(last, end_ms=max(ended, last.end_ms), anchor_ms=ended)
        return replace(state, told=True), told


def build(form: Form, book: Book, inner: Inner) -> Condition | None:
    fields = form.fields("hangup", ("by", "within", "after", "seconds"))
    if fields is None:
        return None
    if not fields:
        form.problem("expected one or more of by, within, after in hangup, came none")
        return None
    by = fields["by"].choice("by", _SIDES) if "by" in fields else None
    within = fields["within"].number("within (seconds)", 0, 86_400) if "within" in fields else None
    after = inner(fields["after"]) if "after" in fields else None
    seconds = fields["seconds"].number("seconds", 0, 3600) if "seconds" in fields else None
    if ("after" in fields) != ("seconds" in fields):
        given, other = ("after", "seconds") if "after" in fields else ("seconds", "after")
        fields[given].problem(f"expected {other} beside {given} in hangup, came none")
        return None
    if any(
        name in fields and value is None for name, value in (("by", by), ("within", within), ("after", after))
    ):
        return None
    return book.watch(
        lambda number: Hangup(
            number=number,
            by=cast("Channel | None", by),
            within_ms=None if within is None else round(within * 1000),
            after=None if after is None else own(after),
            after_ms=round((seconds or 0) * 1000),
        )
    )
