"""Peers that mean harm, or only do it, against the real server: calls beside them must not notice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import time
from pathlib import Path

import psutil
import pytest
import websockets

from app.demo import run, truth
from app.doorkeeper import raise_file_limit
from app.store import Store
from tests.running import PERSON, TOKEN, running

pytestmark = pytest.mark.model

CONNECTIONS = 10_000
GROWTH_MIB = 200
"""What the server may take in memory for ten thousand connections that say nothing."""


@pytest.fixture(scope="module")
def server(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    with running(model_folder.parent, folder) as started:
        started.folder = folder
        yield started


@pytest.fixture(scope="module")
def short(short_call):
    return [call for call in truth.load(short_call.parent) if call.name == "short"]


def heard_beside(server, short, harm):
    """Play a call while ``harm`` (a coroutine function that gets an event for the end) does what it does."""

    async def both():
        over = asyncio.Event()
        harming = asyncio.create_task(harm(over))
        try:
            return await run.play_all(server.address, TOKEN, PERSON, short, at_once=1)
        finally:
            over.set()
            await harming

    outcome = asyncio.run(both())
    score = truth.score(short, outcome.alerts())
    assert (score.recall, score.precision) == (1.0, 1.0)
    assert gap_ms(server, outcome.ids["short"]) == 0


def gap_ms(server, call_id):
    store = Store.open(f"sqlite:///{server.folder / 'duting.db'}")
    try:
        return store.calls.file(call_id).call.gap_ms
    finally:
        store.close()


def memory_mib(server):
    return psutil.Process(server.process.pid).memory_info().rss / 2**20


async def alive(server):
    async with websockets.connect(server.address.replace("http", "ws", 1) + "/ingest/twilio") as peer:
        await peer.send(json.dumps({"event": "connected"}))
        await (await peer.ping())


def test_ten_thousand_connections_that_say_nothing_cost_a_call_nothing(server, short):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = raise_file_limit()
    if files < CONNECTIONS + 500:
        pytest.skip(f"only {files} open files are granted here (ulimit -Hn): {CONNECTIONS} sockets need more")
    host, port = server.address.removeprefix("http://").split(":")
    quiet = memory_mib(server)
    most = 0.0

    async def harm(over):
        nonlocal most
        open_ = []
        try:
            for number in range(CONNECTIONS):
                one = socket.socket()
                one.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    one.connect((host, int(port)))
                open_.append(one)
                if number % 100 == 0:
                    await alive(server)  # it still answers, and has time to take them in
            most = memory_mib(server)
            await alive(server)
            await over.wait()
        finally:
            for one in open_:
                one.close()

    try:
        heard_beside(server, short, harm)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert most - quiet < GROWTH_MIB


def test_whoever_keeps_sockets_reads_nothing_or_sends_noise_is_not_noticed_by_a_call(server, short):
    """All of them at the same time, beside one call."""
    address = server.address.replace("http", "ws", 1) + "/ingest/twilio"
    cookie = run.log_in(server.address, PERSON)
    secret = "6222021234567894"

    async def begin_no_call(over):
        idle = []
        # More than the server holds of them: 2 for each of 500 calls, and 200.
        for _ in range(1_300):
            with contextlib.suppress(OSError, websockets.InvalidHandshake, TimeoutError):
                idle.append(await websockets.connect(address, ping_interval=None, max_queue=1))
        await alive(server)
        await over.wait()
        await asyncio.gather(*(one.close() for one in idle), return_exceptions=True)

    async def stop_reading(over):
        reader, writer = await asyncio.open_connection(*server.address.removeprefix("http://").split(":"))
        writer.write(
            b"GET /api/events HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Cookie: " + cookie.encode() + b"\r\n\r\n"
        )
        await reader.readline()
        writer.transport.pause_reading()
        await over.wait()
        writer.close()

    async def send_noise(over):
        while not over.is_set():
            for message in ("x" * 70_000, b"\x00" * 60_000, json.dumps({"event": "start", "start": secret})):
                with contextlib.suppress(websockets.WebSocketException, OSError, EOFError):
                    async with websockets.connect(address) as peer:
                        await peer.send(message)
                        await asyncio.wait_for(peer.wait_closed(), 5)

    async def harm(over):
        await asyncio.gather(begin_no_call(over), stop_reading(over), send_noise(over))

    heard_beside(server, short, harm)
    assert secret not in Path(server.folder / "server.log").read_text()


def test_the_server_is_as_well_as_before(server):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if psutil.Process(server.process.pid).num_fds() < 200:
            break
        asyncio.run(alive(server))
    assert psutil.Process(server.process.pid).num_fds() < 200
