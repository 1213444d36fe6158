"""What detectors see, and what they find."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from streams.events.calls import (
    CallEnded,
    CallStarted,
    CallUpdated,
    Channel,
    Gap,
    Hold,
    KeyPressed,
    Transfer,
    Trouble,
)
from streams.events.speech import SpeechStarted, SpeechStopped, Transcript, Voice

Match = Literal["exact", "pinyin", "regex", "similar", "timer", "count", "entity", "signal", "script"]

Feeling = Literal["calm", "pleased", "anxious", "sad", "displeased", "angry"]


class Evidence(Struct, frozen=True, kw_only=True):
    """Why a rule fired. Redacted before it leaves the core."""

    text: str
    """The sentence in which the phrase stands; for a timer, what was waited for."""
    matched: tuple[str, ...] = ()
    """What was heard, as it stands in ``text``."""
    spans: tuple[tuple[int, int], ...] = ()
    """Character ranges of ``matched`` in ``text`` (which is the utterance's text, after redaction)."""
    expected: tuple[str, ...] = ()
    """What the rule was looking for; differs from ``matched`` when it was recognised by sound."""
    how: Match = "exact"
    confidence: float | None = None


class Detection(Struct, frozen=True, kw_only=True, tag=True):
    """Pure result of a rule."""

    call_id: str
    rule_id: str
    role: Channel
    media_start_ms: int
    media_end_ms: int
    """End of the phrase itself: latency counts from here."""
    anchor_ms: int
    """What the alert's id is derived from: the utterance's start, or the moment a timer was armed."""
    evidence: Evidence
    utterance_id: str | None = None
    withdrawn: bool = False
    """A partial transcript raised this; the final one does not bear it out."""
    shadow: bool = False
    """The rule is on trial: it is counted, and nobody is told."""


class Emotion(Struct, frozen=True, kw_only=True, tag=True):
    """How somebody feels, by voice and words; never alone a reason for a critical alert."""

    call_id: str
    role: Channel
    utterance_id: str
    media_start_ms: int
    media_end_ms: int
    feeling: Feeling
    level: float
    """0 (calm) to 10."""
    trend: float
    """Mean level of the last 30 s less that of the 30 s before; above zero it gets worse."""
    voice: float | None
    """What the voice alone says, 0 to 10; ``None`` while the speaker's own baseline is not known."""
    words: float
    """What the words alone say, 0 to 10."""

    @property
    def media_ms(self) -> int:
        return self.media_end_ms


StepState = Literal["waiting", "due", "done", "missed", "skipped", "too_late", "out_of_order"]


class Step(Struct, frozen=True, kw_only=True):
    """One line of the agent's checklist: a node of a script, or something that must not be left unsaid."""

    id: str
    name: dict[str, str]
    """By language: ``zh``, ``en``."""
    state: StepState
    """``due``: its time runs, until ``due_ms``; ``too_late``: said after the deadline."""
    required: bool = True
    due_ms: int | None = None
    """Media time of the deadline."""
    done_ms: int | None = None
    hint: dict[str, str] | None = None


class Progress(Struct, frozen=True, kw_only=True, tag=True):
    """Where a call stands in a script; the whole checklist each time."""

    call_id: str
    script: str
    name: dict[str, str]
    media_ms: int
    steps: tuple[Step, ...]
    score: float | None = None
    """0 to 100, of what was to be done so far."""


Finding = Detection | Emotion | Progress
"""What detectors say."""

CallEvent = (
    CallStarted
    | CallUpdated
    | CallEnded
    | Hold
    | KeyPressed
    | Transfer
    | Gap
    | SpeechStarted
    | SpeechStopped
    | Trouble
    | Voice
    | Transcript
)
"""What detectors see, in the order of the stream."""
