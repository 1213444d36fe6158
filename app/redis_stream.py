"""The events of all gateways in one Redis Stream, and beside it what a gateway that joins has to know.

Keys: ``duting:events``, the stream; ``duting:speaking``, by call who speaks; ``duting:health``, the last
health; ``duting:epoch``, a name that is gone when Redis has forgotten everything.

An entry of the stream: ``by``, the gateway; ``told``, JSON: ``[[stored, event], …]``, what one gateway
published together. An entry without ``told`` says that a gateway has joined. Ids are Redis's own. Nothing
here is the truth: events are in the store, and the stream need only reach back as far as its slowest reader.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec
import structlog
from msgspec import UNSET, Raw, Struct
from prometheus_client import Counter

from app.errors import LiveError
from app.merge import Entry
from app.redis_link import ANSWER_S, connect, reaching
from app.subscription import Envelope
from streams.events import Health, Published, Speaking

EVENTS = "duting:events"
SPEAKING = "duting:speaking"
HEALTH = "duting:health"
EPOCH = "duting:epoch"

ENTRIES_KEPT = 10_000
"""About so many entries are kept. A reader that falls behind further reads the store."""
EVENTS_PER_ENTRY = 64
ENTRIES_PER_READ = 200
BLOCK_S = 1.0
CHECK_S = 1.0

_Answer = list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes] | None]]]]
"""By stream: id and fields of each entry; no fields when it was deleted."""

log = structlog.get_logger(__name__)

unreadable_total = Counter(
    "duting_stream_unreadable_total", "Entries of the shared stream that this version cannot read"
)


class _Told(Struct, frozen=True, array_like=True):
    stored: bool
    event: Raw


class Present(NamedTuple):
    """What was going on when a gateway joined."""

    speaking: dict[str, Speaking]
    """By call; a call in which nobody has spoken yet need not be there."""
    health: Health | None


class EventStream:
    """One gateway's way into the stream: ``join``, then ``send`` and ``read``; after a failure, ``join``.

    ``send`` and ``read`` may run at the same time, each only once. All raise ``LiveError``: nothing is known
    then of what was sent or could have been read.
    """

    def __init__(self, url: str, name: str) -> None:
        self._name = name
        self._writing = connect(url)
        self._reading = connect(url, answer_s=BLOCK_S + ANSWER_S)
        self._epoch: bytes | None = None
        self._last = b"0-0"
        self._sent = b"0-0"
        self._checked = 0.0

    async def aclose(self) -> None:
        await self._writing.aclose()
        await self._reading.aclose()

    @property
    def caught_up(self) -> bool:
        """Whether this gateway has read everything that it sent."""
        return _order(self._last) >= _order(self._sent)

    async def join(self) -> Present:
        """Read from here on. What was sent before this moment is in the store.

        Writes an entry, so that a Redis that can only be read counts as away.
        """
        async with reaching(2 * ANSWER_S), self._writing.pipeline(transaction=True) as commands:
            commands.xadd(EVENTS, {"by": self._name}, maxlen=ENTRIES_KEPT, approximate=True)
            commands.set(EPOCH, secrets.token_hex(8), nx=True)
            commands.get(EPOCH)
            commands.hgetall(SPEAKING)
            commands.get(HEALTH)
            self._last, _, self._epoch, speaking, health = await commands.execute()
        self._sent = self._last
        self._checked = time.monotonic()
        return Present(
            {
                call_id.decode(): state
                for call_id, told in speaking.items()
                if (state := _decode(told, Speaking)) is not None
            },
            None if health is None else _decode(health, Health),
        )

    async def mend(
        self, speaking: Mapping[str, Speaking], ended: Iterable[str], health: Health | None
    ) -> None:
        """Put back what this gateway knows first, and take out the calls that have ended meanwhile."""
        states: dict[str, Speaking | None] = {**dict.fromkeys(ended), **speaking}
        if not states and health is None:
            return
        async with reaching(2 * ANSWER_S), self._writing.pipeline(transaction=False) as commands:
            _keep(commands, states, health)
            await commands.execute()

    async def send(self, envelopes: Sequence[Envelope]) -> None:
        """Publish, in this order, and keep what the next gateway to join has to know."""
        states: dict[str, Speaking | None] = {}
        health: Health | None = None
        for envelope in envelopes:
            published = envelope.published
            if published is None:
                continue
            if published.type == "health" and published.health is not UNSET:
                health = published.health
            elif published.call_id is not None and published.type == "call.ended":
                states[published.call_id] = None
            elif published.call_id is not None and published.speaking is not UNSET:
                states[published.call_id] = published.speaking
        async with reaching(2 * ANSWER_S), self._writing.pipeline(transaction=False) as commands:
            entries = 0
            for begin in range(0, len(envelopes), EVENTS_PER_ENTRY):
                told = [
                    _Told(envelope.stored, Raw(envelope.json.encode()))
                    for envelope in envelopes[begin : begin + EVENTS_PER_ENTRY]
                ]
                fields = {"by": self._name, "told": msgspec.json.encode(told)}
                commands.xadd(EVENTS, fields, maxlen=ENTRIES_KEPT, approximate=True)  # type: ignore[arg-type]
                entries += 1
            _keep(commands, states, health)
            self._sent = (await commands.execute())[entries - 1]

    async def read(self) -> list[Entry]:
        """What has come since; waits ``BLOCK_S`` for it, then nothing. Also raises when the stream that was
        joined is no more: it was deleted, or its ids began anew."""
        async with reaching(BLOCK_S + 2 * ANSWER_S):
            answer = await self._reading.xread(
                {EVENTS: self._last}, count=ENTRIES_PER_READ, block=int(BLOCK_S * 1000)
            )
            if time.monotonic() - self._checked >= CHECK_S:
                await self._check()
        entries: list[Entry] = []
        for _, items in cast(_Answer, answer):
            for self._last, fields in items:
                if fields and b"told" in fields:
                    entries += _entries(fields)
        return entries

    async def _check(self) -> None:
        """A connection may outlive what it reads from, and then waits for ids that never come."""
        async with self._reading.pipeline(transaction=False) as commands:
            commands.get(EPOCH)
            commands.xrevrange(EVENTS, count=1)
            epoch, newest = await commands.execute()
        if epoch != self._epoch or not newest or _order(newest[0][0]) < _order(self._last):
            raise LiveError("Redis has forgotten the stream of events (emptied, or another server)")
        self._checked = time.monotonic()


def _keep(commands: Any, states: Mapping[str, Speaking | None], health: Health | None) -> None:
    speaking = {call_id: msgspec.json.encode(state) for call_id, state in states.items() if state is not None}
    ended = [call_id for call_id, state in states.items() if state is None]
    if speaking:
        commands.hset(SPEAKING, mapping=speaking)
    if ended:
        commands.hdel(SPEAKING, *ended)
    if health is not None:
        commands.set(HEALTH, msgspec.json.encode(health))


def _entries(fields: Mapping[bytes, bytes]) -> list[Entry]:
    by = fields.get(b"by", b"").decode(errors="replace")
    try:
        entries = []
        for told in msgspec.json.decode(fields[b"told"], type=list[_Told]):
            published = msgspec.json.decode(told.event, type=Published)
            entries.append(Entry(published, bytes(told.event).decode() if told.stored else None, by))
        return entries
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # of another version; stored ones can be read
        unreadable_total.inc()
        log.warning("an entry of the shared stream cannot be read", by=by, error=type(error).__name__)
        return []


def _decode(told: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(told, type=kind)
    except msgspec.MsgspecError:
        unreadable_total.inc()
        return None


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number or 0)
