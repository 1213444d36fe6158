"""The stream of events, and what a subscriber may rely on."""

from __future__ import annotations

from fastapi import APIRouter, WebSocket
from fastapi.responses import JSONResponse, Response

from app.api.people import Reader
from dashboard.feed import Feed
from streams.events import schema

router = APIRouter(tags=["events"])


@router.websocket("/api/events")
async def events(socket: WebSocket) -> None:
    """See ``dashboard.feed``; ``?cursor=`` continues after an event that was seen."""
    feed: Feed = socket.app.state.feed
    await feed.serve(socket)


@router.get("/api/schema/events")
def event_schema(_person: Reader) -> Response:
    """JSON Schema (2020-12) of one event."""
    return JSONResponse(schema())
