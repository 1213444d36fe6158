"""Whispers: a supervisor's words to the agent of a running call, and that they were read."""

from __future__ import annotations

import secrets

from fastapi import APIRouter, Request
from fastapi.responses import Response
from msgspec import Struct
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from app.api import views
from app.api.people import AtTheDesk, Reader, Whisperer, address_of, check_sight
from app.api.problems import Problem
from app.errors import LiveError
from app.live import Live
from app.outlet import Outlet
from app.rights import sight_of
from app.store import Store
from app.store.times import now, read
from detectors.privacy import redact
from streams.desk import WHISPER_LENGTH, Whisper, WhisperSeen
from streams.events import Published, Traced

MOST = 20
WITHIN_S = 60.0
"""So many to one call: more than that nobody reads who speaks with a customer."""

router = APIRouter(tags=["desk"])


class Words(BaseModel, extra="forbid"):
    text: str


class Looked(BaseModel, extra="forbid"):
    confirmed: bool = False
    """The agent said so; else it only stands on the screen."""


class Whispers(Struct, frozen=True, kw_only=True):
    whispers: list[Whisper]
    """Oldest first."""


@router.get("/api/calls/{call_id}/whispers")
async def whispers(call_id: str, request: Request, person: Reader) -> Response:
    """What was whispered in a call, and what of it was read."""
    store: Store = request.app.state.store
    await check_sight(request, person, call_id)
    found = await run_in_threadpool(store.desk.whispers, call_id)
    if not sight_of(person).supervises:
        # Of a call that was transferred the agent reads what was for them, and a program nothing.
        found = [whisper for whisper in found if whisper.to == person.username]
    return views.answer(Whispers(whispers=found))


@router.post("/api/calls/{call_id}/whispers", status_code=201)
async def whisper(call_id: str, words: Words, request: Request, person: Whisperer) -> Response:
    """Tell the agent of a running call something. Private numbers are masked, as in transcripts."""
    store: Store = request.app.state.store
    outlet: Outlet = request.app.state.outlet
    await check_sight(request, person, call_id)
    text = words.text.strip()
    if not text:
        raise Problem("comment_empty")
    if len(text) > WHISPER_LENGTH:
        raise Problem("whisper_too_long", limit=str(WHISPER_LENGTH), came=str(len(text)))
    if (why := await run_in_threadpool(_unread, store, call_id)) is not None:
        raise Problem(why)
    began = await run_in_threadpool(store.calls.began, call_id)
    if began is None:
        raise Problem("call_ended")
    live: Live = request.app.state.live
    try:
        wait = await live.allow(f"whispers {call_id}", MOST, WITHIN_S)
    except LiveError:
        raise Problem("presence_unavailable") from None
    if wait > 0:
        raise Problem("too_many_whispers", {"Retry-After": str(int(wait) + 1)})
    since_ms = round((now() - read(began[0])).total_seconds() * 1000)
    made = Whisper(
        id=secrets.token_hex(12),
        call_id=call_id,
        text=redact(text),
        by=person.username,
        media_ms=max(since_ms, began[1]),
    )
    told = await outlet.append([Traced(what=made, address=address_of(request))])
    if (sent := _whisper(told)) is None:  # it ended meanwhile, or is nobody's any more
        unread: str | None = await run_in_threadpool(_unread, store, call_id)
        raise Problem(unread or "call_ended")
    return views.answer(sent, 201)


@router.post("/api/calls/{call_id}/whispers/{whisper_id}/seen")
async def seen(
    call_id: str, whisper_id: str, looked: Looked, request: Request, person: AtTheDesk
) -> Response:
    """The agent to whom it was whispered has it before his eyes. Asking twice is as asking once."""
    store: Store = request.app.state.store
    outlet: Outlet = request.app.state.outlet
    await check_sight(request, person, call_id)
    known = await run_in_threadpool(store.desk.whisper, whisper_id, call_id)
    if known is None or known.to != person.username:
        raise Problem("unknown_whisper")
    seen_ = WhisperSeen(
        whisper_id=whisper_id,
        call_id=call_id,
        media_ms=known.media_ms,
        by=person.username,
        confirmed=looked.confirmed,
    )
    changed = _whisper(await outlet.append([Traced(what=seen_, address=address_of(request))]))
    return views.answer(changed or await run_in_threadpool(store.desk.whisper, whisper_id, call_id))


def _unread(store: Store, call_id: str) -> str | None:
    """Why nobody would read what is whispered now: the problem's code."""
    place = store.calls.place(call_id)
    if place is None or store.calls.state(call_id) != "live":
        return "call_ended"
    if place.agent is None:
        return "agent_unknown"
    account = store.users.account(place.agent)
    if account is None or account.disabled_at is not None or account.role != "agent":
        return "agent_without_desk"
    return None


def _whisper(told: list[Published]) -> Whisper | None:
    return next((event.whisper for event in told if isinstance(event.whisper, Whisper)), None)
