"""The audio of a call, for those who may listen to it."""

from __future__ import annotations

from collections.abc import Callable
from io import BufferedReader
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response
from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from app.api import views
from app.api.people import Hearer, check_sight, record_reading
from app.api.problems import Problem
from app.peaks import Crowded, Measuring, Unreadable, coarser
from app.recorder import LASTING, find, opened
from app.store import Store

router = APIRouter(tags=["calls"])


def has_recording(request: Request) -> Callable[[str], bool]:
    """Tells of a call id whether there is a recording."""
    folder = request.app.state.settings.recordings
    return lambda call_id: find(folder, call_id) is not None


@router.get("/api/calls/{call_id}/audio")
async def audio(call_id: str, request: Request, person: Hearer) -> Response:
    """WAV, later Ogg with Opus; agent left, customer right. Byte ranges; of running calls, what there is."""
    await check_sight(request, person, call_id)
    try:
        file = await run_in_threadpool(opened, request.app.state.settings.recordings, call_id)
    except OSError:
        file = None
    if file is None:
        raise Problem("no_recording")
    try:
        await run_in_threadpool(record_reading, request, person, "call.audio", call_id)
    except BaseException:
        file.close()
        raise
    return _Recording(file)


class _Recording(FileResponse):
    """Of an open file: it may get another name before it is sent, or none."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        kind = "audio/ogg" if str(file.name).endswith(LASTING) else "audio/wav"
        super().__init__(f"/dev/fd/{file.fileno()}", media_type=kind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


WAIT_S = 5.0
MOST_POINTS = 8000


class Waveform(Struct, frozen=True, kw_only=True):
    ready: bool
    """Not yet: it is being measured, ask again."""
    duration_ms: int = 0
    bin_ms: float = 0.0
    channels: list[list[int]] = []
    """Agent, then customer, or one of both mixed: the largest sample of each bin, 255 is full scale."""


@router.get("/api/calls/{call_id}/peaks")
async def peaks(
    call_id: str, request: Request, person: Hearer, points: Annotated[int, Query(ge=1, le=MOST_POINTS)] = 2000
) -> Response:
    """How loud an ended call is, from beginning to end, in at most ``points`` bins."""
    store: Store = request.app.state.store
    measuring: Measuring = request.app.state.measuring
    await check_sight(request, person, call_id)
    if await run_in_threadpool(store.calls.state, call_id) == "live":
        raise Problem("call_runs")
    path = await run_in_threadpool(find, request.app.state.settings.recordings, call_id)
    if path is None:
        raise Problem("no_recording")
    await run_in_threadpool(record_reading, request, person, "call.peaks", call_id)
    try:
        found = await measuring.peaks(path, WAIT_S)
    except Crowded:
        raise Problem("busy", {"Retry-After": "5"}) from None
    except Unreadable:
        raise Problem("no_recording") from None
    if found is None:
        return views.answer(Waveform(ready=False))
    found = coarser(found, points)
    return views.answer(
        Waveform(
            ready=True,
            duration_ms=found.duration_ms,
            bin_ms=found.bin_ms,
            channels=[list(channel) for channel in found.channels],
        )
    )
