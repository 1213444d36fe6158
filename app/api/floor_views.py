"""What the floor answers: calls as their cards show them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from app.api.views import AlertCounts, AlertView, CallView
from app.figures import Figures
from streams.events import Channel, Emotion, Feeling, Health, Progress

MOODS_MOST = 24
"""Points of a call's curve on its card."""
RULES = "rules"
"""The rules' own list of what is still to be said; all other lists are scripts."""


class Mood(Struct, frozen=True, kw_only=True):
    """How the customer felt in one utterance."""

    media_ms: int
    level: float
    """0 (calm) to 10."""
    trend: float
    feeling: Feeling
    role: Channel


class ScriptState(Struct, frozen=True, kw_only=True):
    """How far a call is in its script."""

    script: str
    name: dict[str, str]
    done: int
    """Steps said, late and out of order too."""
    steps: int
    """Without those that were not needed."""
    missed: int
    next: dict[str, str] | None = None
    """Of the step whose time runs."""
    due_ms: int | None = None


class FloorCall(CallView, frozen=True, kw_only=True):
    open: AlertCounts
    """Alerts that nobody has taken in hand."""
    moods: list[Mood]
    progress: ScriptState | None


class Floor(Struct, frozen=True, kw_only=True):
    cursor: int
    calls: list[FloorCall]
    alerts: list[AlertView]
    open: AlertCounts
    """Of the last day, all of them: ``alerts`` may be fewer."""
    figures: Figures
    health: Health | None


def moods(emotions: Sequence[Emotion]) -> list[Mood]:
    """The curve of a call: the customer's, or of everybody where the channels are mixed."""
    return [
        Mood(
            media_ms=each.media_end_ms,
            level=each.level,
            trend=each.trend,
            feeling=each.feeling,
            role=each.role,
        )
        for each in emotions
        if each.role != "agent"
    ][-MOODS_MOST:]


def script_state(lists: Sequence[Progress]) -> ScriptState | None:
    """Of the script that the call is in, else of the rules' list; ``lists``: the last told last."""
    if not lists:
        return None
    progress = next((each for each in reversed(lists) if each.script != RULES), lists[-1])
    needed = [step for step in progress.steps if step.state != "skipped"]
    due = next((step for step in needed if step.state == "due"), None)
    return ScriptState(
        script=progress.script,
        name=progress.name,
        done=sum(step.state in ("done", "too_late", "out_of_order") for step in needed),
        steps=len(needed),
        missed=sum(step.state == "missed" for step in needed),
        next=due.name if due is not None else None,
        due_ms=due.due_ms if due is not None else None,
    )
