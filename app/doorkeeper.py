"""Connections that come and say nothing, or too many of them: they must cost the calls nothing.

uvicorn waits without end for the first request of a connection, and takes every connection that the system
hands it. ``doorkeeping`` is its HTTP with both bounded; what was upgraded to a WebSocket has timeouts of its
own (``app.ingest.connection``, the feed's heartbeat).
"""

from __future__ import annotations

import asyncio
import resource
import time

import structlog
from prometheus_client import Counter
from uvicorn.protocols.http.h11_impl import H11Protocol

log = structlog.get_logger(__name__)

TURNED_AWAY = Counter("duting_connections_turned_away", "Connections closed by the door", ["reason"])

FIRST_REQUEST_S = 10.0
"""A connection has so long to say what it wants, whole."""
LOG_EVERY_S = 10.0


def doorkeeping(most: int) -> type[H11Protocol]:
    """uvicorn's HTTP for a server that holds at most ``most`` connections, WebSockets included.

    Beyond that a new connection is closed at once: those that are there stay.
    """
    last_told_s = float("-inf")

    class Doorkeeper(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            nonlocal last_told_s
            if len(self.connections) >= most:
                TURNED_AWAY.labels("full").inc()
                if time.monotonic() - last_told_s > LOG_EVERY_S:
                    last_told_s = time.monotonic()
                    log.warning("door.full", connections=len(self.connections))
                self.transport = transport
                transport.abort()
                return
            super().connection_made(transport)
            # Its memory is one timer; it is not taken back, because most requests come within a millisecond.
            self.loop.call_later(FIRST_REQUEST_S, self._check_begun)

        def connection_lost(self, exc: Exception | None) -> None:
            if self.flow is not None:  # it was let in
                super().connection_lost(exc)

        def _check_begun(self) -> None:
            if self.scope is None and not self.transport.is_closing():
                TURNED_AWAY.labels("silent").inc()
                self.transport.abort()

    return Doorkeeper


def raise_file_limit() -> int:
    """Take as many open files as the system grants: every connection is one. Returns how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard or hard == resource.RLIM_INFINITY:
        wanted = 1 << 16 if hard == resource.RLIM_INFINITY else hard
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return soft
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft
