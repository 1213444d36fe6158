"""The runner of a gateway: it hears calls, and tells workers behind a broker what it has heard.

``Signal``s and ``Speech`` of all calls leave in one order through one outbox (``send``); what follows from
them comes back to people over the outlet, not through here.

Bounds: what waits for the broker is kept, beginnings and heartbeats excepted (see ``outbox``), and while
more than ``BEHIND`` messages wait no new call is taken; so what is kept is what the admitted calls say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import structlog
from msgspec import Struct

from streams import wire
from streams.degrade import STEPS, Step
from streams.events import CallEnded, CallEvent, CallInfo, CallStarted, Channel, Health, Utterance
from streams.headroom import Headroom
from streams.heard import HeardCall
from streams.judge import Judge
from streams.listen import Endpointing
from streams.outbox import Outbox
from streams.runner import FrameSink, Noticed, Open, Runner, Source
from streams.voice import voice

log = structlog.get_logger(__name__)


class Message(NamedTuple):
    """One message on its way to a topic; its key is its call."""

    topic: wire.Topic[Any]
    value: Any


class WorkerState(Struct, frozen=True, kw_only=True):
    """What a worker announces of itself, a few times a second."""

    step: int = 0
    """Of degradation."""
    wait_s: float = 0.0
    """Of finals in front of the model."""
    pace_ms: int | None = None
    """Speech between two partials that it can bear; ``None``: no partials."""
    room: int = 0
    """Calls whose finals it holds."""
    calls: int = 0
    """That it follows, or that are in progress at a gateway."""
    lag: int = 0
    """Messages that wait for it on the broker."""
    ready: bool = True
    call_ids: list[str] = []


class Recognition(Struct, frozen=True, kw_only=True):
    """What a gateway knows of the workers, from what they announce of themselves."""

    step: int = 0
    """Of degradation, of the worker that does worst: a call may come to be read by any of them."""
    wait_s: float = 0.0
    pace_ms: int | None = Headroom.PACE_MS
    """Speech between two partials that all of them can bear; ``None``: no partials."""
    room: int = 0
    """Calls that they hold together."""
    workers: int = 0
    followers: int = 0
    """Workers that follow calls."""
    calls: int = 0
    """In progress at all gateways but this one."""

    @property
    def name(self) -> Step:
        return STEPS[self.step]

    @classmethod
    def of(
        cls,
        readers: Sequence[WorkerState],
        followers: Sequence[WorkerState],
        others: Sequence[WorkerState],
    ) -> Recognition:
        """``others``: gateways but this one."""
        paces = [reader.pace_ms for reader in readers]
        return cls(
            step=max((reader.step for reader in readers), default=0),
            wait_s=max((reader.wait_s for reader in readers), default=0.0),
            pace_ms=None if None in paces else max((p for p in paces if p is not None), default=None),
            room=sum(reader.room for reader in readers),
            workers=len(readers),
            followers=len(followers),
            calls=sum(gateway.calls for gateway in others),
        )


@dataclass(slots=True)
class _Call(Open):
    prompt: str
    name: str
    """Of this hearing of the call: it may come back, also here, and counts anew then."""
    seq: int = 0
    """Of the next signal."""
    woken_ms: int = 0
    signalled_s: float = 0.0
    sent: dict[Channel, tuple[int, int]] = field(default_factory=dict)
    """Of the utterance being said on a channel: its start, and how many of its samples have been sent."""


class GatewayRunner(Runner[_Call]):
    """Hears all calls of one gateway. Every method belongs to the event loop that ``start`` ran on.

    Args:
        name: of this gateway's life: another one after each start, so that its numbers are its own.
        prompt: the bias for a call, as text.
        send: gives messages to the broker, in order; returns once they are kept there, raises when they
            cannot be, and is then tried again.
        recognition: what is known of the workers.
        wall: seconds since 1970.
    """

    BEHIND = 2_000
    """Messages that wait for the broker: more than ten seconds of a hundred calls."""
    HEARTBEAT_S = 0.25
    """A call that comes at the pace of speech tells at least so often how far it is."""
    UNPACED_MESSAGES = 500
    shares_calls = True
    FLUSH_S = 20.0

    def __init__(
        self,
        *,
        name: str,
        prompt: Callable[[CallInfo], str],
        send: Callable[[Sequence[Message]], Awaitable[object]],
        recognition: Callable[[], Recognition],
        audio: FrameSink | None,
        most_calls: int,
        judge: Judge | None = None,
        endpointing: Endpointing | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            audio=audio, most_calls=most_calls, judge=judge, endpointing=endpointing, clock=clock
        )
        self.name = name
        self._prompt, self._recognition, self._wall = prompt, recognition, wall
        self._outbox: Outbox[Message] = Outbox(send, clock, _is_replaceable, to="broker")
        self._hearings = count()

    async def start(self) -> None:
        await super().start()
        self._tasks.append(asyncio.create_task(self._outbox.deliver(), name="deliver"))

    async def stop(self) -> None:
        """Leave the calls to other gateways, over which their telephones come back; tell what was heard."""
        await asyncio.gather(*(self.close(call_id, "disconnected") for call_id in list(self._calls)))
        await super().stop()

    async def flush(self) -> None:
        """Wait until the broker has everything that was heard so far, ``FLUSH_S`` at most."""
        try:
            await asyncio.wait_for(self._outbox.flush(), self.FLUSH_S)
        except TimeoutError:
            log.error("heard.not_told", waiting=len(self._outbox))

    async def ready(self) -> None:
        if len(self._outbox) > self.UNPACED_MESSAGES:
            await self._outbox.flush()
        await asyncio.sleep(0)

    def health(self) -> Health:
        known = self._recognition()
        return Health(
            step=known.step,
            name=known.name,
            queue_wait_ms=round(known.wait_s * 1000, 1),
            calls=known.calls + len(self._calls),
        )

    @property
    def call_ids(self) -> list[str]:
        """Of the calls in progress here."""
        return list(self._calls)

    @property
    def waiting(self) -> int:
        """Messages that the broker does not have yet."""
        return len(self._outbox)

    # ── admission ─────────────────────────────────────────────────────────────────────────────────

    def _refusal(self, calls: int) -> str | None:
        known = self._recognition()
        if not known.workers:
            return "no worker that reads speech is there (duting worker asr)"
        if not known.followers:
            return "no worker that follows calls is there (duting worker detect)"
        if len(self._outbox) > self.BEHIND:
            return "the broker does not take messages"
        return None if known.calls + calls < known.room else "the speech model is at its limit"

    def _pace(self) -> tuple[Step, int | None]:
        known = self._recognition()
        return known.name, known.pace_ms

    def _suspects(self, call: _Call, utterance_id: str) -> bool:
        # Whoever follows the call knows; partials at their pace are read in any case.
        return False

    # ── what is told ──────────────────────────────────────────────────────────────────────────────

    def _begin(self, heard: HeardCall, paced: bool, source: Source | None) -> _Call:
        name = f"{self.name}.{next(self._hearings)}"
        call = _Call(heard, paced, source, self._prompt(heard.info), name)
        self._signal(call, CallStarted(call=heard.info))
        return call

    def _notice(self, call: _Call, event: Noticed) -> None:
        self._signal(call, event)

    def _submit(self, call: _Call, utterance: Utterance) -> None:
        skipped = 0
        if utterance.final:
            # Whole: whoever reads it may not have had its beginnings.
            self._signal(call, voice(utterance))
            call.sent.pop(utterance.channel, None)
        else:
            start_ms, sent = call.sent.get(utterance.channel, (-1, 0))
            skipped = sent if start_ms == utterance.start_ms else 0
            call.sent[utterance.channel] = (utterance.start_ms, len(utterance.pcm) // 2)
        speech = wire.speech(
            utterance,
            skipped,
            source=call.name,
            seq=call.seq - 1,
            prompt=call.prompt,
            live=call.paced,
            cut_at=self._wall(),
        )
        self._outbox.post([Message(wire.SPEECH, speech)])

    def _reach(self, call: _Call, media_ms: int) -> None:
        call.woken_ms = max(call.woken_ms, media_ms)
        # Where the words lag behind what is heard, each step matters: see ``pacing``.
        if not call.paced or self.clock() - call.signalled_s >= self.HEARTBEAT_S:
            self._signal(call, None)

    def _end(self, call: _Call, ended: CallEnded) -> None:
        # A telephone that was cut off comes back, maybe over another gateway: then its call goes on. One that
        # does not is ended by whoever notices that nobody hears it (``app.cluster``).
        self._signal(call, None if ended.reason == "disconnected" else ended)

    def _signal(self, call: _Call, event: CallEvent | None) -> None:
        call.signalled_s = self.clock()
        signal = wire.Signal(
            call_id=call.call_id,
            source=call.name,
            seq=call.seq,
            heard_ms=call.heard.media_ms,
            woken_ms=call.woken_ms,
            at=self._wall(),
            event=event,
            paced=call.paced,
        )
        call.seq += 1
        self._outbox.post([Message(wire.SIGNALS, signal)])


def _is_replaceable(message: Message) -> bool:
    """Beginnings of utterances, whose final holds them as well, and how far a call was heard, which its next
    signal says again."""
    value = message.value
    if isinstance(value, wire.Signal):
        return value.event is None and value.paced
    return isinstance(value, wire.Speech) and not value.final
