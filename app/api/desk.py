"""The agent's desk: the call that the agent is in, what hints were worth, and a look back after it."""

from __future__ import annotations

from typing import Literal

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response
from msgspec import Struct, structs
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from app.api import views
from app.api.appeals import appeal_until
from app.api.people import AtTheDesk, address_of, check_sight, in_sight, record_reading
from app.api.problems import Problem
from app.outlet import Outlet
from app.settings import Settings
from app.store import Store
from app.store.desk import LiveCall, Said
from app.store.tables import CallRow
from streams.desk import HintAnswer, Whisper, Worth, stands
from streams.events import AlertChange, CallInfo, Emotion, Hint, Progress, Traced

router = APIRouter(tags=["desk"])


class Answer(BaseModel, extra="forbid"):
    answer: Literal["useful", "not_useful", "dismissed"]


class DeskHint(Struct, frozen=True, kw_only=True):
    hint: Hint
    answer: Worth | None


class DeskCall(Struct, frozen=True, kw_only=True):
    """The call that the agent is in."""

    call: views.CallView
    hints: list[DeskHint]
    """Oldest first."""
    whispers: list[Whisper]
    """Oldest first; those to this agent."""
    progress: list[Progress]
    """The last changed last."""
    emotions: list[Emotion]
    """The agent's own, of the last minutes."""
    said: list[Said]
    """What the agent said in the last minutes, for the speed of it."""


class LastCall(Struct, frozen=True, kw_only=True):
    """One of the agent's calls that have ended."""

    call_id: str
    started_at: str
    ended_at: str | None
    duration_ms: int
    queue: str | None
    customer: str | None
    alerts: int
    appeal_until: str | None
    """Wall clock; ``None``: no appeals are taken."""


class Desk(Struct, frozen=True, kw_only=True):
    cursor: int
    live: DeskCall | None
    others: int
    """Further running calls of this agent, begun earlier."""
    last: list[LastCall]
    """Newest first."""


class ReviewedAlert(views.AlertView, frozen=True, kw_only=True, tag="Alert"):
    appeals: list[AlertChange]
    """The appeal and its answer; what supervisors say among themselves is not told here."""


class Review(Struct, frozen=True, kw_only=True):
    """A call as its agent looks back at it."""

    cursor: int
    call: views.CallView
    alerts: list[ReviewedAlert]
    progress: list[Progress]
    appeal_until: str | None


@router.get("/api/desk")
def desk(request: Request, person: AtTheDesk) -> Response:
    """Subscribe to ``/api/events`` from the ``cursor`` of this answer: it continues exactly here."""
    store: Store = request.app.state.store
    settings: Settings = request.app.state.settings
    found = store.desk.of(person.username)
    live = None if found.live is None else _live(request, found.live, person.username)
    return views.answer(
        Desk(
            cursor=found.cursor,
            live=live,
            others=found.others,
            last=[_last(last.call, last.alerts, settings) for last in found.last],
        )
    )


@router.get("/api/desk/calls/{call_id}")
def review(call_id: str, request: Request, person: AtTheDesk) -> Response:
    """One of one's own calls: what was found, and what the script lacked. Reading it is written down."""
    store: Store = request.app.state.store
    found = store.calls.file(call_id)
    if found is None:
        raise Problem("unknown_call")
    in_sight(person, found.call)
    record_reading(request, person, "call.reviewed", call_id)
    appeals = store.alerts.appeals(call_id)
    return views.answer(
        Review(
            cursor=found.cursor,
            call=_view(request, found.call),
            alerts=[
                ReviewedAlert(
                    **structs.asdict(views.alert_view(row, found.call)),
                    appeals=[change for alert_id, change in appeals if alert_id == row.alert_id],
                )
                for row in found.alerts
                if row.state != "withdrawn"
            ],
            progress=[views.progress(row) for row in found.progress],
            appeal_until=appeal_until(found.call, request.app.state.settings),
        )
    )


@router.post("/api/calls/{call_id}/hints/{hint_id}/answer")
async def answer(call_id: str, hint_id: str, told: Answer, request: Request, person: AtTheDesk) -> Response:
    """What a hint was worth. What was dismissed may still be judged; a judgement stands."""
    store: Store = request.app.state.store
    outlet: Outlet = request.app.state.outlet
    await check_sight(request, person, call_id)
    hint = await run_in_threadpool(store.desk.hint, hint_id, call_id)
    if hint is None:
        raise Problem("unknown_hint")
    wish = HintAnswer(
        hint_id=hint_id,
        call_id=call_id,
        rule_id=hint.rule_id,
        media_ms=hint.media_ms,
        answer=told.answer,
        by=person.username,
    )
    if not await outlet.append([Traced(what=wish, address=address_of(request))]):
        known = await run_in_threadpool(store.desk.answer, hint_id)
        if known != told.answer and not stands(known, told.answer):
            raise Problem("hint_answered", came=known)
    return views.answer(wish)


def _live(request: Request, live: LiveCall, username: str) -> DeskCall:
    return DeskCall(
        call=_view(request, live.call),
        hints=[DeskHint(hint=shown.hint, answer=shown.answer) for shown in live.hints],
        whispers=[whisper for whisper in live.whispers if whisper.to == username],
        progress=live.progress,
        emotions=live.emotions,
        said=live.said,
    )


def _view(request: Request, call: CallRow) -> views.CallView:
    outlet: Outlet = request.app.state.outlet
    # Whether there is a recording is of no use here.
    return views.call_view(call, None, outlet.speaking(call.call_id), lambda _: False)


def _last(call: CallRow, alerts: int, settings: Settings) -> LastCall:
    info = msgspec.json.decode(call.info, type=CallInfo)
    return LastCall(
        call_id=call.call_id,
        started_at=call.started_at,
        ended_at=call.ended_at,
        duration_ms=call.media_ms,
        queue=info.queue,
        customer=info.customer,
        alerts=alerts,
        appeal_until=appeal_until(call, settings),
    )
