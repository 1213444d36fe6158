"""``all``, ``any``, ``not``: conditions made of conditions, over one utterance or a window of them."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from detectors.rules.clues import Clues, clues, of_all, of_any
from detectors.rules.form import Form
from detectors.rules.model import Book, Condition, Found, Scene, Turn, Watch
from streams.events import Channel

NAMES: Final = ("all", "any", "not")
LONGEST_WINDOW_S: Final = 120
MOST_TURNS: Final = 20


class Window(Struct, frozen=True):
    """How far back other turns count: milliseconds of media time, or a number of turns."""

    ms: int | None = None
    turns: int | None = None

    def reaches(self, scene: Scene, now: Turn) -> list[Turn]:
        """The turns before ``now`` that count, the latest first."""
        before = [t for t in scene.turns if t is not now and t.transcript.start_ms <= now.transcript.start_ms]
        before.reverse()
        if self.turns is not None:
            before = before[: self.turns]
        if self.ms is not None:
            before = [t for t in before if now.transcript.start_ms - t.transcript.end_ms <= self.ms]
        return before


class By(Struct, frozen=True):
    """A condition that holds only in the turns of one role, or a watch on what one role does."""

    role: Channel
    inner: Condition

    def clues(self) -> Clues | None:
        return clues(self.inner)

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        found = self.inner.find(scene, turn)
        if found is None:
            return None
        role = turn.role if found.moment is None else found.moment.role
        return found if role in (self.role, "unknown") else None


class Own(Struct, frozen=True):
    """A condition that holds only in the turns of the rule's own role."""

    inner: Condition

    def clues(self) -> Clues | None:
        return clues(self.inner)

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        return self.inner.find(scene, turn) if scene.rule.concerns(turn.role) else None


class Framed(Struct, frozen=True):
    """A condition that counts only where something around it is so; the inner one says whose words count."""

    inner: Condition

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        return self.inner.find(scene, turn)


def own(condition: Condition) -> Condition:
    """What is said in it must be said by the rule's own role, wherever it names no other.

    For conditions inside of others that look at the turns of both sides. Watches say themselves whom
    they watch.
    """
    if isinstance(condition, By | Own | Watch):
        return condition
    if isinstance(condition, Framed):
        return msgspec.structs.replace(condition, inner=own(condition.inner))
    if isinstance(condition, Any | All):
        return msgspec.structs.replace(condition, parts=tuple(own(part) for part in condition.parts))
    if isinstance(condition, Not):
        # Own around, not inside: the other side's turn is not one in which something was left unsaid.
        return Own(msgspec.structs.replace(condition, part=own(condition.part)))
    return Own(condition)


class Any(Struct, frozen=True):
    parts: tuple[Condition, ...]
    window: Window | None = None

    def clues(self) -> Clues | None:
        return of_any(self.parts) if self.window is None else None

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        best: Found | None = None
        for part in self.parts:
            found = part.find(scene, turn)
            if found is not None and (best is None or _better(found, best)):
                best = found
                if found.how == "exact":
                    break
        if best is None and self.window is not None:
            for earlier in self.window.reaches(scene, turn):
                if any(part.find(scene, earlier) is not None for part in self.parts):
                    return Found()
        return best


class All(Struct, frozen=True):
    """Every part holds: in this turn, or, with a window, some of them in turns shortly before."""

    parts: tuple[Condition, ...]
    window: Window | None = None

    def clues(self) -> Clues | None:
        # With a window some parts may stand in earlier turns, but never all of them.
        return of_all(self.parts) if self.window is None else of_any(self.parts)

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        here = [part.find(scene, turn) for part in self.parts]
        if not any(found is not None for found in here):
            return None
        missing = [part for part, found in zip(self.parts, here, strict=True) if found is None]
        if missing:
            # What was said before does not come true again by what is merely known, or not said, now.
            if self.window is None or not any(f and (f.spans or f.moment) for f in here):
                return None
            earlier = self.window.reaches(scene, turn)
            if not all(any(part.find(scene, t) is not None for t in earlier) for part in missing):
                return None
        present = [found for found in here if found is not None]
        spans = sorted({span for found in present for span in found.spans})
        shown = [found for found in present if found.spans] or present
        known = [found.confidence for found in shown if found.confidence is not None]
        return Found(
            spans=tuple(spans),
            expected=tuple(dict.fromkeys(text for found in shown for text in found.expected)),
            how=next((f.how for f in shown if f.how != "exact"), shown[0].how),
            confidence=min(known) if known else None,
            moment=next((found.moment for found in present if found.moment is not None), None),
        )


class Not(Struct, frozen=True):
    part: Condition
    window: Window | None = None

    def find(self, scene: Scene, turn: Turn) -> Found | None:
        if self.part.find(scene, turn) is not None:
            return None
        if self.window is not None:
            for earlier in self.window.reaches(scene, turn):
                if self.part.find(scene, earlier) is not None:
                    return None
        return Found()


def _better(found: Found, other: Found) -> bool:
    order = {"exact": 0, "regex": 1}
    return (order.get(found.how, 2), -(found.confidence or 0)) < (
        order.get(other.how, 2),
        -(other.confidence or 0),
    )


def window(form: Form) -> Window | None:
    fields = form.fields("within", ("seconds", "turns")) or {}
    if not fields:
        form.problem("expected seconds or turns in within, came none")
        return None
    seconds = fields["seconds"].number("seconds", 0, LONGEST_WINDOW_S) if "seconds" in fields else None
    turns = fields["turns"].number("turns", 1, MOST_TURNS) if "turns" in fields else None
    return Window(None if seconds is None else int(seconds * 1000), None if turns is None else int(turns))


def build(
    name: str, parts: list[Condition], within: Window | None, form: Form, book: Book
) -> Condition | None:
    if name == "not":
        if len(parts) != 1:
            form.problem(f"expected one condition under not, came {len(parts)}")
            return None
        return Not(parts[0], within)
    if not parts:
        return None
    return Any(tuple(parts), within) if name == "any" else All(tuple(parts), within)
