"""Connections to Redis: each command ends within a bounded time, and all fail with one kind of error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.errors import LiveError

ANSWER_S = 1.0
"""Longest wait for a connection, and for an answer."""


def connect(url: str, *, answer_s: float = ANSWER_S) -> Redis:
    """A client that connects at its first command, and anew after every failure.

    It never tries a command again by itself: how long a failure takes is the caller's to decide. Raises
    ``LiveError`` for a URL that is none.
    """
    try:
        return Redis.from_url(
            url,
            protocol=2,  # the shape of answers is then the same for every version of the client
            socket_timeout=answer_s,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise LiveError(
            f"DUTING_REDIS_URL is not the address of a Redis server ({error}); expected redis://host:port/0, "
            "or rediss:// for TLS"
        ) from None


@asynccontextmanager
async def reaching(limit_s: float = ANSWER_S) -> AsyncIterator[None]:
    """Commands that belong together; raises ``LiveError`` when they fail or take longer than that."""
    task = asyncio.current_task()
    assert task is not None
    cancelled = task.cancelling()
    try:
        async with asyncio.timeout(limit_s):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        told = str(error) or f"no answer within {limit_s:g} s"
        raise LiveError(
            f"Redis does not do its part: {told}. Check that it runs, that DUTING_REDIS_URL is right and "
            "that it has memory left"
        ) from error
    if task.cancelling() > cancelled:
        # The client sends through asyncio.wait_for, which up to Python 3.11 forgets a cancellation that
        # comes just when it has sent (python/cpython#86296).
        raise asyncio.CancelledError
