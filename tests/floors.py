"""The service in a thread of its own, for browsers, which are driven by calls that block; only the speech is
left out."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.api.people import COOKIE
from app.api.static import FOLDER
from tests.app.ingest.served import served
from tests.app.store_support import started

PASSWORD = "correct horse 9"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LOADED = """
() => document.querySelector('main h1, main h2, main [role=alert]')
  && !document.querySelector('[aria-busy=true], .el-skeleton')
"""
"""A page shows what it is about."""
SCREEN = {"width": 1366, "height": 768}


@dataclass
class Floor:
    address: str
    service: Any
    loop: asyncio.AbstractEventLoop
    web: FastAPI

    def append(self, *events: Any) -> None:
        asyncio.run_coroutine_threadsafe(self.service.outlet.append(events), self.loop).result(20)

    def call(self, call_id: str, *alerts: Any) -> None:
        """A call with alerts that were raised just now."""
        self.append(started(call_id, agent="8001", queue="理财专线"), *alerts)

    def session(self, person: str) -> httpx.Client:
        client = httpx.Client(base_url=self.address, headers={"X-Duting": "1"})
        answer = client.post("/api/session", json={"username": person, "password": PASSWORD})
        assert answer.status_code == 200
        return client

    def cookie(self, person: str) -> dict[str, Any]:
        """Of somebody who is logged in, for a browser's context: without the page for it."""
        token = self.service.store.sessions.open(person, timedelta(hours=1))
        return {"name": COOKIE, "value": token, "url": self.address}


@contextlib.contextmanager
def floor_for(folder: Path, people: Mapping[str, str], **settings: Any) -> Iterator[Floor]:
    """``people``: accounts and their roles; ``settings`` beside those of a test."""
    if not (FOLDER / "index.html").exists():
        pytest.skip("the dashboard is not built: run `make dashboard`")
    ready, over, found = threading.Event(), asyncio.Event(), []

    async def serve() -> None:
        async with served(folder, **settings) as running:
            for person, role in people.items():
                teams = ("*",) if role == "administrator" else None
                running.service.store.users.ensure(person, PASSWORD, f"{person}主管", role, teams)
            found.append(Floor(running.address, running.service, asyncio.get_running_loop(), running.web))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield found[0]
    finally:
        found[0].loop.call_soon_threadsafe(over.set)
        thread.join(30)


@contextlib.contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """A browser, for as long as the block lasts."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=[*FLAGS, *flags])
        yield started
        started.close()
