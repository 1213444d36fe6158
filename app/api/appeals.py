"""An agent's word against an alert of his own call, and the answer to it: steps of the alert's life."""

from __future__ import annotations

from datetime import datetime, timedelta

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from app.api.alerts import Judgement, Wish, alert_of, go, kept
from app.api.people import AtTheDesk, Overseer
from app.api.problems import Problem
from app.settings import Settings
from app.store import Store
from app.store.tables import CallRow
from app.store.times import now, read, written
from streams import alert_life

router = APIRouter(tags=["alerts"])


class Appeal(BaseModel, extra="forbid"):
    reason: str


def appeal_until(call: CallRow, settings: Settings) -> str | None:
    """Until when the call's agent may appeal; ``None``: not (yet)."""
    if call.ended_at is None or settings.appeal_hours == 0:
        return None
    return written(read(call.ended_at) + timedelta(hours=settings.appeal_hours))


def _over(until: str | None, moment: datetime) -> bool:
    return until is None or written(moment) >= until


@router.post("/api/alerts/{alert_id}/appeal")
async def appeal(alert_id: str, wish: Appeal, request: Request, person: AtTheDesk) -> Response:
    """The agent of the call says that the alert is wrong: once, after the call, within ``appeal_hours``."""
    store: Store = request.app.state.store
    alert = await alert_of(store, alert_id, person)
    found = await run_in_threadpool(store.calls.alert, alert_id)
    reason = kept(wish.reason)
    if not reason:
        raise Problem("reason_needed")
    if found is None or found[1].state == "live":
        raise Problem("appeal_after_the_call")
    until = appeal_until(found[1], request.app.state.settings)
    if _over(until, now()):
        raise Problem("appeal_over", until=until)
    if alert.appeal is not None or alert.state not in alert_life.FROM["appeal"]:
        raise Problem("appealed_already", came=alert.appeal or alert.state)
    return await go(request, person, alert_id, "appeal", Wish(), text=reason)


@router.post("/api/alerts/{alert_id}/accept-appeal")
async def accept_appeal(alert_id: str, wish: Judgement, request: Request, person: Overseer) -> Response:
    """The agent is right: it was a false alarm, and counts against its rule."""
    await _waits(request, alert_id, person)
    return await go(request, person, alert_id, "accept_appeal", wish, text=kept(wish.reason or "") or None)


@router.post("/api/alerts/{alert_id}/reject-appeal")
async def reject_appeal(alert_id: str, wish: Judgement, request: Request, person: Overseer) -> Response:
    """The alert stands. The agent is owed a reason, and reads it at the desk."""
    await _waits(request, alert_id, person)
    reason = kept(wish.reason or "")
    if not reason:
        raise Problem("reason_needed")
    return await go(request, person, alert_id, "reject_appeal", wish, text=reason)


async def _waits(request: Request, alert_id: str, person: Overseer) -> None:
    """What was answered before is for ``go`` to tell: the same answer by the same person is as one."""
    store: Store = request.app.state.store
    if (await alert_of(store, alert_id, person)).appeal is None:
        raise Problem("no_open_appeal")
