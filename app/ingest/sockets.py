"""WebSockets that hand small frames straight to a function, and take frames that were made once for many.

uvicorn puts every message into a queue, stops reading from the socket, wakes the application's task, which
takes it out, and starts reading again: about 100 µs a message. A telephone sends a hundred messages a second
and call. ``IngestSockets`` is uvicorn's own implementation with one more way: an application that calls
``feed`` gets each unfragmented frame where it arrives, in the event loop's read callback. Everything else
(handshake, pings, close, fragments, what is too long or malformed) goes the ordinary way.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled part
    from websockets.utils import apply_mask

Taker = Callable[[bytes], None]
"""Takes a message's payload; must not raise."""

_EXTENSION = "duting.feed"
_FRAMES = "duting.frames"
"""``await scope["extensions"][_FRAMES](frames)`` sends whole text frames as they are.

It waits while the peer's buffer is full, and raises ``OSError`` once it is gone: for ``dashboard.feed``.
"""
UNSENT_BYTES = 65_536
"""Most that waits in the kernel to be sent to one peer, beyond what is on its way."""
_TEXT, _BINARY = 0x81, 0x82
"""First byte of a frame that is text or binary, whole and without extensions (RFC 6455, 5.2)."""
_CONTROL = 0x88
"""First bytes from here on up: a control frame, whole and without extensions."""


def feed(scope: MutableMapping[str, Any], text: Taker, binary: Taker) -> bool:
    """From now on call ``text`` with the UTF-8 of each text message and ``binary`` with each binary one.

    ``False``: this server cannot. Call it right after the socket was accepted, and go on awaiting
    ``receive``: what is no plain frame still comes there, and so do all messages after the first that was
    fragmented or malformed, so that order is kept.
    """
    begin = scope.get("extensions", {}).get(_EXTENSION)
    return begin is not None and begin(text, binary)


class IngestSockets(WebSocketsSansIOProtocol):
    """uvicorn's WebSockets, with ``feed`` and frames. Only for servers without ``permessage-deflate``."""

    _text: Taker | None = None
    _binary: Taker
    _rest: bytes = b""
    """The beginning of a frame whose end has not come; less than ``ws_max_size`` and a header."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        self._keep_little_unsent()
        if hasattr(self, "scope") and not self.config.ws_per_message_deflate:
            self.scope["extensions"][_EXTENSION] = self._begin
            self.scope["extensions"][_FRAMES] = self._send_frames

    def _keep_little_unsent(self) -> None:
        """A peer that reads slowly is noticed here: the kernel would hold minutes of events for it."""
        option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # Linux, macOS
        connection = self.transport.get_extra_info("socket")
        if option is not None and connection is not None:
            with suppress(OSError):  # no TCP
                connection.setsockopt(socket.IPPROTO_TCP, option, UNSENT_BYTES)

    def _begin(self, text: Taker, binary: Taker) -> bool:
        if not self.queue.empty():  # a message came before the handshake was answered
            return False
        self._text, self._binary = text, binary
        return True

    async def _send_frames(self, frames: bytes) -> None:
        await self.writable.wait()
        if self.disconnected or self.close_sent or self.transport.is_closing():
            raise ClientDisconnected()
        self.transport.write(frames)

    def data_received(self, data: bytes) -> None:
        text = self._text
        if text is None:
            super().data_received(data)
            return
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        # 2 bytes of header and 4 of mask: no frame of a client is shorter.
        while size - at >= 6:
            first, second = data[at], data[at + 1]
            body, length = at + 2, second & 0x7F
            if length == 126:
                length = data[at + 2] << 8 | data[at + 3]
                body += 2
            plain = second & 0x80 and length != 127 and length <= self.config.ws_max_size
            if not plain or (first != _TEXT and first != _BINARY and first < _CONTROL):
                self._text, self._rest = None, b""
                super().data_received(data[at:])
                return
            end = body + 4 + length
            if size < end:
                break
            if first < _CONTROL:
                take = text if first == _TEXT else self._binary
                take(apply_mask(data[body + 4 : end], data[body : body + 4]))
            else:
                super().data_received(data[at:end])
                if self.conn.parser_exc is not None:  # it has been told already
                    self._text, self._rest = None, b""
                    return
            at = end
        self._rest = data[at:]
