"""Twilio Media Streams: a pure parser, and the WebSocket route around it.

The wire: https://www.twilio.com/docs/voice/media-streams/websocket-messages. JSON text frames
``connected``, ``start``, ``media`` (20 ms of mu-law at 8 kHz, base64), ``dtmf``, ``mark``, ``stop``. The
track ``inbound`` is what Twilio hears from the customer, ``outbound`` what it plays to them: the agent.

Custom parameters of the stream carry the call's metadata: ``agent``, ``queue``, ``customer``,
``customer_level``, ``direction``; ``token`` is the ingest token where no header can carry it; everything else
becomes a custom field.
"""

from __future__ import annotations

import asyncio
import binascii
import hmac
import re
from base64 import b64decode
from dataclasses import dataclass
from typing import Literal

import msgspec
import structlog
from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.errors import IngestError
from streams.audio import ChannelAudio, Chunk, decode_mulaw
from streams.events import AudioFrame, CallInfo, Channel, Gap
from streams.local import CallRefused, LocalRunner

log = structlog.get_logger(__name__)

MOST_BYTES = 64 * 1024
"""Of one message. A media message is about 400 bytes."""
_CALL_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_TRACKS: dict[str, Channel] = {"inbound": "customer", "outbound": "agent"}
_RATE = 8_000
_LONGEST_PAYLOAD = _RATE
"""Bytes: one second."""


class _Format(msgspec.Struct):
    encoding: str = "audio/x-mulaw"
    sampleRate: int = _RATE
    channels: int = 1


class _StartBody(msgspec.Struct):
    callSid: str
    tracks: tuple[str, ...] = ("inbound", "outbound")
    customParameters: dict[str, str] = {}
    mediaFormat: _Format = msgspec.field(default_factory=_Format)


class _MediaBody(msgspec.Struct):
    track: str
    chunk: int
    timestamp: int
    payload: str


class _Connected(msgspec.Struct, tag_field="event", tag="connected"):
    protocol: str = "Call"


class _Start(msgspec.Struct, tag_field="event", tag="start"):
    start: _StartBody


class _Media(msgspec.Struct, tag_field="event", tag="media"):
    media: _MediaBody


class _Dtmf(msgspec.Struct, tag_field="event", tag="dtmf"):
    pass


class _Mark(msgspec.Struct, tag_field="event", tag="mark"):
    pass


class _Stop(msgspec.Struct, tag_field="event", tag="stop"):
    pass


# Numbers arrive as strings ("sequenceNumber": "4"): not strict.
_DECODER = msgspec.json.Decoder(_Connected | _Start | _Media | _Dtmf | _Mark | _Stop, strict=False)


@dataclass(frozen=True, slots=True)
class Opened:
    call: CallInfo
    token: str | None


@dataclass(frozen=True, slots=True)
class Closed:
    reason: Literal["hangup"] = "hangup"


TwilioEvent = Opened | AudioFrame | Gap | Closed


