"""Asterisk's AudioSocket: a pure parser, and the route that gives out its UUIDs.

The wire: https://docs.asterisk.org/Configuration/Channel-Drivers/AudioSocket/ and ``res_audiosocket.c``. Over
TCP, messages of ``type u8, length u16 big-endian, payload``: 0x01 the UUID, once and first; 0x03 a key; 0x10
to 0x18 signed 16-bit little-endian mono at the rate of the type; 0x00 the end; 0xff an error. Asterisk 20.17
and 22.7 brought the types above 0x10; before, 0x10 stood for any codec, and only ``c(slin)`` in the dial
string makes it what it says.

One connection brings one channel of a call; its UUID says which (``app.ingest.bookings``). Asterisk asks for
nothing on the way back, and takes the end (0x00) from there, so that is all it is sent.

At the end of a call Asterisk closes the connection without a word: that is a hang-up. One that breaks off
within a message, or is reset, may come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import parse_qsl
from uuid import UUID, uuid4

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from app.api.problems import MESSAGES, answer
from app.errors import IngestError, Overloaded
from app.ingest.bookings import Booking, Bookings
from app.ingest.connection import WRONG_TOKEN, authorise
from app.ingest.peer import (
    MOST_FIELDS,
    NORMAL,
    SIDES,
    Closed,
    Opened,
    Parser,
    Said,
    Told,
    both,
    call_info,
    side,
)
from app.ingest.session import Lines, presented
from streams.audio import S16LE, ChannelAudio
from streams.events import SAMPLE_RATE, AudioFrame, CallInfo, Channel, Gap

HANGUP, IDENTITY, KEY, ERROR = 0x00, 0x01, 0x03, 0xFF
RATES: Final[dict[int, int]] = {
    0x10: 8_000,
    0x11: 12_000,
    0x12: 16_000,
    0x13: 24_000,
    0x14: 32_000,
    0x15: 44_100,
    0x16: 48_000,
    0x17: 96_000,
    0x18: 192_000,
}
"""Hertz of each type of audio."""
HEADER = 3
_AUDIO = range(0x10, 0x20)
"""Types that are audio, also those that nobody has defined yet."""
_HUNG_UP = 0x01
"""Of the error codes: the calling party has hung up."""

Find = Callable[[UUID], tuple[CallInfo, Channel] | None]
"""What a UUID stands for; ``None``: it is not let in."""


def message(kind: int, payload: bytes = b"") -> bytes:
    """As it is on the wire."""
    return bytes((kind,)) + len(payload).to_bytes(2, "big") + payload


class Messages:
    """A stream of bytes cut into messages, however it comes in. Holds less than one message, 64 KiB."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def partial(self) -> bool:
        """Whether a message has begun that is not whole."""
        return bool(self._rest)

    def receive(self, data: bytes) -> list[bytes]:
        """Take the next bytes; returns the messages that are whole now, each with its header."""
        if self._rest:
            data = self._rest + data
        whole, at, size = [], 0, len(data)
        while size - at >= HEADER:
            end = at + HEADER + (data[at + 1] << 8 | data[at + 2])
            if end > size:
                break
            whole.append(data[at:end])
            at = end
        self._rest = data[at:]
        return whole


