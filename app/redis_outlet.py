"""The event log of several gateways: stored in the one database, told through one Redis Stream.

The store is the truth and gives the cursors. After each commit a gateway sends what it stored, and what is
only told, to the stream; every gateway, also that one, tells its own listeners what comes out of it, put in
order by ``app.merge``. What does not come that way is read from the store, which each gateway looks at every
``LOOK_S`` in any case: an event of a gateway that died between commit and stream is late, not lost.

While Redis is away nothing waits for it: a gateway tells its own events at once and finds those of the
others in the store, every ``LOOK_AWAY_S``; partial texts of the others' calls are not seen until it is back.

Queue: events on their way to the stream, ``EVENTS_QUEUED``; when it is full it is emptied: stored events
are then found in the store, passing ones are replaced by the next of their kind.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime

import structlog
from prometheus_client import Counter, Gauge

from app.errors import LiveError, StoreError
from app.listeners import EVENTS_PER_READ, Listeners
from app.merge import Deliveries, Entry, Merge
from app.passing import Passing
from app.redis_stream import EventStream
from app.rights import EVERYTHING, Sight
from app.store import Store
from app.store.times import now
from app.subscription import RESYNC, Envelope, Subscription
from app.writer import Writer
from streams.events import Health, OutletEvent, Published, Speaking

EVENTS_QUEUED = 20_000
EVENTS_PER_SEND = 512
LOOK_S = 1.0
"""Between two looks at the store while the stream works."""
LOOK_AWAY_S = 0.3
"""The same while Redis is away."""
GRACE_S = 0.03
"""Entries of two gateways often change places; only what is missing for so long is read from the store."""
RETRY_FIRST_S = 0.1
RETRY_MOST_S = 2.0
STOP_S = 2.0

log = structlog.get_logger(__name__)

connected = Gauge("duting_redis_connected", "Whether events go through the shared stream (1) or not (0)")
filled_total = Counter("duting_events_filled_total", "Events told from the store, not from the shared stream")
unshared_total = Counter(
    "duting_events_unshared_total", "Replaceable events that other gateways were not told of"
)


class RedisOutlet:
    """The outlet of one gateway among several (see ``app.outlet.Outlet``). For one event loop.

    ``start`` ends no calls: those that the store holds as live may be other gateways'. It does not wait for
    a Redis that is away, either.
    """

    def __init__(
        self, store: Store, url: str, *, events_kept: int, clock: Callable[[], datetime] = now
    ) -> None:
        self._store = store
        self._clock = clock
        self._name = secrets.token_hex(6)
        self._passing = Passing()
        self._listeners = Listeners(store, others_write=True)
        self._writer = Writer(
            store, self._passing, self._enqueue, tells_all=False, events_kept=events_kept, clock=clock
        )
        self._stream = EventStream(url, self._name)
        self._merge = Merge(0)
        self._queue: deque[Envelope] = deque()
        self._queued = asyncio.Event()
        self._sending = False
        self._moved = asyncio.Event()
        self._untold: dict[str | None, Envelope] = {}
        """By call (``None``: health): the last that other gateways were not told of."""
        self._connected = False
        self._wake = asyncio.Event()
        self._look_now = True
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def head(self) -> int:
        return self._listeners.head

    @property
    def health(self) -> Health | None:
        return self._passing.health

    @property
    def connected(self) -> bool:
        """Whether events go through Redis at this moment; if not, they are told late, not lost."""
        return self._connected

    def speaking(self, call_id: str) -> Speaking:
        return self._passing.speaking(call_id)

    async def append(self, events: Sequence[OutletEvent]) -> list[Published]:
        """As ``app.writer.Writer.append``; returns after the commit, whatever Redis does."""
        return await self._writer.append(events)

    def subscribe(self, cursor: int | None, sight: Sight = EVERYTHING) -> Subscription:
        return self._listeners.subscribe(cursor, sight)

    # ── life ──────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        head = await self._writer.start()
        self._merge = Merge(head)
        self._listeners.head = head
        self._passing.restore(await asyncio.to_thread(self._store.calls.places), {}, None)
        connected.set(0)
        try:
            await self._join()
        except LiveError as error:
            log.error("the event log begins without Redis", error=str(error))
        self._tasks = [
            asyncio.create_task(self._listen(), name="outlet-listen"),
            asyncio.create_task(self._publish(), name="outlet-publish"),
            asyncio.create_task(self._look_after(), name="outlet-look"),
        ]

    async def stop(self) -> None:
        await self._writer.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                while self._tasks and not self._is_quiet():
                    self._moved.clear()
                    await self._moved.wait()
        running = set(self._tasks)
        while running:
            for task in running:
                task.cancel()
            # Again and again, as the client may forget a cancellation, see ``app.redis_link``.
            _, running = await asyncio.wait(running, timeout=0.1)
        if self._tasks:
            self._connected = False  # nothing more comes that would be worth waiting for
            self._tell_here(list(self._queue))
            self._queue.clear()
            with suppress(StoreError):
                await self._look()
                await self._fill()
        self._tasks = []
        self._listeners.close()
        with suppress(Exception):  # what cannot be closed in good order is closed all the same
            await self._stream.aclose()

    def _is_quiet(self) -> bool:
        if self._queue or self._sending:
            return False
        return not self._connected or self._stream.caught_up

    # ── to the stream ─────────────────────────────────────────────────────────────────────────────

    def _enqueue(self, envelopes: Iterable[Envelope]) -> None:
        self._queue.extend(envelopes)
        if len(self._queue) > EVENTS_QUEUED:
            for envelope in self._queue:
                if envelope.stored and envelope.published is not None:
                    self._merge.know(envelope.published.cursor)
                else:
                    unshared_total.inc()
            self._queue.clear()
            self._wake.set()
        self._queued.set()

    async def _publish(self) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            while self._queue:
                size = min(len(self._queue), EVENTS_PER_SEND)
                batch = [self._queue.popleft() for _ in range(size)]
                self._sending = True
                try:
                    await self._send(batch)
                except Exception:  # the store has what is stored of it
                    log.exception("events could not be told")
                self._sending = False
                self._moved.set()

    async def _send(self, batch: list[Envelope]) -> None:
        if self._connected:
            try:
                await self._stream.send(batch)
                return
            except LiveError as error:
                self._lose(error)
            except Exception as error:
                log.exception("events could not be sent to the shared stream")
                self._lose(error)
        # Whether Redis took some of it is not known. What is stored is told once in any case, what is
        # passing perhaps twice.
        self._tell_here(batch)

    def _tell_here(self, batch: list[Envelope]) -> None:
        """Without the stream: tell this gateway's listeners, and keep what the others have to know later."""
        entries: list[Entry] = []
        for envelope in batch:
            published = envelope.published
            if published is None:
                continue
            entries.append(Entry(published, envelope.json if envelope.stored else None, self._name))
            if envelope.stored:
                if published.type == "call.ended":
                    self._untold.pop(published.call_id, None)
            elif published.type == "utterance.partial":
                unshared_total.inc()
            else:
                self._untold[published.call_id] = envelope
        self._take(entries)

    # ── from the stream ───────────────────────────────────────────────────────────────────────────

    async def _listen(self) -> None:
        """Read the stream; after a failure join it again, sooner or later."""
        pause = RETRY_FIRST_S
        while True:
            try:
                if not self._connected:
                    await self._join()
                joined = time.monotonic()
                while self._connected:
                    self._take(await self._stream.read())
                    self._moved.set()
                    if time.monotonic() - joined > RETRY_MOST_S:
                        pause = RETRY_FIRST_S
            except (LiveError, StoreError) as error:
                self._lose(error)
            except Exception as error:
                log.exception("the shared stream could not be read")
                self._lose(error)
            await asyncio.sleep(pause)
            pause = min(RETRY_MOST_S, pause * 2)

    async def _join(self) -> None:
        present = await self._stream.join()
        # In this order: a call is in the store before anything of it is in Redis.
        live = await asyncio.to_thread(self._store.calls.places)
        self._passing.restore(live, present.speaking, present.health)
        health = self._passing.health if present.health is None else None
        await self._stream.mend(self._passing.mine(), present.speaking.keys() - live.places.keys(), health)
        # Before what waits: that is newer.
        self._queue.extendleft(reversed(self._untold.values()))
        self._untold.clear()
        self._queued.set()
        self._connected = True
        connected.set(1)
        log.info("the event log goes through Redis", gateway=self._name)
        self._look_now = True
        self._wake.set()

    def _lose(self, error: Exception) -> None:
        if self._connected:
            log.warning("the event log goes on without Redis", gateway=self._name, error=str(error))
        self._connected = False
        connected.set(0)
        self._look_now = True
        self._wake.set()
        self._moved.set()

    # ── from the store ────────────────────────────────────────────────────────────────────────────

    async def _look_after(self) -> None:
        """Look at the store from time to time, and read from it whatever is missing."""
        looked = 0.0
        while True:
            pause = LOOK_S if self._connected else LOOK_AWAY_S
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, looked + pause - time.monotonic())):
                    await self._wake.wait()
            self._wake.clear()
            try:
                if self._look_now or time.monotonic() >= looked + pause:
                    self._look_now, looked = False, time.monotonic()
                    await self._look()
                await self._fill()
            except StoreError as error:
                log.warning("the event log cannot be read", error=str(error))
                await asyncio.sleep(LOOK_AWAY_S)
            except Exception:
                log.exception("the event log cannot be read")
                await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        before = self._merge.head
        _, newest = await asyncio.to_thread(self._store.log.bounds)
        if newest < before:
            log.error("the event log went back; everybody loads anew", expected=before, found=newest)
            self._tell(self._merge.restart(newest))
        else:
            self._merge.know(newest)

    async def _fill(self) -> None:
        patient = self._connected
        while (wanted := self._merge.wanted) is not None:
            if patient:
                patient = False
                await asyncio.sleep(GRACE_S)
                continue
            found = await asyncio.to_thread(self._store.log.read, self._merge.head, wanted, EVENTS_PER_READ)
            told = self._merge.fill([Entry(item.published, item.json, None) for item in found], wanted)
            filled_total.inc(sum(entry is not None and entry.by is None for entry in told))
            self._tell(told)

    # ── to the listeners ──────────────────────────────────────────────────────────────────────────

    def _take(self, entries: Sequence[Entry]) -> None:
        self._tell(self._merge.offer(entries))
        if self._merge.wanted is not None:
            self._wake.set()

    def _tell(self, deliveries: Deliveries) -> None:
        if not deliveries:
            return
        envelopes: list[Envelope] = []
        for entry in deliveries:
            if entry is None:
                envelopes.append(RESYNC)
                continue
            if entry.by != self._name:
                self._passing.learn(entry.published)
            envelopes.append(Envelope(entry.published, self._emitted(entry.published), entry.json))
        self._listeners.tell(envelopes)
        self._listeners.head = self._merge.head

    def _emitted(self, published: Published) -> float:
        """``time.monotonic()`` here when it was appended there; the clocks of two machines may differ."""
        age = (self._clock() - datetime.fromisoformat(published.at)).total_seconds()
        return time.monotonic() - max(0.0, age)
