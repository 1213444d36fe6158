"""WHIP (RFC 9725): a browser or a softphone brings one channel of a call over WebRTC.

``POST /ingest/whip/{call_id}/{agent|customer|screen}`` with an SDP offer begins a session, ``PATCH`` on its
address brings further ICE candidates, ``DELETE`` ends it. Metadata are query parameters, the ingest token is
a Bearer token. Any page may use it from its own origin: there are no cookies here.

A channel's ``DELETE`` says that this side has hung up; the call ends with its last channel. A session whose
connection fails leaves its call as cut off: whoever comes back within half a minute goes on with it.

The screen is taken, and thrown away as it comes: nothing is decoded, nothing kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from typing import Literal

import structlog
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.sdp import SessionDescription
from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.errors import IngestError
from app.ingest import webrtc
from app.ingest.connection import authorise
from app.ingest.peer import Closed, Opened, call_info
from app.ingest.sdpfrag import MOST_BYTES as MOST_FRAGMENT
from app.ingest.sdpfrag import trickling
from app.ingest.session import Lines, presented
from app.ingest.trickle import FRAGMENT, MOST_CANDIDATES, Trickle, TrickleRefused
from app.ingest.webrtc import VoiceLeg
from streams.events import SAMPLE_RATE
from streams.runner import CallRefused

log = structlog.get_logger(__name__)

MOST_OFFER = 64 * 1024
CONNECT_S = 15.0
"""A session has so long to connect."""
ANSWER_S = 10.0
"""For gathering our own candidates, all of which are in the answer."""

Kind = Literal["agent", "customer", "screen"]
SDP = "application/sdp"
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
    "Access-Control-Expose-Headers": "Location, ETag, Accept-Post, Accept-Patch",
    "Access-Control-Max-Age": "86400",
}


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


class Session:
    """One peer connection, and what it brings."""

    def __init__(self, lines: Lines, offer: SessionDescription, call_id: str, kind: Kind) -> None:
        self.id = secrets.token_urlsafe(18)
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.trickle = Trickle(self.connection, offer)
        self.call_id = call_id
        self._lines = lines
        self.leg: VoiceLeg | None = None
        """``None`` for a screen."""
        if kind != "screen":
            self.leg = VoiceLeg(call_id, kind, lines.assembly.runner.clock, self.end)
        self._over: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()

    async def answer(self, offer: str) -> str:
        """The answer in SDP, with all our candidates."""
        connection = self.connection
        kind = "video" if self.leg is None else "audio"
        # Before the offer is read: aiortc settles the codecs then.
        transceiver = connection.addTransceiver(kind, direction="recvonly")
        if self.leg is not None:
            known = RTCRtpReceiver.getCapabilities(kind)
            codecs = () if known is None else known.codecs
            transceiver.setCodecPreferences([one for one in codecs if one.mimeType == "audio/opus"])
            webrtc.tap(transceiver.receiver, self.leg.receive)
        await connection.setRemoteDescription(RTCSessionDescription(trickling(offer), "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        if self.leg is None:
            webrtc.discard(transceiver.receiver)
        sdp: str = connection.localDescription.sdp
        return sdp

    def end(self, closed: Closed) -> None:
        if not self._over.done():
            self._over.set_result(closed)

    async def run(self) -> None:
        """Until the peer has gone; then its call goes on, or ends."""
        connection, closed = self.connection, Closed("disconnected")

        @connection.on("connectionstatechange")
        def changed() -> None:
            # `closed` too: the peer closed it without DELETE, as a page does that is left.
            if connection.connectionState in ("failed", "closed"):
                self.end(Closed("disconnected"))

        connecting = asyncio.create_task(self._connect())
        try:
            closed = await self._over
        finally:
            connecting.cancel()
            with contextlib.suppress(Exception):
                await connection.close()
            if self.leg is not None:
                await self._lines.assembly.leave(self.leg, self.call_id, closed, self.leg.finish())

    async def _connect(self) -> None:
        await asyncio.sleep(CONNECT_S)
        if self.connection.connectionState != "connected":
            log.warning("whip.not_connected", call_id=self.call_id)
            self.end(Closed("disconnected"))


class Sessions:
    """All sessions of one process; those beyond the most are refused."""

    def __init__(self, lines: Lines) -> None:
        webrtc.check()
        self._lines = lines
        self._sessions: dict[str, Session] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._beginning = 0

    def __getitem__(self, session_id: str) -> Session:
        try:
            return self._sessions[session_id]
        except KeyError:
            raise Refused(404, "there is no such session (any more)") from None

    async def begin(
        self, call_id: str, kind: Kind, offer: str, metadata: Mapping[str, str]
    ) -> tuple[Session, str]:
        """Answer an offer; returns the session and the answer. Raises ``Refused``."""
        if len(self._sessions) + self._beginning >= self._lines.most_connections:
            raise Refused(
                503, "no room for another connection; try again in a few seconds", {"Retry-After": "5"}
            )
        described = checked(offer, kind)
        try:
            call = call_info(call_id, "whip", metadata)
        except IngestError as error:
            raise Refused(400, str(error)) from None
        session = Session(self._lines, described, call_id, kind)
        self._beginning += 1
        try:
            answer = await self._answered(session, offer)
            if session.leg is not None and kind != "screen":
                self._join(Opened(call, (kind,), SAMPLE_RATE, stamped=True), session.leg)
        except BaseException:
            with contextlib.suppress(Exception):
                await session.connection.close()
            raise
        finally:
            self._beginning -= 1
        self._sessions[session.id] = session
        running = asyncio.create_task(self._run(session))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return session, answer

    async def _answered(self, session: Session, offer: str) -> str:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await session.answer(offer)
        except TimeoutError:
            raise Refused(503, "no network address could be found in time", {"Retry-After": "5"}) from None
        except Exception as error:
            # aiortc says with many kinds of exceptions that an offer is not to its liking.
            log.warning("whip.offer_refused", call_id=session.call_id, error=type(error).__name__)
            raise Refused(
                406,
                "the offer cannot be answered: expected Opus (or, for a screen, VP8 or H.264) over DTLS-SRTP",
            ) from None

    def _join(self, opened: Opened, leg: VoiceLeg) -> None:
        try:
            self._lines.assembly.join(opened, leg)
        except CallRefused as error:
            status = 503 if error.retryable else 409
            raise Refused(status, str(error), {"Retry-After": "5"} if error.retryable else None) from None
        except IngestError as error:
            raise Refused(409, str(error)) from None

    async def _run(self, session: Session) -> None:
        try:
            await session.run()
        finally:
            self._sessions.pop(session.id, None)

    async def aclose(self) -> None:
        """Close all of them: aiortc's threads would keep the process from ending."""
        for session in list(self._sessions.values()):
            session.end(Closed("disconnected"))
        await asyncio.gather(*self._running, return_exceptions=True)


