"""A cable between a browser and a server that a test can pull: what is sent over it then arrives nowhere, and
no side is told."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

CHUNK = 65_536


class Cable:
    """Forwards TCP from a port of its own. Not for many: a test's browser has a dozen connections."""

    def __init__(self, address: str) -> None:
        """``address``: ``http://HOST:PORT`` of the server."""
        host, _, port = address.removeprefix("http://").partition(":")
        self._to = (host, int(port))
        self._loop = asyncio.new_event_loop()
        self._pulled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.address = ""

    def pull(self) -> None:
        """From now on nothing passes; connections that there are stay, as far as each side knows."""
        self._loop.call_soon_threadsafe(self._pull)

    def plug(self) -> None:
        """New connections pass again. Those of before stay dead: whatever knew of them has forgotten."""
        self._loop.call_soon_threadsafe(setattr, self, "_pulled", False)

    def _pull(self) -> None:
        self._pulled = True
        for task in self._tasks:
            task.cancel()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._pulled:
            return  # taken in, and never answered
        there, answers = await asyncio.open_connection(*self._to)
        self._writers.add(answers)
        for source, target in ((reader, answers), (there, writer)):
            task = asyncio.create_task(self._carry(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                target.write(data)
                await target.drain()
            target.close()

    async def _serve(self, ready: threading.Event, over: asyncio.Event) -> None:
        server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await over.wait()
        server.close()
        self._pull()
        for writer in self._writers:
            writer.close()

    @contextlib.contextmanager
    def laid(self) -> Iterator[Cable]:
        ready, over = threading.Event(), asyncio.Event()
        thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._serve(ready, over)), daemon=True
        )
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(over.set)
            thread.join(10)
            self._loop.close()
