"""The port of AudioSockets, over real TCP: who is let in, how it ends, and what is told of it."""

from __future__ import annotations

import asyncio
import socket
import struct
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from app.ingest import audiosocket
from app.ingest.assembly import Assembly
from app.ingest.audiosocket import HANGUP, IDENTITY, message
from app.ingest.audiosocket_server import AudioSocketServer, _Socket
from app.ingest.bookings import Booking, sign
from app.ingest.connection import Connection
from app.ingest.peer import call_info
from app.ingest.session import Lines
from app.listener import listening_socket
from app.settings import Settings
from tests.app.ingest.runner import Runner

TOKEN = "token-for-tests"
NOW = 1_716_984_212
SLIN = message(0x10, b"\x10\x00" * 160)
END = message(HANGUP)


class Port:
    """A server with a runner that notes what it is told, and a real port."""

    def __init__(self, folder):
        self.runner = Runner()
        settings = Settings(_env_file=None, data_dir=folder, max_calls=1)
        self.lines = Lines(settings, Assembly(self.runner, clock=self.runner.clock), TOKEN)
        self.server = AudioSocketServer(self.lines, listening_socket("127.0.0.1", 0, "x"), lambda: NOW)

    def booked(self, channel="agent", call_id="c"):
        uuid = uuid4()
        call = call_info(call_id, "audiosocket", {"agent": "8001"})
        self.lines.bookings.book(uuid, Booking(call, channel, 120.0), self.runner.now)
        return uuid

    async def connect(self, uuid=None):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.lines.audiosocket_port)
        if uuid is not None:
            writer.write(message(IDENTITY, uuid.bytes))
        return reader, writer

    async def until(self, what):
        """Let the loop go on until ``what()`` holds."""
        async with asyncio.timeout(5):
            while not what():  # noqa: ASYNC110 - there is nobody who could tell
                await asyncio.sleep(0.001)


@pytest_asyncio.fixture
async def port(tmp_path):
    one = Port(tmp_path)
    await one.server.start()
    yield one
    await one.server.stop()


async def test_two_connections_are_one_call_and_it_ends_when_both_have_closed(port):
    agent, customer = [await port.connect(port.booked(channel)) for channel in ("agent", "customer")]
    for _, writer in (agent, customer):
        writer.write(SLIN * 5)
    agent[1].close()
    await port.until(lambda: port.runner.opened)
    await port.until(lambda: len(port.server._sockets) == 1)
    assert port.runner.closed == []
    customer[1].close()
    await port.until(lambda: port.runner.closed)
    assert [call.call_id for call in port.runner.opened] == ["c"]
    assert port.runner.closed == [("c", "hangup", None)]
    for channel in ("agent", "customer"):
        heard = sum(item.duration_ms for item in port.runner.heard if item.channel == channel)
        assert heard == pytest.approx(100, abs=2)
    assert port.server._sockets == {}


async def test_a_signed_uuid_is_let_in_without_a_booking(port):
    _, writer = await port.connect(sign(TOKEN, NOW - 60, 17, "customer"))
    writer.write(SLIN)
    await port.until(lambda: port.runner.opened)
    assert port.runner.opened[0].call_id == f"{NOW - 60}.17"
    writer.close()
    await port.until(lambda: port.runner.closed)


@pytest.mark.parametrize(
    "sent",
    [
        message(IDENTITY, uuid4().bytes),
        message(IDENTITY, sign("other", NOW, 1, "agent").bytes),
        SLIN,
        b"GET / HTTP/1.1\r\n" + b"x" * 20_000,
    ],
    ids=["unknown", "signed by another", "audio first", "no AudioSocket"],
)
async def test_whoever_is_not_let_in_is_told_the_end_and_the_connection_closed(port, sent):
    reader, writer = await port.connect()
    writer.write(sent)
    async with asyncio.timeout(5):
        assert await reader.read() == END
    assert port.runner.opened == []
    writer.close()


async def test_a_connection_that_breaks_off_within_a_message_leaves_its_call_to_whoever_comes_back(port):
    uuid = port.booked()
    _, writer = await port.connect(uuid)
    writer.write(SLIN + SLIN[:100])
    await port.until(lambda: port.runner.opened)
    writer.close()
    await port.until(lambda: not port.server._sockets)
    assert port.runner.closed == []
    assert "c" in port.lines.assembly
    _, writer = await port.connect(uuid)
    writer.write(SLIN)
    await port.until(lambda: port.server._sockets and next(iter(port.server._sockets)).connection.has_begun)
    assert len(port.runner.opened) == 1
    writer.close()
    await port.until(lambda: port.runner.closed)


async def test_a_connection_that_is_reset_may_come_back_too(port):
    _, writer = await port.connect(port.booked())
    await port.until(lambda: port.runner.opened)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await port.until(lambda: not port.server._sockets)
    assert port.runner.closed == []


async def test_who_sends_no_uuid_for_too_long_is_cut_off(port, monkeypatch):
    monkeypatch.setattr(Connection, "START_TIMEOUT_S", 0.01)
    reader, writer = await port.connect()
    async with asyncio.timeout(5):
        assert await reader.read() == END
    writer.close()


