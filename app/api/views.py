"""What the routes answer: the rows of the store in the shape that browsers know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from fastapi.responses import Response
from msgspec import Struct, structs

from app.store.alerts import Precision
from app.store.calls import Counts
from app.store.desk import Usefulness
from app.store.rules import Tally
from app.store.tables import AlertRow, CallRow, EmotionRow, MarkerRow, ProgressRow, UtteranceRow
from streams.desk import Whisper
from streams.events import (
    Alert,
    AlertChange,
    CallInfo,
    Channel,
    Emotion,
    Marker,
    Progress,
    Speaking,
    Text,
)
from streams.supervising import Note, Takeover


class AlertCounts(Struct, frozen=True, kw_only=True):
    """Alerts by severity, without those withdrawn or found to be false alarms."""

    critical: int = 0
    warning: int = 0
    info: int = 0


class CallView(CallInfo, frozen=True, kw_only=True):
    state: Literal["live", "ended"]
    started_at: str
    ended_at: str | None
    reason: str | None
    by: Channel | None
    """Who hung up, where the telephony said so."""
    duration_ms: int | None
    """``None`` while it runs."""
    alerts: AlertCounts
    last_text: Text | None
    speaking: Speaking
    gap_ms: int
    recording: bool


class AlertView(Alert, frozen=True, kw_only=True, tag="Alert"):
    """An alert with when it was raised and whose call it is."""

    at: str
    agent: str | None
    queue: str | None
    customer: str | None
    customer_level: str | None


class AlertPage(Struct, frozen=True, kw_only=True):
    alerts: list[AlertView]
    next: str | None


class AlertHistory(Struct, frozen=True, kw_only=True):
    alert: AlertView
    changes: list[AlertChange]
    """Oldest first."""


class Precisions(Struct, frozen=True, kw_only=True):
    rules: list[Precision]


class Usefulnesses(Struct, frozen=True, kw_only=True):
    rules: list[Usefulness]


class SpokenText(Text, frozen=True, kw_only=True):
    at: str


class CallPage(Struct, frozen=True, kw_only=True):
    calls: list[CallView]
    next: str | None


class CallDetail(Struct, frozen=True, kw_only=True):
    cursor: int
    call: CallView
    utterances: list[SpokenText]
    alerts: list[AlertView]
    markers: list[Marker]
    emotions: list[Emotion]
    progress: list[Progress]
    """One of each script that the call has been in, the last changed last."""
    notes: list[Note] = []
    takeovers: list[Takeover] = []
    whispers: list[Whisper]
    """Both are told to those who supervise, not to the agent."""
    revealable: list[str] = []
    """Utterances of which the original is kept, for those who may read it."""
    keeps_originals: bool = False
    """Whether originals of what is masked from now on are kept."""
    takeover_possible: bool = False
    """Whether there is a telephony to ask."""


class RuleCounts(Struct, frozen=True, kw_only=True):
    """Over all versions of a rule."""

    hits: int = 0
    """Not counting what was withdrawn."""
    confirmed: int = 0
    """Alerts that somebody resolved."""
    false_alarms: int = 0
    withdrawn: int = 0
    shadow: int = 0
    """While it was on trial."""


class RuleView(Struct, frozen=True, kw_only=True):
    id: str
    name: dict[str, str]
    severity: str
    role: str
    mode: str
    actions: tuple[str, ...]
    version: str
    """Of the file in which it stands; alerts carry it as ``rule_version``."""
    queues: tuple[str, ...]
    group: str | None
    score: float
    counts: RuleCounts
    pack: str
    """Id of the pack in which it stands."""
    last_at: str | None
    """When it was found last; of a rule that only leaves markers, the begin of that call."""
    precision: float | None
    """``confirmed`` of those judged, 0 to 1; ``None`` while none is."""
    interval: tuple[float, float] | None
    """Between what the true precision lies with 95 % (Wilson)."""


class PackView(Struct, frozen=True, kw_only=True):
    """One file of the rules in force."""

    id: str
    file: str
    version: str
    name: dict[str, str]
    publication: int | None = None
    """Number of the publication that stands here; ``None``: the pack comes from a file."""
    replaces: str | None = None
    """The file in whose place the publication stands."""


class RefusedView(Struct, frozen=True, kw_only=True):
    """Rules that are not in force, because they have errors."""

    at: str
    by: str
    """Account that asked for it; ``(files)``: the files had changed."""
    problems: list[PackProblem]


class PackProblem(Struct, frozen=True, kw_only=True):
    file: str
    line: int
    column: int
    message: str


class Rules(Struct, frozen=True, kw_only=True):
    version: str
    loaded_at: str
    packs: list[PackView]
    rules: list[RuleView]
    counts: list[Tally]
    """By rule and version; also of rules that are no more."""
    in_use: dict[str, int]
    """Calls in progress by the version that they began with."""
    refused: RefusedView | None


def answer(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def call_view(
    row: CallRow, counts: Counts | None, speaking: Speaking, recorded: Callable[[str], bool]
) -> CallView:
    return CallView(
        # The telephony may know when the call began; the store knows when it was announced here.
        **(_fields(msgspec.json.decode(row.info, type=CallInfo)) | {"started_at": row.started_at}),
        state="ended" if row.state == "ended" else "live",
        ended_at=row.ended_at,
        reason=row.reason,
        by=msgspec.convert(row.ended_by, Channel | None),
        duration_ms=row.media_ms if row.state == "ended" else None,
        alerts=AlertCounts(**(counts or {})),
        last_text=None if row.last_text is None else msgspec.json.decode(row.last_text, type=Text),
        speaking=speaking,
        gap_ms=row.gap_ms,
        recording=recorded(row.call_id),
    )


def alert_view(row: AlertRow, call: CallRow) -> AlertView:
    info = msgspec.json.decode(call.info, type=CallInfo)
    return AlertView(
        **_fields(msgspec.json.decode(row.body, type=Alert)),
        at=row.at,
        agent=info.agent,
        queue=info.queue,
        customer=info.customer,
        customer_level=info.customer_level,
    )


def spoken(row: UtteranceRow) -> SpokenText:
    role: Channel = msgspec.convert(row.role, Channel)
    return SpokenText(
        utterance_id=row.utterance_id,
        role=role,
        start_ms=row.start_ms,
        end_ms=row.end_ms,
        text=row.text,
        confidence=row.confidence,
        at=row.at,
    )


def marker(row: MarkerRow) -> Marker:
    return msgspec.json.decode(row.body, type=Marker)


def progress(row: ProgressRow) -> Progress:
    return msgspec.json.decode(row.body, type=Progress)


def emotion(row: EmotionRow) -> Emotion:
    return msgspec.json.decode(row.body, type=Emotion)


def _fields(value: Struct) -> dict[str, Any]:
    return structs.asdict(value)
