"""The fast way through the WebSocket, against the bytes of RFC 6455."""

import asyncio
import os
import struct
from contextlib import contextmanager
from functools import cache
from socket import socketpair
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState

from app.ingest.sockets import PULLED_S, IngestSockets, feed

HANDSHAKE = (
    b"GET /ingest/twilio HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frame(payload: bytes, opcode: int = 1, fin: bool = True, masked: bool = True) -> bytes:
    size = len(payload)
    if size < 126:
        length = bytes([size])
    else:
        length = b"\x7e" + struct.pack(">H", size) if size < 65_536 else b"\x7f" + struct.pack(">Q", size)
    head = bytes([(0x80 if fin else 0) | opcode, length[0] | (0x80 if masked else 0)]) + length[1:]
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


class Transport:
    """Keeps what was written."""

    def __init__(self, socket=None, encrypted=None):
        self.written, self.closed, self.is_reading = b"", False, True
        self._known = {"socket": socket, "ssl_object": encrypted}

    def write(self, data):
        self.written += data

    def get_extra_info(self, name, default=None):
        return self._known.get(name) or default

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    def pause_reading(self):
        self.is_reading = False

    def resume_reading(self):
        self.is_reading = True


class Task:
    def add_done_callback(self, callback): ...


async def application(scope, receive, send):
    raise AssertionError("not run here")


@cache
def configured(compressed):
    config = Config(
        application, ws=IngestSockets, ws_max_size=65_536, ws_per_message_deflate=compressed, log_config=None
    )
    config.load()
    return config


class Loop:
    """No application: its task is never made, the test awaits in its place. Time goes on by hand."""

    def __init__(self):
        self.now, self.timers = 0.0, []

    def create_task(self, run):
        run.close()
        return Task()

    def call_later(self, delay, callback, *values):
        self.timers.append((self.now + delay, callback, values))
        return SimpleNamespace(cancel=lambda: None)

    def time(self):
        return self.now

    def go_to(self, now):
        self.now = now
        due = [timer for timer in self.timers if timer[0] <= now]
        self.timers = [timer for timer in self.timers if timer[0] > now]
        for _, callback, values in due:
            callback(*values)


async def accepted(compressed=False, transport=None):
    """A socket whose handshake was answered, and what its application was handed."""
    socket = IngestSockets(configured(compressed), ServerState(), {}, Loop())
    socket.connection_made(transport or Transport())
    socket.data_received(HANDSHAKE)
    assert (await socket.receive())["type"] == "websocket.connect"
    await socket.send({"type": "websocket.accept"})
    return socket


def queued(socket):
    return [socket.queue.get_nowait() for _ in range(socket.queue.qsize())]


async def test_messages_go_straight_to_who_asked_for_them():
    socket, heard = await accepted(), []
    assert feed(socket.scope, heard.extend, heard.extend)
    socket.data_received(frame("一".encode()) + frame(b"x" * 400, opcode=2))
    assert heard == ["一".encode(), b"x" * 400]
    assert queued(socket) == []


async def test_a_server_that_knows_nothing_of_it_says_so():
    assert not feed({"type": "websocket"}, print, print)
    assert not feed((await accepted(compressed=True)).scope, print, print)


async def test_a_message_from_before_the_answer_keeps_everything_on_the_ordinary_way():
    socket, heard = await accepted(), []
    socket.data_received(frame(b"early"))
    assert not feed(socket.scope, heard.extend, heard.extend)
    socket.data_received(frame(b"late"))
    assert heard == []
    assert [m["text"] for m in queued(socket)] == ["early", "late"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(st.tuples(st.sampled_from((1, 2)), st.binary(max_size=300)), st.just((9, b"ping"))),
        max_size=8,
    ),
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
)
async def test_however_the_bytes_are_cut_every_message_comes_once_and_in_order(messages, cuts):
    socket, heard = await accepted(), []
    feed(socket.scope, heard.extend, heard.extend)
    wire = b"".join(frame(payload, opcode) for opcode, payload in messages)
    while wire:
        cut = cuts.pop() if cuts else len(wire)
        socket.data_received(wire[:cut])
        wire = wire[cut:]
    assert heard == [payload for opcode, payload in messages if opcode != 9]
    pings = sum(opcode == 9 for opcode, _ in messages)
    assert socket.transport.written.count(b"\x8a\x04ping") == pings


async def test_from_the_first_fragment_on_everything_goes_the_ordinary_way():
    socket, heard = await accepted(), []
    feed(socket.scope, heard.extend, heard.extend)
    socket.data_received(frame(b"a") + frame(b"b", fin=False) + frame(b"c", opcode=0) + frame(b"d"))
    assert heard == [b"a"]
    assert [m["text"] for m in queued(socket)] == ["bc", "d"]


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (frame(b"x" * 70_000), 1009),
        (frame(b"no mask", masked=False), 1002),
        (b"\xc1" + frame(b"a reserved bit")[1:], 1002),
        (b"\x83" + frame(b"an unknown opcode")[1:], 1002),
        (frame(b"x" * 200, opcode=9), 1002),
    ],
    ids=["too long", "no mask", "reserved bit", "opcode", "long ping"],
)
async def test_what_the_standard_forbids_ends_the_connection_with_its_code(wire, code):
    socket, heard = await accepted(), []
    feed(socket.scope, heard.extend, heard.extend)
    socket.data_received(frame(b"good") + wire)
    assert heard == [b"good"]
    assert struct.pack(">H", code) in socket.transport.written
    [told] = queued(socket)
    assert (told["type"], told["code"]) == ("websocket.disconnect", code)


