"""``sequence``: one thing after the other, in this order, within so much media time.

Each step is judged on its own and remembered with its place in media time, so the order in which
transcripts arrive does not matter. A sequence that was told is used up: the next one begins behind it.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from detectors.rules.combinators import own
from detectors.rules.form import Form
from detectors.rules.inner import Inner, order, seen
from detectors.rules.model import Book, Condition, Moment, Scene, Turn, Watch

NAMES: Final = ("sequence",)
LATE_MS: Final = 15_000
"""Transcripts that come later than this, counted against those of the other side, may be missed."""
_MOST: Final = 16
"""Times one step is remembered."""
_MOST_STEPS: Final = 8


class SequenceState(Struct, frozen=True, array_like=True):
    seen: tuple[tuple[Moment, ...], ...]
    """For each step, when it came true, in media time."""
    used: tuple[int, int, int] = (-1, -1, -1)
    """Place (``inner.order``) of the end of the last sequence that was told."""


class Sequence(Watch, frozen=True, kw_only=True):
    steps: tuple[Condition, ...]
    window_ms: int
    """From the begin of the first step to that of the last."""

    state_type = SequenceState

    def fresh(self) -> SequenceState:
        return SequenceState(((),) * len(self.steps))

    def on_turn(self, state: SequenceState, scene: Scene, turn: Turn) -> tuple[SequenceState, Moment | None]:
        new = [seen(step, scene, turn) for step in self.steps]
        if not any(new):
            return state, None
        steps = [
            (*past, moment) if moment is not None and order(moment) > state.used else past
            for past, moment in zip(state.seen, new, strict=True)
        ]
        latest = max((m.start_ms for past in steps for m in past), default=0)
        oldest = latest - self.window_ms - LATE_MS
        kept = tuple(
            tuple(sorted((m for m in past if m.start_ms >= oldest), key=order)[-_MOST:]) for past in steps
        )
        for last in kept[-1]:
            first = self._first(kept, last)
            if first is not None and last.start_ms - first.start_ms <= self.window_ms:
                used = order(last)
                rest = tuple(tuple(m for m in past if order(m) > used) for past in kept)
                return SequenceState(rest, used), replace(last, start_ms=first.start_ms)
        return SequenceState(kept, state.used), None

    @staticmethod
    def _first(steps: tuple[tuple[Moment, ...], ...], last: Moment) -> Moment | None:
        """Begin of the shortest sequence that ends with ``last``."""
        here = last
        for past in reversed(steps[:-1]):
            before = [m for m in past if order(m) < order(here)]
            if not before:
                return None
            here = before[-1]
        return here


def build(form: Form, book: Book, inner: Inner) -> Condition | None:
    fields = form.fields("sequence", ("steps", "seconds"), ("steps", "seconds"))
    if fields is None or "steps" not in fields or "seconds" not in fields:
        return None
    seconds = fields["seconds"].number("seconds", 1, 3600)
    items = fields["steps"].items("steps")
    steps = [own(step) for item in items if (step := inner(item)) is not None]
    if not 2 <= len(items) <= _MOST_STEPS:
        fields["steps"].problem(f"expected 2 to {_MOST_STEPS} conditions in steps, came {len(items)}")
        return None
    if seconds is None or len(steps) != len(items):
        return None
    return book.watch(
        lambda number: Sequence(number=number, steps=tuple(steps), window_ms=round(seconds * 1000))
    )
