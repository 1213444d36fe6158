"""The database itself: opening, migrating, refusing, accounts, sessions, audit."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import select

from app.errors import StoreError
from app.store import AccountError, Person, Store
from app.store.sessions import Sessions
from app.store.tables import Base
from app.store.times import written
from tests.app.store_support import PASSWORD, bare_engine, emotion, old_database, open_store, sqlite, started


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = open_store(database_url)
    yield store
    store.close()


# ── opening ───────────────────────────────────────────────────────────────────────────────────────


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(database_url: str, store: Store) -> None:
    engine = bare_engine(database_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_the_migrations_can_be_written_for_postgresql() -> None:
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateTable

    for table in Base.metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=postgresql.dialect()))


def test_a_database_opened_again_keeps_what_it_holds(database_url: str) -> None:
    first = open_store(database_url)
    first.users.add("wang", PASSWORD, "王", "supervisor")
    first.close()
    second = open_store(database_url)
    assert [Person(username="wang", name="王", role="supervisor", teams=("*",))] == second.users.able()
    second.close()


def test_of_many_that_open_an_empty_database_at_once_one_makes_the_tables(database_url: str) -> None:
    together = threading.Barrier(4)

    def open_at_once(_: int) -> Store:
        together.wait(10)
        return Store.open(database_url)

    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(open_at_once, range(4)))
    for number, store in enumerate(stores):
        store.log.append([(started(f"c{number}"), "2026-03-01T08:30:00.125Z")])
    assert stores[0].calls.count_live() == 4
    for store in stores:
        store.close()


def test_a_database_from_before_there_were_feelings_keeps_them_from_now_on(database_url: str) -> None:
    old_database(
        database_url,
        "0002",
        "INSERT INTO calls VALUES ('c1', 1, 'ended', NULL, NULL, '{}', '', NULL, NULL, 9, 0, NULL)",
    )
    store = Store.open(database_url)
    assert store.calls.file("c1").emotions == []  # type: ignore[union-attr]
    store.log.append([(emotion(), "2026-03-01T08:30:00.125Z")])
    [row] = store.calls.file("c1").emotions  # type: ignore[union-attr]
    assert (row.utterance_id, row.media_start_ms) == ("c1:customer:0", 0)
    store.close()


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(database_url: str, store: Store) -> None:
    engine = bare_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match=r"revision 9999.*newer version of Duting"):
        open_store(database_url)
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("SELECT version_num FROM alembic_version")) == "9999"
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "not a database URL"),
        ("postgresql://duting@127.0.0.1:none/duting", "not a database URL"),
        ("postgresql+asyncpg://duting@127.0.0.1/duting", r"begins with postgresql\+asyncpg.*expected sqlite"),
        ("mysql://duting@127.0.0.1/duting", "begins with mysql.*expected sqlite"),
        ("postgresql://127.0.0.1:1/duting", r"refused.*check host and port in DUTING_DATABASE_URL"),
        ("sqlite://", "needs a file"),
        ("sqlite:////proc/no/where.db", "cannot create the database"),
    ],
)
def test_a_database_that_cannot_be_opened_says_why(url: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        Store.open(url)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    path.write_bytes(b"this is a letter to my aunt, not a database" * 50)
    with pytest.raises(StoreError, match="not a database"):
        Store.open(f"sqlite:///{path}")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://duting:hunter2@127.0.0.1:1/none",
        "postgresql://duting:one@hunter2@127.0.0.1:1/none",
        "postgresql://127.0.0.1:1/none?user=duting&password=hunter2",
        "mysql://duting:hunter2@127.0.0.1:1/none",
    ],
)
def test_an_error_never_shows_the_databases_password(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store.open(url)
    assert "hunter2" not in str(caught.value)


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    store = Store.open(sqlite(tmp_path))
    paths = list(tmp_path.glob("test.db*"))
    assert paths
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    store.close()


def test_written_times_sort_like_times() -> None:
    moments = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=step) for step in (0, 5, 1000, 1001)]
    assert sorted(written(moment) for moment in moments) == [written(moment) for moment in moments]
    assert written(moments[0]) == "2026-01-01T00:00:00.000Z"


# ── accounts ──────────────────────────────────────────────────────────────────────────────────────


def test_a_right_password_names_the_person(store: Store) -> None:
    store.users.add("li", PASSWORD, "李", "inspector")
    assert Person(username="li", name="李", role="inspector") == store.users.check("li", PASSWORD)


@pytest.mark.parametrize("attempt", ["", "correct horse 8", PASSWORD + " ", "x" * 5000, "\0"])
def test_a_wrong_password_names_nobody(store: Store, attempt: str) -> None:
    store.users.add("li", PASSWORD, "李", "inspector")
    assert store.users.check("li", attempt) is None
    assert store.users.check("nobody", attempt) is None


@pytest.mark.parametrize("name", ["\0", "l\0i", "li\0", "\ud800", "li\udfff", "li' OR '1'='1"])
def test_a_name_that_no_account_can_have_names_nobody(store: Store, name: str) -> None:
    store.users.add("li", PASSWORD, "李", "inspector")
    assert store.users.check(name, PASSWORD) is None
    assert store.calls.file(name) is None
    assert store.calls.alert(name) is None
    assert not store.calls.known(name)
    assert store.audit.about(name) == []


@pytest.mark.parametrize(
    ("account", "words"),
    [
        (("li", PASSWORD, "李", "supervisor"), "already"),
        (("zhao", "short", "赵", "supervisor"), "10 to 256 characters; this one has 5"),
        (("zhao", "aaaaaaaaaaaa", "赵", "supervisor"), "guessed"),
        (("zhaozhaozhao", "zhaozhaoZHAO", "赵", "supervisor"), "guessed"),
        (("zhao", PASSWORD, "赵", "boss"), "no role 'boss'; the roles are agent, supervisor"),
        (("zh ao", PASSWORD, "赵", "agent"), "no space"),
        (("", PASSWORD, "赵", "agent"), "1 to 64"),
        (("zhao", PASSWORD, " ", "agent"), "1 to 128"),
    ],
)
def test_an_account_that_cannot_be_made_says_what_is_wrong(
    store: Store, account: tuple[str, str, str, str], words: str
) -> None:
    store.users.add("li", PASSWORD, "李", "inspector")
    with pytest.raises(AccountError, match=words):
        store.users.add(*account)
    assert [person.username for person in store.users.able()] == ["li"]


def test_ensuring_an_account_twice_changes_it_to_the_last_wish(store: Store) -> None:
    store.users.ensure("demo", PASSWORD, "演示", "supervisor")
    store.users.ensure("demo", "another password", "演示员", "inspector")
    assert store.users.check("demo", PASSWORD) is None
    assert Person(username="demo", name="演示员", role="inspector") == store.users.check(
        "demo", "another password"
    )


# ── sessions ──────────────────────────────────────────────────────────────────────────────────────


def test_a_token_names_its_person_until_it_is_revoked(store: Store) -> None:
    store.users.add("li", PASSWORD, "李", "inspector")
    token = store.sessions.open("li", timedelta(hours=1))
    assert store.sessions.person(token).username == "li"  # type: ignore[union-attr]
    assert store.sessions.person(token[:-1]) is None
    store.sessions.revoke(token)
    assert store.sessions.person(token) is None


def test_a_token_expires(store: Store) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    sessions = Sessions(store, clock=lambda: moment)
    store.users.add("li", PASSWORD, "李", "inspector")
    token = sessions.open("li", timedelta(hours=1))
    moment += timedelta(minutes=59)
    assert sessions.person(token) is not None
    moment += timedelta(minutes=1)
    assert sessions.person(token) is None


def test_the_store_holds_no_token(store: Store) -> None:
    store.users.add("li", PASSWORD, "李", "inspector")
    token = store.sessions.open("li", timedelta(hours=1))
    with store.reading() as session:
        tables = [session.execute(select(table)).all() for table in Base.metadata.sorted_tables]
    held = str(tables)
    assert "李" in held
    assert token not in held
    assert PASSWORD not in held


def test_a_new_password_logs_out_everywhere(store: Store) -> None:
    store.users.add("li", PASSWORD, "李", "inspector")
    token = store.sessions.open("li", timedelta(hours=1))
    store.users.set_password("li", "another password")
    assert store.sessions.person(token) is None


def test_the_audit_tells_who_read_what_last_first(store: Store) -> None:
    store.audit.record("li", "call.read", "c1", "10.0.0.1")
    store.audit.record("wang", "call.audio", "c1", "10.0.0.2")
    store.audit.record("wang", "call.read", "c2", "10.0.0.2")
    assert [(entry.username, entry.action, entry.address) for entry in store.audit.about("c1")] == [
        ("wang", "call.audio", "10.0.0.2"),
        ("li", "call.read", "10.0.0.1"),
    ]
