"""Who looked at what, when, from where; each entry chained to the one before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.store.chain import BEGINNING, Entry, Verdict, chained, verify
from app.store.postgres import AUDITING, hold
from app.store.tables import AuditRow
from app.store.texts import clean
from app.store.times import now, written
from streams.desk import HintAnswer, Whisper, WhisperSeen
from streams.events import AlertAction
from streams.supervising import Note, Takeover

if TYPE_CHECKING:
    from app.store.database import Store

ROWS_PER_READ: Final = 2000

CLOCK: Final = "(clock)"
"""Instead of an account: nobody did it, its time had come."""
AuditAction = Literal[
    "call.read", "call.audio", "call.peaks", "call.listened", "call.revealed", "call.noted", "call.takeover",
    "call.exported", "call.reviewed",
    "alert.taken", "alert.released", "alert.acknowledged", "alert.resolved", "alert.false_alarm",
    "alert.reopened", "alert.assigned", "alert.commented", "alert.escalated", "alert.appealed",
    "alert.appeal_accepted", "alert.appeal_rejected", "alert.history",
    "whisper.sent", "whisper.seen", "whisper.confirmed", "hint.answered",
    "session.opened", "session.closed",
    "rules.loaded", "rules.refused", "rules.unchanged", "rules.tested", "rules.drafted", "rules.edited",
    "rules.submitted", "rules.returned", "rules.discarded", "rules.published", "rules.unpublished",
    "rules.backtest", "rules.backtest_cancelled", "rules.backtest_read",
    "user.added", "user.role", "user.teams", "user.disabled", "user.enabled", "user.password",
    "token.added", "token.revoked", "audit.verified",
]  # fmt: skip
"""What is written down. The dashboard has words for each (``dashboard/web/src/i18n/deeds.*.ts``)."""

STEPS: Final[dict[AlertAction, AuditAction]] = {
    "take": "alert.taken",
    "release": "alert.released",
    "acknowledge": "alert.acknowledged",
    "resolve": "alert.resolved",
    "false_alarm": "alert.false_alarm",
    "reopen": "alert.reopened",
    "assign": "alert.assigned",
    "comment": "alert.commented",
    "escalate": "alert.escalated",
    "appeal": "alert.appealed",
    "accept_appeal": "alert.appeal_accepted",
    "reject_appeal": "alert.appeal_rejected",
}


class Deed(NamedTuple):
    """What an entry will say; see ``Audit.record``. When it was is the moment at which it is entered."""

    username: str
    action: AuditAction
    subject: str | None
    address: str | None
    detail: str | None = None


def deed_of(event: object, address: str | None) -> Deed | None:
    """What somebody did with a call by an event that was told; ``None``: it is nobody's deed. The steps of
    alerts are in ``STEPS``."""
    match event:
        case Note():
            return Deed(event.by, "call.noted", event.call_id, address, event.id)
        case Takeover(state="asked"):
            return Deed(event.by, "call.takeover", event.call_id, address, f"{event.id}: {event.reason}")
        case HintAnswer():
            detail = f"{event.hint_id} {event.answer}"
            return Deed(event.by, "hint.answered", event.call_id, address, detail)
        case Whisper():
            return Deed(event.by, "whisper.sent", event.call_id, address, event.id)
        case WhisperSeen():
            action: AuditAction = "whisper.confirmed" if event.confirmed else "whisper.seen"
            return Deed(event.by, action, event.call_id, address, event.whisper_id)
    return None


def enter(session: Session, deeds: Sequence[Deed]) -> None:
    """Add entries within the transaction that does what they say: it ends with both, or with neither.

    Whoever does it lets nobody else enter until the transaction has ended: do it last.
    """
    if not deeds:
        return
    hold(session, AUDITING)
    head = session.scalar(select(AuditRow.hash).order_by(AuditRow.audit_id.desc()).limit(1))
    digest = BEGINNING if head is None else head
    for deed in deeds:
        # As the rows will hold them: the hash is of what can be read again.
        texts = [None if text is None else clean(text) for text in deed[2:]]
        entry = Entry(written(now()), clean(deed.username), clean(deed.action), *texts)
        digest = chained(digest, entry)
        session.add(AuditRow(**entry._asdict(), hash=digest))
        session.flush()  # one by one: the numbers of the entries are their order


class Audit:
    """Written, never changed: there is no method that would."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def record(
        self,
        username: str,
        action: AuditAction,
        subject: str | None,
        address: str | None,
        detail: str | None = None,
    ) -> None:
        """Write an entry.

        ``subject`` is the call, the alert, the version, the account or the token that it is about; ``detail``
        what it became, or why. Neither holds what was said, nor a number.

        Safe from several processes at once: each entry follows the one that was committed before it.
        """
        with self._store.writing() as session:
            self.add(session, username, action, subject, address, detail)

    def add(
        self,
        session: Session,
        username: str,
        action: AuditAction,
        subject: str | None,
        address: str | None,
        detail: str | None = None,
    ) -> None:
        """As ``record``, in a transaction that holds what it is about: both are there, or neither is.

        Nothing may be waited for afterwards in that transaction: others who write entries wait for its end.
        """
        enter(session, [Deed(username, action, subject, address, detail)])

    def about(self, subject: str, limit: int = 100) -> list[AuditRow]:
        """Entries about a call or an alert, newest first."""
        with self._store.reading() as session:
            rows = select(AuditRow).where(AuditRow.subject == subject)
            return list(session.scalars(rows.order_by(AuditRow.audit_id.desc()).limit(limit)))

    def page(
        self,
        limit: int,
        before: int | None = None,
        username: str | None = None,
        action: str | None = None,
        subject: str | None = None,
    ) -> tuple[list[AuditRow], int | None]:
        """Entries, newest first, and ``before`` of the page that follows. ``action`` is the beginning of one,
        up to a dot, or all of it."""
        query = select(AuditRow).order_by(AuditRow.audit_id.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(AuditRow.audit_id < before)
        if username is not None:
            query = query.where(AuditRow.username == username)
        if action is not None:
            whole = AuditRow.action == action
            query = query.where(whole | AuditRow.action.startswith(f"{action}.", autoescape=True))
        if subject is not None:
            query = query.where(AuditRow.subject == subject)
        with self._store.reading() as session:
            rows = list(session.scalars(query))
        return rows[:limit], rows[limit - 1].audit_id if len(rows) > limit else None

    def verify(self, expect: str | None = None) -> Verdict:
        """Follow the whole chain; see ``app.store.chain``. Takes about a second per 100,000 entries."""
        return verify(self._all(), expect)

    def _all(self) -> Iterator[tuple[int, Entry, str]]:
        last = -1
        while True:
            query = (
                select(AuditRow)
                .where(AuditRow.audit_id > last)
                .order_by(AuditRow.audit_id)
                .limit(ROWS_PER_READ)
            )
            with self._store.reading() as session:
                rows = session.scalars(query).all()
            for row in rows:
                last = row.audit_id
                entry = Entry(row.at, row.username, row.action, row.subject, row.address, row.detail)
                yield last, entry, row.hash
            if len(rows) < ROWS_PER_READ:
                return
