"""The event log: one writer, many readers, cursors without holes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.store.projection import Projection, Stored
from app.store.tables import EventRow
from streams.events import OutletEvent, Published

if TYPE_CHECKING:
    from app.store.database import Store


class Log:
    """The stored half of the outlet. Exactly one process writes to it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def append(self, batch: Sequence[tuple[OutletEvent, str]]) -> list[Sequence[Stored]]:
        """Store events (each with its wall-clock time) and all that follows from them in one transaction.

        Returns, for each, what was stored; nothing where the store held it already.
        """
        with self._store.writing() as session:
            projection = Projection(session, head_of(session))
            projection.load(event for event, _ in batch)
            stored = [projection.apply(event, at) for event, at in batch]
            projection.finish()
        return stored

    def bounds(self) -> tuple[int, int]:
        """Cursors of the oldest and of the newest event that are kept; (1, 0) when there is none."""
        with self._store.reading() as session:
            oldest, newest = session.execute(
                select(func.min(EventRow.cursor), func.max(EventRow.cursor))
            ).one()
        return (1, 0) if newest is None else (oldest, newest)

    def read(self, after: int, until: int, limit: int) -> list[Stored]:
        """Events with ``after`` < cursor ≤ ``until``, in order, at most ``limit`` of them."""
        query = (
            select(EventRow.body)
            .where(EventRow.cursor > after, EventRow.cursor <= until)
            .order_by(EventRow.cursor)
            .limit(limit)
        )
        with self._store.reading() as session:
            bodies = session.scalars(query).all()
        return [Stored(msgspec.json.decode(body, type=Published), body) for body in bodies]

    def trim(self, through: int) -> None:
        """Forget events up to this cursor. What was projected from them stays."""
        with self._store.writing() as session:
            session.execute(delete(EventRow).where(EventRow.cursor <= through))


def head_of(session: Session) -> int:
    """Cursor of the newest event as this transaction sees it; 0 before the first."""
    return session.scalar(select(func.max(EventRow.cursor))) or 0
