"""Connections on which the server says nothing any more: cut after a time, so that nobody waits for ever."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import structlog

LOOK_EVERY_S = 1.0

log = structlog.get_logger(__name__)


class Watchdog:
    """Bounds waits from this side.

    PostgreSQL's own timeouts end nothing while its process is stopped or its disk hangs, and TCP finds
    nothing wrong with such a connection: its machine still answers. Whoever waits on one that is cut gets
    psycopg's ``OperationalError``. One thread looks after all connections; it begins with the first wait.
    """

    def __init__(self) -> None:
        self._waits: dict[object, tuple[float, Any]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def within(self, connection: Any, seconds: float) -> Iterator[None]:
        """Cut this psycopg connection if the block takes longer."""
        wait = object()
        with self._changed:
            self._waits[wait] = (time.monotonic() + seconds, connection)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="store-watchdog", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                del self._waits[wait]

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _look(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                # Under the lock: a block that has ended may hand its connection to somebody else.
                for deadline, connection in self._waits.values():
                    if deadline < now:
                        _cut(connection)
                self._changed.wait(LOOK_EVERY_S)


def _cut(connection: Any) -> None:
    # OSError, psycopg.Error: it is closed already.
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)
        log.warning("a connection to the database was cut: the server said nothing for too long")
