"""What is attacked, beside the telephones' parsers: WebRTC, requests, and frames."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Coroutine, Sequence
from itertools import count
from random import Random
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import msgspec
import numpy as np
from aiortc import RTCPeerConnection
from aiortc.rtp import RtpPacket
from aiortc.sdp import SessionDescription
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.websockets import WebSocket
from websockets.utils import apply_mask

from app import telephony
from app.errors import IngestError, Overloaded
from app.ingest import whip
from app.ingest.audiosocket import booking, read_body
from app.ingest.bookings import Bookings, signed
from app.ingest.opus import OpusDecoder
from app.ingest.packets import MOST_WAITING, RATE, InOrder
from app.ingest.peer import call_info, changed
from app.ingest.sdpfrag import fragment, is_name, trickling
from app.ingest.session import presented, subprotocol
from app.ingest.signature import Nonces, authentic, refusal
from app.ingest.sockets import feed
from app.ingest.trickle import MOST_CANDIDATES, Trickle, TrickleRefused
from app.ingest.webrtc import VoiceLeg
from streams.assembly import Placement, Timeline
from streams.events import AudioFrame, Gap
from tests.app import test_sockets
from tests.app.ingest import test_opus, test_sdpfrag, test_signature
from tests.app.ingest.attacked import MEBIBYTE, Attacked, Message, Target

_OFFER = "\r\n".join(
    [
        *("v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE 0", "a=msid-semantic:WMS *"),
        *("m=audio 9 UDP/TLS/RTP/SAVPF 96 0", "c=IN IP4 0.0.0.0", "a=sendonly", "a=mid:0", "a=rtcp-mux"),
        *("a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid", "a=msid:x y", "a=rtcp:9 IN IP4 0.0.0.0"),
        *("a=ssrc:2463951711 cname:c", "a=rtpmap:96 opus/48000/2", "a=fmtp:96 useinbandfec=1"),
        *("a=rtpmap:0 PCMU/8000", f"a=candidate:{test_sdpfrag.HOST}", "a=end-of-candidates"),
        *("a=ice-ufrag:EsAw", "a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1", "a=setup:actpass"),
        "a=fingerprint:sha-256 " + ":".join(["0A"] * 32),
        "",
    ]
)
"""As aiortc writes one."""
_LINES = (
    *("a=ice-ufrag:EsAw", "a=ice-pwd:x", "m=audio 9 RTP/AVP 0", "a=mid:0", "a=end-of-candidates", "", "a=x"),
    *(f"a=candidate:{test_sdpfrag.HOST}", f"a=candidate:{test_sdpfrag.HIDDEN}", "a=candidate:"),
    "a=candidate:1 1 tcp 5 192.0.2.1 9 typ host tcptype active generation 0 ufrag EsAw network-id 1",
)
_FRAGMENTS = st.lists(st.sampled_from(_LINES), max_size=9).map("\r\n".join) | st.text(max_size=100)


def done(waits: Coroutine[Any, Any, Any]) -> Any:
    """The result of what could wait, and has nothing to wait for."""
    try:
        waits.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("it waits")


class Read(Attacked):
    """Texts that are read one by one; nothing is kept of them."""

    most_held = 4_096

    @property
    def state(self) -> object:
        return None

    def take(self, data: Message) -> None:
        try:
            text = data if isinstance(data, str) else data.decode()
        except UnicodeDecodeError:
            return  # refused by ``whip.body``
        self.read(text)

    def read(self, text: str) -> None:
        raise NotImplementedError


# ── WebRTC ────────────────────────────────────────────────────────────────────────────────────────


class Fragment(Read):
    def next(self, random: Random) -> Message:
        return "\r\n".join(random.choices(_LINES, k=random.randint(1, 6)))

    def read(self, text: str) -> None:
        trickling(text)
        for line, _ in fragment(text).candidates:
            is_name(line)


class Candidates(Fragment):
    """The connection that candidates are for is none: what it does with them is aiortc's."""

    own = (TrickleRefused,)

    def __init__(self, random: Random, endless: bool = False) -> None:
        super().__init__(random, endless)
        media = SimpleNamespace(ice=SimpleNamespace(usernameFragment="EsAw"))
        connection = SimpleNamespace(addIceCandidate=self._add)
        self.trickle = Trickle(
            cast(RTCPeerConnection, connection), cast(SessionDescription, SimpleNamespace(media=[media]))
        )

    async def _add(self, candidate: object) -> None: ...

    def read(self, text: str) -> None:
        done(self.trickle.take(self.trickle.etag, text))
        self.over = self.trickle._count > MOST_CANDIDATES - 5


