"""The fast way through the WebSocket, against the bytes of RFC 6455."""

import asyncio
import os
import struct
from functools import cache
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState

from app.ingest.sockets import IngestSockets, feed

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

    def __init__(self):
        self.written, self.closed = b"", False

    def write(self, data):
        self.written += data

    def get_extra_info(self, name, default=None):
        return default

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    def pause_reading(self): ...

    def resume_reading(self): ...


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


async def accepted(compressed=False):
    """A socket whose handshake was answered, and what its application was handed."""
    # No application: its task is never made, the test awaits in its place.
    loop = SimpleNamespace(
        create_task=lambda run: (run.close(), Task())[1],
        call_later=lambda *_: SimpleNamespace(cancel=lambda: None),
        time=lambda: 0.0,
    )
    socket = IngestSockets(configured(compressed), ServerState(), {}, loop)
    socket.connection_made(Transport())
    socket.data_received(HANDSHAKE)
    assert (await socket.receive())["type"] == "websocket.connect"
    await socket.send({"type": "websocket.accept"})
    return socket


def queued(socket):
    return [socket.queue.get_nowait() for _ in range(socket.queue.qsize())]


async def test_messages_go_straight_to_who_asked_for_them():
    socket, heard = await accepted(), []
    assert feed(socket.scope, heard.append, heard.append)
    socket.data_received(frame("一".encode()) + frame(b"x" * 400, opcode=2))
    assert heard == ["一".encode(), b"x" * 400]
    assert queued(socket) == []


async def test_a_server_that_knows_nothing_of_it_says_so():
    assert not feed({"type": "websocket"}, print, print)
    assert not feed((await accepted(compressed=True)).scope, print, print)


async def test_a_message_from_before_the_answer_keeps_everything_on_the_ordinary_way():
    socket, heard = await accepted(), []
    socket.data_received(frame(b"early"))
    assert not feed(socket.scope, heard.append, heard.append)
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
    feed(socket.scope, heard.append, heard.append)
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
    feed(socket.scope, heard.append, heard.append)
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
    feed(socket.scope, heard.append, heard.append)
    socket.data_received(frame(b"good") + wire)
    assert heard == [b"good"]
    assert struct.pack(">H", code) in socket.transport.written
    [told] = queued(socket)
    assert (told["type"], told["code"]) == ("websocket.disconnect", code)


async def test_the_end_of_the_peer_is_told():
    socket, heard = await accepted(), []
    feed(socket.scope, heard.append, heard.append)
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
