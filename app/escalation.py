"""Alerts that nobody took in time, told to everybody. The timer is data: a deadline beside each alert.

Every gateway looks at them every ``LOOK_S``; the event log lets only one of them have it. A deadline that
passed while no gateway ran is served when one starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import structlog
from prometheus_client import Counter

from app.errors import StoreError
from app.outlet import Outlet
from app.store import Store
from app.store.times import now, written
from streams.events import Alert, Decided

LOOK_S = 1.0
MOST_AT_ONCE = 100

log = structlog.get_logger(__name__)

escalated_total = Counter("duting_alerts_escalated_total", "Alerts that nobody took in time", ["severity"])


def escalation(alert: Alert) -> Decided:
    """What an alert whose deadline has passed wishes; of each deadline the same, whoever asks."""
    return Decided(
        id=f"{alert.id}\x1f{alert.escalates_at}",
        call_id=alert.call_id,
        alert_id=alert.id,
        media_ms=alert.media_ms,
        action="escalate",
        by=None,
        deadline=alert.escalates_at,
    )


class Escalation:
    """For one event loop: ``start``, ``stop``."""

    def __init__(self, store: Store, outlet: Outlet, clock: Callable[[], datetime] = now) -> None:
        self._store = store
        self._outlet = outlet
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="escalation")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def look(self) -> int:
        """Escalate what is due, ``MOST_AT_ONCE`` at most; returns how many were. Raises ``StoreError``."""
        at = written(self._clock())
        due = await asyncio.to_thread(self._store.alerts.due, at, MOST_AT_ONCE)
        told = 0
        if due:
            for event in await self._outlet.append([escalation(alert) for alert in due]):
                if isinstance(event.alert, Alert):
                    told += 1
                    escalated_total.labels(event.alert.severity).inc()
                    log.info("an alert escalated", alert_id=event.alert.id, call_id=event.call_id)
        return told

    async def _watch(self) -> None:
        while True:
            told = 0
            try:
                told = await self.look()
            except StoreError as error:  # the deadlines are still there the next time
                log.warning("escalations wait for the database", error=str(error))
            except Exception:
                log.exception("escalations could not be looked after")
            if told < MOST_AT_ONCE:
                await asyncio.sleep(LOOK_S)
