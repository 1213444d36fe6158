"""What those who supervise do with a call: read what was masked, write notes, ask to take it over.

Each is written into the audit. Reading what was masked is written down *before* it is answered, with the
reason: without an entry there is no answer. Notes and take-overs are events of the log, and their entries
are of the same transaction: there is none without the other.
"""

from __future__ import annotations

import secrets
from typing import Annotated

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response
from msgspec import UNSET, Struct
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from app.api import views
from app.api.people import Noter, Revealer, Successor, address_of, check_sight
from app.api.problems import Problem
from app.outlet import Outlet
from app.sealing import Keyring, Locked
from app.store import Store
from app.store.texts import clean
from app.store.times import now, written
from app.takeover import Takeovers
from detectors.privacy import redact
from streams.events import CallInfo, Traced
from streams.supervising import NOTE_LENGTH, NOTES_MOST, REASON_LENGTH, Note, Takeover

router = APIRouter(tags=["calls"])

SHOWN_S = 60
"""So long a page shows what it was told; then it masks it again."""
DAY_MS = 86_400_000


class Reason(BaseModel, extra="forbid"):
    reason: str


class Remark(BaseModel, extra="forbid"):
    text: str
    media_ms: Annotated[int, Field(ge=0, le=7 * DAY_MS)]
    """What it is about."""


class Revealed(Struct, frozen=True, kw_only=True):
    utterance_id: str
    text: str
    """As it was said."""
    shown_s: int
    """So long it may be shown."""


@router.post("/api/calls/{call_id}/utterances/{utterance_id}/reveal")
async def reveal(
    call_id: str, utterance_id: str, wish: Reason, request: Request, person: Revealer
) -> Response:
    """The original of a text in which private numbers were masked, if it was kept (``DUTING_PII_KEYS``)."""
    store: Store = request.app.state.store
    keyring: Keyring = request.app.state.keyring
    await check_sight(request, person, call_id)
    reason = _reason(wish.reason)
    found = await run_in_threadpool(store.beside.masked, call_id, utterance_id)
    if found is None:
        raise Problem("unknown_utterance")
    if found.box is None:
        raise Problem("no_original" if keyring else "originals_not_kept")
    try:
        text = keyring.open(utterance_id, found.box)
    except Locked:
        raise Problem("original_locked") from None
    if not _is_original(text, found.text):
        # The utterance was read again since, and says something else now.
        raise Problem("no_original")
    detail = f"{utterance_id}: {reason}"
    await run_in_threadpool(
        store.audit.record, person.username, "call.revealed", call_id, address_of(request), detail
    )
    answer = views.answer(Revealed(utterance_id=utterance_id, text=text, shown_s=SHOWN_S))
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.post("/api/calls/{call_id}/notes", status_code=201)
async def note(call_id: str, wish: Remark, request: Request, person: Noter) -> Response:
    """Write about a moment of a call, for those who supervise it; private numbers are masked."""
    outlet: Outlet = request.app.state.outlet
    await check_sight(request, person, call_id)
    text = wish.text.strip()
    if not text:
        raise Problem("comment_empty")
    if len(text) > NOTE_LENGTH:
        raise Problem("note_too_long", limit=str(NOTE_LENGTH), came=str(len(text)))
    made = Note(
        id=secrets.token_hex(12),
        call_id=call_id,
        media_ms=wish.media_ms,
        by=person.username,
        at=written(now()),
        text=redact(clean(text)),
    )
    if not await outlet.append([Traced(what=made, address=address_of(request))]):
        raise Problem("too_many_notes", limit=str(NOTES_MOST))
    return views.answer(made, 201)


@router.post("/api/calls/{call_id}/takeover", status_code=202)
async def takeover(call_id: str, wish: Reason, request: Request, person: Successor) -> Response:
    """Ask the telephony to hand a running call over (``DUTING_TAKEOVER_URL``).

    Its answer comes as ``takeover.accepted`` or ``takeover.failed``.
    """
    store: Store = request.app.state.store
    outlet: Outlet = request.app.state.outlet
    takeovers: Takeovers = request.app.state.takeovers
    await check_sight(request, person, call_id)
    reason = _reason(wish.reason)
    if not takeovers.possible:
        raise Problem("takeover_not_set_up")
    if takeovers.crowded:
        raise Problem("busy", {"Retry-After": "5"})
    file = await run_in_threadpool(store.calls.row, call_id)
    if file is None or file.state != "live":
        raise Problem("call_ended")
    asked = Takeover(
        id=secrets.token_hex(12),
        call_id=call_id,
        media_ms=file.media_ms,
        by=person.username,
        at=written(now()),
        reason=reason,
    )
    told = await outlet.append([Traced(what=asked, address=address_of(request))])
    if not any(event.takeover is not UNSET for event in told):
        raise Problem("takeover_asked_already")
    takeovers.ask(asked, msgspec.json.decode(file.info, type=CallInfo))
    return views.answer(asked, 202)


def _reason(text: str) -> str:
    """Why somebody wants it, with private numbers masked: it stays in the audit for ever."""
    reason = text.strip()
    if not reason:
        raise Problem("reason_needed")
    if len(reason) > REASON_LENGTH:
        raise Problem("reason_too_long", limit=str(REASON_LENGTH), came=str(len(reason)))
    return redact(clean(reason))


def _is_original(text: str, masked: str) -> bool:
    return len(text) == len(masked) and all(m in ("*", o) for o, m in zip(text, masked, strict=True))
