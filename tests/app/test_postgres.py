"""PostgreSQL itself: several gateways on one log, waits that end, refusals that say what to do."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
from psycopg import errors
from sqlalchemy.exc import DBAPIError

from app.errors import StoreError
from app.outlet import LocalOutlet
from app.rights import EVERYTHING
from app.store import Store
from app.store.postgres import APPENDING, CONNECTIONS_MOST, TRIMMING, advice
from app.store.trouble import is_outage
from tests.app.store_support import EVENTS_KEPT, alert, open_store, said, started, until
from tests.services import Server, admin

ROOT = Path(__file__).parents[2]
AT = "2026-03-01T08:30:00.125Z"


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    store = open_store(postgres_url)
    yield store
    store.close()


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
    assert len(store.calls.floor("", 10**6, EVERYTHING).alerts) == writers * batches


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
