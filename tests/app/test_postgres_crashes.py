"""A PostgreSQL that crashes, loses its connections, or says nothing any more: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from select import select

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from app.errors import StoreError
from app.outlet import LocalOutlet
from app.store import Store
from app.store.trouble import is_outage
from streams.events import Gap
from streams.outbox import Outbox
from tests.app.store_support import alert, ended, marker, open_store, said, started, until
from tests.services import Server, admin

AT = "2026-03-01T08:30:00.125Z"


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    store = open_store(postgres_url)
    yield store
    store.close()


# ── silence ───────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process of the server that does nothing any more, as when its disk hangs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def backend(session: Session) -> int:
    return int(session.scalar(sqlalchemy.text("SELECT pg_backend_pid()")) or 0)


def test_a_connection_that_says_nothing_any_more_is_given_up_for_another(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.postgres.PING_S", 0.1)
    with store.reading() as session:
        pid = backend(session)
    with stopped(pid):
        assert len(store.log.append([(started(), AT)])[0]) == 1


def test_a_transaction_in_which_the_server_stops_is_ended_from_this_side(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.postgres.TRANSACTION_S", 0.1)

    def stop_in_between() -> None:
        with store.writing() as session, stopped(backend(session)):
            session.execute(sqlalchemy.text("INSERT INTO events VALUES (1, '', NULL, '', '')"))

    with pytest.raises(StoreError) as caught:
        stop_in_between()
    assert is_outage(caught.value)
    monkeypatch.undo()
    assert len(store.log.append([(started(), AT)])[0]) == 1


# ── crashes ───────────────────────────────────────────────────────────────────────────────────────


def test_a_connection_that_is_lost_within_a_transaction_takes_all_of_it_back(
    postgres_url: str, store: Store
) -> None:
    def write_and_be_cut_off(server: psycopg.Connection) -> None:
        with store.writing() as session:
            session.execute(sqlalchemy.text("INSERT INTO events VALUES (1, '', NULL, '', '')"))
            pid = session.scalar(sqlalchemy.text("SELECT pg_backend_pid()"))
            server.execute("SELECT pg_terminate_backend(%s)", (pid,))
            there = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
            until(lambda: server.execute(there, (pid,)).fetchone() is None)

    with admin(postgres_url) as server, pytest.raises(StoreError, match="refused"):
        write_and_be_cut_off(server)
    assert store.log.bounds() == (1, 0)
    assert len(store.log.append([(started(), AT)])[0]) == 1


class CutOff:
    """A way to the server on which one commit arrives and its answer does not.

    It cuts its connections once the server has answered the first COMMIT after ``armed`` was set.
    """

    def __init__(self, url: str) -> None:
        self._target = int(url.partition("@")[2].partition(":")[2].partition("/")[0])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = url.replace(f":{self._target}/", f":{self._listener.getsockname()[1]}/")
        self.armed = False
        self.cut = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        doomed = False
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            while True:
                for ready in select([client, server], [], [])[0]:
                    data = ready.recv(65536)
                    if ready is client:
                        if self.armed and b"COMMIT" in data:
                            self.armed, doomed = False, True
                    elif doomed:
                        self.cut += 1
                        return
                    if not data:
                        return
                    (server if ready is client else client).sendall(data)


def test_a_commit_whose_answer_is_lost_counts_as_done(postgres_url: str) -> None:
    way = CutOff(postgres_url)
    store = Store.open(way.url)
    store.log.append([(started(), AT)])
    gap = Gap(call_id="c1", channel="agent", media_ms=950, duration_ms=40, reason="missing")
    way.armed = True
    events = [started("c2"), said(0, call_id="c2"), ended("c2"), gap]
    told = store.log.append([(event, AT) for event in events])
    assert way.cut == 1
    assert [[item.published.cursor for item in each] for each in told] == [[2], [3], [4], []]
    assert store.log.bounds() == (1, 4)
    assert store.calls.file("c1").call.gap_ms == 40  # type: ignore[union-attr]
    store.close()
    way.close()


async def test_a_server_that_crashes_twice_among_events_loses_none_and_keeps_none_twice(
    own_postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It comes back only after the writer has given up.
    monkeypatch.setattr("app.store.log.SETTLE_S", 1.0)
    store = Store.open(own_postgres.url)
    # How many events there will be is a matter of how long the server takes.
    outlet = LocalOutlet(store, events_kept=10**6)
    await outlet.start()
    failures = Counter[str]()

    async def emit(events: object) -> None:
        try:
            await outlet.append(events)  # type: ignore[arg-type]
        except StoreError:
            failures["refused"] += 1
            raise

    outbox = Outbox(emit, time.monotonic)
    delivering = asyncio.create_task(outbox.deliver())
    subscription = outlet.subscribe(0)

    async def listen() -> list[int | None]:
        return [event.published and event.published.cursor async for event in subscription]

    listening = asyncio.create_task(listen())
    total = 0

    async def post_until(done: Callable[[], bool]) -> None:
        nonlocal total
        async with asyncio.timeout(60):
            while not done():
                outbox.post([said(total * 1000), alert(total), marker(total)])
                total += 1
                await asyncio.sleep(0.002)  # the server does the work meanwhile

    outbox.post([started()])
    for crash in (1, 2):
        seen = outlet.head
        await post_until(lambda seen=seen: outlet.head > seen + 50)
        killing = asyncio.create_task(asyncio.to_thread(own_postgres.kill))
        await post_until(lambda crash=crash, killing=killing: killing.done() and failures["refused"] >= crash)
        starting = asyncio.create_task(asyncio.to_thread(own_postgres.start))
        await post_until(starting.done)
        await starting
    outbox.post([ended(media_ms=10**9)])
    async with asyncio.timeout(60):
        await outbox.flush()
    delivering.cancel()
    await outlet.stop()

    expected = 2 + 3 * total
    assert await listening == list(range(1, expected + 1))
    assert store.log.bounds() == (1, expected)
    kinds = Counter(item.published.type for item in store.log.read(0, expected, expected))
    assert kinds == {
        "call.started": 1,
        "utterance.final": total,
        "alert.raised": total,
        "marker.added": total,
        "call.ended": 1,
    }
    file = store.calls.file("c1")
    assert file is not None
    assert (len(file.utterances), len(file.alerts), len(file.markers)) == (total, total, total)
    assert failures["refused"] >= 2
    store.close()
