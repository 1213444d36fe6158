"""jambonz ``listen`` and FreeSWITCH's mod_audio_fork: pure parsers, and their routes.

The wire: https://docs.jambonz.org/verbs/verbs/listen, jambonz-feature-server ``lib/tasks/listen.js``, and
``mod_audio_fork``, which is what sends in both cases. A WebSocket, subprotocol ``audio.jambonz.org``, or
``audio.drachtio.org`` from mod_audio_fork alone. First a text message of metadata: from jambonz always, with
the call's attributes, ``sampleRate`` and ``mixType`` in it; from mod_audio_fork only what its command was
given. Then binary ones: signed 16-bit little-endian, of any length. It closes with 1000 at the end of the
call, or when it is stopped; an empty binary message (``graceful-shutdown``) asks for that from here.

Whose side is whose: the fork hangs on one leg of the call. In stereo the left samples are what is said on
that leg, the right ones what is heard there; mono is the left alone. ``side`` tells whose leg it is. jambonz
forks the leg that its application runs on: the caller of a call that came in, whoever was called first on one
that it placed, and that is the customer unless ``side=agent``, or ``channels`` (left, right), says otherwise.
``direction`` cannot tell: inside of ``dial`` it is that of the new leg, "outbound" always.

Later text messages: ``{"event": "dtmf"}`` of jambonz; what ``uuid_audio_fork … send_text`` and ``stop`` carry
is new metadata, or one of ``{"event": "hold"}``, ``"resume"``, ``{"event": "transfer", "to": "8002"}`` and
``{"event": "hangup", "by": "customer"}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from fastapi import APIRouter
from starlette.websockets import WebSocket

from app.errors import IngestError
from app.ingest.peer import (
    LONGEST_VALUE,
    NORMAL,
    Changed,
    Closed,
    Opened,
    Parser,
    Said,
    Told,
    both,
    call_info,
    masked,
)
from app.ingest.session import Lines, subprotocol
from streams.audio import S16LE, ChannelAudio
from streams.events import AudioFrame, Channel, Gap

MOST_BYTES = 64 * 1024
"""Of a text message."""
LONGEST_S = 5
"""Of audio in one message: what mod_audio_fork can hold (``MOD_AUDIO_FORK_BUFFER_SECS``)."""
MIXES: Final[dict[str, int]] = {"mono": 1, "stereo": 2, "mixed": 1}
"""Samples at a time, by the words of the wire."""
_OTHER: Final[dict[Channel, Channel]] = {"agent": "customer", "customer": "agent"}
_NUMBERS = frozenset({"from", "to", "callerId", "callerName"})
"""Numbers and names, which are not to be kept as they are."""
_JAMBONZ = frozenset(
    {
        *("callSid", "parentCallSid", "callId", "accountSid", "applicationSid", "traceId", "customerData"),
        *("direction", "duration", *_NUMBERS),
        *("sipStatus", "sipReason", "callStatus", "originatingSipIp", "originatingSipTrunkName"),
        *("fsSipAddress", "fsPublicIp", "apiBaseUrl"),
    }
)
"""What jambonz says of every call; the rest of its metadata is the application's."""
_OURS = frozenset({"call_id", "side", "channels", "token", "sampleRate", "rate", "mixType", "mix"})
_OBJECT = msgspec.json.Decoder(dict[str, Any])


