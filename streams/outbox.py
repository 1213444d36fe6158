"""Events on their way to the outlet: in order, and kept until they are stored.

Bound: finals, alerts and call events are never dropped (their number follows from the speech admitted);
partials and speech edges, which the next one replaces, are dropped while more than ``CROWDED`` wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

import structlog
from msgspec.structs import replace
from prometheus_client import Counter

from streams.events import Alert, SpeechStarted, SpeechStopped, Transcript

log = structlog.get_logger(__name__)

DROPPED = Counter("duting_events_dropped", "Replaceable events dropped on the way to the outlet")


T = TypeVar("T")


class Outbox(Generic[T]):
    """``post`` at any time; ``deliver`` runs as a task of the same event loop.

    Args:
        emit: stores and publishes events; raises when it cannot, and is then tried again.
        clock: seconds.
        is_replaceable: what the next of its kind replaces; by default speech edges and partial transcripts.
        to: who takes them, for the log.
    """

    CROWDED = 5_000
    AT_ONCE = 500

    def __init__(
        self,
        emit: Callable[[Sequence[T]], Awaitable[object]],
        clock: Callable[[], float],
        is_replaceable: Callable[[T], bool] | None = None,
        to: str = "outlet",
    ) -> None:
        self._emit, self._clock = emit, clock
        self._is_replaceable = is_replaceable or _is_replaceable
        self._to = to
        self._waiting: deque[tuple[T, float]] = deque()
        """Events and the clock at which they were posted."""
        self._taken = 0
        """Events that are stored, since the beginning."""
        self._posted = asyncio.Event()
        self._delivered = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def post(self, events: Sequence[T]) -> None:
        for event in events:
            if len(self._waiting) > self.CROWDED and self._is_replaceable(event):
                DROPPED.inc()
                continue
            self._waiting.append((event, self._clock()))
        self._posted.set()

    async def flush(self) -> None:
        """Wait until everything posted so far is stored; what is posted meanwhile is not waited for."""
        wanted = self._taken + len(self._waiting)
        while self._taken < wanted:
            self._delivered.clear()
            await self._delivered.wait()

    async def deliver(self) -> None:
        """Hand events to the outlet, many at a time, for ever; they leave once they are stored."""
        pause = 0.1
        while True:
            await self._posted.wait()
            self._posted.clear()
            while self._waiting:
                now = self._clock()
                events = [_waited(event, now - at) for event, at in islice(self._waiting, self.AT_ONCE)]
                try:
                    await self._emit(events)
                except Exception as error:
                    # The store may come back: nothing is lost meanwhile.
                    waiting, kind = len(self._waiting), type(error).__name__
                    log.error("not_delivered", to=self._to, waiting=waiting, error=kind)
                    await asyncio.sleep(pause)
                    pause = min(5.0, pause * 2)
                    continue
                pause = 0.1
                for _ in events:
                    self._waiting.popleft()
                self._taken += len(events)
                self._delivered.set()


def _is_replaceable(event: object) -> bool:
    return isinstance(event, SpeechStarted | SpeechStopped) or (
        isinstance(event, Transcript) and not event.final
    )


def _waited(event: T, waited_s: float) -> T:
    """An alert's wait for the outlet belongs to its latency: the outlet counts from its own door."""
    if not isinstance(event, Alert) or event.latency_ms.rules is None:
        return event
    rules = round(event.latency_ms.rules + waited_s * 1000, 1)
    return replace(event, latency_ms=replace(event.latency_ms, rules=rules))
