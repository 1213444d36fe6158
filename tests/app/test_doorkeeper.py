"""Connections that say nothing, and too many of them, against the real server."""

from __future__ import annotations

import asyncio
import resource
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from app import doorkeeper
from app.doorkeeper import doorkeeping, raise_file_limit
from app.listener import listening_socket

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@asynccontextmanager
async def served(most):
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("here"))])
    config = uvicorn.Config(app, http=doorkeeping(most), log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    listener = listening_socket("127.0.0.1", 0, "nothing")
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running


async def opened(port):
    return await asyncio.open_connection("127.0.0.1", port)


async def everything(reader):
    """What comes until the end; an end without a word may be a reset."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_whoever_says_what_he_wants_is_served():
    async with served(2) as port:
        reader, writer = await opened(port)
        writer.write(REQUEST)
        assert b"here" in await reader.read()
        writer.close()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"], ids=["nothing", "half"])
async def test_whoever_does_not_say_what_he_wants_is_shown_out(monkeypatch, said):
    monkeypatch.setattr(doorkeeper, "FIRST_REQUEST_S", 0.05)
    async with served(2) as port:
        reader, writer = await opened(port)
        writer.write(said)
        assert await everything(reader) == b""
        writer.close()


async def test_beyond_the_most_connections_those_that_say_nothing_give_way():
    async with served(2) as port:
        silent = [await opened(port) for _ in range(2)]
        reader, writer = await opened(port)
        writer.write(REQUEST)
        assert b"here" in await reader.read()
        assert await everything(silent[0][0]) == b""
        writer.close()
        reader, writer = silent[1]
        writer.write(REQUEST)
        assert b"here" in await reader.read()
        for _, writer in silent:
            writer.close()


async def test_where_all_have_said_what_they_want_a_new_one_is_turned_away():
    async with served(1) as port:
        reader, writer = await opened(port)
        writer.write(REQUEST.replace(b"close", b"keep-alive"))
        assert b"here" in await reader.readuntil(b"here")
        outside, other = await opened(port)
        assert await everything(outside) == b""
        other.close()
        writer.write(REQUEST)
        assert b"here" in await reader.read()
        writer.close()


def test_as_many_files_are_taken_as_the_system_grants():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        assert raise_file_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= before[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
