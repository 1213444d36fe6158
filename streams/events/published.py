"""What the outlet is handed, and what browsers receive."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from streams.desk import HintAnswer, Whisper, WhisperSeen
from streams.events.alerts import Alert, AlertChange, Decided, Hint, Marker, ShadowHit, Taken
from streams.events.calls import CallEnded, CallInfo, CallStarted, CallUpdated, Channel, Gap
from streams.events.findings import Emotion, Progress
from streams.events.speech import SpeechStarted, SpeechStopped, Transcript
from streams.sealing import Sealed
from streams.supervising import Note, Takeover

EventType = Literal[
    "call.started",
    "call.updated",
    "call.ended",
    "call.left",
    "utterance.partial",
    "utterance.final",
    "alert.raised",
    "alert.updated",
    "marker.added",
    "hint.shown",
    "script.progress",
    "emotion.updated",
    "note.added",
    "takeover.asked",
    "takeover.accepted",
    "takeover.failed",
    "hint.answered",
    "whisper.sent",
    "whisper.seen",
    "health",
]


class Speaking(Struct, frozen=True, kw_only=True):
    """Who speaks right now."""

    agent: bool = False
    customer: bool = False
    unknown: bool = False


class Text(Struct, frozen=True, kw_only=True):
    """A transcript as people see it: redacted."""

    utterance_id: str
    role: Channel
    start_ms: int
    end_ms: int
    text: str
    confidence: float | None = None


class Health(Struct, frozen=True, kw_only=True):
    """How the service does. ``step`` is 0 (all) to 4 (new calls refused), see ``batching``."""

    step: int
    name: Literal["all", "fewer_partials", "no_partials", "no_retries", "refuse_calls"]
    queue_wait_ms: float | None = None
    calls: int = 0
    rules: str | None = None
    """Version of the rules that new calls begin with."""


class Place(Struct, frozen=True, kw_only=True):
    """Whose a call is: who may see it follows from that."""

    agent: str | None = None
    team: str | None = None


class Published(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event as browsers, webhooks and ``replay --json`` see it.

    ``call.left`` is in no log: a subscriber is told so in place of an event by which a call passes to
    others, and is told nothing more of that call.

    ``cursor`` grows by one with every stored event. Events that are not stored because a later one of
    their kind replaces them (``utterance.partial``, who is speaking) carry the cursor of the stored
    event before them, so that a client that comes back with ``?cursor=`` misses nothing.
    """

    cursor: int
    type: EventType
    call_id: str | None
    at: str
    """Wall clock, RFC 3339, UTC."""
    media_ms: int | None
    agent: str | UnsetType | None = UNSET
    team: str | UnsetType | None = UNSET
    """Of the call, at this moment. Who may see the event follows from these two."""
    left: Place | UnsetType = UNSET
    """Where a call passes from one agent or team to another: whose it was."""
    call: CallInfo | UnsetType = UNSET
    speaking: Speaking | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    by: Channel | UnsetType = UNSET
    """Of ``call.ended``: who hung up, where the telephony says so."""
    utterance: Text | UnsetType = UNSET
    alert: Alert | UnsetType = UNSET
    change: AlertChange | UnsetType = UNSET
    """Of ``alert.updated``: what somebody did to it; left out where the rules did."""
    marker: Marker | UnsetType = UNSET
    hint: Hint | UnsetType = UNSET
    health: Health | UnsetType = UNSET
    progress: Progress | UnsetType = UNSET
    emotion: Emotion | UnsetType = UNSET
    note: Note | UnsetType = UNSET
    takeover: Takeover | UnsetType = UNSET
    """Of ``note.…`` and ``takeover.…``: told to those who supervise, not to the agent of the call."""
    answer: HintAnswer | UnsetType = UNSET
    """Of ``hint.answered``."""
    whisper: Whisper | UnsetType = UNSET
    """Of ``whisper.sent`` and ``whisper.seen``: as it is then."""


class Traced(Struct, frozen=True, kw_only=True, tag=True):
    """What somebody does with a call, and from where. It holds as it does without the address, which is for
    the audit; nobody is told."""

    what: Note | Takeover | HintAnswer | Whisper | WhisperSeen
    address: str

    @property
    def call_id(self) -> str:
        return self.what.call_id


OutletEvent = (
    CallStarted
    | CallUpdated
    | CallEnded
    | Gap
    | SpeechStarted
    | SpeechStopped
    | Transcript
    | Alert
    | Taken
    | Decided
    | Marker
    | Hint
    | Emotion
    | Progress
    | ShadowHit
    | Sealed
    | Note
    | Takeover
    | HintAnswer
    | Whisper
    | WhisperSeen
    | Traced
    | Health
)
"""What the runner hands to the outlet, texts redacted."""


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of ``Published``: what a subscriber may rely on."""
    import msgspec

    return msgspec.json.schema(Published)
