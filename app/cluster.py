"""A gateway among others: what it knows of them, and what it does for calls that nobody hears any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog
from prometheus_client import Counter, Gauge

from app.errors import ClusterError, DutingError
from app.live import Live
from app.settings import Settings
from streams import wire
from streams.events import CallEnded, OutletEvent
from streams.gateway import GatewayRunner, Message, Recognition, WorkerState
from streams.kafka import BrokerError, Publisher, Sender, prepare_topics

log = structlog.get_logger(__name__)

MEMBERS = Gauge("duting_members", "Processes of the cluster that are there", ["kind"])
ORPHANS = Counter("duting_calls_orphaned", "Calls ended because no gateway heard them any more")

GATEWAY, ASR, DETECT = "gateway", "asr", "detect"
SECONDS = 5.0
"""How long a process counts as there after it was heard of last."""

LiveCalls = Callable[[], Sequence[tuple[str, int]]]
"""The calls that the store holds as live, each with its latest media time; runs in a thread."""


class Membership:
    """Announces this gateway, knows the others and the workers; ends calls that their gateway left behind.

    ``run`` as a task. Without Redis the last that was known stays.
    """

    EVERY_S = 0.5
    SWEEP_S = 5.0
    ORPHANED_S = 30.0
    """A telephone may come back over another gateway for so long; then its call is ended as interrupted."""
    GIVEN_UP_S = 600.0
    """No worker has ended it: its beginning is kept nowhere, or none runs. It is ended in the store alone;
    what may still be told of it is told."""

    def __init__(
        self,
        live: Live,
        live_calls: LiveCalls,
        send: Callable[[Sequence[Message]], Awaitable[object]],
        append: Callable[[Sequence[OutletEvent]], Awaitable[object]],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.recognition = Recognition()
        self._live, self._live_calls, self._send, self._append = live, live_calls, send, append
        self._clock, self._wall = clock, wall
        self._elsewhere: set[str] = set()
        """Calls in progress at other gateways."""
        self._since: dict[str, float] = {}
        """Clock at which a call was seen first that no gateway has."""
        self._ended: set[str] = set()

    async def run(self, runner: GatewayRunner) -> None:
        swept = self._clock()
        while True:
            try:
                async with asyncio.timeout(SECONDS / 2):
                    await self.look(runner)
                if self._clock() - swept >= self.SWEEP_S:
                    swept = self._clock()
                    # Bounded, so that this gateway goes on announcing itself.
                    async with asyncio.timeout(SECONDS / 2):
                        await self.sweep(runner)
            except (DutingError, TimeoutError) as error:
                log.warning("cluster.not_seen", error=type(error).__name__)
            except Exception as error:
                log.error("cluster.failed", error=type(error).__name__)
            await asyncio.sleep(self.EVERY_S)

    async def leave(self, runner: GatewayRunner) -> None:
        """This gateway goes in good order."""
        try:
            await asyncio.wait_for(self._live.withdraw(GATEWAY, runner.name), SECONDS)
        except (DutingError, TimeoutError) as error:
            log.warning("cluster.not_left", error=type(error).__name__)

    def missing(self) -> str | None:
        """What keeps this gateway from taking calls; ``None``: nothing."""
        if not self.recognition.workers:
            return "no worker that reads speech is there: start duting worker asr"
        if not self.recognition.followers:
            return "no worker that follows calls is there: start duting worker detect"
        return None

    def hears(self, call_id: str) -> bool:
        """Whether another gateway has the call, as of a moment ago."""
        return call_id in self._elsewhere

    async def look(self, runner: GatewayRunner) -> None:
        own = WorkerState(calls=runner.calls, lag=runner.waiting, call_ids=runner.call_ids)
        await self._live.announce(GATEWAY, runner.name, msgspec.json.encode(own), SECONDS)
        there = {kind: _states(await self._live.present(kind)) for kind in (GATEWAY, ASR, DETECT)}
        for kind, states in there.items():
            MEMBERS.labels(kind).set(len(states))
        others = [state for name, state in there[GATEWAY].items() if name != runner.name]
        self._elsewhere = {call_id for state in others for call_id in state.call_ids}
        self.recognition = Recognition.of(list(there[ASR].values()), list(there[DETECT].values()), others)

    async def sweep(self, runner: GatewayRunner) -> None:
        """End the calls of the store that no gateway has had for ``ORPHANED_S``."""
        now = self._clock()
        live = dict(await asyncio.to_thread(self._live_calls))
        orphans = live.keys() - self._elsewhere - set(runner.call_ids)
        self._since = {call_id: self._since.get(call_id, now) for call_id in orphans}
        self._ended &= orphans
        for call_id, since in self._since.items():
            ended = CallEnded(call_id=call_id, media_ms=live[call_id], reason="interrupted")
            if now - since > self.GIVEN_UP_S:
                await self._append([ended])
            elif now - since > self.ORPHANED_S and call_id not in self._ended:
                await self._send([Message(wire.SIGNALS, self._signal(ended, runner.name))])
                self._ended.add(call_id)
                ORPHANS.inc()
                log.warning("call.orphaned", call_id=call_id)

    def _signal(self, ended: CallEnded, name: str) -> wire.Signal:
        return wire.Signal(
            call_id=ended.call_id,
            source=f"{name}{wire.SWEEP}",
            seq=0,
            heard_ms=ended.media_ms,
            woken_ms=ended.media_ms,
            at=self._wall(),
            event=ended,
        )


class Gateway:
    """What runs beside a gateway's runner: the edges of the broker, the membership."""

    def __init__(self, sender: Sender, publisher: Publisher, membership: Membership) -> None:
        self._sender, self._publisher, self.membership = sender, publisher, membership
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, runner: GatewayRunner) -> None:
        """Raises ``ClusterError`` where the broker cannot be reached."""
        try:
            await self._sender.start()
        except BrokerError as error:
            raise ClusterError(str(error)) from None
        self._tasks = [
            asyncio.create_task(self._publisher.run(), name="publish"),
            asyncio.create_task(self.membership.run(runner), name="membership"),
        ]

    async def stop(self, runner: GatewayRunner) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.membership.leave(runner)
        await self._sender.stop()


async def prepare(settings: Settings) -> int:
    """Make the topics that are missing; returns how many partitions they have. Raises ``ClusterError``."""
    try:
        return await prepare_topics(settings.brokers, settings.kafka_partitions, settings.kafka_replication)
    except BrokerError as error:
        raise ClusterError(str(error)) from None


def _states(there: dict[str, bytes]) -> dict[str, WorkerState]:
    """What others announce; one of another release that cannot be read counts as there and empty."""
    return {name: _state(info) for name, info in there.items()}


def _state(info: bytes) -> WorkerState:
    try:
        return msgspec.json.decode(info, type=WorkerState)
    except msgspec.MsgspecError:
        return WorkerState(ready=False)
