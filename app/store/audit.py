"""Who looked at what, when, from where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from app.store.tables import AuditRow
from app.store.times import now, written

if TYPE_CHECKING:
    from app.store.database import Store


class Audit:
    def __init__(self, store: Store) -> None:
        self._store = store

    def record(self, username: str, action: str, subject: str | None, address: str | None) -> None:
        """``action`` is ``call.read``, ``call.audio``, ``alert.taken``, ``alert.released``,
        ``alert.acknowledged``, ``alert.resolved``, ``alert.false_alarm``, ``alert.reopened``,
        ``alert.assigned``, ``alert.commented``, ``alert.escalated``, ``alert.history``,
        ``session.opened``, ``session.closed``, ``rules.loaded``, ``rules.refused``, ``rules.unchanged``.
        ``subject`` is the call, the alert or the version that it is about.
        """
        with self._store.writing() as session:
            session.add(
                AuditRow(
                    at=written(now()), username=username, action=action, subject=subject, address=address
                )
            )

    def about(self, subject: str, limit: int = 100) -> list[AuditRow]:
        """Entries about a call or an alert, newest first."""
        with self._store.reading() as session:
            rows = select(AuditRow).where(AuditRow.subject == subject)
            return list(session.scalars(rows.order_by(AuditRow.audit_id.desc()).limit(limit)))
