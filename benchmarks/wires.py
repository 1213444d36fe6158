"""How a benchmark's telephones speak each protocol: what goes over which connection, encoded beforehand.

The emulators of ``app.phones`` behave as the real peers do, and cost as much as a real client; 150 of them
would take the processor from the server that they measure. Here all is prepared: a connection writes its
20 ms, and no more. WebRTC is not among them: every packet of it is encrypted for its session, which cannot be
prepared.
"""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlencode, urlsplit

import numpy as np
from websockets.frames import Frame, Opcode

from app.phones import audiohook, audiosocket
from app.phones.call import PhoneCall, basic
from streams.audio import decode_mulaw, encode_mulaw
from streams.events import Channel

RATE = 8_000
CHUNK_S = 0.02
CHUNK = round(RATE * CHUNK_S)

Sides = Mapping[Channel, np.ndarray]
"""``agent`` and ``customer``, int16 at ``RATE``, equally long."""
SIDES: tuple[Channel, ...] = ("agent", "customer")


@dataclass(frozen=True)
class Leg:
    """One connection of a call."""

    url: str
    """``ws://…``, or ``tcp://host:port``."""
    hello: bytes = b""
    """Written when it is open."""
    bye: bytes = b""
    """Written behind the last chunk; then the connection is closed."""
    headers: Mapping[str, str] = field(default_factory=dict)
    subprotocol: str | None = None


@dataclass(frozen=True)
class Call:
    """A call that is about to be placed."""

    call_id: str
    name: str
    """Of the scripted call."""
    token: str
    metadata: Mapping[str, str]


class Wire(Protocol):
    name: str
    together: int
    """Chunks of 20 ms in one message."""
    legs: int
    """Connections of a call."""

    def encode(self, name: str, audio: Sides) -> list[tuple[bytes, ...]]:
        """For each leg, what it writes at each 20 ms; nothing where a message is not full yet."""
        ...

    async def place(self, address: str, call: Call) -> list[Leg]:
        """The legs of a call, at the server at ``ws://host:port``. Raises ``DutingError`` or ``OSError``."""
        ...


def text(message: object) -> bytes:
    """A text message, masked; JSON unless it is a string."""
    said = message if isinstance(message, str) else json.dumps(message)
    return Frame(Opcode.TEXT, said.encode()).serialize(mask=True)


def binary(payload: bytes) -> bytes:
    return Frame(Opcode.BINARY, payload).serialize(mask=True)


def pieces(samples: np.ndarray, together: int = 1) -> list[np.ndarray]:
    """Successive messages; what is left at the end goes unless it is whole."""
    size = CHUNK * together
    return [samples[at : at + size] for at in range(0, len(samples) - size + 1, size)]


def linear(samples: np.ndarray) -> np.ndarray:
    """As linear samples, what the telephone network has made mu-law of: the same sound on every wire."""
    return decode_mulaw(encode_mulaw(samples.reshape(-1))).astype("<i2").reshape(samples.shape)


def spaced(messages: list[bytes], together: int) -> tuple[bytes, ...]:
    """Each message at the last of the chunks in it."""
    out = [b""] * (len(messages) * together)
    out[together - 1 :: together] = messages
    return tuple(out)


class Twilio:
    name, together, legs = "twilio", 1, 1
    _tracks: Mapping[Channel, str] = {"agent": "outbound", "customer": "inbound"}

    def encode(self, name: str, audio: Sides) -> list[tuple[bytes, ...]]:
        coded = {channel: encode_mulaw(audio[channel]) for channel in SIDES}
        out, sequence = [], 1
        for number, at in enumerate(range(0, len(audio["agent"]) - CHUNK + 1, CHUNK)):
            wire = b""
            for channel, payload in coded.items():
                sequence += 1
                media = {
                    "track": self._tracks[channel],
                    "chunk": str(number + 1),
                    "timestamp": str(at * 1000 // RATE),
                    "payload": base64.b64encode(payload[at : at + CHUNK]).decode(),
                }
                message = {"event": "media", "sequenceNumber": str(sequence), "streamSid": f"MZ{name}"}
                wire += text({**message, "media": media})
            out.append(wire)
        return [tuple(out)]

    async def place(self, address: str, call: Call) -> list[Leg]:
        connected = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
        begun = {
            "event": "start",
            "sequenceNumber": "1",
            "streamSid": f"MZ{call.name}",
            "start": {
                "streamSid": f"MZ{call.name}",
                "accountSid": "ACbench",
                "callSid": call.call_id,
                "tracks": ["inbound", "outbound"],
                "customParameters": {**call.metadata, "token": call.token},
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1},
            },
        }
        stop = {"event": "stop", "sequenceNumber": "0", "streamSid": f"MZ{call.name}"}
        return [Leg(f"{address}/ingest/twilio", text(connected) + text(begun), text(stop))]


