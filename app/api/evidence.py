"""The evidence of an alert to take away: ``app.evidence`` says what is in it."""

from __future__ import annotations

import asyncio
import hashlib
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

import av
import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from app import evidence
from app.api import views
from app.api.people import Exporter, address_of, check_sight
from app.api.problems import Problem
from app.clip import clip
from app.outlet import Outlet
from app.recorder import opened
from app.store import Store
from app.store.times import now, written

log = structlog.get_logger(__name__)

router = APIRouter(tags=["calls"])

AT_ONCE: Final = 2
"""Archives made at the same time; others wait."""
WAITING: Final = 20
STEPS: Final = 500
"""For a recording that is gone whenever it is to be opened."""


class Exports:
    """Bounds the work of a process."""

    def __init__(self) -> None:
        self.room = asyncio.Semaphore(AT_ONCE)
        self.waiting = 0


@router.get(
    "/api/calls/{call_id}/alerts/{alert_id}/evidence",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}, "description": "The archive"}},
)
async def export(call_id: str, alert_id: str, request: Request, person: Exporter) -> Response:
    """One ZIP archive: sound, words, the alert with its rule and history, and the SHA-256 of each file.

    That it was taken is written down with the SHA-256 of the archive itself.
    """
    store: Store = request.app.state.store
    exports: Exports = request.app.state.exports
    await check_sight(request, person, call_id)
    found = await run_in_threadpool(store.calls.alert, alert_id)
    if found is None or found[1].call_id != call_id:
        raise Problem("unknown_alert")
    if exports.waiting >= WAITING:
        raise Problem("busy", {"Retry-After": "5"})
    exports.waiting += 1
    try:
        async with exports.room:
            content = await run_in_threadpool(_archive, request, call_id, alert_id, person.username)
            digest = await run_in_threadpool(lambda: hashlib.sha256(content).hexdigest())
    finally:
        exports.waiting -= 1
    detail = f"{alert_id}: sha256 {digest}"
    await run_in_threadpool(
        store.audit.record, person.username, "call.exported", call_id, address_of(request), detail
    )
    name = f"{evidence.name_of(call_id, alert_id)}.zip"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(content, media_type="application/zip", headers=headers)


def _archive(request: Request, call_id: str, alert_id: str, username: str) -> bytes:
    store: Store = request.app.state.store
    outlet: Outlet = request.app.state.outlet
    file = store.calls.file(call_id)
    row = next((row for row in file.alerts if row.alert_id == alert_id), None) if file is not None else None
    if file is None or row is None:
        raise Problem("unknown_alert")
    alert = views.alert_view(row, file.call)
    recording = _opened(request.app.state.settings.recordings, call_id)
    audio = described = None
    if recording is not None:
        with recording:
            audio = _clip(recording, *evidence.span(alert.media_start_ms, alert.media_end_ms))
            described = _described(recording) if audio is not None else None
    return evidence.archive(
        evidence.Case(
            call=views.call_view(
                file.call, file.counts, outlet.speaking(call_id), lambda _: recording is not None
            ),
            alert=alert,
            history=store.alerts.history(alert_id, STEPS),
            utterances=[views.spoken(one) for one in file.utterances if one.text],
            audio=audio,
            recording=described,
            by=username,
            at=written(now()),
            duting=request.app.version,
        )
    )


def _opened(folder: Path, call_id: str) -> BufferedReader | None:
    """The recording, once for all that is told of it: what is open stays what it is, whatever becomes of its
    name. ``None``: there is none, or it cannot be read."""
    try:
        return opened(folder, call_id)
    except OSError as error:
        log.warning("evidence.without_sound", error=type(error).__name__)
        return None


def _clip(recording: BufferedReader, start_ms: int, end_ms: int) -> bytes | None:
    try:
        return clip(recording, start_ms, end_ms)
    except (av.FFmpegError, OSError, IndexError) as error:
        name = Path(recording.name).name
        log.warning("evidence.without_sound", file=name, error=type(error).__name__)
        return None


def _described(recording: BufferedReader) -> dict[str, Any] | None:
    """Of a call that still runs: as far as it was written, what was cut out of it included."""
    name = Path(recording.name).name
    try:
        recording.seek(0)
        digest = hashlib.file_digest(recording, "sha256").hexdigest()
        return {"name": name, "bytes": recording.tell(), "sha256": digest}
    except OSError as error:
        log.warning("evidence.recording_not_read", file=name, error=type(error).__name__)
        return None
