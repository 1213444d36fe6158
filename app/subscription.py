"""One listener's place in the event log: the past from the store, then the present from a bounded queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

import msgspec
from prometheus_client import Counter

from app import rights
from app.rights import EVERYTHING, Sight, shown
from app.store.projection import Stored
from dashboard.feed import text_frame
from streams.events import Published

EVENTS_WAITING = 2048
"""Most events that wait for one listener; see ``Subscription.offer`` on what happens beyond."""

resyncs_total = Counter("duting_resyncs_total", "Times a listener had to load the present state anew")

Read = Callable[[int, int], Awaitable[Sequence[Stored]]]
"""Stored events after the first cursor, up to and with the second; as many as fit into memory at once."""


class Envelope:
    """An event on its way to subscribers; its JSON is made once for all of them."""

    __slots__ = ("_frame", "_json", "emitted", "published", "stored")

    def __init__(
        self, published: Published | None, emitted: float | None = None, json: str | None = None
    ) -> None:
        """``json``: of a stored event, as the store holds it."""
        self.published = published
        """``None``: this subscriber missed events; it has to load the present state anew."""
        self.emitted = emitted
        """``time.monotonic()`` at ``append``; ``None`` when it was read back from the store."""
        self.stored = json is not None
        """Whether its cursor is its own; one that is not stored carries that of the stored one before it."""
        self._json = json
        self._frame: bytes | None = None

    @property
    def frame(self) -> bytes:
        """The WebSocket frame that tells it, the same for all."""
        if self._frame is None:
            self._frame = text_frame(self.json.encode())
        return self._frame

    @property
    def json(self) -> str:
        """``published`` as JSON."""
        if self._json is None:
            self._json = msgspec.json.encode(self.published).decode()
        return self._json


RESYNC = Envelope(None)


class Subscription:
    """One listener's place in the log: an async iterator of ``Envelope``.

    After a resync it continues with what happens next; what lies between is in the state that the
    listener loads. ``take`` gives many at once; use either it or the iterator.
    """

    def __init__(
        self,
        head: int,
        read: Read,
        forget: Callable[[Subscription], None],
        sight: Sight = EVERYTHING,
    ) -> None:
        """``sight``: of which calls it is told. What is not in sight is never in the queue."""
        self.sight = sight
        self._read = read
        self._forget = forget
        self.head = head
        """Cursor of the log's last event when this subscription was made."""
        self._waiting: deque[Envelope] = deque()
        self._taken: deque[Envelope] = deque()
        self._wake = asyncio.Event()
        self._replay: tuple[int, int] | None = None
        self._skip: int | None = None
        self._unproven: int | None = None
        self.ended = False
        """Nothing more will come: it was closed, or the outlet has stopped."""

    async def take(self, timeout_s: float | None = None) -> list[Envelope]:
        """All events that wait; else the next ones. Empty after the timeout, and when it has ended.

        Raises ``StoreError`` when the past cannot be read.
        """
        while self._unproven is not None:
            cursor = self._unproven
            known = await self._read(cursor - 1, cursor)
            if self._unproven == cursor:
                self._unproven = None
                if not known:  # the log never gave this cursor
                    self.lose()
        # What is read and not in sight may take long: the timeout is of the silence after it.
        while self._replay is not None:
            after, until = self._replay
            stored = await self._read(after, until)
            if self._replay is None:  # lost meanwhile
                break
            if not stored or stored[0].published.cursor != after + 1:  # trimmed away meanwhile
                self.lose()
                break
            last = stored[-1].published.cursor
            self._replay = (last, until) if last < until else None
            found = in_sight(self.sight, [Envelope(item.published, None, item.json) for item in stored])
            if any(envelope.published is None for envelope in found):
                self.lose()
                break
            if found:
                return list(found)
            continue
        if not self._waiting and not self.ended:
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
            except TimeoutError:
                return []
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def offer(self, envelopes: Sequence[Envelope]) -> None:
        """Put events, all of them in sight, into this listener's queue. Never waits.

        From half of ``EVENTS_WAITING`` on, partial texts are left out: the final one replaces them. When
        the queue is full, all of it is dropped and the listener is told to load the present state anew; so
        it is by an envelope without an event, which says that this process itself missed some.
        """
        if self.ended:
            return
        for envelope in envelopes:
            if envelope.published is None:
                self.lose()
                continue
            if self._skip is not None and self._has_seen(envelope.published.cursor, self._skip):
                continue
            waiting = len(self._waiting)
            if waiting >= EVENTS_WAITING // 2 and _is_replaced_soon(envelope):
                continue
            if waiting >= EVENTS_WAITING:
                self.lose()
            self._waiting.append(envelope)
        self._wake.set()

    def replay(self, after: int, until: int) -> None:
        """Begin with stored events of these cursors."""
        self._replay = (after, until)

    def skip(self, cursor: int) -> None:
        """Begin after this cursor, which the log has given but this process has not come to yet.

        Whether it has is found out by the first ``take``; a cursor that the store does not know becomes a
        resync.
        """
        self._skip = self._unproven = cursor

    def _has_seen(self, cursor: int, seen: int) -> bool:
        """Whether the listener knows this event already; ends the skipping once it is reached."""
        if cursor >= seen:
            self._skip = self._unproven = None
        return cursor <= seen

    def lose(self) -> None:
        """Drop what waits; the listener is told to load the present state anew."""
        self._replay = self._skip = self._unproven = None
        self._waiting.clear()
        self._waiting.append(RESYNC)
        self._wake.set()
        resyncs_total.inc()

    def close(self) -> None:
        """End it. What waits can still be taken."""
        self.ended = True
        self._wake.set()
        self._forget(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Envelope:
        while not self._taken:
            self._taken.extend(await self.take())
            if not self._taken and self.ended:
                raise StopAsyncIteration
        return self._taken.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def in_sight(sight: Sight, envelopes: Sequence[Envelope]) -> Sequence[Envelope]:
    """What somebody with this sight is told of these.

    Of a call that comes into view nothing is known there: the present state has to be loaded anew, and is
    complete then. Of one that goes out of view only that is told.
    """
    if sight.everything and sight.supervises:
        return envelopes
    told: list[Envelope] = []
    for envelope in envelopes:
        published = envelope.published
        if published is None:
            told.append(envelope)
            continue
        match shown(sight, published):
            case "shown":
                mine = rights.told(sight, published)
                told.append(envelope if mine is published else _enveloped(mine, envelope))
            case "gained":
                told.append(RESYNC)
            case "lost":
                left = Published(
                    cursor=published.cursor,
                    type="call.left",
                    call_id=published.call_id,
                    at=published.at,
                    media_ms=None,
                )
                told.append(_enveloped(left, envelope))
            case "hidden":
                pass
    return told


def _enveloped(published: Published, instead: Envelope) -> Envelope:
    return Envelope(published, instead.emitted, msgspec.json.encode(published).decode())


def _is_replaced_soon(envelope: Envelope) -> bool:
    return envelope.published is not None and envelope.published.type == "utterance.partial"
