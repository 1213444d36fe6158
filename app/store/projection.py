"""From the core's events to rows and to what browsers are told; one ``Projection`` per transaction.

Every step can be repeated: what the rows hold already gives no event. So a call that is processed again
after a crash collapses onto what was stored the first time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs
from sqlalchemy import insert, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.store.audit import CLOCK, STEPS, Deed, deed_of, enter
from app.store.beside_projection import BesideProjection
from app.store.desk_projection import DeskProjection
from app.store.tables import (
    AlertChangeRow,
    AlertRow,
    Base,
    CallRow,
    EmotionRow,
    EventRow,
    HintRow,
    MarkerRow,
    OriginalRow,
    ProgressRow,
    ShadowHitRow,
    UserRow,
    UtteranceRow,
)
from app.store.texts import json_of
from app.store.times import Patience
from streams import alert_life
from streams.desk import HintAnswer, Whisper, WhisperSeen
from streams.events import (
    Alert,
    CallEnded,
    CallInfo,
    CallStarted,
    CallUpdated,
    Decided,
    Emotion,
    EventType,
    Gap,
    Health,
    Hint,
    Marker,
    OutletEvent,
    Place,
    Progress,
    Published,
    ShadowHit,
    Taken,
    Text,
    Traced,
    Transcript,
)
from streams.sealing import Sealed
from streams.supervising import Note, Takeover

Row = TypeVar("Row", bound=Base)


class Stored(Struct, frozen=True):
    published: Published
    json: str


def is_stored(event: OutletEvent) -> bool:
    """Whether an event leaves a trace in the store; the others are told and gone."""
    if isinstance(event, Transcript):
        return event.final
    return isinstance(
        event,
        CallStarted
        | CallUpdated
        | CallEnded
        | Gap
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
        | Traced,
    )


class Projection:
    """Holds the rows that a batch of events touches. ``load`` once, ``apply`` each, ``finish`` once."""

    def __init__(self, session: Session, head: int, patience: Patience) -> None:
        """``patience``: how long alerts wait for somebody before they escalate."""
        self._session = session
        self._patience = patience
        self.head = head
        """Cursor of the last event, this batch's included."""
        self._calls: dict[str, CallRow] = {}
        self._utterances: dict[str, UtteranceRow] = {}
        self._alerts: dict[str, AlertRow] = {}
        self._changes: dict[str, AlertChangeRow] = {}
        self._markers: dict[str, MarkerRow] = {}
        self._hints: dict[str, HintRow] = {}
        self._emotions: dict[str, EmotionRow] = {}
        self._progress: dict[str, ProgressRow] = {}
        self._shadow_hits: dict[str, ShadowHitRow] = {}
        self._originals: dict[str, OriginalRow] = {}
        self._teams: dict[str, str] = {}
        """By account: the team of its agent."""
        self._parts: list[Base] = []
        """New rows that belong to calls; the calls have to be there before them."""
        self._steps: list[Base] = []
        """New rows that belong to alerts, or to hints."""
        self._deeds: list[Deed] = []
        """What people did by these events, for the audit."""
        self._beside = BesideProjection(session, self._publish, self._parts)
        self._desk = DeskProjection(session, self._publish, self._parts, self._steps)
        self._stored: list[Stored] = []

    def load(self, events: Iterable[OutletEvent]) -> None:
        """Fetch what the store knows of everything these events name: twelve queries at most."""
        events = [event.what if isinstance(event, Traced) else event for event in events]
        ids: dict[type, set[str]] = defaultdict(set)
        agents: set[str] = set()
        for event in events:
            match event:
                case Transcript(final=True):
                    ids[Transcript].add(event.utterance_id)
                case Emotion():
                    ids[Emotion].add(event.utterance_id)
                case Sealed():
                    ids[Sealed].add(event.utterance_id)
                case Progress():
                    ids[Progress].add(_progress_id(event))
                case Alert() | Marker() | Hint() | ShadowHit():
                    ids[type(event)].add(event.id)
                case Taken():
                    ids[Alert].add(event.alert_id)
                case CallStarted() | CallUpdated() if event.call.team is None and event.call.agent:
                    agents.add(event.call.agent)
                case Decided():
                    ids[Alert].add(event.alert_id)
                    ids[Decided].add(event.id)
                case HintAnswer():
                    ids[Hint].add(event.hint_id)
            if is_stored(event) and not isinstance(event, Health):
                ids[CallInfo].add(event.call_id)
        self._teams = self._teams_of(agents)
        self._calls = self._fetch(CallRow.call_id, CallRow, ids[CallInfo])
        self._utterances = self._fetch(UtteranceRow.utterance_id, UtteranceRow, ids[Transcript])
        self._alerts = self._fetch(AlertRow.alert_id, AlertRow, ids[Alert])
        self._changes = self._fetch(AlertChangeRow.change_id, AlertChangeRow, ids[Decided])
        self._markers = self._fetch(MarkerRow.marker_id, MarkerRow, ids[Marker])
        self._hints = self._fetch(HintRow.hint_id, HintRow, ids[Hint])
        self._emotions = self._fetch(EmotionRow.utterance_id, EmotionRow, ids[Emotion])
        self._progress = self._fetch(ProgressRow.progress_id, ProgressRow, ids[Progress])
        self._shadow_hits = self._fetch(ShadowHitRow.hit_id, ShadowHitRow, ids[ShadowHit])
        self._originals = self._fetch(OriginalRow.utterance_id, OriginalRow, ids[Sealed])
        self._beside.load(events)
        self._desk.load(events)

    def apply(self, event: OutletEvent, at: str) -> Sequence[Stored]:
        """What people are told of this; nothing when the rows hold it already, or when it is not stored."""
        before = len(self._stored)
        address: str | None = None
        if isinstance(event, Traced):
            address = event.address
            event = event.what
        match event:
            case CallStarted():
                self._started(event.call, at)
            case CallUpdated():
                self._updated(event, at)
            case CallEnded():
                self._ended(event, at)
            case Gap():
                self._call(event, at).gap_ms += event.duration_ms
            case Transcript(final=True):
                self._said(event, at)
            case Alert():
                self._raised(event, at)
            case Taken():
                self._taken(event, at)
            case Decided():
                self._decided(event, at)
            case Marker():
                self._marked(event, at)
            case Hint():
                self._hinted(event, at)
            case Emotion():
                self._felt(event, at)
            case Progress():
                self._advanced(event, at)
            case ShadowHit():
                self._tried(event, at)
            case Sealed():
                self._sealed(event, at)
            case Note():
                self._beside.noted(event, self._calls.get(event.call_id), at)
            case Takeover():
                self._beside.taken_over(event, self._calls.get(event.call_id), at)
            case HintAnswer():
                self._desk.answered(event, self._hints.get(event.hint_id), at)
            case Whisper():
                self._desk.whispered(event, self._calls.get(event.call_id), at)
            case WhisperSeen():
                self._desk.seen(event, at)
            case _:
                pass
        told = self._stored[before:]
        if told and (deed := deed_of(event, address)) is not None:
            self._deeds.append(deed)
        return told

    def finish(self) -> None:
        """Write all of it within the transaction; the caller commits."""
        self._session.flush()
        self._session.add_all(self._parts)
        self._session.flush()
        self._session.add_all(self._steps)
        self._session.flush()
        if self._stored:
            self._session.execute(
                insert(EventRow),
                [
                    {
                        "cursor": stored.published.cursor,
                        "type": stored.published.type,
                        "call_id": stored.published.call_id,
                        "at": stored.published.at,
                        "body": stored.json,
                    }
                    for stored in self._stored
                ],
            )
        enter(self._session, self._deeds)

    # ── calls ─────────────────────────────────────────────────────────────────────────────────────

    def _started(self, info: CallInfo, at: str) -> CallRow:
        info = self._with_team(info)
        row = self._calls.get(info.call_id)
        if row is None:
            row = CallRow(call_id=info.call_id, started_at=at, media_ms=0, gap_ms=0)
            _describe(row, info)
            self._calls[info.call_id] = row
            row.cursor = self._publish("call.started", info.call_id, at, 0, call=info)
            self._session.add(row)
        else:
            changed = row.info != json_of(info)
            left = _describe(row, info)
            if row.state == "ended":  # a call closed as interrupted whose audio comes again
                self._publish("call.started", info.call_id, at, 0, call=info, **left)
            elif changed:
                self._publish("call.updated", info.call_id, at, 0, call=info, **left)
        row.state, row.ended_at, row.reason, row.ended_by = "live", None, None, None
        return row

    def _updated(self, event: CallUpdated, at: str) -> None:
        row = self._calls.get(event.call_id)
        if row is None:
            self._started(event.call, at)
            return
        info = self._with_team(event.call)
        if row.info != json_of(info):
            left = _describe(row, info)
            self._publish("call.updated", event.call_id, at, event.media_ms, call=info, **left)
            _reach(row, event.media_ms)

    def _with_team(self, info: CallInfo) -> CallInfo:
        """Where the telephony names no team, it is that of the agent's account."""
        if info.team is not None or info.agent is None:
            return info
        return structs.replace(info, team=self._teams.get(info.agent))

    def _ended(self, event: CallEnded, at: str) -> None:
        row = self._call(event, at)
        # Who hung up may be told later than that somebody did; what was told first stays.
        by = row.ended_by if row.state == "ended" and row.ended_by is not None else event.by
        known = (row.reason, row.media_ms, row.ended_by)
        if row.state == "ended" and known == (event.reason, event.media_ms, by):
            return
        content = {"by": by} if by is not None else {}
        self._publish("call.ended", event.call_id, at, event.media_ms, reason=event.reason, **content)
        row.state, row.reason, row.media_ms, row.ended_by = "ended", event.reason, event.media_ms, by
        row.ended_at = row.ended_at or at

    def _call(
        self,
        event: CallEnded | Gap | Transcript | Alert | Marker | Hint | Emotion | Progress | ShadowHit | Sealed,
        at: str,
    ) -> CallRow:
        """The call's row. One that was never announced is opened: its alerts are not to be lost."""
        row = self._calls.get(event.call_id)
        if row is None:
            row = self._started(CallInfo(call_id=event.call_id, protocol="unknown"), at)
        _reach(row, event.media_ms)
        return row

    # ── what happens in them ──────────────────────────────────────────────────────────────────────

    def _said(self, event: Transcript, at: str) -> None:
        call = self._call(event, at)
        text = Text(
            utterance_id=event.utterance_id,
            role=event.role,
            start_ms=event.start_ms,
            end_ms=event.end_ms,
            text=event.text,
            confidence=event.confidence,
        )
        row = self._utterances.get(event.utterance_id)
        if row is not None and (row.text, row.end_ms, row.role) == (text.text, text.end_ms, text.role):
            return
        cursor = self._publish("utterance.final", event.call_id, at, event.media_ms, utterance=text)
        if row is None:
            row = UtteranceRow(utterance_id=event.utterance_id, call_id=event.call_id, cursor=cursor, at=at)
            self._utterances[event.utterance_id] = self._add(row)
        row.role, row.start_ms, row.end_ms = event.role, event.start_ms, event.end_ms
        row.text, row.confidence, row.rejected = text.text, event.confidence, event.rejected
        row.words = json_of(event.words)
        if text.text and _is_latest(call, text):
            call.last_text = json_of(text)

    def _raised(self, event: Alert, at: str) -> None:
        self._call(event, at)
        row = self._alerts.get(event.id)
        deadline = self._patience.until(event.severity, at)
        if row is None:
            raised = structs.replace(event, escalates_at=deadline if event.state == "open" else None)
            cursor = self._publish("alert.raised", event.call_id, at, event.media_ms, alert=raised)
            row = AlertRow(alert_id=event.id, call_id=event.call_id, cursor=cursor, at=at)
            self._alerts[event.id] = self._add(row)
            _stand(row, raised)
            return
        known = msgspec.json.decode(row.body, type=Alert)
        merged = alert_life.found_again(known, event, deadline)
        if merged != known:
            self._publish("alert.updated", event.call_id, at, event.media_ms, alert=merged)
            _stand(row, merged)

    def _taken(self, event: Taken, at: str) -> None:
        """Compare and set. Whoever asks second, expecting what is no more, is told nothing."""
        row = self._alerts.get(event.alert_id)
        if row is None or row.owner != event.expected:
            return
        self._decided(
            Decided(
                # It has no id of its own: what is asked twice finds its owner changed, and holds once.
                id=f"{event.alert_id}\x1f{self.head + 1}",
                call_id=event.call_id,
                alert_id=event.alert_id,
                media_ms=event.media_ms,
                action="release" if event.owner is None else "take",
                by=event.by or event.owner or event.expected,
                owner=event.owner,
                address=event.address,
            ),
            at,
        )

    def _decided(self, event: Decided, at: str) -> None:
        """Told once, and only if the alert's life leads there; see ``streams.alert_life``."""
        row = self._alerts.get(event.alert_id)
        if row is None or row.call_id != event.call_id or event.id in self._changes:
            return
        known = msgspec.json.decode(row.body, type=Alert)
        try:
            alert, change = alert_life.step(known, event, at, self._patience.until(known.severity, at))
        except alert_life.NotPossible:
            return
        cursor = self._publish("alert.updated", event.call_id, at, event.media_ms, alert=alert, change=change)
        _stand(row, alert)
        self._changes[event.id] = AlertChangeRow(
            change_id=event.id,
            alert_id=event.alert_id,
            cursor=cursor,
            action=change.action,
            username=change.by,
            body=json_of(change),
        )
        self._steps.append(self._changes[event.id])
        self._deeds.append(Deed(change.by or CLOCK, STEPS[change.action], event.alert_id, event.address))

    def _marked(self, event: Marker, at: str) -> None:
        self._call(event, at)
        row, body = self._markers.get(event.id), json_of(event)
        if row is not None and row.body == body:
            return
        cursor = self._publish("marker.added", event.call_id, at, event.media_ms, marker=event)
        if row is None:
            row = MarkerRow(marker_id=event.id, call_id=event.call_id, cursor=cursor)
            self._markers[event.id] = self._add(row)
        row.media_start_ms, row.body = event.media_start_ms, body
        row.rule_id, row.rule_version, row.alert_id = event.rule_id, event.rule_version, event.alert_id

    def _hinted(self, event: Hint, at: str) -> None:
        self._call(event, at)
        row, body = self._hints.get(event.id), json_of(event)
        if row is not None and row.body == body:
            return
        cursor = self._publish("hint.shown", event.call_id, at, event.media_ms, hint=event)
        if row is None:
            row = HintRow(hint_id=event.id, call_id=event.call_id, cursor=cursor)
            self._hints[event.id] = self._add(row)
        row.rule_id, row.body = event.rule_id, body

    def _felt(self, event: Emotion, at: str) -> None:
        self._call(event, at)
        row, body = self._emotions.get(event.utterance_id), json_of(event)
        if row is not None and row.body == body:
            return
        cursor = self._publish("emotion.updated", event.call_id, at, event.media_ms, emotion=event)
        if row is None:
            row = EmotionRow(utterance_id=event.utterance_id, call_id=event.call_id, cursor=cursor)
            self._emotions[event.utterance_id] = self._add(row)
        row.media_start_ms, row.body = event.media_start_ms, body

    def _advanced(self, event: Progress, at: str) -> None:
        """The latest replaces what was; an older one is what a call processed again says on its way."""
        self._call(event, at)
        row, body = self._progress.get(_progress_id(event)), json_of(event)
        if row is not None and (row.body == body or row.media_ms > event.media_ms):
            return
        cursor = self._publish("script.progress", event.call_id, at, event.media_ms, progress=event)
        if row is None:
            row = ProgressRow(progress_id=_progress_id(event), call_id=event.call_id)
            self._progress[row.progress_id] = self._add(row)
        row.cursor, row.media_ms, row.body = cursor, event.media_ms, body

    def _tried(self, event: ShadowHit, at: str) -> None:
        """Kept to be counted; nobody is told."""
        self._call(event, at)
        row = self._shadow_hits.get(event.id)
        if event.withdrawn:
            if row is not None:
                del self._shadow_hits[event.id]
                self._remove(row)
            return
        if row is None:
            row = ShadowHitRow(hit_id=event.id, call_id=event.call_id, at=at)
            self._shadow_hits[event.id] = self._add(row)
        row.rule_id, row.rule_version, row.body = event.rule_id, event.rule_version, json_of(event)

    def _sealed(self, event: Sealed, at: str) -> None:
        """Kept to be opened by whoever may and says why; nobody is told."""
        self._call(event, at)
        row = self._originals.get(event.utterance_id)
        if row is None:
            row = OriginalRow(utterance_id=event.utterance_id, call_id=event.call_id)
            self._originals[event.utterance_id] = self._add(row)
        # Sealed again it looks different each time, and is the same.
        row.box = event.box

    # ── rows ──────────────────────────────────────────────────────────────────────────────────────

    def _fetch(self, key: InstrumentedAttribute[str], table: type[Row], ids: set[str]) -> dict[str, Row]:
        if not ids:
            return {}
        rows = self._session.scalars(select(table).where(key.in_(ids)))
        return {getattr(row, key.key): row for row in rows}

    def _teams_of(self, agents: set[str]) -> dict[str, str]:
        if not agents:
            return {}
        rows = self._session.execute(
            select(UserRow.username, UserRow.teams).where(
                UserRow.username.in_(agents), UserRow.role == "agent"
            )
        )
        teams = {username: msgspec.json.decode(known, type=list[str]) for username, known in rows}
        return {username: known[0] for username, known in teams.items() if known}

    def _add(self, row: Row) -> Row:
        self._parts.append(row)
        return row

    def _remove(self, row: Base) -> None:
        if row in self._parts:
            self._parts.remove(row)
        else:
            self._session.delete(row)

    def _publish(self, kind: EventType, call_id: str, at: str, media_ms: int, **content: Any) -> int:
        self.head += 1
        row = self._calls[call_id]
        published = Published(
            cursor=self.head,
            type=kind,
            call_id=call_id,
            at=at,
            media_ms=media_ms,
            agent=row.agent,
            team=row.team,
            **content,
        )
        self._stored.append(Stored(published, json_of(published)))
        return self.head


def _progress_id(event: Progress) -> str:
    return f"{event.call_id}\x1f{event.script}"


def _stand(row: AlertRow, alert: Alert) -> None:
    row.rule_id, row.rule_version, row.severity = alert.rule_id, alert.rule_version, alert.severity
    row.state, row.owner, row.escalates_at = alert.state, alert.owner, alert.escalates_at
    row.appeal = alert.appeal
    row.body = json_of(alert)


def _describe(row: CallRow, info: CallInfo) -> dict[str, Place]:
    """Returns ``left`` of the event, where the call is somebody else's from now on."""
    was = Place(agent=row.agent, team=row.team)
    row.info = json_of(info)
    row.agent, row.team, row.queue = info.agent, info.team, info.queue
    return {"left": was} if was != Place(agent=info.agent, team=info.team) else {}


def _reach(row: CallRow, media_ms: int) -> None:
    if row.state == "live":
        row.media_ms = max(row.media_ms, media_ms)


def _is_latest(call: CallRow, text: Text) -> bool:
    """Final transcripts of two channels may come in either order."""
    return call.last_text is None or msgspec.json.decode(call.last_text, type=Text).start_ms <= text.start_ms
