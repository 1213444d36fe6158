"""How often somebody may try a password."""

from __future__ import annotations

from hashlib import sha256

import structlog

from app.errors import LiveError
from app.live import Live, LocalLive

FAILURES = 5
WINDOW_S = 60.0

log = structlog.get_logger(__name__)


class Attempts:
    """Counts attempts by account and address, over all gateways that share ``live``.

    An attempt counts from its start, and a success takes it back; so many at once get no more tries. While
    what is shared cannot be reached, each process counts for itself.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        self._own = live if isinstance(live, LocalLive) else LocalLive()

    async def begin(self, username: str, address: str) -> float:
        """Seconds until one more may be tried; 0.0: now, and it has begun."""
        key = _key(username, address)
        try:
            return await self._live.allow(key, FAILURES, WINDOW_S)
        except LiveError as error:
            log.warning("attempts to log in are counted here only", error=str(error))
            return await self._own.allow(key, FAILURES, WINDOW_S)

    async def succeed(self, username: str, address: str) -> None:
        key = _key(username, address)
        await self._own.forget(key)
        try:
            await self._live.forget(key)
        except LiveError as error:  # the tries are forgotten a minute later
            log.warning("attempts to log in are counted here only", error=str(error))


def _key(username: str, address: str) -> str:
    """Says nothing about who it is, and holds nothing that a key could not."""
    return "login:" + sha256(f"{username}\0{address}".encode(errors="surrogatepass")).hexdigest()