def checked(offer: str, kind: Kind) -> SessionDescription:
    """The offer, if it is one that brings what ``kind`` is; raises ``Refused``."""
    try:
        described = SessionDescription.parse(offer)
    except Exception:
        described = None
    if described is None or not offer.startswith("v=0"):
        raise Refused(400, "expected an offer in SDP (RFC 8866), which begins with v=0")
    wanted = "video" if kind == "screen" else "audio"
    kinds = [media.kind for media in described.media]
    if kinds != [wanted]:
        raise Refused(
            406,
            f"expected an offer of one {wanted} track for {kind}, got {', '.join(kinds[:5]) or 'nothing'}",
        )
    [media] = described.media
    if media.direction not in ("sendonly", "sendrecv"):
        raise Refused(406, f"expected a track that is sent, got {media.direction}")
    if len(media.ice_candidates) > MOST_CANDIDATES:
        # Every one of them is sent to: nobody has so many.
        raise Refused(400, f"expected at most {MOST_CANDIDATES} candidates, got {len(media.ice_candidates)}")
    return described


def route(lines: Lines) -> APIRouter:
    router = APIRouter()
    sessions = Sessions(lines)
    lines.closing.append(sessions.aclose)

    @router.post("/ingest/whip/{call_id}/{kind}")
    async def begin(call_id: str, kind: str, request: Request) -> Response:
        try:
            allowed(request, lines)
            if kind not in ("agent", "customer", "screen"):
                raise Refused(404, "expected agent, customer or screen at the end of the address")
            offer = await body(request, SDP, MOST_OFFER)
            metadata = {name: value for name, value in request.query_params.items() if name != "token"}
            session, answer = await sessions.begin(call_id, kind, offer, metadata)  # type: ignore[arg-type]
        except Refused as error:
            return refusal(error)
        headers = {"Location": f"/ingest/whip/sessions/{session.id}", "ETag": session.trickle.etag, **CORS}
        return Response(answer, 201, headers, SDP)

    @router.patch("/ingest/whip/sessions/{session_id}")
    async def trickle(session_id: str, request: Request) -> Response:
        try:
            allowed(request, lines)
            session = sessions[session_id]
            text = await body(request, FRAGMENT, MOST_FRAGMENT)
            await session.trickle.take(request.headers.get("if-match"), text)
        except TrickleRefused as error:
            return refusal(Refused(error.status, str(error)))
        except Refused as error:
            return refusal(error)
        return Response(status_code=204, headers=CORS)

    @router.delete("/ingest/whip/sessions/{session_id}")
    async def end(session_id: str, request: Request) -> Response:
        try:
            allowed(request, lines)
            sessions[session_id].end(Closed())
        except Refused as error:
            return refusal(error)
        return Response(status_code=200, headers=CORS)

    @router.options("/ingest/whip/sessions/{session_id}")
    @router.options("/ingest/whip/{call_id}/{kind}")
    async def options() -> Response:
        return Response(status_code=204, headers={"Accept-Post": SDP, "Accept-Patch": FRAGMENT, **CORS})

    @router.api_route("/ingest/whip/sessions/{session_id}", methods=["GET", "HEAD", "POST", "PUT"])
    @router.api_route("/ingest/whip/{call_id}/{kind}", methods=["GET", "HEAD", "PUT", "PATCH", "DELETE"])
    async def other() -> Response:
        return refusal(
            Refused(405, "this method means nothing here", {"Allow": CORS["Access-Control-Allow-Methods"]})
        )

    return router


def allowed(request: Request, lines: Lines) -> None:
    try:
        authorise(lines.token, presented(request), keys=lines.keys)
    except IngestError as error:
        raise Refused(401, str(error), {"WWW-Authenticate": "Bearer"}) from None


async def body(request: Request, kind: str, most: int) -> str:
    """The request's body, of this media type and at most ``most`` bytes; raises ``Refused``."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != kind:
        raise Refused(415, f"expected {kind}, got {given[:60] or 'nothing'}")
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > most:
            raise Refused(413, f"expected at most {most} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refused(400, "expected UTF-8") from None


def refusal(error: Refused) -> Response:
    return Response(str(error), error.status, {**error.headers, **CORS}, "text/plain; charset=utf-8")
