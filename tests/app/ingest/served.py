"""The whole service with a scripted transcriber, over real sockets in the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

import numpy as np
import uvicorn
from fastapi import FastAPI

from app.build import build
from app.ingest.sockets import IngestSockets
from app.listener import listening_socket
from app.settings import Settings
from streams.testing import ScriptedTranscriber

TOKEN = "token-for-tests"
FASTER = 4.0
"""Than speech: a call of some seconds need not take as long."""


@dataclass
class Served:
    address: str
    """``http://127.0.0.1:PORT``"""
    service: object
    told: list
    """Every event, as browsers see it."""
    more: asyncio.Event
    """One more has been told."""
    web: FastAPI

    @property
    def sockets(self):
        return self.address.replace("http", "ws", 1)

    async def ended(self, call_id):
        """The events of a call, once it has ended."""
        async with asyncio.timeout(20):
            while not any(one.type == "call.ended" and one.call_id == call_id for one in self.told):
                self.more.clear()
                await self.more.wait()
        return [one for one in self.told if one.call_id == call_id]


class Server(uvicorn.Server):
    """One that tells when it listens, and leaves signals to the test runner."""

    def __init__(self, config):
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self.listens.set()

    def capture_signals(self):
        return contextlib.nullcontext()


@contextlib.asynccontextmanager
async def served(folder, **settings):
    """``settings`` beside those of a test."""
    given = {"data_dir": folder, "ingest_token": TOKEN, "keep_audio": False, "rules_poll_s": 0, **settings}
    told, more = [], asyncio.Event()

    def tell(event):
        told.append(event)
        more.set()

    service = build(
        Settings(_env_file=None, **given),
        lambda *_: None,
        transcriber=ScriptedTranscriber(lambda request: f"{request.seconds:.1f}"),
        on_published=tell,
    )
    web = service.web
    listener = listening_socket("127.0.0.1", 0, "a test")
    server = Server(
        uvicorn.Config(
            web,
            log_config=None,
            access_log=False,
            ws=IngestSockets,
            ws_max_size=64 * 1024,
            ws_per_message_deflate=False,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(20):
            await server.listens.wait()
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", service, told, more, web)
    finally:
        server.should_exit = True
        await serving


class Quick:
    """A clock that runs ``FASTER``."""

    def __init__(self):
        self._began = time.monotonic()

    def __call__(self):
        return (time.monotonic() - self._began) * FASTER


def utterances(events):
    """Role, start and end of what was said, in order."""
    finals = [one.utterance for one in events if one.type == "utterance.final"]
    return [(one.role, one.start_ms, one.end_ms) for one in sorted(finals, key=lambda one: one.start_ms)]


def near(given, expected, slack=300):
    return len(given) == len(expected) and all(
        one[0] == other[0] and np.allclose(one[1:], other[1:], atol=slack)
        for one, other in zip(given, expected, strict=True)
    )
