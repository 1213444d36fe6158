"""Every protocol by which telephones come in, in one list."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter

from app.ingest import audiohook, audiosocket, chan_websocket, jambonz, twilio, whip
from app.ingest.session import Lines

ROUTES: tuple[Callable[[Lines], APIRouter], ...] = (
    twilio.route,
    audiohook.route,
    audiosocket.route,
    chan_websocket.route,
    jambonz.route,
    whip.route,
)
"""Each makes the routes of one protocol."""