async def test_where_there_are_too_many_the_oldest_that_has_not_begun_gives_way(port, monkeypatch):
    monkeypatch.setattr(Lines, "most_connections", 2)
    _, speaking = await port.connect(port.booked())
    await port.until(lambda: port.runner.opened)
    oldest, first = await port.connect()
    await port.until(lambda: len(port.server._sockets) == 2)
    _, second = await port.connect()
    async with asyncio.timeout(5):
        assert await oldest.read() == END
    # Where all have begun a call, the new one has to go.
    second.write(message(IDENTITY, port.booked("customer").bytes))
    await port.until(lambda: all(one.connection.has_begun for one in port.server._sockets))
    newest, third = await port.connect()
    async with asyncio.timeout(5):
        assert await newest.read() == b""
    for writer in (speaking, first, second, third):
        writer.close()


async def test_a_peer_that_sends_faster_than_it_is_heard_is_not_read_from_for_a_while(port, monkeypatch):
    monkeypatch.setattr(_Socket, "AGAIN_S", 0.01)
    monkeypatch.setattr(Connection, "MOST_READY_MS", 10**9)  # nobody hears it at once
    _, writer = await port.connect(port.booked())
    await port.until(lambda: port.runner.opened)
    [one] = port.server._sockets
    writer.write(SLIN * 2_000)  # 40 s
    await port.until(lambda: not one._transport.is_reading())
    assert one._parser.ready_ms < 40_000
    heard = 0

    def all_heard():
        nonlocal heard
        heard += sum(item.duration_ms for item in one._parser.take())
        return heard > 39_900

    await port.until(all_heard)
    writer.close()


async def test_a_call_that_the_telephony_ends_otherwise_is_ended_here_as_well(port):
    reader, writer = await port.connect(port.booked())
    await port.until(lambda: port.runner.opened)
    await port.lines.assembly.hang_up("c", "customer")
    async with asyncio.timeout(5):
        assert await reader.read() == END
    assert port.runner.closed == [("c", "hangup", "customer")]
    writer.close()


async def test_at_the_end_every_connection_is_told(tmp_path):
    port = Port(tmp_path)
    await port.server.start()
    reader, writer = await port.connect(port.booked())
    await port.until(lambda: port.runner.opened)
    await port.server.stop()
    assert await reader.read() == END
    with pytest.raises(OSError, match="Connect call failed"):
        await port.connect()
    writer.close()


# ── how a UUID is booked ──────────────────────────────────────────────────────────────────────────

BOOKING = {"call_id": "c", "channel": "agent", "metadata": {"queue": "理财"}}
PATH = "/ingest/audiosocket/calls"


@pytest_asyncio.fixture
async def web(port):
    app = FastAPI()
    app.include_router(audiosocket.route(port.lines))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        yield client


async def test_what_was_booked_can_connect(port, web):
    answer = await web.post(PATH, json=BOOKING, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 201
    told = answer.json()
    assert (told["port"], told["valid_s"]) == (port.lines.audiosocket_port, 120)
    _, writer = await port.connect(UUID(told["uuid"]))
    await port.until(lambda: port.runner.opened)
    assert port.runner.opened[0].queue == "理财"
    writer.close()
    await port.until(lambda: port.runner.closed)


@pytest.mark.parametrize(
    "given",
    [
        {"auth": ("duting", TOKEN)},
        {"params": {"token": TOKEN}},
        {"data": {"call_id": "c", "channel": "agent", "queue": "理财", "token": TOKEN}},
    ],
    ids=["basic", "query", "field"],
)
async def test_a_dialplan_sends_a_form_and_is_given_the_bare_uuid(port, web, given):
    answer = await web.post(PATH, **{"data": {"call_id": "c", "channel": "agent", "queue": "理财"}, **given})
    assert answer.headers["content-type"].startswith("text/plain")
    assert port.server.find(UUID(answer.text))[0].queue == "理财"


async def test_who_has_no_token_is_told_so_in_the_form_that_was_sent(port, web):
    told = (await web.post(PATH, json=BOOKING)).json()["error"]
    assert told["code"] == "token_required"
    assert "DUTING_INGEST_TOKEN" in told["detail"]
    answer = await web.post(PATH, data={"call_id": "c", "channel": "agent", "token": "wrong"})
    assert answer.status_code == 401
    assert "DUTING_INGEST_TOKEN" in answer.text
    assert len(port.lines.bookings) == 0


async def test_a_booking_that_is_wrong_or_too_long_or_finds_no_room_is_told_so(port, web):
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    wrong = await web.post(PATH, json={**BOOKING, "channel": "left"}, headers=bearer)
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "invalid")
    long = await web.post(PATH, content=b"x" * 20_000, headers=bearer)
    assert long.status_code == 413
    answers = [await web.post(PATH, json=BOOKING, headers=bearer) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [201] * 4 + [503]


async def test_where_audiosockets_are_not_served_a_booking_says_how_they_are(port, web):
    port.lines.audiosocket_port = None
    answer = await web.post(PATH, json=BOOKING, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 404
    assert "DUTING_AUDIOSOCKET_PORT" in answer.json()["error"]["detail"]
