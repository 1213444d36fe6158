"""PostgreSQL itself: several gateways on one log, waits that end, refusals that say what to do, crashes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select

import psycopg
import pytest
import sqlalchemy
from psycopg import errors
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.errors import StoreError
from app.outlet import LocalOutlet
from app.store import Store
from app.store.postgres import APPENDING, CONNECTIONS_MOST, TRIMMING, advice
from app.store.trouble import is_outage
from streams.events import Gap
from streams.outbox import Outbox
from tests.app.store_support import EVENTS_KEPT, alert, ended, marker, open_store, said, started
from tests.services import Server

ROOT = Path(__file__).parents[2]
AT = "2026-03-01T08:30:00.125Z"


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    store = open_store(postgres_url)
    yield store
    store.close()


def admin(url: str) -> psycopg.Connection:
    return psycopg.connect(url, autocommit=True, connect_timeout=10)


def until(done: Callable[[], object], seconds: float = 10) -> None:
    """Ask a real server again and again."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s"


# ── several gateways ──────────────────────────────────────────────────────────────────────────────

WRITER = """
    import sys
    from app.store import Store
    from tests.app.store_support import alert, said, started

    url, name, batches = sys.argv[1], sys.argv[2], int(sys.argv[3])
    store = Store.open(url)
    print("ready", flush=True)
    sys.stdin.readline()
    at = "2026-03-01T08:30:00.125Z"
    for n in range(batches):
        call = f"{name}-{n // 20}"
        events = [started(call), said(n * 1000, call_id=call), alert(n, call, id=f"{name}-{n}")]
        for told in store.log.append([(event, at) for event in events]):
            for item in told:
                print(item.published.cursor, flush=True)
"""