async def test_the_end_of_the_peer_is_told():
    socket, heard = await accepted(), []
    feed(socket.scope, heard.extend, heard.extend)
    socket.data_received(frame(b"last") + frame(struct.pack(">H", 1000), opcode=8))
    assert heard == [b"last"]
    [told] = queued(socket)
    assert (told["type"], told["code"]) == ("websocket.disconnect", 1000)


async def test_frames_made_once_for_many_are_written_as_they_are_when_there_is_room():
    socket = await accepted()
    write = socket.scope["extensions"]["duting.frames"]
    before = len(socket.transport.written)
    made = frame(b"one", masked=False) + frame("二".encode(), masked=False)
    socket.pause_writing()
    writing = asyncio.create_task(write(made))
    await asyncio.sleep(0)
    assert socket.transport.written[before:] == b""
    socket.resume_writing()
    await writing
    assert socket.transport.written[before:] == made
    assert "duting.frames" not in (await accepted(compressed=True)).scope["extensions"]


async def test_frames_to_a_peer_that_is_gone_are_an_error():
    socket = await accepted()
    socket.transport.close()
    with pytest.raises(ClientDisconnected):
        await socket.scope["extensions"]["duting.frames"](frame(b"one", masked=False))


# ── asked for ─────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def plugged(encrypted=None):
    """Both ends of a real socket: the transport of ours, and the peer's."""
    ours, peer = socketpair()
    ours.setblocking(False)
    with ours, peer:
        yield Transport(ours, encrypted), peer


async def test_who_asks_gets_what_has_come_and_is_not_called_meanwhile():
    with plugged() as (transport, peer):
        socket, heard = await accepted(transport=transport), []
        pull = feed(socket.scope, heard.append, heard.append)
        pull()  # nothing has come
        assert not transport.is_reading
        peer.send(frame(b"a") + frame(b"b") + frame(b"c", opcode=2) + frame(b"d")[:3])
        pull()
        assert heard == [[b"a", b"b"], [b"c"]]


async def test_pings_are_answered_and_the_close_is_told_when_it_is_asked():
    with plugged() as (transport, peer):
        socket, heard = await accepted(transport=transport), []
        pull = feed(socket.scope, heard.extend, heard.extend)
        peer.send(frame(b"a") + frame(b"ping", opcode=9) + frame(b"b") + frame(b"\x03\xe8", opcode=8))
        pull()
        assert heard == [b"a", b"b"]
        assert b"\x8a\x04ping" in transport.written
        assert [m["type"] for m in queued(socket)] == ["websocket.disconnect"]


async def test_the_end_of_a_socket_is_left_to_the_event_loop():
    with plugged() as (transport, peer):
        socket, heard = await accepted(transport=transport), []
        pull = feed(socket.scope, heard.extend, heard.extend)
        peer.send(frame(b"last"))
        peer.close()
        pull()
        assert heard == [b"last"]
        pull()
        assert transport.is_reading
        pull()
        assert transport.is_reading


async def test_who_does_not_come_for_a_while_is_told_as_things_arrive():
    with plugged() as (transport, _):
        socket = await accepted(transport=transport)
        pull, loop = feed(socket.scope, print, print), socket.loop
        pull()
        loop.go_to(1.5)
        pull()
        loop.go_to(PULLED_S)  # of the first time
        assert not transport.is_reading
        loop.go_to(1.5 + PULLED_S)
        assert transport.is_reading
        pull()
        assert not transport.is_reading


async def test_after_a_fragment_the_event_loop_reads_again():
    with plugged() as (transport, peer):
        socket, heard = await accepted(transport=transport), []
        pull = feed(socket.scope, heard.extend, heard.extend)
        peer.send(frame(b"a") + frame(b"b", fin=False))
        pull()
        assert transport.is_reading
        socket.data_received(frame(b"c", opcode=0))
        pull()  # it waits in the socket's queue now, and until it is taken nothing is read
        assert heard == [b"a"]
        assert [m["text"] for m in queued(socket)] == ["bc"]


async def test_a_closed_transport_is_not_read_its_number_may_be_another_ones():
    with plugged() as (transport, peer):
        socket, heard = await accepted(transport=transport), []
        pull = feed(socket.scope, heard.extend, heard.extend)
        peer.send(frame(b"a"))
        transport.closed = True
        pull()
        assert heard == []


async def test_what_is_encrypted_comes_as_it_arrives():
    with plugged(encrypted=object()) as (transport, peer):
        socket, heard = await accepted(transport=transport), []
        pull = feed(socket.scope, heard.extend, heard.extend)
        peer.send(frame(b"a"))
        pull()
        assert transport.is_reading
        assert heard == []