class ForkedAudio(Parser):
    """One fork: one or both sides of a call.

    Args:
        given: what the address says; it goes before what the peer says.
    """

    quiet_s = 3_600.0
    """A fork can be paused."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given
        self._channels: tuple[Channel, ...] = ()
        """As they are interleaved."""
        self._audio: tuple[ChannelAudio, ...] = ()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._ended = False

    @property
    def ready_ms(self) -> int:
        frame = 2 * max(1, len(self._channels))
        return self._waiting_bytes // frame * 1000 // self.rate

    def text(self, data: str | bytes) -> Sequence[Said]:
        if self._ended:
            return ()
        if len(data) > MOST_BYTES:
            raise IngestError(f"expected a message of at most {MOST_BYTES} bytes, got {len(data)}", 1009)
        told = self._read(data)
        return self._later(told) if self._audio else (self._open(told),)

    def binary(self, data: bytes) -> Sequence[Said]:
        if self._ended:
            return ()
        opened = () if self._audio else (self._open(self._bare()),)
        if not data:
            self._ended = True
            return (*opened, Closed())
        frame = 2 * len(self._channels)
        if len(data) % frame:
            raise IngestError(f"expected whole samples of {frame} bytes, got {len(data)} bytes", 1003)
        if len(data) > LONGEST_S * self.rate * frame:
            raise IngestError(f"expected at most {LONGEST_S} s of audio at once", 1009)
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        return opened

    def take(self) -> list[AudioFrame | Gap]:
        self._part()
        return [item for audio in self._audio for item in audio.take()]

    def finish(self) -> list[AudioFrame | Gap]:
        self._part()
        return [item for audio in self._audio for item in audio.flush()]

    def gone(self, code: int | None) -> Closed:
        return Closed("hangup" if code == NORMAL else "disconnected")

    def _part(self) -> None:
        """Hand each channel its samples."""
        if not self._waiting:
            return
        waiting = b"".join(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        if len(self._audio) == 1:
            self._audio[0].append(waiting)
            return
        samples = np.frombuffer(waiting, "<i2").reshape(-1, len(self._audio))
        for number, audio in enumerate(self._audio):
            audio.append(samples[:, number].tobytes())

    # ── what differs ──────────────────────────────────────────────────────────────────────────────

    def _read(self, data: str | bytes) -> dict[str, Any]:
        """A text message; raises ``IngestError``."""
        raise NotImplementedError

    def _bare(self) -> dict[str, Any]:
        """What is known where audio comes first; raises ``IngestError``."""
        raise NotImplementedError

    def _told(self, told: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Call id and metadata of the first message."""
        raise NotImplementedError

    def _side(self) -> Channel | None:
        """Whose leg it is, where nothing says so."""
        return None

    # ── the call ──────────────────────────────────────────────────────────────────────────────────

    def _open(self, told: dict[str, Any]) -> Opened:
        given = {**told, **self._given}
        rate = _rate(given.get("rate", given.get("sampleRate")))
        channels = self._layout(given)
        call_id, metadata = self._told(told)
        call_id = given.get("call_id", call_id)
        if not isinstance(call_id, str):
            raise IngestError("expected the call's id: as callSid, as call_id, or in the address")
        call = call_info(
            call_id,
            self.name,
            _texts({**metadata, **self._given}),
            both(channels[0]),
        )
        self.rate, self._channels = rate, channels
        self._audio = tuple(ChannelAudio(call_id, channel, rate, S16LE) for channel in channels)
        token = given.get("token")
        return Opened(call, channels, rate, token if isinstance(token, str) else None)

    def _layout(self, given: Mapping[str, Any]) -> tuple[Channel, ...]:
        """The channels as they come: left, right."""
        mix = given.get("mix", given.get("mixType"))
        if not isinstance(mix, str) or mix not in MIXES:
            raise IngestError(
                f"expected {', '.join(MIXES)} as mixType, or as mix in the address; got {str(mix)[:20]!r}"
            )
        if mix == "mixed":
            return ("unknown",)
        named = given.get("channels")
        if named is not None:
            named = named.split(",") if isinstance(named, str) else named
            known = [_speaker(one) for one in named] if isinstance(named, list) else []
            if None in known or len(known) != MIXES[mix] or len({*known}) != len(known):
                raise IngestError(
                    f"expected {MIXES[mix]} of 'agent' and 'customer' as the channels of {mix}, in order"
                )
            return tuple(one for one in known if one is not None)
        side = _speaker(given.get("side", self._side()))
        if side is None:
            raise IngestError(
                "expected side 'agent' or 'customer', whose leg this is, in the address or in the metadata; "
                f"got {str(given.get('side'))[:20]!r}"
            )
        return (side,) if mix == "mono" else (side, _OTHER[side])

    def _later(self, told: dict[str, Any]) -> Sequence[Said]:
        match told.get("event"):
            case "dtmf":
                # Which key is not read: it may belong to a PIN. Keys are heard on the forked leg.
                return (Told("key", self._channels[0]),)
            case "hold":
                return (Told("held"),)
            case "resume":
                return (Told("resumed"),)
            case "transfer":
                to = told.get("to")
                return (Told("transfer", to=to[:LONGEST_VALUE] if isinstance(to, str) else None),)
            case "hangup":
                self._ended = True
                return (Closed(by=_speaker(told.get("by"))),)
            case None if "type" not in told and "msg" not in told:
                fields = _texts({name: value for name, value in told.items() if name not in _JAMBONZ})
                return (Changed(fields),) if fields else ()
        # An event that came after this was written, playDone ("type"), or that a buffer ran over ("msg").
        return ()


