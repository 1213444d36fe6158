"""Events, accounts and an application to test the store, the outlet and the routes with."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import argon2
import sqlalchemy
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Engine
from starlette.testclient import TestClient

from app.api.application import application
from app.outlet import LocalOutlet, Outlet
from app.rulebook import RuleBook
from app.settings import Settings
from app.store import Store
from app.store.database import MIGRATIONS
from app.store.users import Users
from detectors.rules import parse_pack
from streams.events import (
    Alert,
    CallEnded,
    CallInfo,
    CallStarted,
    Emotion,
    Evidence,
    Latency,
    Marker,
    Progress,
    Step,
    Transcript,
)

PASSWORD = "correct horse 9"
QUICK = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
EVENTS_KEPT = 5000
RULES = """\
id: little
version: "1"
rules:
  - id: redline.guarantee
    name: {zh: 承诺保本, en: Guaranteed returns}
    severity: critical
    role: agent
    when: {phrase: [保本保息]}
"""
PACK = parse_pack(RULES, "little.yaml")


def started(call_id: str = "c1", **info: Any) -> CallStarted:
    return CallStarted(call=CallInfo(call_id=call_id, **info))


def ended(call_id: str = "c1", media_ms: int = 9000, reason: Any = "hangup") -> CallEnded:
    return CallEnded(call_id=call_id, media_ms=media_ms, reason=reason)


def said(
    start_ms: int = 0, text: str = "您好", call_id: str = "c1", role: Any = "agent", final: bool = True
) -> Transcript:
    return Transcript(
        call_id=call_id,
        utterance_id=f"{call_id}:{role}:{start_ms}",
        role=role,
        start_ms=start_ms,
        end_ms=start_ms + 800,
        text=text,
        final=final,
        confidence=0.5,
    )


def alert(number: int = 1, call_id: str = "c1", **changes: Any) -> Alert:
    content: dict[str, Any] = {
        "id": f"a{number}",
        "call_id": call_id,
        "rule_id": "redline.guarantee",
        "rule_version": PACK.version,
        "name": {"zh": "承诺保本", "en": "Guaranteed returns"},
        "severity": "critical",
        "role": "agent",
        "media_start_ms": number * 1000,
        "media_end_ms": number * 1000 + 500,
        "evidence": Evidence(text="保本", matched=("保本",), spans=((0, 2),)),
        "latency_ms": Latency(vad=300.0, queue=20.0, asr=200.0, rules=1.0),
    }
    return Alert(**(content | changes))


def marker(number: int = 1, call_id: str = "c1") -> Marker:
    return Marker(
        id=f"m{number}",
        call_id=call_id,
        rule_id="redline.guarantee",
        severity="critical",
        role="agent",
        label={"zh": "承诺保本", "en": "Guaranteed returns"},
        media_start_ms=number * 1000,
        media_end_ms=number * 1000 + 500,
    )


def progress(media_ms: int = 500, state: Any = "due", call_id: str = "c1", script: str = "s") -> Progress:
    step = Step(id="greeting", name={"zh": "问候", "en": "Greeting"}, state=state, due_ms=10_000)
    name = {"zh": "来电服务", "en": "Inbound service"}
    return Progress(call_id=call_id, script=script, name=name, media_ms=media_ms, steps=(step,), score=None)


def emotion(start_ms: int = 0, call_id: str = "c1", **changes: Any) -> Emotion:
    content: dict[str, Any] = {
        "call_id": call_id,
        "role": "customer",
        "utterance_id": f"{call_id}:customer:{start_ms}",
        "media_start_ms": start_ms,
        "media_end_ms": start_ms + 800,
        "feeling": "angry",
        "level": 7.5,
        "trend": 1.5,
        "voice": None,
        "words": 7.5,
    }
    return Emotion(**(content | changes))


@cache
def _migrated() -> bytes:
    """A file of SQLite with this version's schema and nothing in it: made once, copied after that."""
    with tempfile.TemporaryDirectory() as folder:
        Store.open(sqlite(Path(folder))).close()
        return (Path(folder) / "test.db").read_bytes()


def open_store(url: str) -> Store:
    """The store at ``url``; where there is none yet, a new one."""
    file = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not file.exists():
        file.write_bytes(_migrated())
    store = Store.open(url)
    store.users = Users(store, QUICK)
    return store


def sqlite(folder: Path) -> str:
    """URL of a database in a file."""
    return f"sqlite:///{folder / 'test.db'}"


def bare_engine(url: str) -> Engine:
    """The database without the store, to see or to spoil what is in it."""
    return sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))


def old_database(url: str, revision: str, *statements: str) -> None:
    """Fill an empty database as an earlier version left it."""
    engine = bare_engine(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def until(done: Callable[[], object], seconds: float = 10) -> None:
    """Ask a real server again and again."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s"


class House:
    """A running application with one account of every role, each named like the role."""

    def __init__(
        self, client: TestClient, store: Store, outlet: Outlet, settings: Settings, book: RuleBook
    ) -> None:
        self.client = client
        self.book = book
        self.store = store
        self.outlet = outlet
        self.settings = settings

    def append(self, *events: Any) -> Any:
        return self.client.portal.call(self.outlet.append, events)  # type: ignore[union-attr]

    def log_in(self, username: str = "supervisor", password: str = PASSWORD) -> Any:
        return self.client.post(
            "/api/session", json={"username": username, "password": password}, headers={"X-Duting": "1"}
        )


@contextmanager
def house(
    folder: Path,
    book: RuleBook | Callable[[Store], RuleBook] | None = None,
    url: str | None = None,
    outlet: Callable[[Store], Outlet] = lambda store: LocalOutlet(store, events_kept=EVENTS_KEPT),
    set_: dict[str, Any] | None = None,
    **options: Any,
) -> Iterator[House]:
    settings = Settings(data_dir=folder, _env_file=None, **(set_ or {}))  # type: ignore[call-arg]
    store = open_store(url or sqlite(folder))
    for role in ("agent", "supervisor", "inspector", "administrator"):
        # In a house without teams its administrator watches too.
        teams = ("*",) if role == "administrator" else None
        store.users.ensure(role, PASSWORD, role.title(), role, teams)
    events = outlet(store)
    book = book(store) if callable(book) else book or RuleBook(PACK)
    book.record = store.audit.record
    app = application(settings, store, events, book, **options)
    with TestClient(app, raise_server_exceptions=False) as client:
        client.portal.call(events.start)  # type: ignore[union-attr]
        try:
            yield House(client, store, events, settings, book)
        finally:
            client.portal.call(app.state.bench.aclose)  # type: ignore[union-attr]
            client.portal.call(app.state.takeovers.aclose)  # type: ignore[union-attr]
            client.portal.call(events.stop)  # type: ignore[union-attr]
            store.close()
