"""Calls, running and ended, and everything about one of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import AfterValidator, AwareDatetime

from app.api import views
from app.api.people import Reader, in_sight, record_reading
from app.api.problems import Problem
from app.api.recordings import has_recording
from app.outlet import Outlet
from app.rights import may, sight_of
from app.store import Store
from app.store.calls import Wanted
from streams.events import Severity

router = APIRouter(tags=["calls"])


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("expected a time between the years 1 and 9999 in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
LONGEST: Final = 200
"""Characters of an account or a queue that is looked for."""


@router.get("/api/calls")
def calls(
    request: Request,
    person: Reader,
    state: Literal["live", "ended", "all"] = "all",
    agent: Annotated[str | None, Query(max_length=LONGEST)] = None,
    queue: Annotated[str | None, Query(max_length=LONGEST)] = None,
    severity: Severity | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(pattern="^[0-9]{1,18}$")] = None,
) -> Response:
    """Calls in sight, last begun first. ``next`` of an answer is ``before`` of the page that follows.

    ``severity``: with an alert of it that was not taken back; ``since`` and ``until`` (not included): when
    they began, RFC 3339 with an offset.
    """
    store: Store = request.app.state.store
    outlet: Outlet = request.app.state.outlet
    recorded = has_recording(request)
    wanted = Wanted(
        state=None if state == "all" else state,
        agent=agent,
        queue=queue,
        severity=severity,
        since=since,
        until=until,
    )
    page = store.calls.page(wanted, limit, None if before is None else int(before), sight_of(person))
    return views.answer(
        views.CallPage(
            calls=[
                views.call_view(call, page.counts.get(call.call_id), outlet.speaking(call.call_id), recorded)
                for call in page.calls
            ],
            next=None if page.next is None else str(page.next),
        )
    )


@router.get("/api/calls/{call_id}")
def call(call_id: str, request: Request, person: Reader) -> Response:
    """One call: what was said (where anything was), alerts, markers, feelings. Reading it is written down."""
    store: Store = request.app.state.store
    outlet: Outlet = request.app.state.outlet
    found = store.calls.file(call_id)
    if found is None:
        raise Problem("unknown_call")
    in_sight(person, found.call)
    record_reading(request, person, "call.read", call_id)
    supervises = may(person, "call.note")
    return views.answer(
        views.CallDetail(
            cursor=found.cursor,
            call=views.call_view(found.call, found.counts, outlet.speaking(call_id), has_recording(request)),
            utterances=[views.spoken(row) for row in found.utterances if row.text],
            alerts=[views.alert_view(row, found.call) for row in found.alerts],
            markers=[views.marker(row) for row in found.markers],
            emotions=[views.emotion(row) for row in found.emotions],
            progress=[views.progress(row) for row in found.progress],
            # What is added between the two looks comes as an event as well, and is the same.
            notes=store.beside.notes(call_id) if supervises else [],
            takeovers=store.beside.takeovers(call_id) if supervises else [],
            whispers=store.desk.whispers(call_id) if supervises else [],
            revealable=store.beside.originals(call_id) if may(person, "call.reveal") else [],
            keeps_originals=bool(request.app.state.keyring),
            takeover_possible=request.app.state.takeovers.possible,
        )
    )