class TwilioStream:
    """One stream, from ``connected`` to ``stop``. Text in, events out; no socket, no clock.

    ``receive`` raises ``IngestError`` on anything the protocol does not allow; the stream is over then.
    """

    def __init__(self) -> None:
        self._call: CallInfo | None = None
        self._audio: dict[Channel, ChannelAudio] = {}
        self._stopped = False

    @property
    def call(self) -> CallInfo | None:
        return self._call

    @property
    def late_chunks(self) -> int:
        return sum(audio.late for audio in self._audio.values())

    def receive(self, text: str | bytes) -> list[TwilioEvent]:
        if len(text) > MOST_BYTES:
            raise IngestError(f"expected a message of at most {MOST_BYTES} bytes, got {len(text)}", 1009)
        if self._stopped:
            raise IngestError("expected nothing after 'stop': open a new stream for the next call")
        try:
            message = _DECODER.decode(text)
        except msgspec.ValidationError as error:
            raise IngestError(f"not a Twilio Media Streams message: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise IngestError(f"expected JSON, got something else: {error}", 1007) from None
        match message:
            case _Start():
                return self._start(message.start)
            case _Media():
                return list(self._media(message.media))
            case _Stop():
                return self._stop()
            case _:
                return []

    def finish(self) -> list[AudioFrame | Gap]:
        """The socket is gone without ``stop``: give out what still waits for its order."""
        return [item for audio in self._audio.values() for item in audio.flush()]

    def _start(self, start: _StartBody) -> list[TwilioEvent]:
        if self._call is not None:
            raise IngestError("expected one 'start' per stream, got a second one")
        if not _CALL_ID.fullmatch(start.callSid):
            raise IngestError("expected a callSid of 1 to 128 letters, digits, '_', '.', ':' or '-'")
        form = start.mediaFormat
        if (form.encoding, form.sampleRate, form.channels) != ("audio/x-mulaw", _RATE, 1):
            raise IngestError(
                "expected mediaFormat audio/x-mulaw, 8000 Hz, 1 channel, got "
                f"{form.encoding[:40]!r}, {form.sampleRate} Hz, {form.channels} channel(s)",
                1003,
            )
        channels = tuple(dict.fromkeys(self._channel(track) for track in start.tracks))
        if not channels:
            raise IngestError("expected at least one track, 'inbound' or 'outbound', got none")
        given = dict(start.customParameters)
        token = given.pop("token", None)
        direction = given.pop("direction", None)
        if direction not in (None, "inbound", "outbound"):
            raise IngestError(f"expected direction 'inbound' or 'outbound', got {direction[:40]!r}")
        self._call = CallInfo(
            call_id=start.callSid,
            protocol="twilio",
            agent=given.pop("agent", None),
            queue=given.pop("queue", None),
            customer=given.pop("customer", None),
            customer_level=given.pop("customer_level", None),
            direction=direction,  # type: ignore[arg-type]
            attributes=given,
            channels=channels,
        )
        self._audio = {channel: ChannelAudio(start.callSid, channel, _RATE) for channel in channels}
        return [Opened(self._call, token)]

    def _channel(self, track: str) -> Channel:
        if track not in _TRACKS:
            raise IngestError(f"expected track 'inbound' or 'outbound', got {track[:40]!r}")
        return _TRACKS[track]

    def _media(self, media: _MediaBody) -> list[AudioFrame | Gap]:
        if self._call is None:
            raise IngestError("expected 'start' before 'media': the call is not known yet")
        channel = self._channel(media.track)
        audio = self._audio.get(channel)
        if audio is None:
            raise IngestError(f"track {media.track!r} was not announced in 'start'")
        try:
            payload = b64decode(media.payload, validate=True)
        except binascii.Error as error:
            raise IngestError(f"expected base64 in media.payload: {error}") from None
        if not 0 < len(payload) <= _LONGEST_PAYLOAD:
            raise IngestError(
                f"expected 1 to {_LONGEST_PAYLOAD} bytes of mu-law a message, got {len(payload)}"
            )
        if media.timestamp < 0 or media.chunk < 0:
            raise IngestError("expected chunk and timestamp not below 0")
        try:
            return audio.push(Chunk(media.chunk, media.timestamp, decode_mulaw(payload)))
        except ValueError as error:
            raise IngestError(str(error)) from None

    def _stop(self) -> list[TwilioEvent]:
        if self._call is None:
            raise IngestError("expected 'start' before 'stop'")
        self._stopped = True
        return [*self.finish(), Closed()]


def route(runner: LocalRunner, token: str) -> APIRouter:
    """``/ingest/twilio``. The token comes as a Bearer header, as ``?token=`` or as a custom parameter."""
    router = APIRouter()

    @router.websocket("/ingest/twilio")
    async def twilio(socket: WebSocket) -> None:
        await socket.accept()
        await _Session(socket, runner, token).run()

    return router


class _Session:
    """One socket: reads frames, hands them on, ends the call whatever happens."""

    START_TIMEOUT_S = 10.0
    IDLE_TIMEOUT_S = 60.0

    def __init__(self, socket: WebSocket, runner: LocalRunner, token: str) -> None:
        self._socket, self._runner, self._token = socket, runner, token
        self._stream = TwilioStream()
        self._open: str | None = None

    async def run(self) -> None:
        reason = "disconnected"
        try:
            reason = await self._read()
        except WebSocketDisconnect:
            pass
        except IngestError as error:
            log.warning("ingest.refused", protocol="twilio", call_id=self._open, code=error.code)
            await self._refuse(str(error), error.code)
            reason = "error"
        except CallRefused as error:
            # 1013: try again later (RFC 6455 registry); 1008: policy.
            log.warning("ingest.no_room", protocol="twilio", retryable=error.retryable)
            await self._refuse(str(error), 1013 if error.retryable else 1008)
        except TimeoutError:
            log.warning("ingest.idle", protocol="twilio", call_id=self._open)
            await self._refuse("nothing came for too long; the stream is closed", 1001)
        finally:
            await self._end(reason)

    async def _read(self) -> str:
        while True:
            limit = self.IDLE_TIMEOUT_S if self._open else self.START_TIMEOUT_S
            message = await asyncio.wait_for(self._socket.receive(), limit)
            if message["type"] == "websocket.disconnect":
                return "disconnected"
            text = message.get("text")
            if text is None:
                raise IngestError("expected JSON text frames, got a binary frame", 1003)
            for event in self._stream.receive(text):
                match event:
                    case Opened():
                        self._authorise(event.token)
                        self._runner.open(event.call, paced=True)
                        self._open = event.call.call_id
                    case Closed():
                        await self._socket.close(1000)
                        return event.reason
                    case _:
                        self._runner.hear(event)

    def _authorise(self, parameter: str | None) -> None:
        header = self._socket.headers.get("authorization", "")
        bearer = header[7:] if header.lower().startswith("bearer ") else None
        given = bearer or self._socket.query_params.get("token") or parameter or ""
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            raise IngestError("the ingest token is missing or wrong: see DUTING_INGEST_TOKEN", 4401)

    async def _refuse(self, message: str, code: int) -> None:
        try:
            await self._socket.send_json({"event": "error", "message": message})
            # RFC 6455: a close reason has room for 123 bytes.
            await self._socket.close(code, message.encode()[:120].decode(errors="ignore"))
        except (RuntimeError, WebSocketDisconnect):
            pass

    async def _end(self, reason: str) -> None:
        if self._open is None:
            return
        if reason != "hangup":
            for item in self._stream.finish():
                self._runner.hear(item)
        if self._stream.late_chunks:
            log.info("ingest.late_chunks", call_id=self._open, chunks=self._stream.late_chunks)
        await self._runner.close(self._open, reason)