class AudioSocketStream(Parser):
    """One connection, from its UUID to its end. ``binary`` takes one whole message (``Messages``)."""

    name = "audiosocket"
    rate = SAMPLE_RATE
    """What becomes of it: the rate on the wire is not known before its first audio, and changes nothing."""
    quiet_s = 3_600.0
    """No audio is sent while the channel has none: on hold, or where a telephone leaves silence out."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._call: CallInfo | None = None
        self._channel: Channel = "unknown"
        self._kind: int | None = None
        """Type of its audio."""
        self._audio: ChannelAudio | None = None
        self._ended = False

    @property
    def ready_ms(self) -> int:
        return self._audio.ready_ms if self._audio is not None else 0

    def binary(self, data: bytes) -> Sequence[Said]:
        if self._ended:
            return ()  # Asterisk may still send what it had when it was told the end
        kind, payload = data[0], data[HEADER:]
        if kind == HANGUP:
            self._ended = True
            return (Closed(),)
        if kind == IDENTITY:
            return (self._open(payload),)
        if self._call is None:
            raise IngestError(
                f"expected the UUID first (type 0x01), got type 0x{kind:02x}: is this Asterisk's AudioSocket?"
            )
        if kind in RATES:
            self._hear(kind, payload)
            return ()
        if kind == KEY:
            # Which one is not read: it may belong to a PIN.
            if len(payload) != 1:
                raise IngestError(f"expected a key of 1 byte, got {len(payload)}")
            return (Told("key", self._channel),)
        if kind == ERROR:
            return self._fail(payload)
        if kind in _AUDIO:
            raise IngestError(
                f"expected audio of the types 0x10 to 0x18, got 0x{kind:02x}: dial with c(slin) or c(slin16)",
                1003,
            )
        return ()  # a kind that came after this was written, as keys did

    def take(self) -> list[AudioFrame | Gap]:
        return self._audio.take() if self._audio is not None else []

    def finish(self) -> list[AudioFrame | Gap]:
        return self._audio.flush() if self._audio is not None else []

    def gone(self, code: int | None) -> Closed:
        return Closed("hangup" if code == NORMAL else "disconnected")

    def refusal(self, message: str, code: int) -> bytes:
        # Not only the connection's end: old Asterisks go on for ever after that.
        return b"\x00\x00\x00"

    def _open(self, payload: bytes) -> Opened:
        if self._call is not None:
            raise IngestError("expected one UUID per connection, got a second one")
        if len(payload) != 16:
            raise IngestError(f"expected a UUID of 16 bytes, got {len(payload)}")
        found = self._find(UUID(bytes=payload))
        if found is None:
            raise IngestError(
                "expected a UUID that was booked at POST /ingest/audiosocket/calls not long ago, or is "
                "signed with the ingest token, got another one"
            )
        self._call, self._channel = found
        return Opened(self._call, (self._channel,), self.rate)

    def _hear(self, kind: int, payload: bytes) -> None:
        if self._audio is None:
            assert self._call is not None
            self._kind = kind
            self._audio = ChannelAudio(self._call.call_id, self._channel, RATES[kind], S16LE)
        elif kind != self._kind:
            # Asterisk goes by the format of the channel, which stays.
            raise IngestError(
                f"expected audio at {RATES[self._kind or 0]} Hz throughout, got some at {RATES[kind]} Hz"
            )
        # Half a sample at the end is left out, and an empty message is none, as in Asterisk itself.
        if len(payload) > 1:
            self._audio.append(payload[: len(payload) & ~1])

    def _fail(self, payload: bytes) -> Sequence[Said]:
        if payload[:1] == bytes((_HUNG_UP,)):
            self._ended = True
            return (Closed(),)
        code = payload[:4].hex() or "none"
        raise IngestError(f"Asterisk has reported an error, code {code}: see its log", 1011)


# ── how a UUID is booked ──────────────────────────────────────────────────────────────────────────

MOST_BYTES = 16 * 1024
"""Of a booking."""
_FORM = "application/x-www-form-urlencoded"


class _Body(msgspec.Struct):
    call_id: str
    channel: str
    metadata: dict[str, object] = {}
    channels: list[str] | None = None
    """All that the call will have; both, or the mixed one, if left out."""
    valid_s: float = Bookings.USUAL_S
    token: str | None = None


_BODY = msgspec.json.Decoder(_Body)
_TAKEN = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"type": "object", "required": ["call_id", "channel"], "properties": properties}}
            for kind, properties in {
                "application/json": {
                    "call_id": {"type": "string"},
                    "channel": {"enum": list(SIDES)},
                    "metadata": {"type": "object"},
                    "channels": {"type": "array", "items": {"enum": list(SIDES)}},
                    "valid_s": {"type": "number", "minimum": 1, "maximum": Bookings.LONGEST_S},
                },
                _FORM: {"call_id": {"type": "string"}, "channel": {"enum": list(SIDES)}},
            }.items()
        },
    },
    "responses": {"201": {"description": "The UUID to connect with, and the port of the AudioSockets."}},
}


def booking(body: _Body) -> Booking:
    """What is booked; raises ``IngestError``."""
    channel = side(body.channel, "channel")
    channels = both(channel)
    if body.channels is not None:
        channels = tuple(dict.fromkeys(side(one, "each of channels") for one in body.channels))
        if channel not in channels:
            raise IngestError(f"expected channels of the call with {body.channel!r} among them")
    if not 1 <= body.valid_s <= Bookings.LONGEST_S:
        raise IngestError(f"expected valid_s from 1 to {Bookings.LONGEST_S:.0f} seconds")
    call = call_info(body.call_id, AudioSocketStream.name, body.metadata, channels)
    return Booking(call, channel, body.valid_s)


def read_body(data: bytes, form: bool) -> _Body:
    """The body of a booking: JSON, or a form, whose further fields are metadata. Raises ``IngestError``."""
    try:
        if not form:
            return _BODY.decode(data)
        given = dict(parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS + 8))
        known = {
            name: given.pop(name, None) for name in ("call_id", "channel", "channels", "valid_s", "token")
        }
        return _Body(
            call_id=known["call_id"] or "",
            channel=known["channel"] or "",
            metadata=dict(given),
            channels=known["channels"].split(",") if known["channels"] else None,
            valid_s=float(known["valid_s"] or Bookings.USUAL_S),
            token=known["token"],
        )
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise IngestError(f"the booking cannot be read: {error}") from None


def route(lines: Lines) -> APIRouter:
    """``POST /ingest/audiosocket/calls``: a UUID for one channel of a call.

    JSON is answered with JSON; a form, which is what ``CURL()`` of a dialplan sends, with the bare UUID. The
    token comes as a Bearer header, as Basic's password, as ``?token=`` or as a field.
    """
    router = APIRouter(tags=["ingest"])

    @router.post("/ingest/audiosocket/calls", status_code=201, openapi_extra=_TAKEN)
    async def book(request: Request) -> Response:
        """Book a UUID for Asterisk's AudioSocket."""
        form = request.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM

        def refused(code: str, detail: str) -> Response:
            if form:
                return PlainTextResponse(detail, MESSAGES[code][0])
            return answer(code, more={"detail": detail})

        data = b""
        async for piece in request.stream():
            data += piece
            if len(data) > MOST_BYTES:
                return refused("too_large", f"expected at most {MOST_BYTES} bytes")
        if lines.audiosocket_port is None:
            return refused("not_found", "AudioSocket is not served: set DUTING_AUDIOSOCKET_PORT")
        try:
            body = read_body(data, form)
            authorise(lines.token, presented(request), body.token, keys=lines.keys)
            wanted = booking(body)
            uuid = uuid4()
            lines.bookings.book(uuid, wanted, lines.assembly.runner.clock())
        except IngestError as error:
            return refused("token_required" if error.code == WRONG_TOKEN else "invalid", str(error))
        except Overloaded as error:
            return refused("busy", str(error))
        if form:
            return PlainTextResponse(str(uuid), 201)
        told = {"uuid": str(uuid), "port": lines.audiosocket_port, "valid_s": wanted.valid_s}
        return JSONResponse(told, 201)

    return router
