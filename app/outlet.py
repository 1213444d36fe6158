"""The ordered, resumable event log: every event is stored once, then told to all who listen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

import structlog

from app.listeners import Listeners
from app.passing import Passing
from app.rights import EVERYTHING, Sight
from app.store import Store
from app.store.times import now
from app.subscription import Subscription
from app.writer import Writer
from streams.events import CallEnded, Health, OutletEvent, Published, Speaking

log = structlog.get_logger(__name__)


class Outlet(Protocol):
    """What the runner writes to, and what the browsers' feed and the pages read from."""

    @property
    def head(self) -> int:
        """Cursor of the last stored event that subscribers were told of."""

    @property
    def health(self) -> Health | None:
        """The last one that was told; ``None`` before the first."""

    def speaking(self, call_id: str) -> Speaking:
        """Who speaks in a call right now; nobody in a call that is not running."""

    async def start(self) -> None:
        """Continue the log where it stands. Raises ``StoreError``."""

    async def stop(self) -> None:
        """Store and tell what waits, then end all subscriptions. Later appends raise ``StoreError``."""

    async def append(self, events: Sequence[OutletEvent]) -> list[Published]:
        """See ``app.writer.Writer.append``."""

    def subscribe(self, cursor: int | None, sight: Sight = EVERYTHING) -> Subscription:
        """See ``app.listeners.Listeners.subscribe``."""


class LocalOutlet:
    """The outlet of one process that has the store to itself. For one event loop."""

    def __init__(self, store: Store, *, events_kept: int, clock: Callable[[], datetime] = now) -> None:
        self._store = store
        self._passing = Passing()
        self._listeners = Listeners(store, others_write=False)
        self._writer = Writer(
            store,
            self._passing,
            self._listeners.tell,
            tells_all=True,
            events_kept=events_kept,
            clock=clock,
        )

    @property
    def head(self) -> int:
        return self._listeners.head

    @property
    def health(self) -> Health | None:
        return self._passing.health

    def speaking(self, call_id: str) -> Speaking:
        return self._passing.speaking(call_id)

    async def start(self) -> None:
        """Continue the log where it stands; calls that a crash left open are closed as interrupted."""
        self._listeners.head = await self._writer.start()
        await close_interrupted(self._store, self)

    async def stop(self) -> None:
        await self._writer.stop()
        self._listeners.close()

    async def append(self, events: Sequence[OutletEvent]) -> list[Published]:
        return await self._writer.append(events)

    def subscribe(self, cursor: int | None, sight: Sight = EVERYTHING) -> Subscription:
        return self._listeners.subscribe(cursor, sight)


async def close_interrupted(store: Store, outlet: Outlet) -> None:
    """End every call that the store still holds as live.

    Its length becomes the latest media time known of it. Only right while no call runs, here or elsewhere: at
    the start of the one process that hears calls.
    """
    live = await asyncio.to_thread(store.calls.live)
    ended = [
        CallEnded(call_id=call_id, media_ms=media_ms, reason="interrupted") for call_id, media_ms in live
    ]
    if ended:
        await outlet.append(ended)
        log.warning("calls closed as interrupted", calls=len(ended))
