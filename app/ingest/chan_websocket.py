"""Asterisk's chan_websocket: a pure parser, and its route.

The wire: https://docs.asterisk.org/Configuration/Channel-Drivers/WebSocket/ and ``chan_websocket.c``
(Asterisk 20.16, 22.6 and later). Asterisk connects as a client, subprotocol ``media``. Text messages are its
events, in one of two forms::

    MEDIA_START connection_id:duting channel:WebSocket/duting/0x5 format:ulaw optimal_frame_size:160 ptime:20
    {"event": "MEDIA_START", "format": "ulaw", "channel_variables": {"DUTING_AGENT": "8001"}, …}

Binary ones are the bare audio of one channel, 20 ms each. Nothing has to be answered: without the option
``n`` in the dial string Asterisk answers the channel itself. Asterisk hangs up by closing with 1000.

Which call and which channel of it comes from the address: its path, or its query, which the dial string's
option ``v(call_id=…,channel=agent)`` writes. Further fields of the query are metadata; so are the variables
of the channel whose names begin with ``DUTING_`` (of events in JSON only). The address goes before variables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import msgspec
from fastapi import APIRouter
from starlette.websockets import WebSocket

from app.errors import IngestError
from app.ingest.peer import NORMAL, Closed, Opened, Parser, Said, Told, both, call_info, side
from app.ingest.session import Lines, subprotocol
from streams.audio import ALAW, MULAW, S16LE, ChannelAudio, Codec
from streams.events import AudioFrame, Channel, Gap

MOST_BYTES = 64 * 1024
"""Of one message. Audio is 160 bytes, a start with all variables of a channel some thousand."""
FORMATS: Final[dict[str, tuple[Codec, int]]] = {
    "ulaw": (MULAW, 8_000),
    "alaw": (ALAW, 8_000),
    "slin": (S16LE, 8_000),
    "slin12": (S16LE, 12_000),
    "slin16": (S16LE, 16_000),
    "slin24": (S16LE, 24_000),
    "slin32": (S16LE, 32_000),
    "slin44": (S16LE, 44_100),
    "slin48": (S16LE, 48_000),
    "slin96": (S16LE, 96_000),
    "slin192": (S16LE, 192_000),
}
"""By Asterisk's names; ``slin`` is in the byte order of its machine, and those that it runs on are little."""
_PREFIX = "DUTING_"
_OBJECT = msgspec.json.Decoder(dict[str, Any])


def event(text: str) -> dict[str, Any]:
    """One of Asterisk's events, in either form; ``event`` is its name. Raises ``IngestError``."""
    if text.lstrip().startswith("{"):
        try:
            told = _OBJECT.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise IngestError(f"expected an event in JSON, got something else: {error}", 1007) from None
        if not isinstance(told.get("event"), str):
            raise IngestError("expected an event of chan_websocket with its name in 'event'")
        return told
    name, *words = text.split()[:64] or [""]
    if not name.isidentifier() or not name.isupper():
        raise IngestError(f"expected an event of chan_websocket, got {text[:20]!r}")
    pairs = (word.partition(":") for word in words)
    return {**{key: value for key, colon, value in pairs if colon}, "event": name}


