"""What PostgreSQL needs beside SQL: waits with an end, locks between gateways, what its refusals mean."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from sqlalchemy import text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.orm import Session

CONNECTIONS_KEPT = 10
CONNECTIONS_MOST = 20
"""Of one process; whoever asks beyond waits ``POOL_TIMEOUT_S`` for one, then gets an error. A server's
``max_connections`` (100 unless set) must hold this of every gateway, and the commands."""
POOL_TIMEOUT_S = 10
RECYCLE_S = 1800
"""Oldest age of a connection that is used again: some firewalls forget what is older."""

CONNECT_TIMEOUT_S = 5
LOCK_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 60
IDLE_IN_TRANSACTION_S = 60
"""A process that stops in the middle of a transaction holds up the others for so long."""
PING_S = 5
TRANSACTION_S = 120
"""A ping and a transaction that take longer are ended from this side, see ``app.store.watchdog``."""
MIGRATION_WAIT_S = 600
"""How long a process waits for another one that brings the schema up to date."""

KEEPALIVES: Final[dict[str, int]] = {
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # Milliseconds. A server that vanished with its machine answers nothing; TCP alone tries for 15 minutes.
    "tcp_user_timeout": 30_000,
}

# Advisory locks are numbers, one space for each database. "duting" in ASCII, then which.
APPENDING: Final = 0x647574696E67_01
"""Whoever appends to the event log: cursors are given in the order of the commits."""
TRIMMING: Final = 0x647574696E67_02
MIGRATING: Final = 0x647574696E67_03
AUDITING: Final = 0x647574696E67_10
"""Whoever adds to the audit: each entry is chained to the one before it."""
PUBLISHING: Final = 0x647574696E67_22
"""Whoever puts a rule pack in force: it was checked beside all others that are."""

_ADVICE: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), advice)
    for pattern, advice in (
        (
            r"password authentication failed|no password supplied|role \S+ does not exist|pg_hba\.conf",
            "check user and password in DUTING_DATABASE_URL (@ : / % in a password are written %40 %3A %2F "
            "%25), and that pg_hba.conf of the server lets that user in from here",
        ),
        (
            r"database \S+ does not exist",
            "create it, CREATE DATABASE … ENCODING 'UTF8' OWNER …, or mend the name behind the last / of "
            "DUTING_DATABASE_URL",
        ),
        (
            r"resolve host|translate host|refused|timeout|timed out|unreachable|no route|no such file",
            "check host and port in DUTING_DATABASE_URL, that PostgreSQL runs there, and that it listens for "
            "other machines (listen_addresses, firewall)",
        ),
        (
            r"permission denied",
            "that user must be allowed to make tables: ALTER DATABASE … OWNER TO …, or GRANT CREATE ON "
            "SCHEMA public TO …",
        ),
        (
            r"read-only transaction",
            "that server is a standby: name the primary, or both with ?target_session_attrs=read-write",
        ),
        (
            r"too many clients|connection slots",
            f"raise max_connections there: every gateway takes up to {CONNECTIONS_MOST}",
        ),
        (r"starting up|shutting down|recovery mode", "try again in a moment"),
    )
)


def engine_options(address: URL) -> dict[str, Any]:
    """Arguments for ``create_engine``. What the URL's query says wins over what is said here."""
    given = address.query
    options = (
        f"-c lock_timeout={LOCK_TIMEOUT_S}s -c statement_timeout={STATEMENT_TIMEOUT_S}s "
        f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_S}s"
    )
    if "options" in given:  # the later one of two wins
        more = given["options"]
        options = " ".join((options, *((more,) if isinstance(more, str) else more)))
    usual: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": "duting",
        "client_encoding": "utf8",
        **KEEPALIVES,
    }
    return {
        "pool_size": CONNECTIONS_KEPT,
        "max_overflow": CONNECTIONS_MOST - CONNECTIONS_KEPT,
        "pool_timeout": POOL_TIMEOUT_S,
        "pool_recycle": RECYCLE_S,
        # A server that was restarted is noticed before a transaction begins, not in it.
        "pool_pre_ping": True,
        "pool_use_lifo": True,
        "connect_args": {
            **{name: value for name, value in usual.items() if name not in given},
            "options": options,
        },
    }


def hold(session: Session, lock: int) -> str | None:
    """Until the transaction ends, nobody else holds this lock; waits for whoever does.

    Take it before anything is read: at READ COMMITTED each statement sees what was committed before it
    began, so everything that the holder before has written. SQLite's writers exclude each other anyway.

    Returns the transaction's id for ``outcome``; ``None`` on SQLite.
    """
    if not _is_postgres(session):
        return None
    both = text("SELECT CAST(pg_current_xact_id() AS text), pg_advisory_xact_lock(:lock)")
    return str(session.execute(both, {"lock": lock}).one()[0])


def outcome(session: Session, transaction: str) -> Literal["committed", "aborted", "in progress"] | None:
    """What became of a transaction whose connection was lost; ``None``: the server does not know it."""
    asked = text("SELECT pg_xact_status(CAST(CAST(:transaction AS text) AS xid8))")
    found: Literal["committed", "aborted", "in progress"] | None = session.scalar(
        asked, {"transaction": transaction}
    )
    return found


def hold_if_free(session: Session, lock: int) -> bool:
    """As ``hold``, without waiting; whether it is held now."""
    if not _is_postgres(session):
        return True
    return bool(session.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": lock}))


def hold_for_migration(connection: Connection) -> str | None:
    """Let one process at a time look at the schema and change it, until the transaction ends.

    Returns what is wrong with the database itself; ``None`` if nothing.
    """
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{MIGRATION_WAIT_S}s'")
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATING})
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
    if encoding != "UTF8":
        return (
            f"its encoding is {encoding}, which does not hold every character; expected UTF8: create "
            "another, CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )
    return None


def advice(words: str) -> str:
    """What to do about a refusal; ``words`` are the driver's."""
    for pattern, known in _ADVICE:
        if pattern.search(words):
            return known
    return "check host, port, user, password and name of the database in DUTING_DATABASE_URL"


def _is_postgres(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"
