"""Twilio Media Streams: a pure parser, and its route.

The wire: https://www.twilio.com/docs/voice/media-streams/websocket-messages. JSON text frames
``connected``, ``start``, ``media`` (20 ms of mu-law at 8 kHz, base64), ``dtmf``, ``mark``, ``stop``. The
track ``inbound`` is what Twilio hears from the customer, ``outbound`` what it plays to them: the agent. Each
may come over a stream of its own.

Custom parameters of the stream carry the call's metadata: ``agent``, ``queue``, ``customer``,
``customer_level``, ``direction``; ``token`` is the ingest token where no header can carry it; everything else
becomes a custom field.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from fastapi import APIRouter
from starlette.websockets import WebSocket

from app.errors import IngestError
from app.ingest.peer import MOST_MS, Closed, Opened, Parser, Said, Told, call_info
from app.ingest.session import Lines
from streams.audio import MULAW, ChannelAudio
from streams.events import AudioFrame, CallInfo, Channel, Gap

MOST_BYTES = 64 * 1024
"""Of one message. A media message is about 400 bytes."""
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


class _DtmfBody(msgspec.Struct):
    track: str = "inbound_track"


class _Dtmf(msgspec.Struct, tag_field="event", tag="dtmf"):
    dtmf: _DtmfBody = msgspec.field(default_factory=_DtmfBody)
    """The digit is not read: it may belong to a PIN."""


class _Mark(msgspec.Struct, tag_field="event", tag="mark"):
    """Audio that was sent to Twilio has been played. None is sent from here."""


class _Stop(msgspec.Struct, tag_field="event", tag="stop"):
    pass


# Numbers arrive as strings ("sequenceNumber": "4"): not strict.
_DECODER = msgspec.json.Decoder(_Connected | _Start | _Media | _Dtmf | _Mark | _Stop, strict=False)
_KNOWN = frozenset({"connected", "start", "media", "dtmf", "mark", "stop"})


class _Any(msgspec.Struct):
    event: str


_ANY = msgspec.json.Decoder(_Any)


class TwilioStream(Parser):
    """One stream, from ``connected`` to ``stop``."""

    name = "twilio"
    rate = _RATE

    def __init__(self) -> None:
        self._call: CallInfo | None = None
        self._audio: dict[Channel, ChannelAudio] = {}
        self._stopped = False

    @property
    def late_chunks(self) -> int:
        return sum(audio.late for audio in self._audio.values())

    @property
    def ready_ms(self) -> int:
        return max((audio.ready_ms for audio in self._audio.values()), default=0)

    def text(self, data: str | bytes) -> Sequence[Said]:
        if len(data) > MOST_BYTES:
            raise IngestError(f"expected a message of at most {MOST_BYTES} bytes, got {len(data)}", 1009)
        if self._stopped:
            raise IngestError("expected nothing after 'stop': open a new stream for the next call")
        try:
            message = _DECODER.decode(data)
        except msgspec.ValidationError as error:
            return self._unknown(data, error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise IngestError(f"expected JSON, got something else: {error}", 1007) from None
        if isinstance(message, _Media):
            self._media(message.media)
            return ()
        if isinstance(message, _Start):
            return (self._start(message.start),)
        if isinstance(message, _Dtmf):
            return self._key(message.dtmf)
        if isinstance(message, _Stop):
            return (self._stop(),)
        return ()

    def take(self) -> list[AudioFrame | Gap]:
        return [item for audio in self._audio.values() for item in audio.take()]

    def finish(self) -> list[AudioFrame | Gap]:
        return [item for audio in self._audio.values() for item in audio.flush()]

    def refusal(self, message: str, code: int) -> str:
        return msgspec.json.encode({"event": "error", "message": message}).decode()

    @staticmethod
    def _unknown(data: str | bytes, error: msgspec.ValidationError) -> Sequence[Said]:
        """A kind of message that came after this was written is passed over; a known one has to be right."""
        try:
            event = _ANY.decode(data).event
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            event = None
        if event is None or event in _KNOWN:
            raise IngestError(f"not a Twilio Media Streams message: {error}") from None
        return ()

    def _start(self, start: _StartBody) -> Opened:
        if self._call is not None:
            raise IngestError("expected one 'start' per stream, got a second one")
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
        # One track alone: the other side may come over a stream of its own.
        self._call = call_info(start.callSid, self.name, given)
        self._audio = {channel: ChannelAudio(start.callSid, channel, _RATE, MULAW) for channel in channels}
        return Opened(self._call, channels, _RATE, token, stamped=True)

    def _channel(self, track: str) -> Channel:
        if track not in _TRACKS:
            raise IngestError(f"expected track 'inbound' or 'outbound', got {track[:40]!r}")
        return _TRACKS[track]

    def _key(self, dtmf: _DtmfBody) -> Sequence[Said]:
        if self._call is None:
            raise IngestError("expected 'start' before 'dtmf': the call is not known yet")
        return (Told("key", self._channel(dtmf.track.removesuffix("_track"))),)

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
        if not 0 <= media.timestamp <= MOST_MS or media.chunk < 0:
            raise IngestError(f"expected chunk not below 0 and timestamp from 0 to {MOST_MS} ms")
        try:
            audio.put(media.chunk, media.timestamp, media.payload)
        except ValueError as error:
            raise IngestError(str(error)) from None

    def _stop(self) -> Closed:
        if self._call is None:
            raise IngestError("expected 'start' before 'stop'")
        self._stopped = True
        return Closed()


def route(lines: Lines) -> APIRouter:
    """``/ingest/twilio``. The token comes as a Bearer header, as ``?token=`` or as a custom parameter."""
    router = APIRouter()

    @router.websocket("/ingest/twilio")
    async def twilio(socket: WebSocket) -> None:
        await lines.serve(socket, TwilioStream())

    return router
