"""Redis for tests; see ``tests.services``."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest
import redis

from tests.services import Server, running


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[Server]:
    """The one for all tests that leave it running."""
    yield from running("redis")


@pytest.fixture
def redis_url(shared_redis: Server) -> str:
    """An empty Redis."""
    with redis.Redis.from_url(shared_redis.url, socket_timeout=10) as client:
        client.flushall()
    return shared_redis.url


@pytest.fixture
def redis_server() -> Iterator[Server]:
    """One for a single test, which may kill it; it keeps nothing on disk."""
    yield from running("redis")


def halt(server: Server) -> None:
    """It takes connections and commands, and answers nothing, until ``resume``."""
    os.kill(_pid(server), signal.SIGSTOP)


def resume(server: Server) -> None:
    os.kill(_pid(server), signal.SIGCONT)


def _pid(server: Server) -> int:
    return int(json.loads((server.folder / "service.json").read_text())["pid"])
