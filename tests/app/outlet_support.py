"""What tests of event logs share: waiting for what is told, and what was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.outlet import Outlet
from app.subscription import Envelope, Subscription
from streams.events import Published

PATIENCE_S = 20.0
"""Before a test fails; on a busy machine a server takes its time."""


def types(published: list[Published]) -> list[str]:
    return [event.type for event in published]


async def drain(subscription: Subscription) -> list[Published | None]:
    """Everything up to the end; for a subscription whose outlet has stopped."""
    return [envelope.published async for envelope in subscription]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in a server
            await asyncio.sleep(0.005)


async def told(outlet: Outlet, cursor: int) -> None:
    """Wait until listeners have been told of this event."""
    await until(lambda: outlet.head >= cursor)


async def hear(subscription: Subscription, cursor: int) -> list[Envelope]:
    """What is told up to and with the stored event of this cursor."""
    heard: list[Envelope] = []
    async with asyncio.timeout(PATIENCE_S):
        while not any(
            envelope.stored and envelope.published is not None and envelope.published.cursor >= cursor
            for envelope in heard
        ):
            heard += await subscription.take()
    return heard


def cursors(envelopes: list[Envelope]) -> list[int | None]:
    """Of what is stored; ``None`` where events were missed."""
    return [
        None if envelope.published is None else envelope.published.cursor
        for envelope in envelopes
        if envelope.stored or envelope.published is None
    ]
