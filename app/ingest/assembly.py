"""Calls put together from connections: who brings which channel, who has left, and who may come back.

A connection ``join``s with what it offers and ``leave``s when it is over; between, the runner takes its audio
through the call, which is the runner's ``Source``. The rules:

* The first connection of a call begins it; others bring the channels that are missing.
* A channel is brought by one connection at a time. A second one that offers it is refused, and may try again:
  when the first has sent nothing for ``SILENT_S`` it is taken for dead, and the second takes its place.
* The call ends when its last connection has left: at once where one of them said that the call is over, else
  after ``HOLD_S``. Until then it goes on, and whoever comes back meanwhile continues it; what was not heard
  is a ``Gap``.
* In a cluster a call that has no connection left is let go at once: it may come back over another gateway,
  where the rest of these rules then holds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import structlog
from msgspec.structs import replace
from prometheus_client import Counter

from app.errors import IngestError
from app.ingest.peer import Closed, Opened, Told, changed
from app.store.times import now, written
from streams.arrival import Arrival, Speed
from streams.assembly import Placement, Timeline
from streams.events import AudioFrame, CallInfo, Channel, Gap, Hold, KeyPressed, Telephony, Transfer, Trouble
from streams.runner import CallRefused, EndReason, Runner

log = structlog.get_logger(__name__)

CONNECTIONS = Counter(
    "duting_ingest_connections", "Connections that brought a call or some of it", ["protocol"]
)
RETURNED = Counter("duting_ingest_returned", "Connections that continued a call", ["protocol"])
REPLACED = Counter("duting_ingest_replaced", "Connections whose place another one took", ["protocol"])


class Began(NamedTuple):
    """A call that another gateway has heard before."""

    at: float
    """When it began, seconds since 1970."""
    media_ms: int
    """How far it was heard, as far as is known."""


Earlier = Callable[[str], Awaitable[Began | None]]
"""Asks for a call that another gateway may have heard before; ``None``: it begins here."""

TAKEN_OVER = 4409
"""WebSocket close code for a connection whose place another one has taken."""


class Leg(Protocol):
    """What one connection brings of a call."""

    arrived_s: float
    """Clock at which the newest of its audio came in."""

    def take(self) -> Sequence[AudioFrame | Gap]:
        """What has come since the last time; media time is the connection's own."""
        ...

    def drop(self, message: str, code: int) -> None:
        """The call no longer wants it: close the connection. ``code``: of a WebSocket."""
        ...


@dataclass(slots=True)
class _Joined:
    leg: Leg
    placement: Placement
    protocol: str
    arrival: Arrival = field(default_factory=Arrival)


@dataclass(slots=True)
class _Call:
    """A call in progress: the runner's ``Source`` of it."""

    info: CallInfo
    rate: int
    timeline: Timeline
    joined: list[_Joined] = field(default_factory=list)
    reason: EndReason = "disconnected"
    """With which it ends when nobody comes back."""
    by: Channel | None = None
    alone_s: float | None = None
    """Clock at which its last connection left."""
    last_arrived_s: float = 0.0
    looking: asyncio.Task[None] | None = None
    """Asks when the call began at another gateway; its audio waits for the answer."""

    @property
    def arrived_s(self) -> float:
        return max([self.last_arrived_s, *(one.leg.arrived_s for one in self.joined)])

    @property
    def is_connected(self) -> bool:
        return bool(self.joined)

    def take(self) -> Sequence[AudioFrame | Gap | Trouble]:
        if self.looking is not None and not self.looking.done():
            return ()
        if len(self.joined) == 1:
            return self._take(self.joined[0])
        return [item for one in self.joined for item in self._take(one)]

    def _take(self, one: _Joined) -> list[AudioFrame | Gap | Trouble]:
        items = one.leg.take()
        out: list[AudioFrame | Gap | Trouble] = [*one.placement.place(items, one.leg.arrived_s)]
        media: dict[Channel, int] = {}
        for item in items:
            media[item.channel] = media.get(item.channel, 0) + item.duration_ms
        speed = one.arrival.came(max(media.values()), one.leg.arrived_s) if media else None
        if speed is not None:
            out.append(self._mistimed(one, speed))
        return out

    def _mistimed(self, one: _Joined, speed: Speed) -> Trouble:
        """The audio of a connection is not spoken at the rate at which it comes."""
        channels = one.placement.channels
        return Trouble(
            call_id=self.info.call_id,
            channel=channels[0] if len(channels) == 1 else "unknown",
            kind="noise",
            present=speed.is_wrong,
            media_ms=self.timeline.media_ms,
            since_ms=min(self.timeline.media_ms, self.timeline.at(speed.since_s)),
            measured=f"{speed.times:.1f} × speed",
        )