class JambonzListen(ForkedAudio):
    """The connection of one ``listen``."""

    name = "jambonz"

    def _read(self, data: str | bytes) -> dict[str, Any]:
        try:
            return _OBJECT.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise IngestError(f"expected a JSON object, got something else: {error}", 1007) from None

    def _bare(self) -> dict[str, Any]:
        raise IngestError("expected the metadata of jambonz's listen first, got audio")

    def _told(self, told: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        tag = told.get("customerData")
        metadata = {**tag} if isinstance(tag, dict) else {}
        metadata |= {name: value for name, value in told.items() if name not in _JAMBONZ}
        # Inside of "dial" it is the new leg's, and no telling of the call's.
        direction = None if "parentCallSid" in told else told.get("direction")
        if direction in ("inbound", "outbound"):
            metadata["direction"] = direction
        return told.get("callSid"), {**_customer(told, direction), **metadata}

    def _side(self) -> Channel | None:
        return "customer"


class AudioFork(ForkedAudio):
    """A connection of mod_audio_fork. What it was started with is in the address, or in its metadata."""

    name = "fork"

    def _read(self, data: str | bytes) -> dict[str, Any]:
        """mod_audio_fork hands on whatever its operator wrote: JSON, or a few words."""
        try:
            return _OBJECT.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        try:
            words = data if isinstance(data, str) else data.decode()
        except UnicodeDecodeError:
            raise IngestError("expected text in UTF-8", 1007) from None
        return {"metadata": words[:LONGEST_VALUE]} if words.strip() else {}

    def _bare(self) -> dict[str, Any]:
        return {}

    def _told(self, told: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        metadata = {name: value for name, value in told.items() if name not in _NUMBERS}
        return None, {**_customer(told, told.get("direction")), **metadata}


def _customer(told: Mapping[str, Any], direction: object) -> dict[str, str]:
    """The customer's number, masked, as a field of metadata; nothing where there is none."""
    number = told.get("to" if direction == "outbound" else "from")
    known = isinstance(number, str) and any(one.isdigit() for one in number)
    return {"customer": masked(str(number))} if known else {}


def _speaker(given: object) -> Channel | None:
    return "agent" if given == "agent" else "customer" if given == "customer" else None


def _rate(given: object) -> int:
    try:
        rate = int(given) if isinstance(given, str | int | float) else 0
    except (ValueError, OverflowError):
        rate = 0
    if not 4_000 <= rate <= 192_000:
        raise IngestError(
            "expected the sample rate in hertz as sampleRate, or as rate in the address: 8000, or what the "
            f"fork was started with; got {str(given)[:20]!r}"
        )
    return rate


def _texts(given: Mapping[str, Any]) -> dict[str, str]:
    """Metadata without what is meant for the connection, and without lists and objects."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in given.items()
        if name not in _OURS and isinstance(value, str | int | float)
    }


def route(lines: Lines) -> APIRouter:
    """``/ingest/jambonz`` and ``/ingest/fork/{call_id}``.

    The token comes as Basic's password (jambonz ``wsAuth``; ``MOD_AUDIO_FORK_HTTP_AUTH_PASSWORD``), as a
    Bearer header, as ``?token=``, or as ``token`` in the metadata.
    """
    router = APIRouter()

    async def serve(socket: WebSocket, parser: Parser) -> None:
        await lines.serve(socket, parser, subprotocol(socket, "audio.jambonz.org", "audio.drachtio.org"))

    @router.websocket("/ingest/jambonz")
    async def jambonz(socket: WebSocket) -> None:
        await serve(socket, JambonzListen(dict(socket.query_params)))

    @router.websocket("/ingest/fork/{call_id}")
    async def fork(socket: WebSocket, call_id: str) -> None:
        await serve(socket, AudioFork({**socket.query_params, "call_id": call_id}))

    return router
