"""``count``: the same thing so many times within so much media time.

An utterance in which the condition holds counts once. What was counted is used up: to be told again it
takes as many more.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from detectors.rules.combinators import own
from detectors.rules.form import Form
from detectors.rules.inner import Inner, order, seen
from detectors.rules.model import Book, Condition, Moment, Scene, Turn, Watch
from detectors.rules.sequence import LATE_MS

NAMES: Final = ("count",)
_MOST: Final = 20


class CountState(Struct, frozen=True, array_like=True):
    seen: tuple[Moment, ...] = ()
    used: tuple[int, int, int] = (-1, -1, -1)


class Count(Watch, frozen=True, kw_only=True):
    of: Condition
    least: int
    window_ms: int
    """From the begin of the first to that of the last."""

    state_type = CountState

    def fresh(self) -> CountState:
        return CountState()

    def on_turn(self, state: CountState, scene: Scene, turn: Turn) -> tuple[CountState, Moment | None]:
        moment = seen(self.of, scene, turn)
        if moment is None or order(moment) <= state.used:
            return state, None
        all_ = sorted((*state.seen, moment), key=order)
        oldest = all_[-1].start_ms - self.window_ms - LATE_MS
        kept = [m for m in all_ if m.start_ms >= oldest][-2 * _MOST :]
        for first, last in zip(kept, kept[self.least - 1 :], strict=False):
            if last.start_ms - first.start_ms <= self.window_ms:
                rest = tuple(m for m in kept if order(m) > order(last))
                told = replace(last, start_ms=first.start_ms, how="count")
                return CountState(rest, order(last)), told
        return CountState(tuple(kept), state.used), None


def build(form: Form, book: Book, inner: Inner) -> Condition | None:
    known = ("of", "at_least", "seconds")
    fields = form.fields("count", known, known)
    if fields is None or any(name not in fields for name in known):
        return None
    of = inner(fields["of"])
    least = fields["at_least"].number("at_least", 2, _MOST)
    seconds = fields["seconds"].number("seconds", 1, 3600)
    if of is None or least is None or seconds is None:
        return None
    return book.watch(
        lambda number: Count(number=number, of=own(of), least=int(least), window_ms=round(seconds * 1000))
    )
