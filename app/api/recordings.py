"""The audio of a call, for those who may listen to it."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from starlette.concurrency import run_in_threadpool

from app.api.people import Hearer, check_sight, record_reading
from app.api.problems import Problem
from app.recorder import find

router = APIRouter(tags=["calls"])


def has_recording(request: Request) -> Callable[[str], bool]:
    """Tells of a call id whether there is a recording."""
    folder = request.app.state.settings.recordings
    return lambda call_id: find(folder, call_id) is not None


@router.get("/api/calls/{call_id}/audio")
async def audio(call_id: str, request: Request, person: Hearer) -> Response:
    """Ogg with FLAC, then Opus; agent left, customer right. Byte ranges; of running calls, what there is."""
    await check_sight(request, person, call_id)
    path = await run_in_threadpool(find, request.app.state.settings.recordings, call_id)
    if path is None:
        raise Problem("no_recording")
    await run_in_threadpool(record_reading, request, person, "call.audio", call_id)
    return FileResponse(path, media_type="audio/ogg")
