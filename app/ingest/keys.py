"""API tokens with the scope ``ingest``, at hand when a call comes in: nobody waits for the database then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import structlog

from app.errors import StoreError
from app.store.tokens import digest

log = structlog.get_logger(__name__)

LOOK_S: Final = 2.0
"""Between two looks: so long a token that was revoked still begins calls, and a new one does not."""


class Keys:
    """For one event loop. ``load`` tells the tokens that are good now, by hash, and may take its time."""

    def __init__(self, load: Callable[[], Mapping[str, str]]) -> None:
        self._load = load
        self._good: Mapping[str, str] = {}
        self._looking: asyncio.Task[None] | None = None

    def fit(self, token: str) -> bool:
        """Whether this token lets in. Looked up by its hash: how long that takes tells nothing."""
        return digest(token) in self._good

    async def look(self) -> None:
        self._good = await asyncio.to_thread(self._load)

    async def start(self) -> None:
        with suppress(StoreError):  # the next look may do better
            await self.look()
        self._looking = asyncio.create_task(self._run(), name="keys")

    async def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
            self._looking = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except StoreError as error:  # those that were good stay so: calls go on while the store is away
                log.warning("keys.not_read", error=str(error))
            except Exception as error:
                log.error("keys.failed", error=type(error).__name__)
