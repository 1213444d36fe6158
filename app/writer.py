"""The writing side of the event log: one thread per process stores events, many appends in one commit.

While it commits, further appends gather and become the next transaction together (group commit), so the
cost of a commit is shared by all calls. Events pass through it in the order of ``append``, also those that
are not stored; therefore a partial text never overtakes its final one.

Queue: appends that wait for the thread, ``APPENDS_WAITING``; when it is full ``append`` waits, nothing is
dropped.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import structlog
from prometheus_client import Counter, Gauge, Histogram

from app.errors import StoreError
from app.passing import Passing
from app.store import Store
from app.store.projection import Stored, is_stored
from app.store.times import written
from app.store.trouble import is_outage
from app.subscription import RESYNC, Envelope
from streams.events import OutletEvent, Published

APPENDS_WAITING = 4096
EVENTS_PER_COMMIT = 1000
GATHER_S = 0.03
"""Between the beginnings of two commits, while appends come faster than they are committed: a commit costs a
dozen statements however much is in it, and its thread takes the interpreter from the one that hears. What
comes alone is committed at once."""
TRIM_EVERY = 1000
"""Stored events between two trims of the log."""

log = structlog.get_logger(__name__)

published_total = Counter("duting_events_total", "Events published", ["type"])
commit_seconds = Histogram(
    "duting_commit_seconds",
    "Time to store a batch of events",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
waiting_appends = Gauge("duting_appends_waiting", "Appends that wait for the store")
unstorable_total = Counter("duting_events_unstorable_total", "Events that could not be stored", ["type"])

Told = Callable[[list[Envelope]], None]
"""Takes what was published, on the loop, in the order of the commits; must not wait."""


class _Append(NamedTuple):
    events: Sequence[OutletEvent]
    at: str
    emitted: float
    done: asyncio.Future[list[Published]]


class _Outcome(NamedTuple):
    append: _Append | None
    """``None``: nobody here waits for it; see ``Writer._between``."""
    result: list[Envelope] | StoreError


class Writer:
    """For one event loop: ``start``, ``append``, ``stop``."""

    def __init__(
        self,
        store: Store,
        passing: Passing,
        told: Told,
        *,
        tells_all: bool,
        events_kept: int,
        clock: Callable[[], datetime],
    ) -> None:
        """``tells_all``: nobody else tells what others wrote into the log, so this writer does."""
        self._store = store
        self._passing = passing
        self._told = told
        self._tells_all = tells_all
        self._events_kept = events_kept
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._room = asyncio.Semaphore(APPENDS_WAITING)
        self._appends: deque[_Append] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._gathering = False
        """The thread waits for more: it need not be woken for what comes, until that is enough."""
        self._oldest = 1
        self._written = 0  # cursor of the last event that this thread stored
        self._unsure = False  # whether a commit failed, and may have come through all the same
        self._since_trim = 0

    async def start(self) -> int:
        """Continue the log where it stands; returns the cursor of its last event."""
        self._loop = asyncio.get_running_loop()
        self._oldest, self._written = await asyncio.to_thread(self._store.log.bounds)
        head = self._written
        self._thread = threading.Thread(target=self._write, name="outlet-writer", daemon=True)
        self._thread.start()
        return head

    async def stop(self) -> None:
        """Store what waits. Later appends raise ``StoreError``."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        await asyncio.sleep(0)  # the last outcomes were handed to the loop before the thread ended

    async def append(self, events: Sequence[OutletEvent]) -> list[Published]:
        """Store events, then tell them. Returns what was published, after the commit.

        What the store holds already is not published again, so the same events may be given twice. When
        the caller is cancelled they are stored all the same. An event that no database could hold is
        logged, counted and left out. Raises ``StoreError`` when the database is not available: nothing
        of it was told, give all of it again.
        """
        emitted = time.monotonic()
        if self._loop is None:
            raise StoreError("the event log was not started")
        at = written(self._clock())
        async with self._room:
            append = _Append(events, at, emitted, self._loop.create_future())
            with self._wake:
                if self._stopping:
                    raise StoreError("the event log is stopped; nothing more is stored")
                self._appends.append(append)
                if not self._gathering or self._is_full:
                    self._wake.notify()
            waiting_appends.inc()
            return await append.done

    # ── the thread ────────────────────────────────────────────────────────────────────────────────

    def _write(self) -> None:
        """Take all that waits, commit, hand the outcomes to the loop, again."""
        assert self._loop is not None
        began, together = 0.0, 0
        while True:
            with self._wake:
                pause_s = began + GATHER_S - time.monotonic() if together > 1 else 0.0
                if pause_s > 0:
                    self._gathering = True
                    self._wake.wait_for(lambda: self._stopping or self._is_full, pause_s)
                    self._gathering = False
                while not self._appends and not self._stopping:
                    self._wake.wait()
                if not self._appends:
                    return
                batch: list[_Append] = []
                size = 0
                while self._appends and (
                    not batch or size + len(self._appends[0].events) <= EVENTS_PER_COMMIT
                ):
                    size += len(self._appends[0].events)
                    batch.append(self._appends.popleft())
            began, together = time.monotonic(), len(batch)
            outcomes = self._commit(batch)
            waiting_appends.dec(len(batch))
            try:
                self._loop.call_soon_threadsafe(self._settle, outcomes)
            except RuntimeError:  # the loop is closed; nobody waits any more
                return
            self._trim()

    @property
    def _is_full(self) -> bool:
        """Whether a commit's worth waits already. Under the lock."""
        return len(self._appends) >= EVENTS_PER_COMMIT

    def _commit(self, batch: list[_Append]) -> list[_Outcome]:
        kept = [append for append in batch if any(is_stored(event) for event in append.events)]
        stored: dict[int, list[Sequence[Stored]]] = {}
        between: list[Envelope] = []
        failed: StoreError | None = None
        if kept:
            started = time.perf_counter()
            try:
                results = iter(self._store_each(kept))
                stored = {id(append): [next(results) for _ in append.events] for append in kept}
                if self._tells_all:
                    between = self._between(item for told in stored.values() for one in told for item in one)
            except StoreError as error:
                failed = error
            except Exception as error:  # whatever it is, those who wait must hear of it
                log.exception("the event log's writer failed")
                failed = StoreError(f"the event log could not be written: {type(error).__name__}")
            self._unsure = failed is not None
            commit_seconds.observe(time.perf_counter() - started)
        return [
            *([_Outcome(None, between)] if between else []),
            *(
                _Outcome(append, failed if failed and append in kept else self._envelopes(append, stored))
                for append in batch
            ),
        ]

    def _between(self, stored: Iterable[Stored]) -> list[Envelope]:
        """What the log holds behind the last event that was told and before these.

        Another process wrote it, or it was in a commit whose end this process did not see: given again, it
        counts as stored already, and nobody would be told.
        """
        first = next((item.published.cursor for item in stored), None)
        if first is None and not self._unsure:
            return []
        until = self._store.log.bounds()[1] if first is None else first - 1
        missed = until - self._written
        if missed <= 0:
            return []
        found = [RESYNC]  # too many to hold: the present state says it all
        if missed <= EVENTS_PER_COMMIT:
            found = [
                Envelope(item.published, None, item.json)
                for item in self._store.log.read(self._written, until, EVENTS_PER_COMMIT)
            ]
        self._written = until
        return found

    def _store_each(self, appends: list[_Append]) -> list[Sequence[Stored]]:
        """What became of each event of these appends; in one transaction, as long as every event fits."""
        events = [(event, append.at) for append in appends for event in append.events]
        try:
            return self._store.log.append(events)
        except Exception as error:
            if is_outage(error):
                raise
        # One of them can never be stored, however often it is tried. The others must not suffer for it.
        results: list[Sequence[Stored]] = []
        for event, at in events:
            try:
                results.extend(self._store.log.append([(event, at)]))
            except Exception as error:
                if is_outage(error):
                    raise
                unstorable_total.labels(type(event).__name__).inc()
                log.error(
                    "an event cannot be stored",
                    kind=type(event).__name__,
                    call_id=getattr(event, "call_id", None),
                    error=type(error.__cause__ or error).__name__,
                )
                results.append(())
        return results

    def _envelopes(self, append: _Append, stored: dict[int, list[Sequence[Stored]]]) -> list[Envelope]:
        envelopes: list[Envelope] = []
        results = stored.get(id(append))
        for position, event in enumerate(append.events):
            for item in results[position] if results is not None else ():
                self._written = item.published.cursor
                self._since_trim += 1
                self._passing.stored(item.published)
                envelopes.append(Envelope(item.published, append.emitted, item.json))
            passing = self._passing.of(event, append.at, self._written)
            if passing is not None:
                envelopes.append(Envelope(passing, append.emitted))
        return envelopes

    def _trim(self) -> None:
        if self._since_trim < TRIM_EVERY:
            return
        self._since_trim = 0
        through = self._written - self._events_kept
        if through < self._oldest:
            return
        try:
            self._store.log.trim(through)
            self._oldest = through + 1
        except StoreError as error:  # the next one makes up for it
            log.warning("the event log could not be trimmed", error=str(error))

    # ── the loop ──────────────────────────────────────────────────────────────────────────────────

    def _settle(self, outcomes: list[_Outcome]) -> None:
        """Answer those who wait, and tell, in the order of the commits."""
        envelopes: list[Envelope] = []
        for append, result in outcomes:
            if isinstance(result, StoreError):
                if append is not None and not append.done.done():
                    append.done.set_exception(result)
                continue
            envelopes.extend(result)
            published = [item.published for item in result if item.published is not None]
            for event in published:
                published_total.labels(event.type).inc()
            if append is not None and not append.done.done():
                append.done.set_result(published)
        if envelopes:
            self._told(envelopes)