class MediaWebSocket(Parser):
    """One connection: one channel of a call.

    Args:
        given: what the address says: ``call_id``, ``channel``, and metadata.
    """

    name = "asterisk"
    quiet_s = 3_600.0
    """No audio is sent while the channel has none: on hold, or where a telephone leaves silence out."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given
        self._channel: Channel = "unknown"
        self._audio: ChannelAudio | None = None
        self._width = 1

    @property
    def ready_ms(self) -> int:
        return self._audio.ready_ms if self._audio is not None else 0

    def text(self, data: str | bytes) -> Sequence[Said]:
        if len(data) > MOST_BYTES:
            raise IngestError(f"expected a message of at most {MOST_BYTES} bytes, got {len(data)}", 1009)
        try:
            told = event(data if isinstance(data, str) else data.decode())
        except UnicodeDecodeError:
            raise IngestError("expected text in UTF-8", 1007) from None
        if told["event"] == "MEDIA_START":
            return (self._start(told),)
        if told["event"] == "DTMF_END":
            if self._audio is None:
                raise IngestError("expected MEDIA_START before DTMF_END")
            # Which key is not read: it may belong to a PIN.
            return (Told("key", self._channel),)
        # STATUS, MEDIA_XON, MEDIA_XOFF, QUEUE_DRAINED, …: all of them about audio that is sent to Asterisk.
        return ()

    def binary(self, data: bytes) -> Sequence[Said]:
        if self._audio is None:
            raise IngestError("expected MEDIA_START before audio: is this Asterisk's chan_websocket?")
        if len(data) > MOST_BYTES:
            raise IngestError(f"expected a message of at most {MOST_BYTES} bytes, got {len(data)}", 1009)
        if len(data) % self._width:
            raise IngestError(f"expected whole samples of {self._width} bytes, got {len(data)} bytes", 1003)
        if data:
            self._audio.append(data)
        return ()

    def take(self) -> list[AudioFrame | Gap]:
        return self._audio.take() if self._audio is not None else []

    def finish(self) -> list[AudioFrame | Gap]:
        return self._audio.flush() if self._audio is not None else []

    def gone(self, code: int | None) -> Closed:
        return Closed("hangup" if code == NORMAL else "disconnected")

    def _start(self, told: Mapping[str, Any]) -> Opened:
        if self._audio is not None:
            raise IngestError("expected one MEDIA_START per connection, got a second one")
        form = told.get("format")
        if not isinstance(form, str) or form not in FORMATS:
            raise IngestError(
                f"expected the format {', '.join(FORMATS)}, got {str(form)[:20]!r}: dial with c(ulaw), "
                "c(slin) or c(slin16)",
                1003,
            )
        codec, self.rate = FORMATS[form]
        self._width = codec.width
        given = {**_variables(told.get("channel_variables")), **self._given}
        token = given.pop("token", None)
        call_id = given.pop("call_id", None)
        if not call_id:
            raise IngestError(
                "expected the call's id: in the path, as ?call_id=, which v(call_id=…) of the dial string "
                "writes, or in the variable DUTING_CALL_ID"
            )
        self._channel = side(given.pop("channel", None), "in the path, or as channel,")
        call = call_info(call_id, self.name, given, both(self._channel))
        self._audio = ChannelAudio(call_id, self._channel, self.rate, codec)
        return Opened(call, (self._channel,), self.rate, token)


def _variables(given: object) -> dict[str, str]:
    """Those that are meant for us, by our names; others hold numbers that are not to be kept."""
    if not isinstance(given, dict):
        return {}
    found = {}
    for name, value in cast(dict[object, object], given).items():
        # "_" and "__" before the name of a variable let it be inherited.
        plain = str(name).lstrip("_")
        if plain.startswith(_PREFIX) and isinstance(value, str):
            found[plain.removeprefix(_PREFIX).lower()] = value
    return found


def route(lines: Lines) -> APIRouter:
    """``/ingest/asterisk`` and ``/ingest/asterisk/{call_id}/{channel}``.

    The token comes as a Bearer header, as Basic's password (``password`` in ``websocket_client.conf``), as
    ``?token=`` or as the variable ``DUTING_TOKEN``.
    """
    router = APIRouter()

    async def serve(socket: WebSocket, path: Mapping[str, str]) -> None:
        parser = MediaWebSocket({**socket.query_params, **path})
        await lines.serve(socket, parser, subprotocol(socket, "media"))

    @router.websocket("/ingest/asterisk")
    async def by_query(socket: WebSocket) -> None:
        await serve(socket, {})

    @router.websocket("/ingest/asterisk/{call_id}/{channel}")
    async def by_path(socket: WebSocket, call_id: str, channel: str) -> None:
        await serve(socket, {"call_id": call_id, "channel": channel})

    return router
