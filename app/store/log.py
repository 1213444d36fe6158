"""The event log: cursors without holes, given in the order of the commits, whoever writes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from app.errors import StoreError
from app.store.postgres import APPENDING, TRIMMING, hold, hold_if_free, outcome
from app.store.projection import Projection, Stored
from app.store.tables import EventRow
from app.store.texts import clean_event
from app.store.times import Patience
from app.store.trouble import is_lost
from streams.events import OutletEvent, Published

if TYPE_CHECKING:
    from app.store.database import Store

SETTLE_S = 20.0
"""How long a writer whose connection broke in a commit asks what became of it; a restart takes less."""
ASK_EVERY_S = 0.1


class Log:
    """The stored half of the outlet. On PostgreSQL several processes may write to it, one at a time.

    Who sees a cursor sees all before it. So a reader that continues from the last one it saw misses nothing.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.patience = Patience()
        """How long alerts wait for somebody. Gateways of one cluster should agree in it."""

    def append(self, batch: Sequence[tuple[OutletEvent, str]]) -> list[Sequence[Stored]]:
        """Store events (each with its wall-clock time) and all that follows from them in one transaction.

        Returns, for each, what was stored; nothing where the store held it already.

        Raises ``StoreError``; then nothing was stored, and all of it may be given again. One exception: the
        connection broke while the commit was on its way, and the server stays away for ``SETTLE_S``. What
        had come through all the same is recognised when it is given again, but for a gap, which counts
        twice, and for a call that both began and ended in it, which is told twice.
        """
        batch = [(clean_event(event), at) for event, at in batch]
        transaction: str | None = None
        stored: list[Sequence[Stored]] | None = None
        try:
            with self._store.writing() as session:
                # From here to the end of the commit nobody else appends, so the next cursors are ours.
                transaction = hold(session, APPENDING)
                projection = Projection(session, head_of(session), self.patience)
                projection.load(event for event, _ in batch)
                told = [projection.apply(event, at) for event, at in batch]
                projection.finish()
                stored = told
        except StoreError as error:
            if transaction is None or stored is None or not is_lost(error):
                raise
            if not self._came_through(transaction):
                raise
        assert stored is not None
        return stored

    def _came_through(self, transaction: str) -> bool:
        """Whether a commit reached the server whose answer did not reach us."""
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            try:
                with self._store.reading() as session:
                    found = outcome(session, transaction)
            except StoreError as error:  # still away
                if isinstance(error.__cause__, DataError):  # a standby that never heard of it has taken over
                    return False
            else:
                if found != "in progress":
                    return found == "committed"
            time.sleep(ASK_EVERY_S)
        return False

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
        """Forget events up to this cursor, but never the newest: cursors continue from it.

        What was projected from them stays. While another process trims, this does nothing.
        """
        newest = select(func.max(EventRow.cursor)).scalar_subquery()
        old = delete(EventRow).where(EventRow.cursor <= through, EventRow.cursor < newest)
        with self._store.writing() as session:
            if hold_if_free(session, TRIMMING):
                session.execute(old, execution_options={"synchronize_session": False})


def head_of(session: Session) -> int:
    """Cursor of the newest event as this transaction sees it; 0 before the first."""
    return session.scalar(select(func.max(EventRow.cursor))) or 0
