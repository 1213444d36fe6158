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

    Beyond that the one is closed that has been there longest without saying what it wants: whoever has a
    reason to come says it at once. Where all have said it, the new one is closed.
    """
    last_told_s = float("-inf")
    silent: dict[H11Protocol, None] = {}
    """Connections without a request, oldest first."""

    class Doorkeeper(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            nonlocal last_told_s
            if len(self.connections) >= most:
                TURNED_AWAY.labels("full").inc()
                if time.monotonic() - last_told_s > LOG_EVERY_S:
                    last_told_s = time.monotonic()
                    log.warning("door.full", connections=len(self.connections), silent=len(silent))
                if not silent:
                    self.transport = transport
                    transport.abort()
                    return
                oldest = next(iter(silent))
                del silent[oldest]
                self.connections.discard(oldest)
                oldest.transport.abort()
            super().connection_made(transport)
            silent[self] = None
            # Its memory is one timer; it is not taken back, because most requests come within a millisecond.
            self.loop.call_later(FIRST_REQUEST_S, self._check_begun)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.scope is not None:
                silent.pop(self, None)

        def connection_lost(self, exc: Exception | None) -> None:
            silent.pop(self, None)
            if self.flow is not None:  # it was let in
                super().connection_lost(exc)

        def _check_begun(self) -> None:
            if self in silent:
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
