"""What agents may say next, on its way back to the telephones that can show it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from app.outlet import Outlet
from streams.events import Hint

log = structlog.get_logger(__name__)

Taker = Callable[[Hint], None]


class Hints:
    """Hands each hint to whoever listens for its call. For one event loop.

    One subscription to the event log for all of them; when it falls behind, hints are lost: late ones would
    only confuse.
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._takers: dict[str, list[Taker]] = {}
        self._running: asyncio.Task[None] | None = None

    def listen(self, call_id: str, take: Taker) -> None:
        self._takers.setdefault(call_id, []).append(take)

    def forget(self, call_id: str, take: Taker) -> None:
        takers = self._takers.get(call_id, [])
        with suppress(ValueError):
            takers.remove(take)
        if not takers:
            self._takers.pop(call_id, None)

    async def start(self) -> None:
        self._running = asyncio.create_task(self._run(), name="hints")

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def _run(self) -> None:
        while True:
            try:
                with self._outlet.subscribe(None) as subscription:
                    async for envelope in subscription:
                        published = envelope.published
                        if published is None or not isinstance(published.hint, Hint):
                            continue
                        for take in list(self._takers.get(published.call_id or "", ())):
                            take(published.hint)
                return  # the outlet has stopped
            except Exception as error:
                log.error("hints.failed", error=type(error).__name__)
                await asyncio.sleep(1.0)
