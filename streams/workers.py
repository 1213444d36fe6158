"""The workers of a cluster: Faust agents around ``reading`` (speech to text) and ``following`` (to alerts).

At least once everywhere: a message is acknowledged, and so may be committed, when what follows from it is
kept by the broker; ids and numbers make a second time harmless.

Faust's consumers have been seen to stop without a word (faust-streaming#175, #532). So a worker watches
whether its partitions advance, and replaces the application, not the process, when they do not: the model
stays loaded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import faust
import structlog
from faust.types import TP
from prometheus_client import Counter, Gauge

from streams import wire
from streams.events import CallInfo
from streams.followed import CallDetector
from streams.following import Following
from streams.gateway import Message, WorkerState
from streams.kafka import CALLS_CHANGELOG, DEAD, LAG, Sender, fetch_speech
from streams.outbox import Outbox
from streams.reading import Done, Reader
from streams.transcribe import Transcriber

log = structlog.get_logger(__name__)

READY = Gauge("duting_worker_ready", "1: takes part in the work")
REBALANCES = Counter("duting_rebalances_total", "Times that partitions were handed out anew")
RESTARTS = Counter("duting_consumer_restarts_total", "Consumers replaced", ["reason"])
SNAPSHOT = Counter(
    "duting_snapshot_bytes_total", "Bytes of calls' states written for whoever follows them next"
)

Events = AsyncIterator[Any]
"""Faust's: ``message`` has topic, partition, offset, key and value; ``ack()``."""


class _Out(NamedTuple):
    message: Message
    done: Done


