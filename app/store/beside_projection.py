"""The projection's part that is beside a call's events: notes, take-overs. See ``app.store.projection``."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.store.desk_projection import Publish
from app.store.tables import Base, CallRow, NoteRow, TakeoverRow
from app.store.texts import json_of
from app.store.times import read
from streams.events import EventType, OutletEvent
from streams.supervising import NOTES_MOST, Note, Takeover

ANSWERED_WITHIN_S = 30
"""So long a take-over that was asked for waits for the telephony's answer, see ``app.takeover``."""


class BesideProjection:
    """Holds the rows of one batch. What the rows hold already gives no event."""

    def __init__(self, session: Session, publish: Publish, parts: list[Base]) -> None:
        """``parts``: new rows that belong to calls."""
        self._session = session
        self._publish = publish
        self._parts = parts
        self._notes: set[str] = set()
        """Those of the batch that are there."""
        self._counts: dict[str, int] = {}
        """How many notes a call has."""
        self._takeovers: dict[str, TakeoverRow] = {}
        """All of the calls of which one is told."""

    def load(self, events: Iterable[OutletEvent]) -> None:
        notes: dict[str, str] = {}
        takeovers: set[str] = set()
        for event in events:
            match event:
                case Note():
                    notes[event.id] = event.call_id
                case Takeover():
                    takeovers.add(event.call_id)
        if notes:
            known = select(NoteRow.note_id).where(NoteRow.note_id.in_(notes))
            self._notes = set(self._session.scalars(known))
            counts = (
                select(NoteRow.call_id, func.count())
                .where(NoteRow.call_id.in_(set(notes.values())))
                .group_by(NoteRow.call_id)
            )
            self._counts = {call_id: count for call_id, count in self._session.execute(counts)}
        if takeovers:
            rows = self._session.scalars(select(TakeoverRow).where(TakeoverRow.call_id.in_(takeovers)))
            self._takeovers = {row.takeover_id: row for row in rows}

    def noted(self, event: Note, call: CallRow | None, at: str) -> None:
        count = self._counts.get(event.call_id, 0)
        if call is None or event.id in self._notes or count >= NOTES_MOST:
            return
        cursor = self._publish("note.added", event.call_id, at, event.media_ms, note=event)
        self._parts.append(
            NoteRow(note_id=event.id, call_id=event.call_id, cursor=cursor, body=json_of(event))
        )
        self._notes.add(event.id)
        self._counts[event.call_id] = count + 1

    def taken_over(self, event: Takeover, call: CallRow | None, at: str) -> None:
        """Asked for by one at a time; its outcome is told once."""
        if call is None:
            return
        row = self._takeovers.get(event.id)
        if event.state == "asked" and (row is not None or self._is_asked_for(event, at)):
            return
        if event.state != "asked" and not (row is not None and _waits(row, event)):
            return
        kind: EventType = f"takeover.{event.state}"  # type: ignore[assignment]
        cursor = self._publish(kind, event.call_id, at, event.media_ms, takeover=event)
        if row is None:
            row = TakeoverRow(takeover_id=event.id, call_id=event.call_id)
            self._takeovers[event.id] = row
            self._parts.append(row)
        row.cursor, row.state, row.body = cursor, event.state, json_of(event)

    def _is_asked_for(self, event: Takeover, at: str) -> bool:
        """Whether one of the call waits for its answer. A server that was killed never tells one."""
        known = (
            msgspec.json.decode(row.body, type=Takeover)
            for row in self._takeovers.values()
            if row.call_id == event.call_id and row.state == "asked"
        )
        return any((read(at) - read(one.at)).total_seconds() < ANSWERED_WITHIN_S for one in known)


def _waits(row: TakeoverRow, outcome: Takeover) -> bool:
    """Whether this is the outcome that is waited for, also by those who were told that it was lost."""
    if row.state == "asked":
        return True
    known = msgspec.json.decode(row.body, type=Takeover)
    return known.problem == "lost" and outcome.problem != "lost"
