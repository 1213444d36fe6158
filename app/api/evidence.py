"""The evidence of an alert to take away: ``app.evidence`` says what is in it."""

from __future__ import annotations

import asyncio
import hashlib
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
from app.recorder import find
from app.store import Store
from app.store.times import now, written

log = structlog.get_logger(__name__)

router = APIRouter(tags=["calls"])

AT_ONCE: Final = 2
"""Archives made at the same time; others wait."""
WAITING: Final = 20
STEPS: Final = 500


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
    """One ZIP archive: sound, words, the alert with its rule and history, and the SHA-256 of each file."""
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
    finally:
        exports.waiting -= 1
    await run_in_threadpool(
        store.audit.record, person.username, "call.exported", call_id, address_of(request), alert_id
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
    path = find(request.app.state.settings.recordings, call_id)
    audio = _clip(path, *evidence.span(alert.media_start_ms, alert.media_end_ms))
    return evidence.archive(
        evidence.Case(
            call=views.call_view(
                file.call, file.counts, outlet.speaking(call_id), lambda _: path is not None
            ),
            alert=alert,
            history=store.alerts.history(alert_id, STEPS),
            utterances=[views.spoken(one) for one in file.utterances if one.text],
            audio=audio,
            recording=_described(path) if path is not None and audio is not None else None,
            by=username,
            at=written(now()),
            duting=request.app.version,
        )
    )


def _clip(path: Path | None, start_ms: int, end_ms: int) -> bytes | None:
    if path is None:
        return None
    try:
        return clip(path, start_ms, end_ms)
    except (av.FFmpegError, OSError, IndexError) as error:
        log.warning("evidence.without_sound", file=path.name, error=type(error).__name__)
        return None


def _described(path: Path) -> dict[str, Any]:
    """Of a call that still runs: as far as it was written."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"name": path.name, "bytes": file.tell(), "sha256": digest}
