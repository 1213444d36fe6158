"""WebSockets that hand small frames straight to a function, and take frames that were made once for many.

uvicorn puts every message into a queue, stops reading from the socket, wakes the application's task, which
takes it out, and starts reading again: about 100 µs a message. A telephone sends a hundred messages a second
and call. ``IngestSockets`` is uvicorn's own implementation with one more way: an application that calls
``feed`` gets the unfragmented frames where they arrive, in the event loop's read callback. Everything else
(handshake, pings, close, fragments, what is too long or malformed) goes the ordinary way.

And it may ask for them: an application that comes round for its audio anyhow calls the ``Pull`` that it got.
From then on the event loop is not woken by this socket any more, and what six messages say is read at once,
after as long as it would have waited. Who does not come for ``PULLED_S`` is told again as things arrive.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled part
    from websockets.utils import apply_mask

Taker = Callable[[Sequence[bytes]], None]
"""Takes the payloads of messages that came together; must not raise."""
Pull = Callable[[], None]
"""Hands over what has come, before it returns."""

PULLED_S = 2.0
"""Of not being asked, until the event loop reads the socket again: longer than any round takes."""
_MOST = 64 * 1024
"""Bytes read at once. What a peer sends beyond that waits in the system's buffer, and then with the peer."""

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


def feed(scope: MutableMapping[str, Any], text: Taker, binary: Taker) -> Pull | None:
    """From now on call ``text`` with the UTF-8 of text messages and ``binary`` with binary ones, in order.

    ``None``: this server cannot. Call it right after the socket was accepted, and go on awaiting
    ``receive``: what is no plain frame still comes there, and so do all messages after the first that was
    fragmented or malformed, so that order is kept.
    """
    begin = scope.get("extensions", {}).get(_EXTENSION)
    return None if begin is None else begin(text, binary)


class IngestSockets(WebSocketsSansIOProtocol):
    """uvicorn's WebSockets, with ``feed`` and frames. Only for servers without ``permessage-deflate``."""

    _text: Taker | None = None
    _binary: Taker
    _rest: bytes = b""
    """The beginning of a frame whose end has not come; less than ``ws_max_size`` and a header."""
    _descriptor: int | None = None
    """What is read when asked for; ``None``: nothing."""
    _is_pulled: bool = False
    """Whether it is read then only."""
    _pulled_s: float = 0.0
    """Of the event loop's clock: when it was asked for last."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        self._keep_little_unsent()
        if hasattr(self, "scope") and not self.config.ws_per_message_deflate:
            extensions = cast("dict[str, object]", self.scope["extensions"])
            extensions[_EXTENSION], extensions[_FRAMES] = self._begin, self._send_frames

    def _keep_little_unsent(self) -> None:
        """A peer that reads slowly is noticed here: the kernel would hold minutes of events for it."""
        option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # Linux, macOS
        connection = self.transport.get_extra_info("socket")
        if option is not None and connection is not None:
            with suppress(OSError):  # no TCP
                connection.setsockopt(socket.IPPROTO_TCP, option, UNSENT_BYTES)

    def _begin(self, text: Taker, binary: Taker) -> Pull | None:
        if not self.queue.empty():  # a message came before the handshake was answered
            return None
        self._text, self._binary = text, binary
        # What is encrypted, or comes from no socket of the system's, only the transport can read.
        connection = self.transport.get_extra_info("socket")
        if connection is not None and self.transport.get_extra_info("ssl_object") is None:
            self._descriptor = connection.fileno()
        return self._pull

    # ── asked for ─────────────────────────────────────────────────────────────────────────────────

    def _pull(self) -> None:
        if self._descriptor is None:
            return
        if self._text is None or self.transport.is_closing():
            self._pushed()
            return
        self._pulled_s = self.loop.time()
        if not self._is_pulled:
            self._is_pulled = True
            self.transport.pause_reading()
            self.loop.call_later(PULLED_S, self._look)
        try:
            data = os.read(self._descriptor, _MOST)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self.data_received(data)
        else:
            # The end, or an error: the transport reads it once more, and does what is to be done.
            self._pushed()
            self._descriptor = None

    def _look(self) -> None:
        """Whether anybody still asks."""
        if not self._is_pulled:
            return
        asked_s = self.loop.time() - self._pulled_s
        if asked_s < PULLED_S:
            self.loop.call_later(PULLED_S - asked_s, self._look)
        else:
            self._pushed()

    def _pushed(self) -> None:
        """The event loop reads the socket, as at the beginning."""
        if self._is_pulled:
            self._is_pulled = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    # ── as it arrives ─────────────────────────────────────────────────────────────────────────────

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
        came: list[bytes] = []
        kind = _TEXT  # of what came
        # 2 bytes of header and 4 of mask: no frame of a client is shorter.
        while size - at >= 6:
            first, second = data[at], data[at + 1]
            body, length = at + 2, second & 0x7F
            if length == 126:
                length = data[at + 2] << 8 | data[at + 3]
                body += 2
            plain = second & 0x80 and length != 127 and length <= self.config.ws_max_size
            if not plain or (first != _TEXT and first != _BINARY and first < _CONTROL):
                self._hand_over(kind, came)
                self._ordinary()
                super().data_received(data[at:])
                return
            end = body + 4 + length
            if size < end:
                break
            if first != kind:
                self._hand_over(kind, came)
                came = []
                kind = first if first < _CONTROL else kind
            if first < _CONTROL:
                came.append(apply_mask(data[body + 4 : end], data[body : body + 4]))
            else:
                super().data_received(data[at:end])
                if self.conn.parser_exc is not None:  # it has been told already
                    self._ordinary()
                    return
            at = end
        self._rest = data[at:]
        self._hand_over(kind, came)

    def _hand_over(self, kind: int, came: Sequence[bytes]) -> None:
        if came and self._text is not None:
            (self._text if kind == _TEXT else self._binary)(came)

    def _ordinary(self) -> None:
        """From here on everything goes the ordinary way, for which the event loop has to read."""
        self._text, self._rest = None, b""
        self._pushed()
