"""The real server with the real model, for tests that need no more of it than that it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from app.demo import run
from app.store import Store

PERSON = run.Account("supervisor", "correct-horse-battery", "主管", "supervisor")
TOKEN = "token-for-tests"


def environment(models: Path, folder: Path, **settings: str) -> dict[str, str]:
    """Of a server that keeps what it has in ``folder``, where ``PERSON`` has an account."""
    store = Store.open(f"sqlite:///{folder / 'duting.db'}")
    store.users.ensure(PERSON.username, PERSON.password, PERSON.name, PERSON.role)
    store.close()
    return {
        "DUTING_DATA_DIR": str(folder),
        "DUTING_MODELS_DIR": str(models),
        "DUTING_INGEST_TOKEN": TOKEN,
        "DUTING_PORT": "0",
        "DUTING_DATABASE_URL": "",
        "DUTING_REDIS_URL": "",
        "DUTING_KAFKA_URL": "",
        **settings,
    }


@contextlib.contextmanager
def running(models: Path, folder: Path, **settings: str) -> Iterator[run.Server]:
    with run.Server(environment(models, folder, **settings), folder / "server.log") as server:
        server.wait()
        yield server
