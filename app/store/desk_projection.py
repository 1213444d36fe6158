"""The desk's part of the projection: answers to hints, whispers. See ``app.store.projection``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
from msgspec import structs
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store.tables import Base, CallRow, HintAnswerRow, HintRow, WhisperRow
from app.store.texts import json_of
from streams.desk import HintAnswer, Whisper, WhisperSeen, Worth, stands
from streams.events import EventType, Hint, OutletEvent


class Publish(Protocol):
    """Give the next cursor to an event of a call, and return it."""

    def __call__(self, kind: EventType, call_id: str, at: str, media_ms: int, **content: Any) -> int: ...


class DeskProjection:
    """Holds the rows of one batch. What the rows hold already gives no event."""

    def __init__(self, session: Session, publish: Publish, parts: list[Base], steps: list[Base]) -> None:
        """``parts``: new rows that belong to calls; ``steps``: those that belong to hints."""
        self._session = session
        self._publish = publish
        self._parts = parts
        self._steps = steps
        self._answers: dict[str, HintAnswerRow] = {}
        self._whispers: dict[str, WhisperRow] = {}

    def load(self, events: Iterable[OutletEvent]) -> None:
        hints: set[str] = set()
        whispers: set[str] = set()
        for event in events:
            match event:
                case HintAnswer():
                    hints.add(event.hint_id)
                case Whisper():
                    whispers.add(event.id)
                case WhisperSeen():
                    whispers.add(event.whisper_id)
        if hints:
            answers = self._session.scalars(select(HintAnswerRow).where(HintAnswerRow.hint_id.in_(hints)))
            self._answers = {row.hint_id: row for row in answers}
        if whispers:
            rows = self._session.scalars(select(WhisperRow).where(WhisperRow.whisper_id.in_(whispers)))
            self._whispers = {row.whisper_id: row for row in rows}

    def answered(self, event: HintAnswer, hint: HintRow | None, at: str) -> None:
        if hint is None or hint.call_id != event.call_id:
            return
        row = self._answers.get(event.hint_id)
        known = None if row is None else msgspec.convert(row.answer, Worth)
        if not stands(known, event.answer):
            return
        told = structs.replace(event, rule_id=msgspec.json.decode(hint.body, type=Hint).rule_id)
        cursor = self._publish("hint.answered", event.call_id, at, event.media_ms, answer=told)
        if row is None:
            row = HintAnswerRow(hint_id=event.hint_id, call_id=event.call_id)
            self._answers[event.hint_id] = row
            self._steps.append(row)
        row.cursor, row.at, row.rule_id = cursor, at, told.rule_id
        row.answer, row.username = event.answer, event.by

    def whispered(self, event: Whisper, call: CallRow | None, at: str) -> None:
        """Only while the call is live and somebody's: nobody would read it else."""
        if call is None or call.state != "live" or call.agent is None or event.id in self._whispers:
            return
        whisper = structs.replace(event, to=call.agent, sent_at=at)
        cursor = self._publish("whisper.sent", event.call_id, at, event.media_ms, whisper=whisper)
        row = WhisperRow(whisper_id=event.id, call_id=event.call_id, cursor=cursor, body=json_of(whisper))
        self._whispers[event.id] = row
        self._parts.append(row)

    def seen(self, event: WhisperSeen, at: str) -> None:
        row = self._whispers.get(event.whisper_id)
        if row is None or row.call_id != event.call_id:
            return
        known = msgspec.json.decode(row.body, type=Whisper)
        whisper = structs.replace(
            known,
            seen_at=known.seen_at or at,
            confirmed_at=known.confirmed_at or (at if event.confirmed else None),
        )
        if known.to == event.by and whisper != known:
            self._publish("whisper.seen", event.call_id, at, event.media_ms, whisper=whisper)
            row.body = json_of(whisper)
