"""The event log to browsers: one WebSocket each, resumed by cursor.

An event becomes one frame, and that is made once for all browsers: what differs between them is only how
long an alert took to get there. Frames that wait for a browser are written together, at most every
``GATHER_S``; the first after a silence at once. Each browser has its own bounded queue (the subscription's);
one that reads too slowly misses events, is told to load the floor again, and slows nobody.

Frames are JSON text: first ``{"type": "hello", "cursor", "heartbeat_s"}``, then ``Published`` events in
the order of the log, of the calls that the person sees; ``{"type": "resync"}`` when events were missed for
good, or a call came into view (load the floor again); ``call.left`` when one went out of view;
``{"type": "heartbeat"}`` after a silence. What a browser sends is ignored. With ``?together=1`` what travels
together is one frame, each event on a line of its own: for a browser a frame costs more than what is in it.

Close codes: 4401 not logged in (any more), 4403 the role may not listen, 1001 the server stops, 1008 the
cursor is no number, 1011 the past cannot be read, 1013 the browser reads too slowly to be served.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec
from msgspec import UNSET, structs
from prometheus_client import Counter, Gauge, Histogram
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from streams.events import Alert, Latency, Published

HEARTBEAT_S = 15.0
SEND_TIMEOUT_S = 10.0
"""A browser that takes nothing for so long is gone, whatever TCP believes."""

GATHER_S = 0.02
"""Events that come within it travel together: a browser then costs by the time, not by the event."""
WRITE_BYTES = 65_536
"""Most that is written at once; a browser that has not taken it is waited for before the next."""
ALERTS_MADE = 512
"""Frames of alerts that are kept for the browsers that have not come to them; an older one is made anew."""

NOT_LOGGED_IN = 4401
NOT_ALLOWED = 4403

latency_seconds = Histogram(
    "duting_alert_latency_seconds",
    "From the last sample of the phrase entering the server to the alert on a supervisor's socket",
    buckets=(0.1, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5, 7.5, 10, 20),
)
delivery_seconds = Histogram(
    "duting_alert_delivery_seconds",
    "From the alert being raised to its being written to a supervisor's socket",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
sockets = Gauge("duting_feed_sockets", "Browsers that listen")
dropped_total = Counter("duting_feed_dropped_total", "Browsers that read too slowly and were cut off")


def text_frame(text: bytes) -> bytes:
    """A WebSocket text frame as a server sends it: whole, not masked (RFC 6455, 5.2)."""
    size = len(text)
    if size < 126:
        return b"\x81%c%b" % (size, text)
    if size < 65_536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), text)


def text_of(frame: bytes) -> str:
    """The inverse of ``text_frame``."""
    return _payload(frame).decode()


def _payload(frame: bytes) -> bytes:
    size = frame[1]
    return frame[2 if size < 126 else 4 if size == 126 else 10 :]


RESYNC = text_frame(b'{"type":"resync"}')
FRAMES = "duting.frames"
"""What a server that takes whole frames names in the scope's extensions (``app.ingest.sockets``)."""
_HOLE = b"\x00"


class Envelope(Protocol):
    @property
    def published(self) -> Published | None:
        """``None``: events were missed."""

    @property
    def emitted(self) -> float | None:
        """``time.monotonic()`` when it was handed to the log; ``None`` when it was read back."""

    @property
    def frame(self) -> bytes:
        """``published`` as ``text_frame``; the same object for all who ask."""


class Subscription(Protocol):
    @property
    def head(self) -> int: ...

    @property
    def ended(self) -> bool: ...

    async def take(self, timeout_s: float | None = None) -> Sequence[Envelope]: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Outlet(Protocol):
    def subscribe(self, cursor: int | None, sight: Any) -> Subscription: ...


