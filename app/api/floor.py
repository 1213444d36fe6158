"""The floor: live calls and the alerts of the last day, those in sight, in one consistent view."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.api import views
from app.api.people import Reader
from app.api.recordings import has_recording
from app.outlet import Outlet
from app.rights import sight_of
from app.store import Store
from app.store.times import now, written

ALERTS_FOR = timedelta(hours=24)
ALERTS_MOST = 200

router = APIRouter(tags=["floor"])


@router.get("/api/floor")
def floor(request: Request, person: Reader) -> Response:
    """Subscribe to ``/api/events`` from the ``cursor`` of this answer: it continues exactly here."""
    store: Store = request.app.state.store
    outlet: Outlet = request.app.state.outlet
    recorded = has_recording(request)
    found = store.calls.floor(written(now() - ALERTS_FOR), ALERTS_MOST, sight_of(person))
    return views.answer(
        views.Floor(
            cursor=found.cursor,
            calls=[
                views.call_view(call, found.counts.get(call.call_id), outlet.speaking(call.call_id), recorded)
                for call in found.calls
            ],
            alerts=[views.alert_view(alert, call) for alert, call in found.alerts],
            health=request.app.state.health(),
        )
    )
