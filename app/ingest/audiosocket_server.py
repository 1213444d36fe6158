"""The port of Asterisk's AudioSockets: TCP around the parser."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import structlog

from app.errors import IngestError
from app.ingest.audiosocket import AudioSocketStream, Messages
from app.ingest.bookings import signed
from app.ingest.connection import Connection
from app.ingest.peer import NORMAL, call_info
from app.ingest.session import Lines
from streams.events import CallInfo, Channel

log = structlog.get_logger(__name__)


class AudioSocketServer:
    """For one event loop.

    Args:
        listener: a listening socket (``app.listener``), taken before anything slow.
        wall: seconds since 1970.
    """

    STOP_S = 5.0

    def __init__(self, lines: Lines, listener: socket.socket, wall: Callable[[], float] = time.time) -> None:
        self.lines, self._listener, self._wall = lines, listener, wall
        lines.audiosocket_port = listener.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._sockets: dict[_Socket, asyncio.Task[None]] = {}
        self._waiting: dict[_Socket, None] = {}
        """Those that have not begun a call, oldest first."""

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Socket(self), sock=self._listener)

    async def stop(self) -> None:
        """Take no more connections, and end those that are there."""
        if self._server is not None:
            self._server.close()
        for one in self._sockets:
            one.connection.fail(IngestError("the server ends", 1001))
        if self._sockets:
            await asyncio.wait(list(self._sockets.values()), timeout=self.STOP_S)

    def find(self, uuid: UUID) -> tuple[CallInfo, Channel] | None:
        """What a UUID stands for: it was booked, or is signed."""
        booking = self.lines.bookings.find(uuid, self.lines.assembly.runner.clock())
        if booking is not None:
            return booking.call, booking.channel
        known = signed(uuid, self.lines.token, self._wall())
        if known is None:
            return None
        call_id, channel = known
        return call_info(call_id, AudioSocketStream.name, {}), channel

    def admit(self, one: _Socket) -> bool:
        """Whether there is room. Where there is none, the oldest gives way that has not begun a call."""
        if len(self._sockets) >= self.lines.most_connections:
            self._waiting = {other: None for other in self._waiting if not other.connection.has_begun}
            if not self._waiting:
                return False
            oldest = next(iter(self._waiting))
            self._forget(oldest)
            oldest.connection.fail(
                IngestError("too many connections, and this one has not begun a call", 1013)
            )
        self._waiting[one] = None
        self._sockets[one] = asyncio.create_task(self._serve(one))
        return True

    async def _serve(self, one: _Socket) -> None:
        try:
            await one.connection.run()
        finally:
            self._forget(one)
            one.end()

    def _forget(self, one: _Socket) -> None:
        self._waiting.pop(one, None)
        self._sockets.pop(one, None)


class _Socket(asyncio.Protocol):
    """One connection, and its ``Edge``.

    A peer that sends faster than its audio can be heard is not read from while ``MOST_READY_MS`` wait. That
    is not to last: Asterisk gives a connection up once the systems in between hold no more, which takes
    some seconds of audio.
    """

    MOST_READY_MS = 4_000
    AGAIN_S = 0.1

    def __init__(self, server: AudioSocketServer) -> None:
        self._server = server
        self._messages = Messages()
        self._parser = AudioSocketStream(server.find)
        # Who was given its UUID has shown the token already, or has signed with it.
        token = server.lines.token
        self.connection = Connection(
            self._parser, server.lines.assembly, self, token=token, presented=token, hints=None
        )
        self._transport: asyncio.Transport | None = None

    # ── asyncio.Protocol ──────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        _keep_alive(transport.get_extra_info("socket"))
        if not self._server.admit(self):
            log.warning("ingest.no_room", protocol=self._parser.name, retryable=True)
            self.end()

    def data_received(self, data: bytes) -> None:
        for message in self._messages.receive(data):
            self.connection.binary(message)
        if self._parser.ready_ms > self.MOST_READY_MS and self._transport is not None:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(self.AGAIN_S, self._read_again)

    def _read_again(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._parser.ready_ms > self.MOST_READY_MS:
            asyncio.get_running_loop().call_later(self.AGAIN_S, self._read_again)
        else:
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        # Between two messages, it is how Asterisk hangs up.
        self.connection.gone(None if self._messages.partial else NORMAL)
        return True  # the connection closes the transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.gone()

    # ── Edge ──────────────────────────────────────────────────────────────────────────────────────

    async def send(self, data: str | bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data.encode() if isinstance(data, str) else data)

    async def refuse(self, message: str, code: int) -> None:
        # There is no other way to say it: Asterisk can be told no more than that it is over.
        log.warning("audiosocket.refused", call_id=self.connection.call_id, message=message, code=code)
        self.end()

    async def close(self) -> None:
        self.end()

    def end(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _keep_alive(one: socket.socket) -> None:
    """Let the system notice within a minute that the peer is away: an AudioSocket may be silent for long."""
    with suppress(OSError, AttributeError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
