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
import contextlib
import hmac
import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import structlog
from fastapi import APIRouter
from msgspec.structs import replace
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.errors import IngestError
from app.ingest.sockets import feed
from app.store.times import now, written
from streams.audio import MULAW, ChannelAudio
from streams.events import AudioFrame, CallInfo, Channel, Gap
from streams.runner import CallRefused, Runner

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
    payload: bytes
    """Base64 on the wire."""


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


TwilioEvent = Opened | Closed


class TwilioStream:
    """One stream, from ``connected`` to ``stop``. Text in, events and audio out; no socket, no clock.

    ``receive`` raises ``IngestError`` on anything the protocol does not allow; the stream is over then.
    Audio waits, undecoded, until ``take`` is called: ``ready_ms`` of it.
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

    @property
    def ready_ms(self) -> int:
        """The longest channel's audio that ``take`` would give out."""
        return max((audio.ready_ms for audio in self._audio.values()), default=0)

    def receive(self, text: str | bytes) -> TwilioEvent | None:
        """Take the next message; bytes are its UTF-8."""
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
        if isinstance(message, _Media):
            self._media(message.media)
        elif isinstance(message, _Start):
            return self._start(message.start)
        elif isinstance(message, _Stop):
            return self._stop()
        return None

    def take(self) -> list[AudioFrame | Gap]:
        """The audio that has come in order since the last time, each channel's in one frame."""
        return [item for audio in self._audio.values() for item in audio.take()]

    def finish(self) -> list[AudioFrame | Gap]:
        """The stream is over: give out what still waits, also for its order."""
        return [item for audio in self._audio.values() for item in audio.flush()]

    def _start(self, start: _StartBody) -> Opened:
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
        self._audio = {channel: ChannelAudio(start.callSid, channel, _RATE, MULAW) for channel in channels}
        return Opened(self._call, token)

    def _channel(self, track: str) -> Channel:
        if track not in _TRACKS:
            raise IngestError(f"expected track 'inbound' or 'outbound', got {track[:40]!r}")
        return _TRACKS[track]

    def _media(self, media: _MediaBody) -> None:
        if self._call is None:
            raise IngestError("expected 'start' before 'media': the call is not known yet")
        audio = self._audio.get(self._channel(media.track))
        if audio is None:
            raise IngestError(f"track {media.track!r} was not announced in 'start'")
        if not 0 < len(media.payload) <= _LONGEST_PAYLOAD:
            raise IngestError(
                f"expected 1 to {_LONGEST_PAYLOAD} bytes of mu-law a message, got {len(media.payload)}"
            )
        if media.timestamp < 0 or media.chunk < 0:
            raise IngestError("expected chunk and timestamp not below 0")
        try:
            audio.put(media.chunk, media.timestamp, media.payload)
        except ValueError as error:
            raise IngestError(str(error)) from None

    def _stop(self) -> Closed:
        if self._call is None:
            raise IngestError("expected 'start' before 'stop'")
        self._stopped = True
        return Closed()


def route(runner: Runner[Any], token: str) -> APIRouter:
    """``/ingest/twilio``. The token comes as a Bearer header, as ``?token=`` or as a custom parameter."""
    router = APIRouter()

    @router.websocket("/ingest/twilio")
    async def twilio(socket: WebSocket) -> None:
        await socket.accept()
        await _Session(socket, runner, token).run()

    return router


class _Session:
    """One socket: hands its messages to the stream, and ends the call whatever happens.

    It is the runner's ``Source``: audio waits in the stream until the runner comes round. More than
    ``MOST_READY_MS`` of it (a peer that sends faster than speech, or a runner that is late) is heard at once:
    the loop reads nothing meanwhile, and TCP slows the peer down.
    """

    START_TIMEOUT_S = 10.0
    IDLE_TIMEOUT_S = 60.0
    MOST_READY_MS = 1_000
    rate = _RATE

    def __init__(self, socket: WebSocket, runner: Runner[Any], token: str) -> None:
        self._socket, self._runner, self._token = socket, runner, token
        self._stream = TwilioStream()
        self._open: str | None = None
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why the call ended, or what was wrong."""
        self._messages = 0
        self._unheard = 0
        """Messages since the audio was taken."""
        self.arrived_s = runner.clock()

    def take(self) -> list[AudioFrame | Gap]:
        self._unheard = 0
        return self._stream.take()

    async def run(self) -> None:
        reason = "disconnected"
        try:
            reason = await self._read()
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
        """Until the stream is over; returns why."""
        feed(self._socket.scope, self._text)
        idle = asyncio.create_task(self._watch())
        ordinary = asyncio.create_task(self._receive())
        try:
            await asyncio.wait((self._over, idle, ordinary), return_when=asyncio.FIRST_COMPLETED)
            for ended in (self._over, idle, ordinary):
                if ended.done():
                    reason = ended.result()
                    if reason == "hangup":
                        await self._socket.close(1000)
                    return reason
            raise AssertionError("one of them has ended")
        finally:
            # Whatever comes from here on is ignored.
            if not self._over.done():
                self._over.set_result("disconnected")
            for task in (idle, ordinary):
                task.cancel()
            await asyncio.gather(idle, ordinary, return_exceptions=True)

    async def _receive(self) -> str:
        """What does not come through ``feed``: the end, binary frames, and all of it on other servers."""
        while not self._over.done():
            try:
                message = await self._socket.receive()
            except RuntimeError:  # it is closed already
                return "disconnected"
            if message["type"] == "websocket.disconnect":
                return "disconnected"
            text = message.get("text")
            if text is None:
                raise IngestError("expected JSON text frames, got a binary frame", 1003)
            self._text(text)
        return self._over.result()

    async def _watch(self) -> str:
        """Raises ``TimeoutError`` once nothing has come for too long."""
        while True:
            before = self._messages
            await asyncio.sleep(self.IDLE_TIMEOUT_S if self._open else self.START_TIMEOUT_S)
            if self._messages == before or not self._open:
                raise TimeoutError

    def _text(self, text: str | bytes) -> None:
        """Take one message; what is wrong with it ends ``_read``."""
        if self._over.done():
            return
        self._messages += 1
        self._unheard += 1
        self.arrived_s = self._runner.clock()
        try:
            event = self._stream.receive(text)
            if event is None:
                # Counted first: no message holds more than a second of audio, few hold more than 20 ms.
                if self._unheard > 20 and self._open and self._stream.ready_ms > self.MOST_READY_MS:
                    self._runner.listen(self._open)
            elif isinstance(event, Opened):
                self._authorise(event.token)
                # Rules with hours and dates go by it; only here, at the edge, is a clock read.
                call = replace(event.call, started_at=written(now()))
                self._runner.open(call, paced=True, source=self)
                self._open = event.call.call_id
            else:
                self._over.set_result(event.reason)
        except Exception as error:
            self._over.set_exception(error)

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
        self._runner.listen(self._open)
        with contextlib.suppress(KeyError):  # the runner was stopped meanwhile
            for item in self._stream.finish():
                self._runner.hear(item)
        if self._stream.late_chunks:
            log.info("ingest.late_chunks", call_id=self._open, chunks=self._stream.late_chunks)
        await self._runner.close(self._open, reason)
