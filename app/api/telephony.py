"""Where telephony systems tell what happens in a call beside its audio: holds, transfers, keys, hang-ups,
metadata. For machines: they present the ingest token, or an API token with the scope ``telephony``."""

from __future__ import annotations

import hmac
import math

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from msgspec import Struct
from starlette.concurrency import run_in_threadpool

from app.api.people import bearer_of, in_sight
from app.api.problems import Problem
from app.errors import LiveError
from app.ingest.peer import CALL_ID
from app.live import Live
from app.outlet import Outlet
from app.rights import may, sight_of
from app.settings import Settings
from app.store import Person, Store
from app.telephony import Busy, CallOver, Full, HangupEvent, Switchboard, UnknownCall, decoded
from streams.events import CallEnded

MOST_REQUESTS, WITHIN_S = 100, 10.0
"""For one call: a telephony system that has gone wrong must not fill the shared state."""

router = APIRouter(tags=["telephony"])


class Taken(Struct, frozen=True, kw_only=True):
    taken: int
    repeated: int
    """Events whose id was told before; they are not done again."""


@router.post("/api/calls/{call_id}/events", status_code=202)
async def tell(call_id: str, request: Request) -> Response:
    """One event of a call, or a list of them, done in their order; 202 once they are taken.

    ``hold``, ``resume``, ``transfer`` (``to``), ``key`` (``channel``; never which one), ``hangup`` (``by``),
    ``update`` (``fields``). Each may carry an ``id``, so that it can be told again, and ``media_ms``.
    """
    settings: Settings = request.app.state.settings
    live: Live = request.app.state.live
    switchboard: Switchboard | None = request.app.state.switchboard
    caller = await _authorise(request, settings.token())
    if switchboard is None or not CALL_ID.fullmatch(call_id):
        raise Problem("unknown_call")
    if caller is not None and not sight_of(caller).everything:
        place = await run_in_threadpool(request.app.state.store.calls.place, call_id)
        in_sight(caller, place)
    try:
        events = decoded(await request.body())
    except ValueError as error:
        raise Problem("invalid", detail=str(error)) from None
    try:
        wait = await live.allow(f"telephony:{call_id}", MOST_REQUESTS, WITHIN_S)
        if wait > 0:
            raise Problem("too_many_events", {"Retry-After": str(math.ceil(wait))})
        taken = await switchboard.take(call_id, events)
    except UnknownCall:
        raise Problem("unknown_call") from None
    except CallOver:
        hangups = [event for event in events if isinstance(event, HangupEvent)]
        if len(hangups) < len(events):
            raise Problem("call_ended") from None
        await _tell_who(call_id, hangups, request)
        taken = len(events)
    except LiveError:
        raise Problem("presence_unavailable", {"Retry-After": "2"}) from None
    except (Busy, Full):
        raise Problem("busy", {"Retry-After": "2"}) from None
    return JSONResponse({"taken": taken, "repeated": len(events) - taken}, status_code=202)


async def _tell_who(call_id: str, hangups: list[HangupEvent], request: Request) -> None:
    """The audio of a call is often over before its telephony says so: who hung up is still worth knowing.

    What was told first stays.
    """
    store: Store = request.app.state.store
    outlet: Outlet = request.app.state.outlet
    by = next((event.by for event in hangups if event.by is not None), None)
    ended = await run_in_threadpool(store.calls.ended, call_id)
    if by is not None and ended is not None and ended.by is None:
        # A connection that was cut off without a word: now it is known why.
        reason = "hangup" if ended.reason == "disconnected" else ended.reason
        await outlet.append([CallEnded(call_id=call_id, media_ms=ended.media_ms, reason=reason, by=by)])


async def _authorise(request: Request, token: str) -> Person | None:
    """Who shows an API token; ``None``: it is the ingest token of the settings."""
    given = bearer_of(request) or ""
    if hmac.compare_digest(given.encode(), token.encode()):
        return None
    store: Store = request.app.state.store
    person = await run_in_threadpool(store.tokens.person, given)
    if person is None:
        raise Problem("token_required", {"WWW-Authenticate": "Bearer"})
    if not may(person, "call.tell"):
        raise Problem("role_not_allowed")
    return person