class Assembly:
    """All calls that connections of this process bring. For one event loop.

    Args:
        earlier: in a cluster, asks when a call began that may have been at another gateway.
    """

    HOLD_S = 30.0
    """A telephone, or the network before it, may come back for so long."""
    SILENT_S = 2.0
    LOOKING_S = 1.0
    """The answer of ``earlier`` is waited for so long; audio waits meanwhile, bounded by its connection."""
    SWEEP_S = 0.5

    def __init__(
        self,
        runner: Runner[Any],
        earlier: Earlier | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.runner = runner
        self._earlier, self._clock, self._wall = earlier, clock, wall
        self._calls: dict[str, _Call] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        """Calls that end; one may wait for its last words, and the others must not wait for it."""

    # ── life ──────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        self._sweeping = asyncio.create_task(self._sweep(), name="assembly")

    async def stop(self) -> None:
        """Stop looking after calls without connections; the runner ends them when it stops."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeping

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.SWEEP_S)
            try:
                self.sweep()
            except Exception as error:
                log.error("assembly.failed", error=type(error).__name__)

    def sweep(self) -> None:
        """End the calls to which nobody came back; runs every ``SWEEP_S``."""
        due = self._clock() - self.HOLD_S
        for call_id, call in list(self._calls.items()):
            if call.alone_s is not None and call.alone_s <= due:
                ending = asyncio.create_task(self._end(call_id, call, call.reason))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)

    # ── connections ───────────────────────────────────────────────────────────────────────────────

    def join(self, opened: Opened, leg: Leg) -> None:
        """A connection brings ``opened.channels`` of a call; its audio is taken from now on.

        Raises ``CallRefused`` where there is no room, or somebody else brings the channel; ``IngestError``
        where it does not fit to the call.
        """
        call_id = opened.call.call_id
        call = self._calls.get(call_id)
        if call is None:
            call = self._begin(opened)
        else:
            self._make_room(call, opened)
            self._continue(call, opened)
        placement = Placement(call.timeline, opened.channels, opened.stamped)
        call.joined.append(_Joined(leg, placement, opened.call.protocol))
        call.alone_s, call.reason, call.by = None, "disconnected", None
        CONNECTIONS.labels(opened.call.protocol).inc()

    def _begin(self, opened: Opened) -> _Call:
        # Rules with hours and dates go by the start; only here, at the edge, is a clock read.
        info = replace(opened.call, started_at=written(now()))
        timeline = Timeline(info.call_id, info.channels)
        # Another channel may come at another rate: the recording keeps what both need.
        alone = set(opened.channels) >= set(info.channels)
        call = _Call(info, opened.rate if alone else max(opened.rate, 16_000), timeline)
        self.runner.open(info, paced=True, source=call)
        self._calls[info.call_id] = call
        if self._earlier is not None:
            call.looking = asyncio.create_task(self._look(call))
        return call

    async def _look(self, call: _Call) -> None:
        assert self._earlier is not None
        try:
            async with asyncio.timeout(self.LOOKING_S):
                began = await self._earlier(call.info.call_id)
        except Exception as error:
            # Its media time then begins anew: worse than a late one, better than none.
            log.warning("call.start_not_known", call_id=call.info.call_id, error=type(error).__name__)
            return
        if began is not None and call.timeline.zero_s is None:
            call.timeline.zero_s = self._clock() - max(0.0, self._wall() - began.at)
            call.timeline.before_ms = began.media_ms

    def _make_room(self, call: _Call, opened: Opened) -> None:
        call_id, offered = opened.call.call_id, set(opened.channels)
        if not offered <= set(call.info.channels):
            raise IngestError(
                f"the call {call_id} has the channels {', '.join(call.info.channels)}; "
                f"expected some of these, got {', '.join(opened.channels)}"
            )
        present = self._clock()
        for one in list(call.joined):
            if not offered & set(one.placement.channels):
                continue
            if present - one.leg.arrived_s < self.SILENT_S:
                channels = ", ".join(channel for channel in one.placement.channels if channel in offered)
                raise CallRefused(
                    f"the call {call_id} is in progress already, {channels} comes over another connection: "
                    "give each call an id of its own, or close the other connection first",
                    retryable=True,
                )
            self._take_last(call, one)
            call.joined.remove(one)
            REPLACED.labels(one.protocol).inc()
            log.warning("ingest.taken_over", call_id=call_id, protocol=one.protocol)
            one.leg.drop("another connection has taken the place of this one, which sent nothing", TAKEN_OVER)

    def _continue(self, call: _Call, opened: Opened) -> None:
        """A call that was let go is opened once more; what is new in its metadata is told."""
        given = {
            name: value
            for name, value in {
                "agent": opened.call.agent,
                "team": opened.call.team,
                "queue": opened.call.queue,
                "customer": opened.call.customer,
                "customer_level": opened.call.customer_level,
                "direction": opened.call.direction,
                **opened.call.attributes,
            }.items()
            if value is not None
        }
        info = changed(call.info, given)
        if not self.runner.has(info.call_id):
            self.runner.open(info, paced=True, source=call)
        elif info != call.info:
            self.runner.update(info)
        call.info = info
        if call.alone_s is not None or set(opened.channels) <= set(call.timeline.reach):
            RETURNED.labels(opened.call.protocol).inc()
            log.info("call.continued", call_id=info.call_id, protocol=opened.call.protocol)

    async def leave(
        self,
        leg: Leg,
        call_id: str,
        closed: Closed,
        rest: Sequence[AudioFrame | Gap] = (),
        error: bool = False,
    ) -> None:
        """A connection is over; ``rest``: what still waited there.

        ``error``: it broke its protocol; that is why the call ends if nobody comes back. A connection whose
        place was taken has left already.
        """
        call = self._calls.get(call_id)
        joined = next((one for one in call.joined if one.leg is leg), None) if call is not None else None
        if call is None or joined is None:
            return
        self._take_last(call, joined, rest)
        call.joined.remove(joined)
        if closed.reason == "hangup":
            call.reason, call.by = "hangup", call.by or closed.by
        elif error and call.reason == "disconnected":
            call.reason = "error"
        if call.joined:
            return
        if call.reason == "hangup":
            await self._end(call_id, call, "hangup")
            return
        call.alone_s = self._clock()
        log.info("call.alone", call_id=call_id, protocol=joined.protocol)
        if self.runner.shares_calls:
            await self.runner.close(call_id, "disconnected")

    def _take_last(self, call: _Call, one: _Joined, rest: Sequence[AudioFrame | Gap] = ()) -> None:
        call_id = call.info.call_id
        self.runner.take(call_id)
        call.last_arrived_s = max(call.last_arrived_s, one.leg.arrived_s)
        with suppress(KeyError):  # the runner was stopped meanwhile
            for item in one.placement.place([*one.leg.take(), *rest], one.leg.arrived_s):
                self.runner.hear(item)

    async def _end(self, call_id: str, call: _Call, reason: EndReason) -> None:
        if self._calls.get(call_id) is call:
            del self._calls[call_id]
        if call.looking is not None:
            call.looking.cancel()
        await self.runner.close(call_id, reason, call.by)

    # ── what the telephony tells ──────────────────────────────────────────────────────────────────

    def __contains__(self, call_id: str) -> bool:
        return call_id in self._calls and self.runner.has(call_id)

    def media_ms(self, call_id: str) -> int:
        """Where a call is now; ``KeyError`` if there is no such call."""
        call = self._calls[call_id]
        silent_s = self._clock() - call.arrived_s
        return call.timeline.media_ms + (int(silent_s * 1000) if silent_s > self.runner.STALLED_S else 0)

    def tell(self, call_id: str, told: Told, media_ms: int | None = None, late_ms: int = 0) -> None:
        """The telephony tells what happens in a call; ``KeyError`` if there is no such call.

        It happens at this moment, ``late_ms`` before it, or, where that is known, at ``media_ms``.
        """
        if call_id not in self:
            raise KeyError(call_id)
        self.runner.listen(call_id)  # what came before it is heard before it
        present_ms = self.media_ms(call_id)
        media_ms = max(0, present_ms - late_ms) if media_ms is None else min(media_ms, present_ms)
        event: Telephony
        match told.what:
            case "held" | "resumed":
                held = told.what == "held"
                event = Hold(call_id=call_id, media_ms=media_ms, held=held, source="telephony")
            case "key":
                event = KeyPressed(call_id=call_id, channel=told.channel or "customer", media_ms=media_ms)
            case "transfer":
                event = Transfer(call_id=call_id, media_ms=media_ms, to=told.to)
        self.runner.signal(event)

    def change(self, call_id: str, given: Mapping[str, object]) -> None:
        """Metadata of a call has changed; ``KeyError`` if there is no such call, ``IngestError`` if it cannot
        be."""
        if call_id not in self:
            raise KeyError(call_id)
        call = self._calls[call_id]
        info = changed(call.info, given)
        if info != call.info:
            call.info = info
            self.runner.update(info)

    async def hang_up(self, call_id: str, by: Channel | None = None) -> None:
        """The telephony says that a call is over; ``KeyError`` if there is no such call.

        Connections that are still there are closed: what they sent so far is heard.
        """
        if call_id not in self:
            raise KeyError(call_id)
        call = self._calls[call_id]
        call.by = by
        for one in list(call.joined):
            self._take_last(call, one)
            call.joined.remove(one)
            one.leg.drop("the call is over: the telephony has said so", 1000)
        await self._end(call_id, call, "hangup")