def _quiet() -> None:
    # Faust tells in detail of every rebalance; what matters of it is told here.
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(logging.ERROR)


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
    STUCK_S = 30.0
    """Messages wait and none was taken for so long: the consumer is replaced."""
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
        self._outbox: Outbox[_Out] = Outbox(self._send, time.monotonic, lambda out: False, to="broker")
        self._stop = asyncio.Event()
        self._app: faust.App | None = None
        self._taken: dict[TP, int] = {}
        """Offset behind the last message taken, by partition."""
        self._moved_s = time.monotonic()
        """Clock at which the last message was taken, or none waited."""
        self._started = False
        self._told: str | None = None

    # ── life ──────────────────────────────────────────────────────────────────────────────────────

    def stop(self) -> None:
        """Finish what is begun, hand the partitions to others, and return from ``run``."""
        self._stop.set()

    async def run(self) -> None:
        _quiet()
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

    async def _serve(self) -> str | None:
        """One Faust application, until it is to stop; else why it is to be replaced."""
        self._taken, self._started = {}, False
        app = self._app = self._application()
        self._moved_s = time.monotonic()
        reason: str | None = None
        try:
            await asyncio.wait_for(app.start(), self.START_S)
            await self._begin(app)
            self._started = True
            while not self._stop.is_set() and reason is None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), 0.5)
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
            try:
                await asyncio.wait_for(app.stop(), self.STOP_S)
            except (Exception, asyncio.CancelledError) as error:
                log.error("worker.not_stopped", error=type(error).__name__)
                if isinstance(error, asyncio.CancelledError) and not self._stop.is_set():
                    raise
        return None if self._stop.is_set() else reason

    def _trouble(self, app: faust.App) -> str | None:
        if app.crashed or app.should_stop:
            return "crashed"
        now = time.monotonic()
        if not self.lag or self._is_full() or app.rebalancing:
            self._moved_s = now
        return "stuck" if now - self._moved_s > self.STUCK_S else None

    def _application(self) -> faust.App:
        app = faust.App(
            self.GROUP,
            broker=[f"kafka://{broker}" for broker in self._brokers],
            store="memory://",
            autodiscover=False,
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            table_standby_replicas=0,
            key_serializer="raw",
            value_serializer="raw",
            consumer_auto_offset_reset="earliest",
            broker_client_id=self._name,
            broker_session_timeout=10.0,
            broker_heartbeat_interval=2.0,
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
        try:
            value = topic.decode(message.value)
            await self._take(value, event)
        except wire.WireError as error:
            DEAD.labels(error.topic, error.reason).inc()
            place = f"{message.partition}:{message.offset}"
            log.error(
                "message.unreadable", topic=topic.name, place=place, reason=error.reason, why=str(error)
            )
            await self._bury(topic.name, message, str(error), place)
            event.ack()
        except Exception as error:
            # One message must not end the others' way. The error's text may quote what was said.
            DEAD.labels(topic.name, "failed").inc()
            place = f"{message.partition}:{message.offset}"
            log.error("message.failed", topic=topic.name, place=place, error=type(error).__name__)
            await self._bury(topic.name, message, type(error).__name__, place)
            event.ack()
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

    async def _send(self, outs: Sequence[_Out]) -> None:
        await self._sender.send([out.message for out in outs])
        for out in outs:
            out.done()

    # ── what the kinds do ─────────────────────────────────────────────────────────────────────────

    async def _take(self, value: Any, event: Any) -> None:
        raise NotImplementedError

    async def _begin(self, app: faust.App) -> None:
        """The application has started."""

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
        self._taken = {}

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
        app = self._app
        for tp in self.assigned if app is not None else ():
            end = app.consumer.highwater(tp) if app is not None else None
            if end is not None and tp in self._taken:
                lags[tp.topic] += max(0, end - self._taken[tp])
        for topic, lag in lags.items():
            LAG.labels(topic, self.GROUP).set(lag)
        return sum(lags.values())

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
            why = self.readiness()
            READY.set(why is None)
            if why != self._told:
                self._told = why
                log.info("worker.ready" if why is None else "worker.not_ready", group=self.GROUP, why=why)
            try:
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


class ReadingWorker(Worker):
    """``duting worker asr``: feeds the batches of one model; commits behind finished work only."""

    GROUP = "duting-asr"
    TOPICS = (wire.SPEECH,)
    IN_MODEL = 64
    """Finals in front of each model worker; beyond it speech waits on the broker."""
    DRAIN_S = 20.0

    def __init__(self, transcriber: Transcriber, **given: Any) -> None:
        super().__init__(**given)
        self._most = self.IN_MODEL * transcriber.workers
        self._eased = asyncio.Event()
        self._searches: set[asyncio.Task[None]] = set()
        self._partitions: dict[str, int] = {}
        self.reader = Reader(transcriber, self._post, self._fetch, on_step=lambda: None)

    def _post(self, message: Message, done: Done) -> None:
        def finished() -> None:
            done()
            self._eased.set()

        self._outbox.post([_Out(message, finished)])

    async def _fetch(self, call_id: str, offset: int) -> wire.Speech | None:
        partition = self._partitions.get(call_id)
        return None if partition is None else await fetch_speech(self._brokers, partition, offset)

    def _is_full(self) -> bool:
        return self.reader.in_model >= self._most

    async def _take(self, value: wire.Speech | wire.Search, event: Any) -> None:
        while self._is_full() or self._stop.is_set():
            self._eased.clear()
            await self._eased.wait()
        message = event.message
        if isinstance(value, wire.Speech):
            self.reader.speech(value, message.offset, event.ack)
            return
        self._partitions[value.call_id] = message.partition
        # The audio may have to be fetched: others do not wait for that. Bounded by the searches there are,
        # at most one for each final.
        task = asyncio.create_task(self._search(value, event))
        self._searches.add(task)
        task.add_done_callback(self._searches.discard)

    async def _search(self, search: wire.Search, event: Any) -> None:
        try:
            await self.reader.search(search, event.ack)
        except Exception as error:
            log.error("search.failed", call_id=search.call_id, error=type(error).__name__)
            found = wire.Found(call_id=search.call_id, utterance_id=search.utterance_id)
            self._post(Message(wire.TRANSCRIPTS, found), event.ack)
        finally:
            self._partitions.pop(search.call_id, None)
            self._eased.set()

    def _serve_timers(self) -> None:
        self.reader.tick()

    def _state(self) -> WorkerState:
        state = self.reader.state()
        return WorkerState(
            step=state.step,
            wait_s=state.wait_s,
            pace_ms=state.pace_ms,
            room=state.room,
            lag=self.lag,
            ready=self.readiness() is None,
        )

    async def _drain(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.DRAIN_S):
                while self.reader.in_model or self._searches:
                    self._eased.clear()
                    await self._eased.wait()
                await self._outbox.flush()

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            self.reader.close()


class FollowingWorker(Worker):
    """``duting worker detect``: one panel of detectors for each call, kept in a table with a changelog.

    What a call's detectors know is written down every ``KEEP_S`` for the calls in which something happened;
    only then are their messages acknowledged. After a crash whoever takes over goes on from there, and does
    again what was done since: the same ids come of it.
    """

    GROUP = "duting-detect"
    TOPICS = (wire.SIGNALS, wire.TRANSCRIPTS)
    KEEP_S = 1.0
    SLICE = 25
    """Calls written down before others get a turn."""

    def __init__(
        self,
        detector: Callable[[CallInfo], CallDetector],
        redact: Callable[[str], str],
        partitions: int,
        **given: Any,
    ) -> None:
        super().__init__(**given)
        self._partitions = partitions
        self._table: Any = None
        self._unacked: dict[str, list[Any]] = {}
        """Messages by call, since it was written down last."""
        self._keeping = asyncio.Lock()
        self.following = Following(detector=detector, redact=redact, wall=self._wall, restore=self._restore)

    def _application(self) -> faust.App:
        app = super()._application()
        # Keys are spread as the source topics' are, so that it may be written outside of an agent too.
        self._table = app.Table(
            "calls",
            key_type=bytes,
            value_type=bytes,
            partitions=self._partitions,
            use_partitioner=True,
        )
        return app

    async def _begin(self, app: faust.App) -> None:
        # The producer knows a topic's partitions once something was sent there; this says nothing.
        await app.producer.send_and_wait(CALLS_CHANGELOG, b"", None, None, None, None)

    def _restore(self, call_id: str) -> bytes | None:
        key = call_id.encode()
        return bytes(self._table[key]) if self._table is not None and key in self._table else None

    async def _take(self, value: Any, event: Any) -> None:
        match value:
            case wire.Signal():
                self.following.signal(value)
            case wire.Read():
                self.following.read(value)
            case _:
                self.following.found(value)
        out = self.following.take()
        self._outbox.post([_Out(message, _nothing) for message in out])
        waiting = self._unacked.get(value.call_id)
        if not out and isinstance(value, wire.Signal) and value.event is None and waiting is None:
            # Nothing has happened: how far the call was heard comes again with its next signal.
            event.ack()
        elif waiting is None:
            self._unacked[value.call_id] = [event]
        else:
            waiting.append(event)

    def _serve_timers(self) -> None:
        self.following.tick()
        self._outbox.post([_Out(message, _nothing) for message in self.following.take()])

    async def _keep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.KEEP_S)
            try:
                await self._keep()
            except Exception as error:
                log.error("calls.not_kept", error=type(error).__name__)

    async def _keep(self) -> None:
        """Write down the calls in which something happened, and acknowledge what did."""
        async with self._keeping:
            unacked, self._unacked = self._unacked, {}
            kept: list[tuple[str, bytes | None, list[Any]]] = []
            for number, (call_id, events) in enumerate(unacked.items(), start=1):
                kept.append((call_id, self.following.snapshot(call_id), events))
                if number % self.SLICE == 0:
                    await asyncio.sleep(0)
            try:
                if kept:
                    # What was told has to be kept by the broker first: else a crash could lose it.
                    await self._outbox.flush()
                while kept:
                    call_id, snapshot, events = kept[-1]
                    self._write(call_id, snapshot)
                    kept.pop()
                    for event in events:
                        event.ack()
            finally:
                for call_id, _, events in kept:
                    self._unacked[call_id] = [*events, *self._unacked.get(call_id, ())]

    def _write(self, call_id: str, snapshot: bytes | None) -> None:
        key = call_id.encode()
        if snapshot is not None:
            SNAPSHOT.inc(len(snapshot))
            self._table[key] = snapshot
        elif key in self._table:
            del self._table[key]

    async def _on_revoked(self, app: Any, *_args: Any, **_: Any) -> None:
        # Others wait for this to end before they begin: they find the calls as they are now.
        if app is not self._app or self._app is None:
            return
        try:
            async with asyncio.timeout(5.0):
                await self._keep()
                await self._app.producer.flush()
        except Exception as error:
            log.error("calls.not_kept", error=type(error).__name__)
        self._unacked.clear()
        self.following.forget_all()

    async def run(self) -> None:
        keeping = asyncio.create_task(self._keep_for_ever(), name="keep")
        try:
            await super().run()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _drain(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._keep(), self.STOP_S)

    def _state(self) -> WorkerState:
        return WorkerState(calls=len(self.following), lag=self.lag, ready=self.readiness() is None)


def _nothing() -> None:
    pass