def test_several_processes_write_one_log_without_holes_in_the_order_of_their_commits(
    postgres_url: str, store: Store
) -> None:
    writers, batches = 3, 100
    each = 2 * batches + batches // 20
    command = [sys.executable, "-c", textwrap.dedent(WRITER), postgres_url]
    processes = [
        subprocess.Popen(
            [*command, f"gateway{number}", str(batches)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for number in range(writers)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        # A reader that follows the log never sees a cursor before one that is smaller.
        followed = 0
        deadline = time.monotonic() + 120
        while followed < writers * each and not any(process.poll() for process in processes):
            assert time.monotonic() < deadline, f"{followed} of {writers * each}"
            for item in store.log.read(followed, 10**9, 500):
                assert item.published.cursor == followed + 1
                followed += 1
        told = [[int(line) for line in process.communicate(timeout=30)[0].split()] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * writers
    assert all(cursors == sorted(cursors) for cursors in told)
    assert sorted(cursor for cursors in told for cursor in cursors) == list(range(1, writers * each + 1))
    assert store.log.bounds() == (1, writers * each)
    assert len(store.calls.floor("", 10**6).alerts) == writers * batches


def test_the_same_events_of_two_processes_are_stored_once(postgres_url: str, store: Store) -> None:
    other = open_store(postgres_url)
    events = [(started(), AT), *((said(n), AT) for n in range(50)), *((alert(n), AT) for n in range(50))]
    told: list[int] = []
    together = threading.Barrier(2)

    def append(into: Store) -> None:
        together.wait(10)
        for event in events:
            told.extend(item.published.cursor for each in into.log.append([event]) for item in each)

    threads = [threading.Thread(target=append, args=(into,)) for into in (store, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(told) == list(range(1, 102))
    other.close()


def test_the_newest_event_is_never_trimmed(store: Store) -> None:
    store.log.append([(started(), AT), *((said(n), AT) for n in range(9))])
    store.log.trim(7)
    assert store.log.bounds() == (8, 10)
    store.log.trim(10**9)
    assert store.log.bounds() == (10, 10)
    store.log.append([(said(100), AT)])
    assert store.log.bounds() == (10, 11)


def test_while_one_process_trims_the_others_go_on(postgres_url: str, store: Store) -> None:
    store.log.append([(started(), AT), *((said(n), AT) for n in range(9))])
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (TRIMMING,))
        store.log.trim(5)
        assert store.log.bounds() == (1, 10)
        store.log.append([(said(100), AT)])
    store.log.trim(5)
    assert store.log.bounds() == (6, 11)


# ── waits that end ────────────────────────────────────────────────────────────────────────────────


def settings_of(store: Store) -> dict[str, str]:
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "application_name")
    with store.reading() as session:
        return {name: str(session.scalar(sqlalchemy.text(f"SHOW {name}"))) for name in names}


def test_every_wait_of_a_connection_has_an_end_and_the_url_may_say_another(
    postgres_url: str, store: Store
) -> None:
    assert settings_of(store) == {
        "lock_timeout": "10s",
        "statement_timeout": "1min",
        "idle_in_transaction_session_timeout": "1min",
        "application_name": "duting",
    }
    other = Store.open(
        f"{postgres_url}?application_name=night&options=-c%20lock_timeout%3D70ms&keepalives_idle=5"
    )
    assert settings_of(other) == {
        "lock_timeout": "70ms",
        "statement_timeout": "1min",
        "idle_in_transaction_session_timeout": "1min",
        "application_name": "night",
    }
    other.close()


async def test_a_process_that_holds_the_log_for_too_long_is_no_reason_to_lose_anything(
    postgres_url: str,
) -> None:
    store = Store.open(f"{postgres_url}?options=-c%20lock_timeout%3D100ms")
    outlet = LocalOutlet(store, events_kept=EVENTS_KEPT)
    await outlet.start()
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (APPENDING,))
        with pytest.raises(StoreError, match="lock timeout"):
            await outlet.append([started()])
    assert [event.type for event in await outlet.append([started()])] == ["call.started"]
    await outlet.stop()
    store.close()


async def test_more_who_ask_than_there_are_connections_wait_and_are_then_refused_without_loss(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.postgres.POOL_TIMEOUT_S", 0.1)
    store = Store.open(postgres_url)
    outlet = LocalOutlet(store, events_kept=EVENTS_KEPT)
    await outlet.start()
    held = [store._engine.connect() for _ in range(CONNECTIONS_MOST)]
    with pytest.raises(StoreError, match="refused"):
        await outlet.append([started()])
    for connection in held:
        connection.close()
    assert [event.type for event in await outlet.append([started()])] == ["call.started"]
    await outlet.stop()
    store.close()


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


# ── refusals ──────────────────────────────────────────────────────────────────────────────────────


def refusal(url: str) -> str:
    with pytest.raises(StoreError) as caught:
        Store.open(url)
    words = str(caught.value)
    assert "\n" not in words
    return words


def test_a_database_that_is_not_there_is_named_and_how_to_make_it(postgres_url: str) -> None:
    words = refusal(postgres_url.rpartition("/")[0] + "/nowhere")
    assert 'database "nowhere" does not exist' in words
    assert "CREATE DATABASE" in words


def test_a_wrong_password_says_where_to_look_and_shows_none(own_postgres: Server) -> None:
    with admin(own_postgres.url) as server:
        server.execute("ALTER USER duting PASSWORD 'right'")
        [hba] = server.execute("SHOW hba_file").fetchone() or ()
        Path(hba).write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        server.execute("SELECT pg_reload_conf()")
    url = own_postgres.url.replace("duting@", "duting:{}@", 1)

    def refused() -> bool:
        """Whether the server has read its new rules."""
        try:
            admin(own_postgres.url).close()
        except psycopg.OperationalError:
            return True
        return False

    until(refused)
    words = refusal(url.format("mistaken"))
    assert "password authentication failed" in words
    assert "check user and password in DUTING_DATABASE_URL" in words
    assert "mistaken" not in words
    assert "check user and password" in refusal(own_postgres.url)
    Store.open(url.format("right")).close()


def test_an_account_that_may_make_no_tables_is_told_so(postgres_url: str) -> None:
    with admin(postgres_url) as server:
        server.execute("DROP ROLE IF EXISTS guest")
        server.execute("CREATE ROLE guest LOGIN")
    words = refusal(postgres_url.replace("duting@", "guest@", 1))
    with admin(postgres_url) as server:
        server.execute("DROP ROLE guest")
    assert "permission denied" in words
    assert "ALTER DATABASE" in words


def test_a_database_that_cannot_hold_every_character_is_refused(postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2] + "_latin"
    with admin(postgres_url) as server:
        server.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        words = refusal(postgres_url.rpartition("/")[0] + f"/{name}")
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert "encoding is LATIN1" in words
    assert "ENCODING 'UTF8'" in words


@pytest.mark.parametrize(
    ("words", "todo"),
    [
        ('failed to resolve host "nowhere": Name or service not known', "host and port"),
        ("connection timeout expired", "host and port"),
        ('no pg_hba.conf entry for host "10.0.0.1", user "duting"', "pg_hba.conf"),
        ("cannot execute CREATE TABLE in a read-only transaction", "standby"),
        ("sorry, too many clients already", "max_connections"),
        ("the database system is starting up", "again in a moment"),
        ("口令认证失败", "host, port, user, password"),
    ],
)
def test_a_refusal_comes_with_what_to_do(words: str, todo: str) -> None:
    assert todo in advice(words)


OUTAGES = (
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.QueryCanceled,
    errors.LockNotAvailable,
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.DiskFull,
    errors.OutOfMemory,
    errors.TooManyConnections,
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,
    errors.InsufficientPrivilege,
    errors.UndefinedTable,
    psycopg.OperationalError,
    psycopg.InterfaceError,
)
FAULTS = (
    errors.UniqueViolation,
    errors.ForeignKeyViolation,
    errors.NotNullViolation,
    errors.NumericValueOutOfRange,
    errors.CharacterNotInRepertoire,
    errors.ProgramLimitExceeded,
    psycopg.DataError,
)


@pytest.mark.parametrize("kind", [*OUTAGES, *FAULTS], ids=lambda kind: kind.__name__)
def test_a_database_in_trouble_is_told_from_an_event_that_it_cannot_hold(kind: type[psycopg.Error]) -> None:
    from sqlalchemy.dialects.postgresql.psycopg import dialect

    wrapped = DBAPIError.instance("", {}, kind("words"), psycopg.Error, dialect=dialect())
    error = StoreError("the database refused")
    error.__cause__ = wrapped
    assert is_outage(error) == (kind in OUTAGES)


async def test_an_id_longer_than_an_index_takes_harms_no_other_event(store: Store) -> None:
    outlet = LocalOutlet(store, events_kept=EVENTS_KEPT)
    await outlet.start()
    endless = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(5000))
    told = await asyncio.gather(*(outlet.append([started(call)]) for call in ("a", endless, "b")))
    assert [len(published) for published in told] == [1, 0, 1]
    await outlet.stop()


async def test_a_database_that_may_only_be_read_for_a_while_loses_nothing(
    postgres_url: str, store: Store
) -> None:
    outlet = LocalOutlet(store, events_kept=EVENTS_KEPT)
    await outlet.start()
    name = postgres_url.rpartition("/")[2]

    def allow(writes: bool) -> None:
        with admin(postgres_url) as server:
            server.execute("SET default_transaction_read_only = off")
            server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {not writes}")
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'duting' AND datname = current_database()"
            )

    allow(writes=False)
    with pytest.raises(StoreError, match="read-only"):
        await outlet.append([started(), said()])
    allow(writes=True)
    assert len(await outlet.append([started(), said()])) == 2
    await outlet.stop()


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
    outlet = LocalOutlet(store, events_kept=EVENTS_KEPT)
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
