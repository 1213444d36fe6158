"""What is kept beside a call's events: sealed originals, notes, take-overs that were asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
from sqlalchemy import select

from app.store.tables import NoteRow, OriginalRow, TakeoverRow, UtteranceRow
from streams.supervising import Note, Takeover

if TYPE_CHECKING:
    from app.store.database import Store


class Masked(NamedTuple):
    """An utterance as people see it, and its original as nobody does."""

    text: str
    box: str | None
    """``None``: it was not kept."""


class Beside:
    def __init__(self, store: Store) -> None:
        self._store = store

    def masked(self, call_id: str, utterance_id: str) -> Masked | None:
        """``None`` if there is no such utterance in this call."""
        query = (
            select(UtteranceRow.text, OriginalRow.box)
            .outerjoin(OriginalRow, OriginalRow.utterance_id == UtteranceRow.utterance_id)
            .where(UtteranceRow.utterance_id == utterance_id, UtteranceRow.call_id == call_id)
        )
        with self._store.reading() as session:
            row = session.execute(query).first()
        return None if row is None else Masked(row.text, row.box)

    def originals(self, call_id: str) -> list[str]:
        """Utterances of which the original is kept."""
        with self._store.reading() as session:
            rows = select(OriginalRow.utterance_id).where(OriginalRow.call_id == call_id)
            return list(session.scalars(rows.order_by(OriginalRow.utterance_id)))

    def notes(self, call_id: str) -> list[Note]:
        """In the order of media time."""
        with self._store.reading() as session:
            rows = select(NoteRow.body).where(NoteRow.call_id == call_id).order_by(NoteRow.cursor)
            notes = [msgspec.json.decode(body, type=Note) for body in session.scalars(rows)]
        return sorted(notes, key=lambda note: note.media_ms)

    def unanswered(self, before: str) -> list[Takeover]:
        """Take-overs asked for before that moment (as ``times.written`` writes) of which nothing was told."""
        with self._store.reading() as session:
            rows = select(TakeoverRow.body).where(TakeoverRow.state == "asked")
            takeovers = [msgspec.json.decode(body, type=Takeover) for body in session.scalars(rows)]
        return [takeover for takeover in takeovers if takeover.at < before]

    def takeovers(self, call_id: str) -> list[Takeover]:
        """First asked first."""
        with self._store.reading() as session:
            rows = select(TakeoverRow.body).where(TakeoverRow.call_id == call_id)
            takeovers = [msgspec.json.decode(body, type=Takeover) for body in session.scalars(rows)]
        return sorted(takeovers, key=lambda takeover: takeover.at)
