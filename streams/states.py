"""The calls in progress as whoever follows them wrote them down: a table in memory, its changelog in Kafka.

Faust has such tables. Theirs stood still in the recovery after two of four rebalances in which a worker
joined while calls ran (faust-streaming 0.15.3: "No event received for active tp … since recovery start"), so
this one is ours: the changelog is a compacted topic with a partition for each of the source topics', read
from its beginning when a partition comes, written by whoever has it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Counter, Histogram

from streams.kafka import CALLS_CHANGELOG, LARGEST_MESSAGE, TIMEOUT_S, BrokerError, Sender

log = structlog.get_logger(__name__)

SNAPSHOT = Counter("duting_snapshot_bytes_total", "Bytes of calls' states written down")
RECOVERY = Histogram(
    "duting_recovery_seconds",
    "To read the calls of partitions that came",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


class CallStates:
    """What is kept of the calls of this worker's partitions. For one event loop.

    Grows with the calls in progress: one state each, 5 to 50 kB; a call that ends leaves.
    """

    LOAD_S = 60.0

    def __init__(self, brokers: Sequence[str], sender: Sender) -> None:
        self._brokers, self._sender = brokers, sender
        self._states: dict[int, dict[str, bytes]] = {}

    @property
    def partitions(self) -> set[int]:
        return set(self._states)

    def get(self, call_id: str) -> bytes | None:
        return next((states[call_id] for states in self._states.values() if call_id in states), None)

    def drop(self) -> None:
        """Partitions move: none is ours any more until it is loaded."""
        self._states.clear()

    async def load(self, partitions: Iterable[int]) -> None:
        """Read what was written down in these. Raises ``BrokerError`` when that cannot be done in time."""
        wanted = {TopicPartition(CALLS_CHANGELOG, number) for number in partitions}
        found: dict[int, dict[str, bytes]] = {tp.partition: {} for tp in wanted}
        began = time.monotonic()
        consumer = AIOKafkaConsumer(
            bootstrap_servers=list(self._brokers),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=LARGEST_MESSAGE,
            fetch_max_wait_ms=50,
        )
        try:
            async with asyncio.timeout(self.LOAD_S):
                await consumer.start()
                if wanted:
                    consumer.assign(sorted(wanted))
                    await self._read(consumer, wanted, found)
        except (KafkaError, OSError, TimeoutError) as error:
            raise BrokerError(
                f"the calls in progress cannot be read from {CALLS_CHANGELOG} ({type(error).__name__}): "
                "check that the broker runs",
                retryable=True,
            ) from error
        finally:
            await asyncio.wait_for(consumer.stop(), TIMEOUT_S)
        self._states = found
        RECOVERY.observe(time.monotonic() - began)
        calls = sum(map(len, found.values()))
        log.info(
            "calls.loaded", partitions=len(found), calls=calls, seconds=round(time.monotonic() - began, 2)
        )

    @staticmethod
    async def _read(
        consumer: AIOKafkaConsumer, wanted: set[TopicPartition], found: dict[int, dict[str, bytes]]
    ) -> None:
        ends = await consumer.end_offsets(wanted)
        await consumer.seek_to_beginning(*wanted)
        # By position, not by the last record: what a compacted topic has cut off at its end never comes.
        while [tp for tp in wanted if await consumer.position(tp) < ends[tp]]:
            batches = await consumer.getmany(timeout_ms=200, max_records=1_000)
            for tp, records in batches.items():
                states = found[tp.partition]
                for record in records:
                    call_id = (record.key or b"").decode(errors="replace")
                    if record.value:
                        states[call_id] = record.value
                    else:
                        states.pop(call_id, None)

    async def write(self, calls: Sequence[tuple[int, str, bytes | None]]) -> set[str]:
        """Write down calls (partition, id, state; ``None``: it is over).

        Returns, once the broker keeps them, which are written: not those of partitions that are others'.
        Raises ``KafkaError`` when it does not keep them.
        """
        mine = [call for call in calls if call[0] in self._states]
        held = {partition: self._states[partition] for partition, _, _ in mine}
        changed = [(p, call_id, s) for p, call_id, s in mine if s is not None or call_id in held[p]]
        await self._sender.keep(CALLS_CHANGELOG, changed)
        for partition, call_id, state in changed:
            # Into the table that it was taken from: if the partition has gone or come anew, that one is over.
            if state is not None:
                SNAPSHOT.inc(len(state))
                held[partition][call_id] = state
            else:
                held[partition].pop(call_id, None)
        return {call_id for partition, call_id, _ in mine if self._states.get(partition) is held[partition]}
