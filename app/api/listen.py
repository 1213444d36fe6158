"""WHEP: a supervisor listens to a running call in the browser, over WebRTC.

``POST /api/calls/{call_id}/listen`` with an SDP offer that receives one audio track begins, ``PATCH`` on the
session's address brings further ICE candidates, ``DELETE`` ends it. The session cookie lets in, and it is
written down who listens to what before anything is heard. While somebody listens it is looked every
``CHECK_S`` whether that person still may, and whether the call is still one of those that the person sees.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import av
import numpy as np
import structlog
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.sdp import SessionDescription
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from app.api.people import Listener, check_sight, credential_of, record_reading
from app.api.problems import Problem
from app.ears import Ears, Listening
from app.ingest.sdpfrag import trickling
from app.ingest.trickle import FRAGMENT, MOST_CANDIDATES, Trickle, TrickleRefused
from app.rights import may, sees
from app.store import Store
from streams.events import SAMPLE_RATE

log = structlog.get_logger(__name__)

router = APIRouter(tags=["calls"])

SDP = "application/sdp"
MOST, MOST_EACH = 100, 4
"""Sessions of one process, and of one person."""
CONNECT_S, ANSWER_S, CHECK_S = 15.0, 10.0, 3.0
FRAME = SAMPLE_RATE // 50

Still = Callable[[], Awaitable[bool]]


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
    """One person who listens."""

    def __init__(self, username: str) -> None:
        self.id, self.username = secrets.token_urlsafe(18), username
        self.over = asyncio.Event()
        self.trickle: Trickle | None = None
        """``None`` before the answer."""


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

    def theirs(self, session_id: str, username: str) -> Session:
        """Only who began a session has to do with it."""
        session = self.sessions.get(session_id)
        if session is None or session.username != username:
            raise Problem("not_found")
        return session

    def run(
        self, session: Session, connection: RTCPeerConnection, call_id: str, ears: Ears, still: Still
    ) -> None:
        """``still``: whether that person may listen, as of now."""
        running = asyncio.create_task(self._run(session, connection, call_id, ears, still))
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def _run(
        self, session: Session, connection: RTCPeerConnection, call_id: str, ears: Ears, still: Still
    ) -> None:
        @connection.on("connectionstatechange")
        def changed() -> None:
            if connection.connectionState in ("failed", "closed"):
                session.over.set()

        try:
            pause = CONNECT_S
            while not session.over.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await session.over.wait()
                if connection.connectionState != "connected" or not await still():
                    break
                pause = CHECK_S
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
    call_id: str, request: Request, person: Listener, channel: Literal["agent", "customer", "both"] = "both"
) -> Response:
    """Listen to a running call: one of its channels, or both mixed. ``application/sdp`` in and out."""
    rooms: Rooms = request.app.state.rooms
    store: Store = request.app.state.store
    await check_sight(request, person, call_id)
    if call_id not in rooms.listening:
        known = await run_in_threadpool(store.calls.state, call_id)
        raise Problem({None: "unknown_call", "ended": "call_ended"}.get(known, "heard_elsewhere"))
    offer = await _body(request, SDP, "expected_sdp")
    session = rooms.admit(person.username)
    connection, ears = RTCPeerConnection(RTCConfiguration(iceServers=[])), None
    try:
        described = _described(offer)
        session.trickle = Trickle(connection, described)
        await run_in_threadpool(record_reading, request, person, "call.listened", call_id)
        ears = rooms.listening.open(call_id, channel, session.over.set)
        answer = await _answered(connection, ears, offer)
    except BaseException:
        rooms.sessions.pop(session.id, None)
        if ears is not None:
            rooms.listening.shut(call_id, ears)
        with contextlib.suppress(Exception):
            await connection.close()
        raise
    credential = credential_of(request)

    def still_may() -> bool:
        present = credential.person(store) if credential is not None else None
        place = store.calls.place(call_id)
        return (
            present is not None and place is not None and may(present, "call.listen") and sees(present, place)
        )

    async def still() -> bool:
        return await run_in_threadpool(still_may)

    rooms.run(session, connection, call_id, ears, still)
    headers = {"Location": f"/api/listening/{session.id}", "ETag": session.trickle.etag}
    return Response(answer, 201, headers, SDP)


@router.options("/api/calls/{call_id}/listen")
async def options(call_id: str) -> Response:
    """What may be sent here."""
    return _understood()


@router.options("/api/listening/{session_id}")
async def session_options(session_id: str) -> Response:
    """What may be sent here."""
    return _understood()


def _understood() -> Response:
    return Response(status_code=204, headers={"Accept-Post": SDP, "Accept-Patch": FRAGMENT})


@router.patch("/api/listening/{session_id}")
async def trickle(session_id: str, request: Request, person: Listener) -> Response:
    """Further ICE candidates of a session: ``application/trickle-ice-sdpfrag``, with ``If-Match``."""
    session = request.app.state.rooms.theirs(session_id, person.username)
    text = await _body(request, FRAGMENT, "expected_fragment")
    if session.trickle is None:
        raise Problem("not_found")
    try:
        await session.trickle.take(request.headers.get("if-match"), text)
    except TrickleRefused as error:
        raise Problem(_REFUSED[error.status], detail=str(error)) from None
    return Response(status_code=204)


_REFUSED = {400: "bad_request", 412: "another_etag", 422: "no_ice_restart", 428: "etag_required"}


@router.delete("/api/listening/{session_id}")
async def end(session_id: str, request: Request, person: Listener) -> Response:
    """Listen no more. Only who began it can end it."""
    request.app.state.rooms.theirs(session_id, person.username).over.set()
    return Response(status_code=200)


async def _body(request: Request, kind: str, problem: str) -> str:
    """The guard has bounded it."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != kind:
        raise Problem(problem)
    try:
        return (await request.body()).decode()
    except UnicodeDecodeError:
        raise Problem("bad_request") from None


def _described(offer: str) -> SessionDescription:
    """The offer, if it is one that receives one audio track; raises ``Problem``."""
    try:
        described = SessionDescription.parse(offer)
    except Exception:
        raise Problem("bad_request") from None
    kinds = [one.kind for one in described.media]
    if kinds != ["audio"] or described.media[0].direction not in ("recvonly", "sendrecv"):
        raise Problem("offer_not_acceptable")
    if len(described.media[0].ice_candidates) > MOST_CANDIDATES:
        raise Problem("bad_request")
    return described


async def _answered(connection: RTCPeerConnection, ears: Ears, offer: str) -> str:
    try:
        async with asyncio.timeout(ANSWER_S):
            # Before the offer is read: aiortc settles the codecs then.
            transceiver = connection.addTransceiver(Sound(ears), direction="sendonly")
            codecs = RTCRtpSender.getCapabilities("audio").codecs
            transceiver.setCodecPreferences([one for one in codecs if one.mimeType == "audio/opus"])
            await connection.setRemoteDescription(RTCSessionDescription(trickling(offer), "offer"))
            await connection.setLocalDescription(await connection.createAnswer())
    except TimeoutError:
        raise Problem("busy", {"Retry-After": "5"}) from None
    except Exception as error:
        # aiortc says with many kinds of exceptions that an offer is not to its liking.
        log.warning("listen.offer_refused", error=type(error).__name__)
        raise Problem("offer_not_acceptable") from None
    sdp: str = connection.localDescription.sdp
    return sdp