class Offer(Read):
    own = (whip.Refused,)

    def next(self, random: Random) -> Message:
        return _OFFER

    def read(self, text: str) -> None:
        kind = "screen" if len(text) % 5 == 0 else "agent"
        [media] = whip.checked(text, cast(whip.Kind, kind)).media
        assert media.kind in ("audio", "video")
        assert trickling(text) is not None


_PACKET = struct.Struct(">IHI")
"""SSRC, number, stamp; the payload is behind it."""
_OPUS = test_opus.packets(test_opus.tone(1_000))


class Packets(Attacked):
    """Packets as RTP has them, after aiortc has read their header."""

    own = ()
    is_stream = True

    def __init__(self, random: Random, endless: bool = False) -> None:
        super().__init__(random, endless)
        self.order = InOrder()
        self._sent = random.randrange(1 << 16)

    @property
    def state(self) -> object:
        return self.order

    def next(self, random: Random) -> Message:
        self._sent += random.choice((1, 1, 1, 1, 1, 1, 1, 2, 3, 0, -1, 40 if random.random() < 0.1 else 1))
        head = _PACKET.pack(7, self._sent & 0xFFFF, self._sent * 960 & 0xFFFF_FFFF)
        return head + _OPUS[self._sent % len(_OPUS)]

    def take(self, data: Message) -> None:
        assert isinstance(data, bytes)
        source, number, stamp = _PACKET.unpack(data[: _PACKET.size].ljust(_PACKET.size, b"\x00"))
        # No packet of a network is longer.
        self.packet(source, number, stamp, data[_PACKET.size : 1_500])

    def packet(self, source: int, number: int, stamp: int, payload: bytes) -> None:
        for one in self.order.put(source, number, stamp, payload):
            assert one.lost >= 0
        assert len(self.order._waiting) <= MOST_WAITING

    def leave(self) -> None:
        self.order.flush()
        assert not self.order.is_waiting


class Voice(Packets):
    """Their order, the real decoder, what is concealed, and the call's time."""

    most_held = 2 * MEBIBYTE

    def __init__(self, random: Random, endless: bool = False) -> None:
        super().__init__(random, endless)
        self.clock_s = 1_000.0
        self.leg = VoiceLeg("c", "agent", lambda: self.clock_s, lambda closed: None)
        self.placement = Placement(Timeline("c", ("agent", "customer")), ("agent",), True)

    @property
    def state(self) -> object:
        return self.leg._order, self.leg._voice, self.placement

    def packet(self, source: int, number: int, stamp: int, payload: bytes) -> None:
        packet = RtpPacket(sequence_number=number, timestamp=stamp, ssrc=source, payload=payload)
        self.leg.receive(packet)

    def round(self, random: Random) -> None:
        self.clock_s += random.choice((0.0, 0.1, 0.1, 0.3))
        self._place(self.leg.take())

    def _place(self, items: Any) -> None:
        # 250 packets, each at most a second of silence and 120 ms of sound.
        assert sum(len(item.pcm) for item in items if isinstance(item, AudioFrame)) <= 300 * 2 * 16_000
        assert all(isinstance(item, AudioFrame | Gap) and item.duration_ms >= 0 for item in items)
        self.placement.place(items, self.clock_s)

    def leave(self) -> None:
        self._place(self.leg.finish())


class Opus(Attacked):
    own = (ValueError,)
    is_stream = True

    def __init__(self, random: Random, endless: bool = False) -> None:
        super().__init__(random, endless)
        self.decode = OpusDecoder()

    @property
    def state(self) -> object:
        return self.decode

    def next(self, random: Random) -> Message:
        return random.choice(_OPUS)

    def take(self, data: Message) -> None:
        assert isinstance(data, bytes)
        samples = self.decode(data)
        assert samples.dtype == np.int16
        assert len(samples) <= RATE * 120 // 1000


# ── requests ──────────────────────────────────────────────────────────────────────────────────────


class Unwanted(Exception):
    """It was refused, as the parser says by a value."""


