"""Opening the database: engine, migrations, transactions. Synchronous; the edges call it in threads."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

from app.errors import StoreError
from app.store import postgres
from app.store.alerts import Alerts
from app.store.audit import Audit
from app.store.beside import Beside
from app.store.calls import Calls
from app.store.desk import Desk
from app.store.drafts import Drafts
from app.store.log import Log
from app.store.publications import Publications
from app.store.rule_trials import RuleTrials
from app.store.rules import Rules
from app.store.sessions import Sessions
from app.store.tokens import Tokens
from app.store.users import Users
from app.store.watchdog import Watchdog

MIGRATIONS = Path(__file__).parent / "migrations"

BUSY_TIMEOUT_MS = 10_000
"""How long SQLite waits for another process's write (a command that adds a user) before it gives up."""

SQLITE_ADVICE = (
    "check DUTING_DATABASE_URL or DUTING_DATA_DIR, that the place exists, is writable and has room"
)
EXPECTED = "expected sqlite:////path/to/file.db or postgresql://user:password@host/name"


class Store:
    """The database with its repositories, each named by what it holds.

    Safe to use from many threads; on PostgreSQL also from many processes at once. Every method may raise
    ``StoreError``. ``writing()`` transactions are short: on SQLite one excludes all others.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._watchdog = Watchdog()
        if engine.dialect.name == "postgresql":
            # The pool's question whether a connection is alive is asked before anybody here has it.
            ping = engine.dialect.do_ping
            engine.dialect.do_ping = lambda connection: self._ping(ping, connection)  # type: ignore[method-assign, assignment]
        self.log = Log(self)
        self.calls = Calls(self)
        self.alerts = Alerts(self)
        self.desk = Desk(self)
        self.users = Users(self)
        self.sessions = Sessions(self)
        self.tokens = Tokens(self)
        self.audit = Audit(self)
        self.beside = Beside(self)
        self.rules = Rules(self)
        self.drafts = Drafts(self)
        self.publications = Publications(self)
        self.rule_trials = RuleTrials(self)

    @classmethod
    def open(cls, url: str) -> Store:
        """Connect, and bring the schema to what this version knows.

        Of several processes that open a PostgreSQL database at the same time one brings it up to date, the
        others wait. Raises ``StoreError`` when the database cannot be reached, when it does not let us in, or
        when it was written by a newer version.
        """
        address = _address(url)
        # Without the query: it may hold a password too.
        plain = address.set(query={}, drivername=address.get_backend_name())
        shown = plain.render_as_string(hide_password=True)
        try:
            engine = _engine(address)
        except ImportError as error:
            raise StoreError(
                f"psycopg, which speaks to PostgreSQL, cannot be loaded ({error}); it comes with Duting: "
                "install what requirements.lock names again"
            ) from None
        try:
            with engine.connect() as connection:
                _migrate(connection, shown)
        except SQLAlchemyError as error:
            engine.dispose()
            cause = _cause(error)
            advice = postgres.advice(cause) if engine.dialect.name == "postgresql" else SQLITE_ADVICE
            raise StoreError(f"cannot open the database {shown}: {cause}; {advice}") from error
        except StoreError:
            engine.dispose()
            raise
        return cls(engine)

    @property
    def url(self) -> str:
        """Where it is, for a process of ours that opens it too; may hold a password."""
        return self._engine.url.render_as_string(hide_password=False)

    def close(self) -> None:
        """Close all connections. On SQLite, the last one folds the write-ahead log into the file."""
        self._engine.dispose()
        self._watchdog.close()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One unchanging view of everything: what two queries see belongs together."""
        with self._session(duting_write=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction; committed when the block ends, rolled back when it raises."""
        with self._session(duting_write=True) as session:
            yield session
            session.commit()

    @contextmanager
    def _session(self, **options: Any) -> Iterator[Session]:
        try:
            if self._engine.dialect.name == "postgresql" and not options["duting_write"]:
                options["isolation_level"] = "REPEATABLE READ"
            with (
                self._engine.connect().execution_options(**options) as connection,
                self._bounded(connection),
                Session(connection, expire_on_commit=False, autoflush=False) as session,
            ):
                yield session
        except SQLAlchemyError as error:
            raise StoreError(f"the database refused: {_cause(error)}") from error

    def _bounded(self, connection: Connection) -> AbstractContextManager[None]:
        if self._engine.dialect.name != "postgresql":
            return nullcontext()
        return self._watchdog.within(connection.connection.dbapi_connection, postgres.TRANSACTION_S)

    def _ping(self, ping: Callable[[Any], bool], connection: Any) -> bool:
        with self._watchdog.within(connection, postgres.PING_S):
            return ping(connection)


def _address(url: str) -> URL:
    try:
        address = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise StoreError(f"DUTING_DATABASE_URL is not a database URL; {EXPECTED}") from None
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    if address.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise StoreError(f"DUTING_DATABASE_URL begins with {address.drivername}://; {EXPECTED}")
    if address.get_backend_name() == "sqlite" and address.database in (None, "", ":memory:"):
        raise StoreError("SQLite needs a file (sqlite:////path/to/file.db): in memory, nothing would be kept")
    if "@" in (address.host or ""):  # what looks like the host holds the end of a password
        raise StoreError(
            "DUTING_DATABASE_URL holds more than one @; in a user name or a password write it as %40"
        )
    return address


def _engine(address: URL) -> Engine:
    # Parameters hold what people said; they must not reach an error message or a log.
    if address.get_backend_name() == "postgresql":
        return sqlalchemy.create_engine(address, hide_parameters=True, **postgres.engine_options(address))
    engine = sqlalchemy.create_engine(address, hide_parameters=True)
    _make_private(Path(str(address.database)))
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make_private(path: Path) -> None:
    """Create the file for its owner only; SQLite gives its -wal and -shm files the same mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreError(f"cannot create the database {path}: {error.strerror}") from None


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver opens no transactions by itself; see _begin_sqlite
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    _use_write_ahead_log(cursor)
    # FULL, not NORMAL: a browser resumes from a cursor that it has seen. With NORMAL a power cut could
    # take back the last commits, and their cursors would be given to other events, which that browser
    # would then never get. Group commit pays for the fsync: one for all appends that wait.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _use_write_ahead_log(cursor: Any) -> None:
    """Only the first to open a new file changes anything; SQLite does not let the others wait for that."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads and then writes fails at once when another has written in
    # between, and no busy_timeout helps; so writers take the lock first.
    writes = connection.get_execution_options().get("duting_write", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(connection: Connection, shown: str) -> None:
    """In one transaction, which keeps other processes out from its first statement on."""
    if connection.dialect.name == "postgresql" and (wrong := postgres.hold_for_migration(connection)):
        raise StoreError(f"cannot use the database {shown}: {wrong}")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    current = set(MigrationContext.configure(connection).get_current_heads())
    if unknown := current - known:
        raise StoreError(
            f"the database {shown} is at revision {', '.join(sorted(unknown))}, which this version does not "
            f"know (its newest is {script.get_current_head()}): a newer version of Duting has opened it. "
            "Start that version again, or restore a backup made before the upgrade"
        )
    if current != set(script.get_heads()):
        command.upgrade(config, "head")
    connection.commit()


def _cause(error: SQLAlchemyError) -> str:
    """The driver's own words in one line; else the kind of error.

    Of PostgreSQL's only the first line: a second one (``DETAIL``) can hold values of the row.
    """
    driver = getattr(error, "orig", None)
    words = str(driver or "").strip()
    if getattr(driver, "sqlstate", None) is not None:
        words = words.partition("\n")[0]
    return " ".join(words.split()) or type(error).__name__
