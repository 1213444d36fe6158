"""The floor: live calls and the alerts of the last day, those in sight, in one consistent view."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter, Request
from fastapi.responses import Response
from msgspec import structs

from app.api import views
from app.api.floor_views import Floor, FloorCall, moods, script_state
from app.api.people import Reader
from app.api.recordings import has_recording
from app.figures import FloorFigures
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
    figures: FloorFigures = request.app.state.figures
    recorded = has_recording(request)
    sight = sight_of(person)
    found = store.calls.floor(written(now() - ALERTS_FOR), ALERTS_MOST, sight)
    calls = []
    for row in found.calls:
        call_id = row.call_id
        view = views.call_view(row, found.counts.get(call_id), outlet.speaking(call_id), recorded)
        calls.append(
            FloorCall(
                **structs.asdict(view),
                open=views.AlertCounts(**found.open.get(call_id, {})),
                moods=moods(found.emotions.get(call_id, ())),
                progress=script_state(found.progress.get(call_id, ())),
            )
        )
    return views.answer(
        Floor(
            cursor=found.cursor,
            calls=calls,
            alerts=[views.alert_view(alert, call) for alert, call in found.alerts],
            open=views.AlertCounts(**found.all_open),
            figures=figures(sight),
            health=request.app.state.health(),
        )
    )


@router.get("/api/floor/figures")
def floor_figures(request: Request, person: Reader) -> Response:
    """The floor's figures alone: a page that follows the events asks for them now and then."""
    figures: FloorFigures = request.app.state.figures
    return views.answer(figures(sight_of(person)))