class Refused(Exception):
    """This person may not listen. ``code`` is ``NOT_LOGGED_IN`` or ``NOT_ALLOWED``."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Admission(Protocol):
    """Somebody who may listen."""

    @property
    def sight(self) -> Any:
        """Which calls that person sees, for ``Outlet.subscribe``: what is not in sight gets no further."""

    async def over(self) -> int:
        """Returns once this person may listen no more: the code to close with."""

    def leave(self) -> None:
        """The socket is closed."""


Permission = Callable[[WebSocket], Awaitable[Admission]]
"""Who is at this socket; raises ``Refused``."""


class Feed:
    """Serves browsers from an outlet. One for all sockets."""

    def __init__(
        self,
        outlet: Outlet,
        permission: Permission,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        send_timeout_s: float = SEND_TIMEOUT_S,
        gather_s: float = GATHER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outlet = outlet
        self._permission = permission
        self._heartbeat_s = heartbeat_s
        self._send_timeout_s = send_timeout_s
        self._gather_s = gather_s
        self._clock = clock
        self._alerts: OrderedDict[int, tuple[bytes, bytes]] = OrderedDict()
        """By cursor: an alert's frame without its header, before and behind its latency."""

    async def serve(self, socket: WebSocket) -> None:
        """Everything from handshake to close, for one socket that our own page opened (``app.api.guard``)."""
        await socket.accept()
        try:
            cursor = _cursor(socket.query_params.get("cursor"))
            admission = await self._permission(socket)
        except Refused as refused:
            await self._close(socket, refused.code)
            return
        except ValueError:
            await self._close(socket, 1008, "cursor must be a whole number")
            return
        sockets.inc()
        listening = asyncio.create_task(_until_gone(socket))
        together = socket.query_params.get("together") == "1"
        speaking = asyncio.create_task(self._speak(socket, cursor, admission.sight, together))
        admitted = asyncio.create_task(admission.over())
        tasks: tuple[asyncio.Task[Any], ...] = (listening, speaking, admitted)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sockets.dec()
            admission.leave()
            over = admitted.result() if admitted.done() else None
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if over is not None:
            await self._close(socket, over)
        for task in tasks:
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, WebSocketDisconnect):
                raise error

    async def _speak(self, socket: WebSocket, cursor: int | None, sight: Any, together: bool) -> None:
        try:
            code, reason = await self._tell(socket, cursor, sight, together)
        except TimeoutError:
            dropped_total.inc()
            code, reason = 1013, "too slow"
        await self._close(socket, code, reason)

    async def _tell(
        self, socket: WebSocket, cursor: int | None, sight: Any, together: bool
    ) -> tuple[int, str]:
        with self._outlet.subscribe(cursor, sight) as subscription:
            await self._send(
                socket,
                json.dumps({"type": "hello", "cursor": subscription.head, "heartbeat_s": self._heartbeat_s}),
            )
            while True:
                try:
                    envelopes = await subscription.take(self._heartbeat_s)
                except Exception:  # the log's past cannot be read; the browser comes back for it
                    return 1011, "the event log cannot be read"
                told = [
                    RESYNC if envelope.published is None else self._frame(envelope.published, envelope)
                    for envelope in envelopes
                ]
                await self._write(socket, told, together)
                if envelopes:
                    # What comes meanwhile is taken with the next; it waits in the bounded queue.
                    await asyncio.sleep(self._gather_s)
                elif subscription.ended:
                    return 1001, "the server stops"
                else:
                    await self._send(socket, '{"type":"heartbeat"}')

    def _frame(self, published: Published, envelope: Envelope) -> bytes:
        """The frame. Only an alert's differs between sockets: it says how long it took to get here."""
        if published.type != "alert.raised" or envelope.emitted is None or published.alert is UNSET:
            return envelope.frame
        latency = arrived(published.alert.latency_ms, (self._clock() - envelope.emitted) * 1000)
        if latency.delivery is not None and latency.total is not None:
            delivery_seconds.observe(latency.delivery / 1000)
            latency_seconds.observe(latency.total / 1000)
        before, behind = self._around_latency(published, published.alert)
        return text_frame(b"%b%b%b" % (before, msgspec.json.encode(latency), behind))

    def _around_latency(self, published: Published, alert: Alert) -> tuple[bytes, bytes]:
        made = self._alerts.get(published.cursor)
        if made is None:
            # A value that no JSON can have stands where the latency will; it is the only one.
            hole: Any = msgspec.Raw(_HOLE)
            before, _, behind = msgspec.json.encode(
                structs.replace(published, alert=structs.replace(alert, latency_ms=hole))
            ).partition(_HOLE)
            made = self._alerts[published.cursor] = (before, behind)
            if len(self._alerts) > ALERTS_MADE:
                self._alerts.popitem(last=False)
        return made

    async def _write(self, socket: WebSocket, frames: Sequence[bytes], together: bool) -> None:
        """Frames in order, as many at once as ``WRITE_BYTES`` hold; ``together``: as one frame."""
        write = socket.scope.get("extensions", {}).get(FRAMES)
        at = 0
        while at < len(frames):
            first, size = at, 0
            while at < len(frames) and (at == first or size + len(frames[at]) <= WRITE_BYTES):
                size += len(frames[at])
                at += 1
            some = frames[first:at]
            if together and len(some) > 1:
                some = [text_frame(b"\n".join(map(_payload, some)))]
            if write is None:  # a server that takes no whole frames: one by one
                for frame in some:
                    await self._send(socket, text_of(frame))
                continue
            async with asyncio.timeout(self._send_timeout_s):
                try:
                    await write(b"".join(some))
                except OSError:
                    raise WebSocketDisconnect(1006) from None

    async def _send(self, socket: WebSocket, text: str) -> None:
        async with asyncio.timeout(self._send_timeout_s):
            await socket.send_text(text)

    async def _close(self, socket: WebSocket, code: int, reason: str = "") -> None:
        with suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(self._send_timeout_s):
                if socket.application_state is WebSocketState.CONNECTED:
                    await socket.close(code, reason)


def arrived(latency: Latency, delivery_ms: float) -> Latency:
    """An alert's latency with its last step known; ``total`` is the sum of the steps that it went through."""
    steps = (latency.vad, latency.queue, latency.asr, latency.rules, delivery_ms)
    total = sum(step for step in steps if step is not None)
    return structs.replace(latency, delivery=round(delivery_ms, 3), total=round(total, 3))


def _cursor(text: str | None) -> int | None:
    """Raises ``ValueError``. None given: from now on."""
    if text is None or text == "":
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise ValueError(text[:40])
    return int(text)


async def _until_gone(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
