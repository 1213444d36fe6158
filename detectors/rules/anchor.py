"""``anchor``: a condition that counts only near another one, before it, after it or in the same turn.

``where`` says where the condition stands as seen from its anchor: ``{phrase: [再考虑一下], anchor: {of:
{phrase: [不需要], role: customer}, where: after, turns: 3}}`` is a phrase said at most three turns *after*
a refusal. What stands *before* its anchor comes true when the anchor is said, and points there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, cast, get_args

from msgspec import Struct

from detectors.rules.clues import Clues, clues
from detectors.rules.combinators import LONGEST_WINDOW_S, MOST_TURNS, Framed, Window, own
from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Found, Moment, Scene, Turn, Watch

Where = Literal["before", "after", "around", "current"]
_KEPT: Final = 16
"""Occurrences of the condition, and of its anchor, that are remembered."""


class Place(Struct, frozen=True, array_like=True):
    """When something was said or happened, and the turn (or the moment itself) to which it belongs."""

    start_ms: int
    end_ms: int
    turn_start_ms: int
    turn_end_ms: int


def place_of(found: Found, turn: Turn) -> Place:
    if found.moment is not None:
        start, end = found.moment.start_ms, found.moment.end_ms
        return Place(start, end, start, end)
    said = turn.transcript
    start = said.time_of(min(a for a, _ in found.spans)) if found.spans else said.start_ms
    end = said.time_of(max(b for _, b in found.spans)) if found.spans else said.end_ms
    return Place(start, max(start, end), said.start_ms, said.end_ms)


class Scope(Struct, frozen=True):
    """Where a condition must stand, as seen from its anchor, and how far away it may be."""

    where: Where
    window: Window

    def holds(self, thing: Place, anchor: Place, scene: Scene) -> bool:
        if self.where == "current":
            return thing.turn_start_ms <= anchor.turn_end_ms and anchor.turn_start_ms <= thing.turn_end_ms
        if self.where == "after" and thing.start_ms <= anchor.start_ms:
            return False
        if self.where == "before" and thing.start_ms >= anchor.start_ms:
            return False
        first, second = sorted((thing, anchor), key=lambda place: (place.start_ms, place.end_ms))
        if self.window.ms is not None and second.start_ms - first.end_ms > self.window.ms:
            return False
        if self.window.turns is None:
            return True
        begins = (turn.transcript.start_ms for turn in scene.turns)
        apart = sum(1 for start in begins if first.turn_start_ms <= start < second.turn_start_ms)
        return apart <= self.window.turns


class Anchor(Framed, frozen=True):
    """Of conditions on what is said: looks back over the turns. Only ``after`` and ``current``."""

    of: Condition
    scope: Scope

    def clues(self) -> Clues | None:
        return clues(self.inner)

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        found = self.inner.find(scene, turn)
        if found is None:
            return None
        here = place_of(found, turn)
        turns = [turn, *self.scope.window.reaches(scene, turn)] if self.scope.where == "after" else [turn]
        for other in turns:
            anchor = self.of.find(scene, other)
            if anchor is not None and self.scope.holds(here, place_of(anchor, other), scene):
                return found
        return None


class AnchorState(Struct, frozen=True, array_like=True):
    things: tuple[Place, ...] = ()
    """Where the condition held lately, the latest told last."""
    anchors: tuple[Place, ...] = ()
    """Where its anchor did."""


class AnchorWatch(Watch, frozen=True, kw_only=True):
    """Of everything else: remembers where the condition held and where its anchor did.

    Media time decides what was before and what after: transcripts of the two sides come in any order,
    and later than the sounds around them.
    """

    inner: Condition
    of: Condition
    scope: Scope

    state_type = AnchorState

    def fresh(self) -> AnchorState:
        return AnchorState()

    def on_turn(self, state: AnchorState, scene: Scene, turn: Turn) -> tuple[AnchorState, Moment | None]:
        found, anchor = self.inner.find(scene, turn), self.of.find(scene, turn)
        if found is None and anchor is None:
            return state, None
        things, anchors = state.things, state.anchors
        moment: Moment | None = None
        if anchor is not None:
            anchors = (*anchors, place_of(anchor, turn))[-_KEPT:]
        if found is not None:
            here = place_of(found, turn)
            things = (*things, here)[-_KEPT:]
            if any(self.scope.holds(here, other, scene) for other in anchors):
                moment = _told(found, here, turn)
        if anchor is not None and moment is None:
            here = anchors[-1]
            if any(self.scope.holds(other, here, scene) for other in things):
                moment = _told(anchor, here, turn)
        return AnchorState(things, anchors), moment


def _told(found: Found, place: Place, turn: Turn) -> Moment:
    if found.moment is not None:
        return found.moment
    return Moment(
        start_ms=place.start_ms,
        end_ms=place.end_ms,
        role=turn.role,
        text=turn.transcript.text,
        how=found.how,
        expected=found.expected,
        spans=found.spans,
        confidence=found.confidence,
    )


def build(
    form: Form,
    book: Book,
    inner: Condition,
    takes_time: bool,
    condition: Callable[[Form, Book], Condition | None],
) -> Condition | None:
    """``inner``: the condition beside which it stands; ``takes_time``: that there is a watch in it."""
    fields = form.fields("anchor", ("of", "where", "turns", "seconds"), ("of", "where"))
    if fields is None or "of" not in fields or "where" not in fields:
        return None
    watches = len(book.watches)
    of = condition(fields["of"], book)
    where = cast("Where | None", fields["where"].choice("where", get_args(Where)))
    seconds = fields["seconds"].number("seconds", 0, LONGEST_WINDOW_S) if "seconds" in fields else None
    turns = fields["turns"].number("turns", 1, MOST_TURNS) if "turns" in fields else None
    limits = [name for name in ("turns", "seconds") if name in fields]
    if where == "current" and limits:
        fields[limits[0]].problem(f"expected no {limits[0]} beside where: current, which is one turn")
    elif where not in (None, "current") and not limits:
        form.problem(f"expected turns or seconds beside where: {where}, came none")
    if of is None or where is None:
        return None
    window = Window(None if seconds is None else round(seconds * 1000), None if turns is None else int(turns))
    scope = Scope(where, window)
    anchor = own(of)
    if where in ("after", "current") and not takes_time and len(book.watches) == watches:
        return Anchor(inner, anchor, scope)
    # Before: the anchor may be the other side's, whose turns are not judged by the rule itself.
    thing = own(inner)
    return book.watch(lambda number: AnchorWatch(number=number, inner=thing, of=anchor, scope=scope))
