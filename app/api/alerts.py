"""Who looks after an alert: taken and let go by compare and set, so that of two people only one has it."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from app.api import views
from app.api.people import Supervisor, address_of, in_sight
from app.api.problems import Problem
from app.outlet import Outlet
from app.store import Store
from streams.events import Taken

router = APIRouter(tags=["alerts"])


class Ownership(BaseModel, extra="forbid"):
    owner: Literal["me"] | None
    """``None`` lets it go."""
    expected: str | None = Field(max_length=64)
    """Account that has it as far as the asking page knows."""


@router.post("/api/alerts/{alert_id}/owner")
async def set_owner(alert_id: str, wish: Ownership, request: Request, person: Supervisor) -> Response:
    """Take an alert, or let it go. Answers with the alert as it is now; asking twice is as asking once.

    Only when its owner is the ``expected`` one; else the answer is 409 and names the present ``owner``.
    A supervisor can let go of what is his own, an administrator of anything. It is written down.
    """
    store: Store = request.app.state.store
    outlet: Outlet = request.app.state.outlet
    found = await run_in_threadpool(store.calls.alert, alert_id)
    if found is None:
        raise Problem("unknown_alert")
    in_sight(person, found[1], "unknown_alert")
    owner = person.username if wish.owner == "me" else None
    theirs = owner is None and wish.expected not in (None, person.username)
    if theirs and person.role != "administrator":
        raise Problem("not_yours")
    alert = views.alert_view(*found)
    told = await outlet.append(
        [
            Taken(
                call_id=alert.call_id,
                alert_id=alert.id,
                media_ms=alert.media_ms,
                owner=owner,
                expected=wish.expected,
            )
        ]
    )
    if told:
        action = "alert.released" if owner is None else "alert.taken"
        await run_in_threadpool(store.audit.record, person.username, action, alert.id, address_of(request))
    found = await run_in_threadpool(store.calls.alert, alert_id)
    assert found is not None
    alert = views.alert_view(*found)
    if not told and alert.owner != owner:
        raise Problem("owner_changed", owner=alert.owner)
    return views.answer(alert)