class Signature(Attacked):
    """The two headers, a line each. A peer that has the secret uses as many nonces as it likes."""

    own = (Unwanted,)
    most_held = 32 * MEBIBYTE
    """``Nonces.MOST`` of them."""

    def __init__(self, random: Random, endless: bool = False) -> None:
        super().__init__(random, endless)
        self.nonces = Nonces()
        self._numbers = count()
        self.now_s = float(test_signature.NOW)

    @property
    def state(self) -> object:
        return self.nonces

    def next(self, random: Random) -> Message:
        more = random.choice(("", "", f";expires={test_signature.NOW + 60}"))
        nonce = f"{next(self._numbers):0{random.choice((22, 22, 100))}d}"
        return "\n".join(test_signature.signed(nonce=nonce, more=more))

    def take(self, data: Message) -> None:
        text = data if isinstance(data, str) else data.decode("latin-1")
        given, _, signature = text.partition("\n")
        why = refusal(test_signature.VALUES, given, signature, test_signature.SECRET, self.now_s, self.nonces)
        if why is not None:
            assert why
            raise Unwanted(why)


class Headers(Attacked):
    """What is read of a handshake before anything else: token, subprotocol, signature."""

    own = (Unwanted,)
    most_held = 32 * MEBIBYTE
    """``Nonces.MOST`` of them."""
    _SECRET = SecretStr("YSBjbGllbnQgc2VjcmV0")

    def __init__(self, random: Random, endless: bool = False) -> None:
        super().__init__(random, endless)
        self.nonces = Nonces()

    @property
    def state(self) -> object:
        return self.nonces

    def next(self, random: Random) -> Message:
        # The nonce is another one each time, so that it is let in.
        nonce = f"{random.getrandbits(80):030d}"
        given, signature = test_signature.signed(created=int(time.time()), nonce=nonce)
        token = random.choice(("Bearer token", "Basic dTp0b2tlbg==", "Basic " + "QUJD" * 9))
        lines = [
            *("/ingest/audiohook?token=t&call_id=c", "host: duting.bank.example", f"authorization: {token}"),
            *(f"signature-input: {given}", f"signature: {signature}", "x-api-key: token"),
            *("sec-websocket-protocol: media, audio.jambonz.org", "audiohook-session-id: s1"),
            *("audiohook-organization-id: o1", "audiohook-correlation-id: x1"),
        ]
        if random.random() < 0.5:
            lines[0] = "/ingest/audiohook"
        return "\n".join(lines)

    def take(self, data: Message) -> None:
        text = data if isinstance(data, bytes) else data.encode()
        target, *lines = text.replace(b"\r", b"").split(b"\n")[:100]
        path, _, query = target.partition(b"?")
        pairs = [
            (name.strip().lower(), value.strip()) for name, _, value in (one.partition(b":") for one in lines)
        ]
        offered = b",".join(value for name, value in pairs if name == b"sec-websocket-protocol")
        scope = {
            "type": "websocket",
            "scheme": "ws",
            "server": ("127.0.0.1", 8420),
            "path": path.decode(errors="replace"),
            "query_string": query,
            "headers": pairs,
            # As uvicorn reads them.
            "subprotocols": [one.strip() for one in offered.decode("latin-1").split(",")] if offered else [],
        }
        socket = WebSocket(scope, cast(Any, None), cast(Any, None))
        token = presented(socket)
        assert token is None or isinstance(token.encode(), bytes)
        subprotocol(socket, "media")
        key = socket.headers.get("x-api-key", "")
        if not authentic(socket, key, "token", self._SECRET, self.nonces, None):
            raise Unwanted


class Booked(Attacked):
    """The body of a booking, JSON or a form, and UUIDs."""

    own = (IngestError, Overloaded)
    most_held = 16 * MEBIBYTE
    """600 of them with metadata."""

    def __init__(self, random: Random, endless: bool = False) -> None:
        super().__init__(random, endless)
        self.bookings = Bookings(600)
        self._numbers = count()
        self.clock_s = 1_000.0

    @property
    def state(self) -> object:
        return self.bookings

    def next(self, random: Random) -> Message:
        if random.random() < 0.5:
            more = random.choice(("", "&channels=agent,customer", "&valid_s=60", "&token=t"))
            return f"call_id=c&channel=agent&agent=8001&queue=理财{more}"
        body = {"call_id": "c", "channel": "mixed", "metadata": {"agent": "8001"}, "channels": ["mixed"]}
        return json.dumps({**body, "valid_s": 60})

    def take(self, data: Message) -> None:
        body = (data if isinstance(data, bytes) else data.encode())[: 16 * 1024]
        wanted = booking(read_body(body, body[:1] not in (b"{", b"[", b'"')))
        uuid = UUID(int=next(self._numbers))
        self.bookings.book(uuid, wanted, self.clock_s)
        assert self.bookings.find(uuid, self.clock_s) is wanted
        assert len(self.bookings) <= 600
        signed(UUID(bytes=body[:16].ljust(16, b"a")), "t", self.clock_s)
        msgspec.json.encode(wanted.call)

    def round(self, random: Random) -> None:
        # Mostly there is room; for a while there is none.
        self.clock_s += random.choice((0.0, 1.0, 30.0, 3_600.0 if random.random() < 0.1 else 5.0))


