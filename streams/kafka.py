"""Kafka's edges: the topics, what goes into them, what a gateway takes out of them. Workers: ``worker``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import CommitFailedError, KafkaError, TopicAlreadyExistsError, for_code
from msgspec.structs import replace
from prometheus_client import Counter, Gauge

from streams import wire
from streams.events import Alert, OutletEvent
from streams.gateway import Message

log = structlog.get_logger(__name__)

LAG = Gauge("duting_consumer_lag", "Messages that wait for this process", ["topic", "group"])
DEAD = Counter("duting_dead_letters_total", "Messages that could not be read", ["topic", "reason"])
SENT = Counter("duting_broker_bytes_total", "Bytes sent to the broker", ["topic"])

DEAD_LETTERS: Final = "dead-letters"
CALLS_CHANGELOG: Final = "calls"
"""What detection writes down of calls in progress: see ``states``."""
LARGEST_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes. A minute of speech is under 2 MiB."""
HOUR_MS: Final = 3_600_000
TIMEOUT_S: Final = 20.0


class BrokerError(Exception):
    """The broker cannot be reached, or its topics are not as they have to be. The text says what to do."""

    def __init__(self, message: str, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


# ── topics ────────────────────────────────────────────────────────────────────────────────────────


def _wanted(partitions: int, replication: int) -> list[NewTopic]:
    def topic(name: str, count: int, **config: str) -> NewTopic:
        settings = {"max.message.bytes": str(LARGEST_MESSAGE), **config}
        return NewTopic(name, count, replication, topic_configs=settings)

    hours = {"retention.ms": str(24 * HOUR_MS)}
    return [
        # Audio and words as they were said are personal data: kept no longer than an outage may last.
        topic(wire.SPEECH.name, partitions, **{"retention.ms": str(HOUR_MS), "segment.ms": "600000"}),
        topic(wire.TRANSCRIPTS.name, partitions, **{"retention.ms": str(HOUR_MS)}),
        topic(wire.SIGNALS.name, partitions, **{"retention.ms": str(6 * HOUR_MS)}),
        *(topic(t.name, partitions, **hours) for t in (wire.ALERTS, wire.MARKERS, wire.HINTS)),
        # Small segments, cleaned early: whoever gets a partition reads all of it.
        topic(
            CALLS_CHANGELOG,
            partitions,
            **{
                "cleanup.policy": "compact,delete",
                "retention.ms": str(24 * HOUR_MS),
                "segment.ms": "60000",
                "segment.bytes": str(64 * 1024 * 1024),
                "min.cleanable.dirty.ratio": "0.1",
            },
        ),
        # They may hold what was said: long enough for somebody to look, no longer.
        topic(DEAD_LETTERS, 1, **{"retention.ms": str(24 * HOUR_MS)}),
    ]


async def prepare_topics(brokers: Sequence[str], partitions: int, replication: int) -> int:
    """Make the topics that are missing; returns how many partitions they have.

    Topics that exist stay as they are. Raises ``BrokerError`` when the broker cannot be reached, or when the
    topics of a call do not all have the same number of partitions.
    """
    shown = ", ".join(brokers)
    admin = AIOKafkaAdminClient(bootstrap_servers=list(brokers), request_timeout_ms=10_000)
    try:
        try:
            await asyncio.wait_for(admin.start(), TIMEOUT_S)
            wanted = _wanted(partitions, replication)
            there = set(await admin.list_topics())
            missing = [topic for topic in wanted if topic.name not in there]
            if missing:
                await _create(admin, missing, shown)
            described = await _described(admin, [topic.name for topic in wanted])
        except (KafkaError, OSError, TimeoutError) as error:
            raise BrokerError(
                f"cannot reach Kafka at {shown} ({type(error).__name__}): check DUTING_KAFKA_URL, that the "
                "broker runs, and that it advertises an address which this machine can reach",
                retryable=True,
            ) from error
    finally:
        await admin.close()
    counts = {name: described[name] for name in described if name != DEAD_LETTERS}
    if len(set(counts.values())) != 1:
        told = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        raise BrokerError(
            f"the topics of a call must have the same number of partitions, they have: {told}. While no call "
            f"runs, raise the smaller ones: kafka-topics.sh --alter --topic NAME --partitions "
            f"{max(counts.values())}",
            retryable=False,
        )
    return next(iter(counts.values()))


async def _create(admin: AIOKafkaAdminClient, topics: list[NewTopic], shown: str) -> None:
    try:
        answer = await admin.create_topics(topics)
    except TopicAlreadyExistsError:
        return
    for name, code, *rest in answer.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            why = rest[0] if rest and rest[0] else error.__name__
            raise BrokerError(f"Kafka at {shown} does not make the topic {name}: {why}", retryable=True)


async def _described(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    """Partitions by topic. A topic just made may take a moment to be known to all."""
    ends = time.monotonic() + TIMEOUT_S
    while True:
        found = await admin.describe_topics(names)
        counts = {topic["topic"]: len(topic["partitions"]) for topic in found if not topic["error_code"]}
        if len(counts) == len(names) and all(counts.values()):
            return counts
        if time.monotonic() > ends:
            raise TimeoutError
        await asyncio.sleep(0.2)


# ── in ────────────────────────────────────────────────────────────────────────────────────────────


_Raw = tuple[str, "str | bytes | None", "bytes | None", Any, "int | None"]
"""Topic, key, value, headers, and partition if not by key."""


class Sender:
    """Gives messages to the broker; ``send`` returns once all of them are kept there.

    What belongs to one call stays in order: idempotent, acknowledged by all in-sync replicas.
    """

    MOST_FAILURES = 3

    def __init__(self, brokers: Sequence[str], name: str) -> None:
        self._brokers, self._name = brokers, name
        self._producer: AIOKafkaProducer | None = None
        self._failures = 0
        """In a row."""

    async def start(self) -> None:
        """Raises ``BrokerError`` where the broker cannot be reached."""
        producer = AIOKafkaProducer(
            bootstrap_servers=list(self._brokers),
            client_id=self._name,
            acks="all",
            enable_idempotence=True,
            max_request_size=LARGEST_MESSAGE,
            max_batch_size=256 * 1024,
            linger_ms=2,
            request_timeout_ms=20_000,
            retry_backoff_ms=100,
        )
        try:
            await asyncio.wait_for(producer.start(), TIMEOUT_S)
        except (KafkaError, OSError, TimeoutError) as error:
            await producer.stop()
            raise BrokerError(
                f"cannot reach Kafka at {', '.join(self._brokers)} ({type(error).__name__}): check "
                "DUTING_KAFKA_URL and that the broker runs",
                retryable=True,
            ) from error
        self._producer = producer

    async def stop(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            try:
                await asyncio.wait_for(producer.stop(), TIMEOUT_S)
            except (KafkaError, TimeoutError) as error:
                log.error("broker.not_closed", error=type(error).__name__)

    async def send(self, messages: Sequence[Message]) -> None:
        """Raises ``KafkaError`` when they are not kept; sending them again makes copies, and no harm."""
        await self._send(
            [(m.topic.name, m.value.call_id, m.topic.encode(m.value), (), None) for m in messages]
        )

    async def bury(self, topic: str, key: bytes | None, value: bytes | None, why: str, place: str) -> None:
        """Keep a message that cannot be read, with where it came from."""
        headers = (("topic", topic.encode()), ("place", place.encode()), ("why", why.encode()))
        if value is not None and len(value) > LARGEST_MESSAGE - 4_096:
            value = None  # with its headers it would be too large; where it came from says the rest
        await self._send([(DEAD_LETTERS, key, value, headers, None)])

    async def keep(self, topic: str, states: Sequence[tuple[int, str, bytes | None]]) -> None:
        """Write states (partition, key, value) into a compacted topic; ``None`` deletes."""
        await self._send([(topic, key, value, (), partition) for partition, key, value in states])

    async def _send(self, messages: Sequence[_Raw]) -> None:
        if self._producer is None:
            await self.start()
            assert self._producer is not None
        kept: list[Any] = []
        try:
            for topic, key, value, headers, partition in messages:
                raw = key.encode() if isinstance(key, str) else key
                SENT.labels(topic).inc(len(value or b""))
                kept.append(
                    await self._producer.send(
                        topic, value, key=raw, partition=partition, headers=list(headers)
                    )
                )
        except KafkaError as error:
            await self._failed(error)
            raise
        finally:
            outcomes = await asyncio.gather(*kept, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                await self._failed(outcome)
                raise outcome
        self._failures = 0

    async def _failed(self, error: BaseException) -> None:
        """A producer that numbers its batches may stand still for ever once one was lost: it is replaced."""
        self._failures += 1
        if not getattr(error, "retriable", False) or self._failures >= self.MOST_FAILURES:
            log.error("producer.replaced", error=type(error).__name__)
            self._failures = 0
            await self.stop()


# ── out ───────────────────────────────────────────────────────────────────────────────────────────

TOLD: Final = (wire.ALERTS, wire.MARKERS, wire.HINTS)


class Publisher:
    """Takes what detection told out of the topics and gives it to the outlet; one per gateway.

    The gateways share the partitions. What was taken is committed once it is stored: after a crash it comes
    again, and the store knows it by its id.
    """

    GROUP = "duting-publish"
    AT_ONCE = 500

    def __init__(
        self,
        brokers: Sequence[str],
        name: str,
        append: Callable[[Sequence[OutletEvent]], Awaitable[object]],
        sender: Sender,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._brokers, self._name, self._append, self._sender = brokers, name, append, sender
        self._wall = wall
        self._topics = {topic.name: topic for topic in TOLD}

    async def run(self) -> None:
        """For ever; a consumer that fails is replaced."""
        pause = 0.2
        while True:
            began = time.monotonic()
            try:
                await self._consume()
            except Exception as error:  # whatever it is: without this nobody is told anything any more
                log.error("publish.failed", error=type(error).__name__)
            pause = 0.2 if time.monotonic() - began > 30 else min(5.0, pause * 2)
            await asyncio.sleep(pause)

    async def _consume(self) -> None:
        consumer = AIOKafkaConsumer(
            *self._topics,
            bootstrap_servers=list(self._brokers),
            client_id=self._name,
            group_id=self.GROUP,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_500,
            max_poll_interval_ms=120_000,
            max_partition_fetch_bytes=LARGEST_MESSAGE,
            fetch_max_wait_ms=50,
        )
        try:
            await asyncio.wait_for(consumer.start(), TIMEOUT_S)
            done: dict[TopicPartition, int] = {}
            while True:
                batches = await consumer.getmany(timeout_ms=500, max_records=self.AT_ONCE)
                events: list[OutletEvent] = []
                for tp, records in batches.items():
                    for record in records:
                        event = await self._event(tp, record)
                        if event is not None:
                            events.append(event)
                if events:
                    await self._store(events)
                if batches:
                    with suppress(CommitFailedError):  # they moved meanwhile: they are known where they went
                        await consumer.commit()
                    done |= {tp: records[-1].offset + 1 for tp, records in batches.items()}
                for topic in self._topics:
                    LAG.labels(topic, self.GROUP).set(_lag(consumer, topic, done))
        finally:
            try:
                await asyncio.wait_for(consumer.stop(), TIMEOUT_S)
            except (KafkaError, TimeoutError) as error:
                log.error("publish.not_closed", error=type(error).__name__)

    async def _store(self, events: list[OutletEvent]) -> None:
        pause = 0.1
        while True:
            try:
                await self._append(events)
                return
            except Exception as error:
                # The store may come back; what is not committed comes again.
                log.error("publish.not_stored", events=len(events), error=type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(5.0, pause * 2)

    async def _event(self, tp: TopicPartition, record: Any) -> OutletEvent | None:
        try:
            event: OutletEvent = self._topics[tp.topic].decode(record.value)
        except wire.WireError as error:
            await self._dead(error, tp, record)
            return None
        if isinstance(event, Alert) and event.latency_ms.rules is not None:
            # The way here belongs to the alert's latency; the outlet counts from its own door.
            way_ms = max(0.0, self._wall() * 1000 - record.timestamp)
            latency = replace(event.latency_ms, rules=round(event.latency_ms.rules + way_ms, 1))
            event = replace(event, latency_ms=latency)
        return event

    async def _dead(self, error: wire.WireError, tp: TopicPartition, record: Any) -> None:
        DEAD.labels(error.topic, error.reason).inc()
        place = f"{tp.partition}:{record.offset}"
        log.error("message.unreadable", topic=tp.topic, place=place, reason=error.reason, why=str(error))
        await self._sender.bury(tp.topic, record.key, record.value, str(error), place)


def _lag(consumer: AIOKafkaConsumer, topic: str, done: Mapping[TopicPartition, int]) -> int:
    """Messages behind those that are done."""
    lag = 0
    for tp in consumer.assignment():
        if tp.topic == topic:
            end = consumer.highwater(tp)
            if end is not None and tp in done:
                lag += max(0, end - done[tp])
    return lag


async def fetch_speech(
    brokers: Sequence[str], partition: int, offset: int, timeout_s: float = 5.0
) -> wire.Speech | None:
    """Read one utterance again; ``None`` where it is not kept any more, or not to be had in time."""
    tp = TopicPartition(wire.SPEECH.name, partition)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=list(brokers),
        enable_auto_commit=False,
        auto_offset_reset="latest",
        max_partition_fetch_bytes=LARGEST_MESSAGE,
    )
    try:
        async with asyncio.timeout(timeout_s):
            await consumer.start()
            consumer.assign([tp])
            consumer.seek(tp, offset)
            record = await consumer.getone(tp)
        if record.offset != offset:
            return None
        message = wire.SPEECH.decode(record.value)
        return message if isinstance(message, wire.Speech) else None
    except (KafkaError, OSError, TimeoutError, wire.WireError) as error:
        log.warning("speech.not_read_again", error=type(error).__name__)
        return None
    finally:
        await consumer.stop()
