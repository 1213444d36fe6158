"""The event log of one process: what a crash or a lost connection leaves behind, what others write."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import app.writer as writer_module
from app.errors import StoreError
from app.outlet import LocalOutlet
from app.store import Store
from tests.app.outlet_support import types
from tests.app.store_support import EVENTS_KEPT, alert, ended, marker, open_store, said, started


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = open_store(database_url)
    yield store
    store.close()


@pytest.fixture
async def outlet(store: Store) -> AsyncIterator[LocalOutlet]:
    outlet = LocalOutlet(store, events_kept=EVENTS_KEPT)
    await outlet.start()
    yield outlet
    await outlet.stop()


async def test_a_commit_whose_end_nobody_saw_is_stored_once_and_told_once(
    outlet: LocalOutlet, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    append = store.log.append

    def cut_off(batch: Any) -> None:
        append(batch)
        raise StoreError("the connection was lost") from OperationalError("", {}, Exception())

    await outlet.append([started()])
    with outlet.subscribe(None) as subscription:
        with monkeypatch.context() as patch:
            patch.setattr(store.log, "append", cut_off)
            with pytest.raises(StoreError, match="connection was lost"):
                await outlet.append([said(), alert()])
        assert await subscription.take(timeout_s=0) == []
        # The outbox gives the same again, and more. What was stored is told before what is new.
        assert types(await outlet.append([said(), alert(), marker()])) == ["marker.added"]
        heard = [envelope.published for envelope in await subscription.take(timeout_s=5)]
        assert types(heard) == ["utterance.final", "alert.raised", "marker.added"]  # type: ignore[arg-type]
        assert [event.cursor for event in heard if event] == [2, 3, 4]
        with monkeypatch.context() as patch:
            patch.setattr(store.log, "append", cut_off)
            with pytest.raises(StoreError):
                await outlet.append([alert(2)])
        assert await outlet.append([alert(2)]) == []
        assert [
            envelope.published.cursor
            for envelope in await subscription.take(timeout_s=5)
            if envelope.published
        ] == [5]
        assert await outlet.append([alert(2)]) == []
        assert await subscription.take(timeout_s=0) == []


async def test_what_others_write_into_the_log_is_told_in_its_order(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = open_store(database_url), open_store(database_url)
    one = LocalOutlet(first, events_kept=EVENTS_KEPT)
    two = LocalOutlet(second, events_kept=EVENTS_KEPT)
    await one.start()
    await two.start()
    with one.subscribe(0) as subscription:
        await one.append([started("a")])
        await two.append([started("b"), said(0, call_id="b")])
        assert [event.cursor for event in await one.append([said(0, call_id="a")])] == [4]
        heard = [
            envelope.published for envelope in await subscription.take(timeout_s=5) if envelope.published
        ]
        assert [(event.cursor, event.call_id) for event in heard] == [(1, "a"), (2, "b"), (3, "b"), (4, "a")]
        # More than is held in memory: the present state says it all.
        monkeypatch.setattr(writer_module, "EVENTS_PER_COMMIT", 10)
        for n in range(1, 20):
            await two.append([said(n, call_id="b")])
        await one.append([said(1, call_id="a")])
        heard = [envelope.published for envelope in await subscription.take(timeout_s=5)]
        assert [event and event.cursor for event in heard] == [None, 24]
    await asyncio.gather(one.stop(), two.stop())
    assert first.log.bounds() == (1, 24)
    first.close()
    second.close()


async def test_calls_that_a_crash_left_open_end_as_interrupted(store: Store) -> None:
    first = LocalOutlet(store, events_kept=EVENTS_KEPT)
    await first.start()
    await first.append([started(), said(4000), started("c2"), ended("c2")])
    await first.stop()
    second = LocalOutlet(store, events_kept=EVENTS_KEPT)
    await second.start()
    with second.subscribe(4) as subscription:
        (envelope,) = await subscription.take()
    assert envelope.published is not None
    assert (
        envelope.published.type,
        envelope.published.call_id,
        envelope.published.reason,
        envelope.published.media_ms,
    ) == ("call.ended", "c1", "interrupted", 4800)
    assert store.calls.live() == []
    await second.stop()


CRASHING = """
    import asyncio, os, signal, sys
    from app.outlet import LocalOutlet
    from tests.app.store_support import alert, open_store, said, started

    async def main():
        outlet = LocalOutlet(open_store(sys.argv[1]), events_kept=5000)
        await outlet.start()
        await outlet.append([started()])

        async def one(n):
            for event in (said(n * 1000), alert(n)):
                for published in await outlet.append([event]):
                    os.write(1, f"{published.cursor} {published.type}\\n".encode())
            if n == 150:
                os.kill(os.getpid(), signal.SIGKILL)

        await asyncio.gather(*(one(n) for n in range(300)))

    asyncio.run(main())
"""


async def test_a_killed_server_holds_everything_that_it_acknowledged(database_url: str) -> None:
    done = subprocess.run(  # noqa: ASYNC221 - nothing else runs meanwhile
        [sys.executable, "-c", textwrap.dedent(CRASHING), database_url],
        capture_output=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    acknowledged = dict(line.split() for line in done.stdout.decode().splitlines())
    assert acknowledged
    store = open_store(database_url)
    held = {str(item.published.cursor): item.published.type for item in store.log.read(0, 10**6, 10**6)}
    assert acknowledged.items() <= held.items()
    file = store.calls.file("c1")
    assert file is not None
    assert sum(kind == "alert.raised" for kind in held.values()) == len(file.alerts)
    assert sum(kind == "utterance.final" for kind in held.values()) == len(file.utterances)
    store.close()