class Telephony(Attacked):
    """The body of ``POST /api/calls/{id}/events``."""

    own = (Unwanted, IngestError)

    def __init__(self, random: Random, endless: bool = False) -> None:
        super().__init__(random, endless)
        self.call = call_info("c", "twilio", {})

    @property
    def state(self) -> object:
        return self.call

    def next(self, random: Random) -> Message:
        return random.choice(
            (
                '{"type": "hold", "id": "1"}',
                '[{"type": "resume", "media_ms": 5}, {"type": "key", "channel": "agent"}]',
                '{"type": "transfer", "to": "loans", "id": "7"}',
                '{"type": "update", "fields": {"queue": "loans", "工单": "1"}}',
                '[{"type": "hangup", "by": "customer"}]',
            )
        )

    def take(self, data: Message) -> None:
        try:
            events = telephony.decoded(data if isinstance(data, bytes) else data.encode())
        except ValueError as error:
            if type(error) is not ValueError:  # not in its own words
                raise
            raise Unwanted(str(error)) from None
        for event in events:
            msgspec.msgpack.encode(event)
            assert telephony.kind_of(event)
            if isinstance(event, telephony.UpdateEvent):
                self.call = changed(self.call, event.fields)


# ── frames ────────────────────────────────────────────────────────────────────────────────────────


class Frames(Attacked):
    """The bytes of a WebSocket after its handshake, however they are cut."""

    own = ()
    is_stream = True

    def __init__(self, random: Random, endless: bool = False) -> None:
        super().__init__(random, endless)
        self.socket = done(test_sockets.accepted())
        self.heard = 0
        assert feed(self.socket.scope, self._hear, self._hear)

    def _hear(self, messages: Sequence[bytes]) -> None:
        assert all(len(data) <= self.socket.config.ws_max_size for data in messages)
        self.heard += len(messages)

    @property
    def state(self) -> object:
        return self.socket._rest, self.socket.conn

    def next(self, random: Random) -> Message:
        opcode = random.choice((1, 1, 2, 2, 2, 9, 10))
        payload = random.randbytes(random.choice((5, 100, 125) if opcode > 8 else (0, 20, 126, 400, 3_000)))
        plain, mask = test_sockets.frame(payload, opcode, masked=False), random.randbytes(4)
        at = len(plain) - len(payload)
        return bytes((plain[0], plain[1] | 0x80)) + plain[2:at] + mask + apply_mask(payload, mask)

    def take(self, data: Message) -> None:
        assert isinstance(data, bytes)
        self.socket.data_received(data)
        self.over = self.over or self.socket.transport.closed or self.socket.conn.parser_exc is not None

    def round(self, random: Random) -> None:
        test_sockets.queued(self.socket)
        self.socket.transport.written = b""


_ANY: st.SearchStrategy[Any] = st.binary(max_size=300)
EDGES = {
    "sdpfrag": Target(Fragment, _FRAGMENTS),
    "trickle": Target(Candidates, _FRAGMENTS),
    "offer": Target(Offer, st.text(max_size=200).map("v=0\r\n".__add__)),
    "packets": Target(Packets, _ANY),
    "voice": Target(Voice, _ANY),
    "opus": Target(Opus, _ANY),
    "signature": Target(Signature, st.text(max_size=100)),
    "headers": Target(Headers, st.text(max_size=100)),
    "booking": Target(Booked, st.text(max_size=100) | _ANY),
    "telephony": Target(Telephony, st.text(max_size=100) | _ANY),
    "frames": Target(Frames, _ANY),
}
"""By what is read: the file, or the request."""
