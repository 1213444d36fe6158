"""The writer of the event log: what comes together is one commit, what comes alone waits for nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import app.writer as writer_module
from app.outlet import LocalOutlet
from app.store import Store
from tests.app.store_support import EVENTS_KEPT, open_store, sqlite, started

LONG_S = 3600.0
"""Nobody waits for such a pause to be over."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(sqlite(tmp_path))
    yield store
    store.close()


@pytest.fixture
async def outlet(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalOutlet]:
    monkeypatch.setattr(writer_module, "GATHER_S", LONG_S)
    outlet = LocalOutlet(store, events_kept=EVENTS_KEPT)
    await outlet.start()
    yield outlet
    await outlet.stop()


class Commits:
    """How many events each commit held; the first one ends when it is let."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.begun, self.let = threading.Event(), threading.Event()
        append = store.log.append

        def counted(batch: Any) -> Any:
            self.sizes.append(len(batch))
            self.begun.set()
            assert self.let.wait(20)
            return append(batch)

        monkeypatch.setattr(store.log, "append", counted)


def appends(outlet: LocalOutlet, *call_ids: str) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(outlet.append([started(call_id)])) for call_id in call_ids]


async def burst(outlet: LocalOutlet, commits: Commits) -> None:
    """One event, and while it is committed two more: from then on the writer gathers."""
    first = appends(outlet, "a")
    await asyncio.to_thread(commits.begun.wait, 20)
    behind = appends(outlet, "b", "c")
    await asyncio.sleep(0)
    commits.let.set()
    await asyncio.gather(*first, *behind)
    assert commits.sizes == [1, 2]


async def test_what_comes_alone_is_committed_at_once(outlet: LocalOutlet) -> None:
    async with asyncio.timeout(20):
        for number in range(5):
            await outlet.append([started(f"c{number}")])


async def test_what_comes_soon_after_several_is_gathered_and_the_stop_waits_for_no_pause(
    store: Store, outlet: LocalOutlet, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = Commits(store, monkeypatch)
    async with asyncio.timeout(20):
        await burst(outlet, commits)
        more = appends(outlet, "d", "e", "f")
        await asyncio.sleep(0)
        assert commits.sizes == [1, 2]
        await outlet.stop()
        await asyncio.gather(*more)
    assert commits.sizes == [1, 2, 3]
    assert {call_id for call_id, _ in store.calls.live()} == {"a", "b", "c", "d", "e", "f"}


async def test_enough_for_a_commit_ends_the_pause(
    store: Store, outlet: LocalOutlet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "EVENTS_PER_COMMIT", 3)
    commits = Commits(store, monkeypatch)
    async with asyncio.timeout(20):
        await burst(outlet, commits)
        await asyncio.gather(*appends(outlet, "d", "e", "f"))
    assert commits.sizes == [1, 2, 3]


async def test_when_the_pause_is_over_what_came_is_committed(
    store: Store, outlet: LocalOutlet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "GATHER_S", 0.01)
    commits = Commits(store, monkeypatch)
    async with asyncio.timeout(20):
        await burst(outlet, commits)
        await asyncio.gather(*appends(outlet, "d"))
    assert sum(commits.sizes) == 4
