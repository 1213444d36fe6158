"""Events on their way to the outlet: in order, and kept until they are stored.

Bound: finals, alerts and call events are never dropped (their number follows from the speech admitted);
partials and speech edges, which the next one replaces, are dropped while more than ``CROWDED`` wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

import structlog
from msgspec.structs import replace
from prometheus_client import Counter

from streams.events import Alert, OutletEvent, SpeechStarted, SpeechStopped, Transcript

log = structlog.get_logger(__name__)

DROPPED = Counter("duting_events_dropped", "Replaceable events dropped on the way to the outlet")


class Outbox:
    """``post`` at any time; ``deliver`` runs as a task of the same event loop.

    Args:
        emit: stores and publishes events; raises when it cannot, and is then tried again.
        clock: seconds.
    """

    CROWDED = 5_000
    AT_ONCE = 500

    def __init__(
        self, emit: Callable[[Sequence[OutletEvent]], Awaitable[object]], clock: Callable[[], float]
    ) -> None:
        self._emit, self._clock = emit, clock
        self._waiting: deque[tuple[OutletEvent, float]] = deque()
        """Events and the clock at which they were posted."""
        self._posted = asyncio.Event()
        self._delivered = asyncio.Event()

    def post(self, events: Sequence[OutletEvent]) -> None:
        for event in events:
            replaceable = isinstance(event, SpeechStarted | SpeechStopped) or (
                isinstance(event, Transcript) and not event.final
            )
            if replaceable and len(self._waiting) > self.CROWDED:
                DROPPED.inc()
                continue
            self._waiting.append((event, self._clock()))
        self._posted.set()

    async def flush(self) -> None:
        """Wait until everything posted so far is stored."""
        while self._waiting:
            self._delivered.clear()
            await self._delivered.wait()

    async def deliver(self) -> None:
        """Hand events to the outlet, many at a time, for ever; they leave once they are stored."""
        pause = 0.1
        while True:
            await self._posted.wait()
            self._posted.clear()
            while self._waiting:
                events = [self._waited(*posted) for posted in islice(self._waiting, self.AT_ONCE)]
                try:
                    await self._emit(events)
                except Exception as error:
                    # The store may come back: nothing is lost meanwhile.
                    log.error("outlet.failed", waiting=len(self._waiting), error=type(error).__name__)
                    await asyncio.sleep(pause)
                    pause = min(5.0, pause * 2)
                    continue
                pause = 0.1
                for _ in events:
                    self._waiting.popleft()
                self._delivered.set()

    def _waited(self, event: OutletEvent, posted_s: float) -> OutletEvent:
        """An alert's wait for the outlet belongs to its latency: the outlet counts from its own door."""
        if not isinstance(event, Alert) or event.latency_ms.rules is None:
            return event
        rules = event.latency_ms.rules + (self._clock() - posted_s) * 1000
        return replace(event, latency_ms=replace(event.latency_ms, rules=round(rules, 1)))
