"""The audit, for administrators: who looked at what, and whether what is written there was changed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from msgspec import Struct

from app.api import views
from app.api.people import Auditor, address_of
from app.store import Store
from app.store.tables import AuditRow

router = APIRouter(tags=["audit"])

Word = Annotated[str | None, Query(min_length=1, max_length=128)]


class AuditEntry(Struct, frozen=True, kw_only=True):
    id: int
    at: str
    username: str
    """Account; ``token:…`` for a program, ``(command)`` for the command line, ``(files)`` for rule files."""
    action: str
    subject: str | None
    address: str | None
    detail: str | None
    hash: str


class AuditPage(Struct, frozen=True, kw_only=True):
    entries: list[AuditEntry]
    next: str | None


class AuditVerdict(Struct, frozen=True, kw_only=True):
    entries: int
    head: str
    """Hash of the last entry that is in order: keep it elsewhere, and look for it with ``expect``."""
    broken: int | None
    """The first entry that is not what was written there; ``null``: none."""
    expected: bool
    """Whether the hash asked for is in the chain."""


@router.get("/api/audit")
def audit(
    request: Request,
    _person: Auditor,
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
    before: Annotated[str | None, Query(pattern="^[0-9]{1,18}$")] = None,
    username: Word = None,
    action: Word = None,
    subject: Word = None,
) -> Response:
    """Entries, newest first. ``next`` of an answer is ``before`` of the page that follows.

    ``action`` is all of one (``call.read``), or its beginning (``call``).
    """
    store: Store = request.app.state.store
    rows, more = store.audit.page(limit, None if before is None else int(before), username, action, subject)
    return views.answer(
        AuditPage(entries=[_entry(row) for row in rows], next=None if more is None else str(more))
    )


@router.post("/api/audit/verify")
def verify(
    request: Request, person: Auditor, expect: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None
) -> Response:
    """Follow the chain of hashes from its beginning. That it was asked for is written down."""
    store: Store = request.app.state.store
    verdict = store.audit.verify(expect)
    store.audit.record(person.username, "audit.verified", None, address_of(request), verdict.head)
    return views.answer(
        AuditVerdict(
            entries=verdict.entries, head=verdict.head, broken=verdict.broken, expected=verdict.expected
        )
    )


def _entry(row: AuditRow) -> AuditEntry:
    return AuditEntry(
        id=row.audit_id,
        at=row.at,
        username=row.username,
        action=row.action,
        subject=row.subject,
        address=row.address,
        detail=row.detail,
        hash=row.hash,
    )
