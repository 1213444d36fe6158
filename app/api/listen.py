"""WHEP: a supervisor listens to a running call in the browser, over WebRTC.

``POST /api/calls/{call_id}/listen`` with an SDP offer that receives one audio track begins, ``DELETE`` on the
session's address ends it. The session cookie lets in, and it is written down who listens to what. While
somebody listens it is looked every ``CHECK_S`` whether that person is still logged in.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import secrets
import time
from typing import Literal

import av
import numpy as np
import structlog
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.sdp import SessionDescription
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from app.api.people import OVERSEERS, Overseer, record_reading, token_of
from app.api.problems import Problem
from app.ears import Ears, Listening, Wanted
from app.ingest.sdpfrag import trickling
from app.store import Store
from streams.events import SAMPLE_RATE

log = structlog.get_logger(__name__)

router = APIRouter(tags=["calls"])

SDP = "application/sdp"
MOST_OFFER = 32 * 1024
MOST, MOST_EACH = 100, 4
"""Sessions of one process, and of one person."""
CONNECT_S, ANSWER_S, CHECK_S = 15.0, 10.0, 15.0
FRAME = SAMPLE_RATE // 50


class Sound(MediaStreamTrack):
    """What a pair of ears hears, 20 ms at a time at the pace of speech; ends with the call."""

    kind = "audio"

    def __init__(self, ears: Ears) -> None:
        super().__init__()
        self._ears = ears
        self._began_s: float | None = None
        self._sent = 0

    async def recv(self) -> av.AudioFrame:
        if self._ears.ended:
            raise MediaStreamError
        if self._began_s is None:
            self._began_s = time.monotonic()
        await asyncio.sleep(max(0.0, self._began_s + self._sent / SAMPLE_RATE - time.monotonic()))
        samples = np.ascontiguousarray(self._ears.take(FRAME)).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = (
            SAMPLE_RATE,
            self._sent,
            fractions.Fraction(1, SAMPLE_RATE),
        )
        self._sent += FRAME
        return frame


class Session:
    def __init__(self, username: str) -> None:
        self.id, self.username = secrets.token_urlsafe(18), username
        self.over = asyncio.Event()


class Rooms:
    """Everybody who listens over this process."""

    def __init__(self, listening: Listening) -> None:
        self.listening = listening
        self.sessions: dict[str, Session] = {}
        self._running: set[asyncio.Task[None]] = set()

    def admit(self, username: str) -> Session:
        theirs = sum(session.username == username for session in self.sessions.values())
        if len(self.sessions) >= MOST or theirs >= MOST_EACH:
            raise Problem("too_many_listeners")
        session = Session(username)
        self.sessions[session.id] = session
        return session

    def run(
        self, request: Request, session: Session, connection: RTCPeerConnection, call_id: str, ears: Ears
    ) -> None:
        running = asyncio.create_task(self._run(request, session, connection, call_id, ears))
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def _run(
        self, request: Request, session: Session, connection: RTCPeerConnection, call_id: str, ears: Ears
    ) -> None:
        store: Store = request.app.state.store
        token = token_of(request)

        @connection.on("connectionstatechange")
        def changed() -> None:
            if connection.connectionState in ("failed", "closed"):
                session.over.set()

        try:
            pause = CONNECT_S
            while not session.over.is_set() and not ears.ended:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(session.over.wait(), pause)
                if connection.connectionState != "connected":
                    break
                pause = CHECK_S
                person = await run_in_threadpool(store.sessions.person, token) if token else None
                if person is None or person.role not in OVERSEERS:
                    break
        finally:
            self.listening.shut(call_id, ears)
            self.sessions.pop(session.id, None)
            with contextlib.suppress(Exception):
                await connection.close()

    async def aclose(self) -> None:
        for session in list(self.sessions.values()):
            session.over.set()
        await asyncio.gather(*self._running, return_exceptions=True)


@router.post("/api/calls/{call_id}/listen")
async def begin(
    call_id: str, request: Request, person: Overseer, channel: Literal["agent", "customer", "both"] = "both"
) -> Response:
    """Listen to a running call: one of its channels, or both mixed. ``application/sdp`` in and out."""
    rooms: Rooms = request.app.state.rooms
    store: Store = request.app.state.store
    if call_id not in rooms.listening:
        known = await run_in_threadpool(store.calls.state, call_id)
        raise Problem({None: "unknown_call", "ended": "call_ended"}.get(known, "heard_elsewhere"))
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != SDP:
        raise Problem("expected_sdp")
    offer = (await request.body())[:MOST_OFFER].decode(errors="replace")
    session = rooms.admit(person.username)
    try:
        connection, ears, answer = await _answered(rooms.listening, call_id, channel, offer)
    except BaseException:
        rooms.sessions.pop(session.id, None)
        raise
    await run_in_threadpool(record_reading, request, person, "call.listened", call_id)
    rooms.run(request, session, connection, call_id, ears)
    headers = {"Location": f"/api/listening/{session.id}"}
    return Response(answer, 201, headers, SDP)


@router.delete("/api/listening/{session_id}")
async def end(session_id: str, request: Request, person: Overseer) -> Response:
    """Listen no more. Only who began it can end it."""
    session = request.app.state.rooms.sessions.get(session_id)
    if session is None or session.username != person.username:
        raise Problem("not_found")
    session.over.set()
    return Response(status_code=200)


async def _answered(
    listening: Listening, call_id: str, wanted: Wanted, offer: str
) -> tuple[RTCPeerConnection, Ears, str]:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    ears = listening.open(call_id, wanted)
    try:
        async with asyncio.timeout(ANSWER_S):
            media = SessionDescription.parse(offer).media
            if [one.kind for one in media] != ["audio"] or media[0].direction not in ("recvonly", "sendrecv"):
                raise Problem("expected_sdp")
            await connection.setRemoteDescription(RTCSessionDescription(trickling(offer), "offer"))
            connection.addTrack(Sound(ears))
            for transceiver in connection.getTransceivers():
                transceiver.direction = "sendonly"
            await connection.setLocalDescription(await connection.createAnswer())
    except Exception as error:
        listening.shut(call_id, ears)
        await connection.close()
        if isinstance(error, Problem):
            raise
        # aiortc says with many kinds of exceptions that an offer is not to its liking.
        log.warning("listen.offer_refused", error=type(error).__name__)
        raise Problem("expected_sdp") from None
    return connection, ears, connection.localDescription.sdp
