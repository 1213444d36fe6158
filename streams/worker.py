"""A worker of a cluster: a Faust application around what it does, watched and replaced when it stands still.

At least once everywhere: a message is acknowledged, and so may be committed, when what follows from it is
kept by the broker; ids and numbers make a second time harmless.

Faust's consumers have been seen to stop without a word (faust-streaming#175, #532). So a worker watches
whether its partitions advance, and replaces the application, not the process, when they do not: the model
stays loaded.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import faust
import structlog
from faust.types import TP
from prometheus_client import Counter, Gauge

from streams import wire
from streams.acks import InOrder
from streams.gateway import Message, WorkerState
from streams.kafka import DEAD, LAG, BrokerError, Sender
from streams.outbox import Outbox
from streams.reading import Done

log = structlog.get_logger(__name__)

READY = Gauge("duting_worker_ready", "1: takes part in the work")
REBALANCES = Counter("duting_rebalances_total", "Times that partitions were handed out anew")
RESTARTS = Counter("duting_consumer_restarts_total", "Consumers replaced", ["reason"])

Events = AsyncIterator[Any]
"""Faust's: ``message`` has topic, partition, offset, key and value; ``ack()``."""


class Out(NamedTuple):
    message: Message
    done: Done


class Worker:
    """What both kinds of worker are. ``run`` until ``stop``.

    Args:
        brokers: ``host:port``.
        name: of this process.
        announce: told every ``ANNOUNCE_S`` how it does; may raise, which is logged.
    """

    GROUP = ""
    TOPICS: tuple[wire.Topic[Any], ...] = ()
    ANNOUNCE_S = 0.5
    MEASURE_S = 2.0
    STUCK_S = 30.0
    """Messages wait and none was taken for so long: the consumer is replaced."""
    REBALANCE_S = 20.0
    """Partitions are handed out, and that does not end: the consumer is replaced."""
    START_S = 90.0
    """To join the group and to recover what it keeps."""
    STOP_S = 20.0
    MOST_LAG = 2_000
    """Messages behind which a worker is not ready: a deployment then waits before it goes on."""

    def __init__(
        self,
        brokers: Sequence[str],
        name: str,
        announce: Callable[[WorkerState], Awaitable[object]],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._brokers, self._name, self._announce, self._wall = brokers, name, announce, wall
        self._sender = Sender(brokers, name)
        self._outbox: Outbox[Out] = Outbox(self._send, time.monotonic, lambda out: False, to="broker")
        self._stop = asyncio.Event()
        self._app: faust.App | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="duting-faust-")
        self._taken: dict[TP, int] = {}
        """Offset behind the last message taken, by partition; before the first, where it is to begin."""
        self._acks = InOrder()
        self._ends: dict[TP, int] = {}
        """Where each partition ended when that was measured last."""
        self._measured_s = self._sure_s = -1e9
        """Clocks at which that was asked for last, and at which the answer came last."""
        self._moved_s = time.monotonic()
        """Clock at which the last message was taken, or none waited."""
        self._settled_s = time.monotonic()
        """Clock at which partitions were not being handed out."""
        self._started = False
        self._told: str | None = None

    # ── life ──────────────────────────────────────────────────────────────────────────────────────

    def stop(self) -> None:
        """Finish what is begun, hand the partitions to others, and return from ``run``."""
        self._stop.set()

    async def run(self) -> None:
        await self._sender.start()
        tasks = [
            asyncio.create_task(self._outbox.deliver(), name="deliver"),
            asyncio.create_task(self._tell(), name="announce"),
            asyncio.create_task(self._tick(), name="timers"),
        ]
        try:
            while not self._stop.is_set():
                reason = await self._serve()
                if reason is not None:
                    RESTARTS.labels(reason).inc()
                    log.error("worker.restarts", reason=reason, group=self.GROUP)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._stop.wait(), 1.0)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._outbox.flush(), self.STOP_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._sender.stop()
            self._folder.cleanup()

    async def _serve(self) -> str | None:
        """One Faust application, until it is to stop; else why it is to be replaced."""
        self._taken, self._ends, self._started = {}, {}, False
        app = self._app = self._application()
        self._moved_s = self._settled_s = time.monotonic()
        reason: str | None = None
        try:
            await asyncio.wait_for(app.start(), self.START_S)
            self._started = True
            while not self._stop.is_set() and reason is None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), 0.5)
                await self._measure(app)
                reason = self._trouble(app)
            if self._stop.is_set():
                await self._drain()
        except TimeoutError:
            reason = "start"
        except Exception as error:
            log.error("worker.failed", error=type(error).__name__)
            reason = "failed"
        finally:
            READY.set(0)
            self._started = False
            stopped = await self._end(app)
            self._gone()
        if not stopped and not self._stop.is_set():
            raise BrokerError(
                "a consumer that stood still could not be stopped; the process ends, to be started anew",
                retryable=True,
            )
        return None if self._stop.is_set() else reason

    async def _end(self, app: faust.App) -> bool:
        try:
            await asyncio.wait_for(app.stop(), self.STOP_S)
        except Exception as error:
            log.error("worker.not_stopped", error=type(error).__name__)
            return False
        return True

    async def _measure(self, app: faust.App) -> None:
        """Ask every ``MEASURE_S`` where the partitions end, and where this worker began to take from them."""
        now = time.monotonic()
        if now - self._measured_s < self.MEASURE_S or app.rebalancing:
            return
        self._measured_s = now
        try:
            async with asyncio.timeout(self.MEASURE_S):
                ends = await app.consumer.highwaters(*self.assigned)
                begins = await app.consumer.earliest_offsets(*self.assigned)
        except Exception as error:
            log.warning("worker.not_measured", error=type(error).__name__)
            return
        committed = getattr(app.consumer, "_committed_offset", {})
        for tp in ends:
            # What is not kept any more is not waited for.
            self._taken.setdefault(tp, max(committed.get(tp) or 0, begins.get(tp, 0)))
        self._ends, self._sure_s = dict(ends), now

    def _trouble(self, app: faust.App) -> str | None:
        if app.crashed or app.should_stop:
            return "crashed"
        now = time.monotonic()
        if not app.rebalancing:
            self._settled_s = now
        elif now - self._settled_s > self.REBALANCE_S:
            return "rebalance"
        if not self.lag or self._is_full() or app.rebalancing:
            self._moved_s = now
        return "stuck" if now - self._moved_s > self.STUCK_S else None

    def _application(self) -> faust.App:
        app = faust.App(
            self.GROUP,
            broker=[f"kafka://{broker}" for broker in self._brokers],
            store="memory://",
            # It makes folders there although it keeps nothing on disk.
            datadir=self._folder.name,
            autodiscover=False,
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            table_standby_replicas=0,
            key_serializer="raw",
            value_serializer="raw",
            consumer_auto_offset_reset="earliest",
            broker_client_id=self._name,
            broker_session_timeout=6.0,
            broker_heartbeat_interval=1.5,
            broker_rebalance_timeout=30.0,
            broker_request_timeout=25.0,
            broker_commit_interval=1.0,
            broker_max_poll_interval=300.0,
            consumer_max_fetch_size=4 * 1024 * 1024,
            producer_max_request_size=4 * 1024 * 1024,
            producer_acks=-1,
            stream_buffer_maxsize=2_048,
            stream_wait_empty=False,
            stream_recovery_delay=0.0,
        )
        for topic in self.TOPICS:
            self._agent(app, topic)
        app.on_partitions_revoked.connect(self._on_revoked)  # type: ignore[arg-type]
        app.on_partitions_assigned.connect(self._on_assigned)  # type: ignore[arg-type]
        return app

    def _agent(self, app: faust.App, topic: wire.Topic[Any]) -> None:
        channel = app.topic(topic.name, key_type=bytes, value_type=bytes)

        async def take(stream: Any) -> None:
            async for event in stream.noack().events():
                await self._message(topic, event)

        app.agent(channel, name=f"{self.GROUP}.{topic.name}", concurrency=1)(take)

    async def _message(self, topic: wire.Topic[Any], event: Any) -> None:
        message = event.message
        self._moved_s = time.monotonic()
        done = self._acks.add(TP(message.topic, message.partition), event.ack)
        try:
            value = topic.decode(message.value)
            await self._take(value, message, done)
        except wire.WireError as error:
            DEAD.labels(error.topic, error.reason).inc()
            place = f"{message.partition}:{message.offset}"
            log.error(
                "message.unreadable", topic=topic.name, place=place, reason=error.reason, why=str(error)
            )
            await self._bury(topic.name, message, str(error), place)
            done()
        except Exception as error:
            # One message must not end the others' way. The error's text may quote what was said.
            DEAD.labels(topic.name, "failed").inc()
            place = f"{message.partition}:{message.offset}"
            log.error("message.failed", topic=topic.name, place=place, error=type(error).__name__)
            await self._bury(topic.name, message, type(error).__name__, place)
            done()
        self._taken[TP(message.topic, message.partition)] = message.offset + 1

    async def _bury(self, topic: str, message: Any, why: str, place: str) -> None:
        pause = 0.2
        while True:
            try:
                await self._sender.bury(topic, message.key, message.value, why, place)
                return
            except Exception as error:
                log.error("dead_letter.not_kept", error=type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(5.0, pause * 2)

    async def _send(self, outs: Sequence[Out]) -> None:
        await self._sender.send([out.message for out in outs])
        for out in outs:
            out.done()

    # ── what the kinds do ─────────────────────────────────────────────────────────────────────────

    async def _take(self, value: Any, message: Any, done: Done) -> None:
        """``done`` is to be called when what follows from it is kept, and nothing of it is owed."""
        raise NotImplementedError

    def _gone(self) -> None:
        """Its partitions are others' now, or will come anew: what is not acknowledged comes again."""
        self._acks.clear()

    def _is_full(self) -> bool:
        """Whether it takes nothing now because it has enough to do."""
        return False

    def _state(self) -> WorkerState:
        raise NotImplementedError

    async def _drain(self) -> None:
        """Finish what is begun."""

    async def _on_revoked(self, app: Any, *_args: Any, **_: Any) -> None:
        pass

    async def _on_assigned(self, app: Any, *_args: Any, **_: Any) -> None:
        REBALANCES.inc()
        self._taken, self._ends, self._measured_s = {}, {}, -1e9
        self._acks.clear()

    def _serve_timers(self) -> None:
        pass

    # ── how it does ───────────────────────────────────────────────────────────────────────────────

    @property
    def assigned(self) -> set[TP]:
        """Partitions of its topics that are its own."""
        app, names = self._app, {topic.name for topic in self.TOPICS}
        if app is None or not self._started:
            return set()
        return {tp for tp in app.consumer.assignment() if tp.topic in names}

    @property
    def lag(self) -> int:
        """Messages that wait for it."""
        lags = dict.fromkeys((topic.name for topic in self.TOPICS), 0)
        for tp in self.assigned & self._ends.keys():
            lags[tp.topic] += max(0, self._ends[tp] - self._taken.get(tp, 0))
        for topic, lag in lags.items():
            LAG.labels(topic, self.GROUP).set(lag)
        return sum(lags.values())

    @property
    def is_caught_up(self) -> bool:
        """Nothing waits for it, as far as it knows, and that it has asked for lately."""
        sure = time.monotonic() - self._sure_s < 3 * self.MEASURE_S
        return self._started and sure and not self.lag

    def readiness(self) -> str | None:
        """``None``: it takes part in the work; else why it does not."""
        app = self._app
        if app is None or not self._started:
            return "it is starting"
        if self._stop.is_set():
            return "it is stopping"
        if app.rebalancing:
            return "partitions are being handed out"
        if not self.assigned:
            return (
                f"it has no partition: there are more workers of {self.GROUP} than the topic "
                f"{self.TOPICS[0].name} has partitions; stop some, or make more partitions"
            )
        if (lag := self.lag) > self.MOST_LAG:
            return f"{lag} messages wait for it"
        return None

    async def _tell(self) -> None:
        while True:
            try:
                why = self.readiness()
                READY.set(why is None)
                if why != self._told:
                    self._told = why
                    log.info("worker.ready" if why is None else "worker.not_ready", group=self.GROUP, why=why)
                if self._started:
                    await self._announce(self._state())
            except Exception as error:
                log.warning("worker.not_announced", error=type(error).__name__)
            await asyncio.sleep(self.ANNOUNCE_S)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            try:
                self._serve_timers()
            except Exception as error:
                log.error("timers.failed", error=type(error).__name__)