class AudioHook:
    """``open`` is not waited for: its answer comes long before the first packet."""

    name, together, legs = "audiohook", audiohook.TOGETHER, 1

    def encode(self, name: str, audio: Sides) -> list[tuple[bytes, ...]]:
        both = np.stack([audio["customer"], audio["agent"]], axis=1)
        coded = [binary(encode_mulaw(piece.reshape(-1))) for piece in pieces(both, self.together)]
        return [spaced(coded, self.together)]

    async def place(self, address: str, call: Call) -> list[Leg]:
        session = str(uuid.uuid4())
        headers = audiohook.headers(
            PhoneCall(call.call_id, Path(), call.token), session, urlsplit(address).netloc, None
        )

        def message(kind: str, seq: int, parameters: object) -> bytes:
            common = {"version": "2", "id": session, "serverseq": seq - 1, "position": "PT0.0S"}
            return text({**common, "type": kind, "seq": seq, "parameters": parameters})

        opening = {
            "organizationId": headers["Audiohook-Organization-Id"],
            "conversationId": call.call_id,
            "participant": {"id": str(uuid.uuid4()), "ani": "+8613800000000", "aniName": "", "dnis": ""},
            "media": audiohook.MEDIA,
            "customConfig": dict(call.metadata),
        }
        hello, bye = message("open", 1, opening), message("close", 2, {"reason": "end"})
        return [Leg(f"{address}{audiohook.PATH}", hello, bye, headers)]


class AudioSocket:
    name, together, legs = "audiosocket", 1, 2

    def encode(self, name: str, audio: Sides) -> list[tuple[bytes, ...]]:
        def leg(channel: Channel) -> tuple[bytes, ...]:
            return tuple(
                audiosocket.message(audiosocket.SLIN, linear(piece).tobytes())
                for piece in pieces(audio[channel])
            )

        return [leg(channel) for channel in SIDES]

    async def place(self, address: str, call: Call) -> list[Leg]:
        server = address.replace("ws", "http", 1)
        phone = PhoneCall(call.call_id, Path(), call.token, call.metadata)
        out = []
        for channel in SIDES:
            booked, port = await asyncio.to_thread(audiosocket.book, server, phone, channel)
            hello = audiosocket.message(audiosocket.IDENTITY, booked.bytes)
            out.append(Leg(f"tcp://{urlsplit(address).hostname}:{port}", hello))
        return out


class Asterisk:
    name, together, legs = "asterisk", 1, 2

    def encode(self, name: str, audio: Sides) -> list[tuple[bytes, ...]]:
        return [tuple(binary(encode_mulaw(piece)) for piece in pieces(audio[channel])) for channel in SIDES]

    async def place(self, address: str, call: Call) -> list[Leg]:
        return [
            Leg(
                f"{address}/ingest/asterisk?"
                + urlencode({"call_id": call.call_id, "channel": channel, **call.metadata}),
                text(
                    f"MEDIA_START connection_id:duting channel:WebSocket/duting/0x7f5a{number:08x} "
                    f"channel_id:1716984212.{number} format:ulaw optimal_frame_size:160 ptime:20"
                ),
                headers=basic(call.token),
                subprotocol="media",
            )
            for number, channel in enumerate(SIDES)
        ]


class Jambonz:
    name, together, legs = "jambonz", 1, 1

    def encode(self, name: str, audio: Sides) -> list[tuple[bytes, ...]]:
        both = linear(np.stack([audio["customer"], audio["agent"]], axis=1))
        return [tuple(binary(piece.tobytes()) for piece in pieces(both))]

    async def place(self, address: str, call: Call) -> list[Leg]:
        told = {"sampleRate": RATE, "mixType": "stereo", "callSid": call.call_id, **call.metadata}
        return [Leg(f"{address}/ingest/jambonz", text(told), b"", basic(call.token), "audio.jambonz.org")]


class Fork:
    name, together, legs = "fork", 1, 2

    def encode(self, name: str, audio: Sides) -> list[tuple[bytes, ...]]:
        return [
            tuple(binary(linear(piece).tobytes()) for piece in pieces(audio[channel])) for channel in SIDES
        ]

    async def place(self, address: str, call: Call) -> list[Leg]:
        return [
            Leg(
                f"{address}/ingest/fork/{quote(call.call_id)}?"
                + urlencode({"side": side, "mix": "mono", "rate": RATE}),
                text(dict(call.metadata)),
                headers=basic(call.token),
                subprotocol="audio.drachtio.org",
            )
            for side in SIDES
        ]


WIRES: dict[str, Wire] = {
    wire.name: wire for wire in (Twilio(), AudioHook(), AudioSocket(), Asterisk(), Jambonz(), Fork())
}
