"""``duting worker detect``: the topics ``signals`` and ``transcripts`` through the detectors of each call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from faust.types import TP

from streams import wire
from streams.events import CallInfo
from streams.followed import CallDetector
from streams.following import Following
from streams.gateway import WorkerState
from streams.reading import Done
from streams.sealing import Seal
from streams.states import CallStates
from streams.worker import Out, Worker

log = structlog.get_logger(__name__)


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
        seal: Seal | None = None,
        **given: Any,
    ) -> None:
        super().__init__(**given)
        self.states = CallStates(self._brokers, self._sender)
        self._unacked: dict[str, tuple[int, list[Done]]] = {}
        """By call: its partition, and its messages since it was written down last."""
        self._keeping = asyncio.Lock()
        self._loaded = asyncio.Event()
        self._roomier = asyncio.Event()
        """Set when readings may have found their calls."""
        self._loading: asyncio.Task[None] | None = None
        self.following = Following(
            detector=detector, redact=redact, wall=self._wall, restore=self.states.get, seal=seal
        )

    # ── partitions ────────────────────────────────────────────────────────────────────────────────

    async def _on_revoked(self, app: Any, *_args: Any, **_: Any) -> None:
        # Others wait for this to end before they begin: they find the calls as they are now.
        if app is not self._app:
            return
        try:
            async with asyncio.timeout(5.0):
                await self._keep()
        except Exception as error:
            log.error("calls.not_kept", error=type(error).__name__)
        self._forget()

    def _forget(self) -> None:
        self._loaded.clear()
        if self._loading is not None:
            self._loading.cancel()
        self._unacked.clear()
        self.states.drop()
        self.following.forget_all()

    async def _on_assigned(self, app: Any, *args: Any, **more: Any) -> None:
        await super()._on_assigned(app, *args, **more)
        if app is not self._app:
            return
        self._forget()
        assigned: set[TP] = next((a for a in args if isinstance(a, set)), set())
        partitions = {tp.partition for tp in assigned if tp.topic == wire.SIGNALS.name}
        # Not here: whoever hands out the partitions waits for this to end.
        self._loading = asyncio.create_task(self._load(partitions))

    async def _load(self, partitions: set[int]) -> None:
        pause = 0.2
        while True:
            try:
                await self.states.load(partitions)
                break
            except Exception as error:
                log.error("calls.not_loaded", error=type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(5.0, pause * 2)
        self._loaded.set()

    def _gone(self) -> None:
        super()._gone()
        self._forget()

    def readiness(self) -> str | None:
        return super().readiness() or (None if self._loaded.is_set() else "it reads the calls in progress")

    # ── messages ──────────────────────────────────────────────────────────────────────────────────

    async def _take(self, value: Any, message: Any, done: Done) -> None:
        await self._loaded.wait()
        while isinstance(value, wire.Read) and self.following.is_crowded:
            # Until their signals come, or it is known that none will.
            self._roomier.clear()
            await self._roomier.wait()
        partition = message.partition
        if partition not in self.states.partitions:
            return  # it waited while its partition went: whoever has that now gets it too
        match value:
            case wire.Signal():
                self.following.signal(value)
                self._roomier.set()
            case wire.Read():
                self.following.read(value)
            case _:
                self.following.found(value)
        out = self.following.take()
        self._outbox.post([Out(message, _nothing) for message in out])
        waiting = self._unacked.get(value.call_id)
        if not out and isinstance(value, wire.Signal) and value.event is None and waiting is None:
            # Nothing has happened: how far the call was heard comes again with its next signal.
            done()
        elif waiting is None:
            self._unacked[value.call_id] = (partition, [done])
        else:
            waiting[1].append(done)

    def _serve_timers(self) -> None:
        self.following.tick(self.is_caught_up)
        self._roomier.set()
        self._outbox.post([Out(message, _nothing) for message in self.following.take()])

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
            kept: list[tuple[int, str, bytes | None]] = []
            written: set[str] = set()
            try:
                for call_id in [call_id for call_id in unacked if self.following.awaits(call_id)]:
                    self._unacked[call_id] = unacked.pop(call_id)
                for number, (call_id, (partition, _)) in enumerate(unacked.items(), start=1):
                    kept.append((partition, call_id, self.following.snapshot(call_id)))
                    if number % self.SLICE == 0:
                        await asyncio.sleep(0)
                if kept:
                    # What was told has to be kept by the broker first: else a crash could lose it.
                    await self._outbox.flush()
                    written = await self.states.write(kept)
            finally:
                for call_id, (partition, dones) in unacked.items():
                    if call_id in written:
                        for done in dones:
                            done()
                    elif partition in self.states.partitions:
                        _, later = self._unacked.get(call_id, (partition, []))
                        self._unacked[call_id] = (partition, [*dones, *later])

    async def run(self) -> None:
        keeping = asyncio.create_task(self._keep_for_ever(), name="keep")
        try:
            await super().run()
        finally:
            keeping.cancel()
            if self._loading is not None:
                self._loading.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _drain(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._keep(), self.STOP_S)

    def _state(self) -> WorkerState:
        return WorkerState(calls=len(self.following), lag=self.lag, ready=self.readiness() is None)


def _nothing() -> None:
    pass
