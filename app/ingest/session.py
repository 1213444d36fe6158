"""The WebSocket around a parser: how telephones that speak WebSocket come in."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.errors import IngestError
from app.ingest.assembly import Assembly
from app.ingest.bookings import Bookings
from app.ingest.connection import Connection, PeerGone
from app.ingest.hints import Hints
from app.ingest.keys import Keys
from app.ingest.peer import Parser
from app.ingest.sockets import feed
from app.settings import Settings


@dataclass
class Lines:
    """What every protocol's edge needs: where calls go, and who may bring them."""

    settings: Settings
    assembly: Assembly
    token: str
    hints: Hints | None = None
    keys: Keys | None = None
    """API tokens that let in beside ``token``."""
    bookings: Bookings = field(init=False)
    """UUIDs of AudioSockets."""
    audiosocket_port: int | None = field(default=None, init=False)
    """Where these connect; ``None``: nowhere."""
    closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list, init=False)
    """What is to be closed when the service stops."""
    _connections: int = field(default=0, init=False)
    _waiting: dict[_Session, None] = field(default_factory=dict, init=False)
    """Those that have not begun a call, oldest first."""

    def __post_init__(self) -> None:
        # Two for each call, and as many for calls that begin or have just ended.
        self.bookings = Bookings(4 * self.settings.max_calls)

    @property
    def most_connections(self) -> int:
        """At once. Twice as many as calls, for protocols with a connection for each channel, and some that
        only begin."""
        return 2 * self.settings.max_calls + 200

    async def aclose(self) -> None:
        for close in self.closing:
            await close()

    async def serve(self, socket: WebSocket, parser: Parser, subprotocol: str | None = None) -> None:
        """Accept a WebSocket and bring what it says to its call; returns when it is over.

        Where there are too many, the one gives way that has been there longest without beginning a call;
        where all have begun one, this one is refused.
        """
        if self._connections >= self.most_connections:
            self._waiting = {one: None for one in self._waiting if not one.has_begun}
            if not self._waiting:
                await socket.close(1013)  # before it is accepted: HTTP 403
                return
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.make_room()
        self._connections += 1
        session = _Session(socket, parser, self)
        self._waiting[session] = None
        try:
            await socket.accept(subprotocol)
            await session.run()
        finally:
            self._connections -= 1
            self._waiting.pop(session, None)


def subprotocol(socket: WebSocket, *known: str) -> str | None:
    """Which of the subprotocols that the peer offers is answered; ``None``: it offers none.

    A peer may call it as its operator likes, and closes if none is answered: one that is not known will do.
    """
    offered = socket.scope.get("subprotocols") or ()
    return next((one for one in offered if one in known), next(iter(offered), None))


def presented(socket: HTTPConnection) -> str | None:
    """The token that came with a request: as a Bearer header, as Basic's password, as ``X-API-KEY``, or as
    ``?token=``."""
    scheme, _, value = socket.headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip()
        case "basic":
            # ValueError: no base64, not even ASCII, or no UTF-8 in it.
            with suppress(ValueError):
                return base64.b64decode(value, validate=True).decode().partition(":")[2]
    return socket.headers.get("x-api-key") or socket.query_params.get("token")


class _Session:
    """One socket: hands its messages to the connection, and is the connection's ``Edge``."""

    def __init__(self, socket: WebSocket, parser: Parser, lines: Lines) -> None:
        self._socket = socket
        self._connection = Connection(
            parser,
            lines.assembly,
            self,
            token=lines.token,
            presented=presented(socket),
            hints=lines.hints,
            keys=lines.keys,
        )

    @property
    def has_begun(self) -> bool:
        return self._connection.has_begun

    def make_room(self) -> None:
        """Others need the place, and this one has not begun a call."""
        self._connection.fail(IngestError("too many connections, and this one has not begun a call", 1013))

    async def run(self) -> None:
        connection = self._connection
        connection.pull = feed(self._socket.scope, connection.texts, connection.binaries)
        receiving = asyncio.create_task(self._receive())
        try:
            await connection.run()
        finally:
            connection.pull = None
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    async def _receive(self) -> None:
        """What does not come through ``feed``: the end, and all of it on other servers."""
        code = None
        try:
            while True:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    code = message.get("code")
                    break
                if (text := message.get("text")) is not None:
                    self._connection.text(text)
                else:
                    self._connection.binary(message["bytes"])
        except RuntimeError:  # it is closed already
            pass
        finally:
            self._connection.gone(code)

    async def send(self, data: str | bytes) -> None:
        try:
            if isinstance(data, str):
                await self._socket.send_text(data)
            else:
                await self._socket.send_bytes(data)
        except (RuntimeError, WebSocketDisconnect):
            raise PeerGone("the peer has closed the connection") from None

    async def refuse(self, message: str, code: int) -> None:
        with suppress(WebSocketDisconnect):
            # RFC 6455: a close reason has room for 123 bytes.
            await self._socket.close(code, message.encode()[:120].decode(errors="ignore"))

    async def close(self) -> None:
        with suppress(RuntimeError, WebSocketDisconnect):
            await self._socket.close(1000)
