"""What a telephony system tells of its calls over HTTP, beside their audio: brought to the call, wherever
it is heard.

A request may reach any gateway. One for a call that is heard here is done at once; any other is left in the
call's inbox (``Live``), and whichever gateway hears the call takes it out, within ``POLL_S`` or so, also one
to which the call has just moved. What nobody takes passes after ``KEPT_S``.

A telephony system that got no answer asks again. An event that carries an id is done once, for as long as
``REMEMBERED_S``.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import msgspec
import structlog
from msgspec import Struct
from prometheus_client import Counter

from app.errors import DutingError, IngestError
from app.ingest.peer import Told, fields
from app.live import Live
from streams.events import Channel

log = structlog.get_logger(__name__)

EVENTS = Counter("duting_telephony_events", "What telephony systems told over HTTP", ["type", "outcome"])

MOST_EVENTS = 50
"""At once."""


# ── what is told ──────────────────────────────────────────────────────────────────────────────────


class _Event(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    id: str | None = None
    """Of the telephony system's own: one that comes again is not done again."""
    media_ms: int | None = None
    """When it happened, in media time; now, if nothing is said."""


class HoldEvent(_Event, frozen=True, tag_field="type", tag="hold"):
    """The customer is put on hold."""


class ResumeEvent(_Event, frozen=True, tag_field="type", tag="resume"):
    """He is taken back."""


class TransferEvent(_Event, frozen=True, kw_only=True, tag_field="type", tag="transfer"):
    to: str | None = None
    """An account, an extension or a queue."""


class KeyEvent(_Event, frozen=True, kw_only=True, tag_field="type", tag="key"):
    """Somebody pressed a key. There is no field for which one: it may belong to a PIN."""

    channel: Channel = "customer"


class HangupEvent(_Event, frozen=True, kw_only=True, tag_field="type", tag="hangup"):
    by: Channel | None = None


class UpdateEvent(_Event, frozen=True, kw_only=True, tag_field="type", tag="update"):
    fields: dict[str, str]
    """``agent``, ``team``, ``queue``, ``customer``, ``customer_level``, ``direction``; everything
    else is custom."""


TelephonyEvent = HoldEvent | ResumeEvent | TransferEvent | KeyEvent | HangupEvent | UpdateEvent


class _Letter(Struct, frozen=True, kw_only=True):
    """What is left in an inbox."""

    at: float
    """Wall clock at which it was told, seconds since 1970."""
    events: list[TelephonyEvent]


def kind_of(event: TelephonyEvent) -> str:
    return str(type(event).__struct_config__.tag)


# ── where it goes ─────────────────────────────────────────────────────────────────────────────────


class Calls(Protocol):
    """The calls that are heard here; ``app.ingest.assembly.Assembly`` has them."""

    def __contains__(self, call_id: str) -> bool: ...

    def tell(self, call_id: str, told: Told, media_ms: int | None = None, late_ms: int = 0) -> None: ...

    def change(self, call_id: str, given: Mapping[str, object]) -> None: ...

    async def hang_up(self, call_id: str, by: Channel | None = None) -> None: ...


class UnknownCall(DutingError):
    """There is no such call."""


class CallOver(DutingError):
    """The call has ended."""


class Full(DutingError):
    """So much has been told of the call that nobody has taken yet that no more is kept."""

    retryable = True


class Busy(DutingError):
    """The same event is being taken at this moment; whether it will be is not known yet."""

    retryable = True


class Switchboard:
    """For one event loop.

    Args:
        calls: those that are heard here.
        shared: other gateways may hear calls; then ``start`` looks for what they were told.
        elsewhere: whether a call is in progress at another gateway, as far as is known.
        stored: whether a call is ``live`` or ``ended`` as far as the store knows; ``None``: there is none.
    """

    POLL_S = 0.25
    POLL_TIMEOUT_S = 2.0
    KEPT_S = 60.0
    REMEMBERED_S = 600.0
    DOING_S = 10.0
    """So long an event counts as being taken: then whoever took it has failed."""

    def __init__(
        self,
        calls: Calls,
        live: Live,
        stored: Callable[[str], Awaitable[str | None]],
        *,
        shared: bool = False,
        elsewhere: Callable[[str], bool] = lambda _: False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.calls, self._live, self._stored, self._wall = calls, live, stored, wall
        self._shared, self._elsewhere = shared, elsewhere
        self._polling: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        """Calls that are hung up; one may wait for its last words."""

    async def take(self, call_id: str, events: Sequence[TelephonyEvent]) -> int:
        """Bring events to a call in progress; returns how many of them had not been told before.

        Raises ``UnknownCall``, ``CallOver``, ``Full``, ``Busy`` and ``LiveError``; then none was taken.
        """
        me = f"doing {secrets.token_hex(8)}"
        keys = [None if event.id is None else _key(call_id, event.id) for event in events]
        mine: list[str] = []
        new: list[TelephonyEvent] = []
        try:
            for event, key in zip(events, keys, strict=True):
                holder = me if key is None else await self._live.claim(key, me, None, self.DOING_S)
                if holder == me and key not in mine:
                    new.append(event)
                    mine += [key] if key is not None else []
                elif holder not in (me, "done"):
                    raise Busy("the same event is being taken at this moment; tell it again in a second")
                else:
                    EVENTS.labels(kind_of(event), "repeated").inc()
            if new:
                await self._bring(call_id, new)
        except BaseException:
            for key in mine:
                with suppress(DutingError):
                    await self._live.release(key, me)
            raise
        for key in mine:
            # It was taken: that it may be told once more is all that can go wrong now.
            with suppress(DutingError):
                await self._live.claim(key, "done", me, self.REMEMBERED_S)
        return len(new)

    async def _bring(self, call_id: str, events: Sequence[TelephonyEvent]) -> None:
        letter = _Letter(at=self._wall(), events=list(events))
        if call_id in self.calls:
            self._deliver(call_id, letter)
            return
        if not self._elsewhere(call_id):
            # It may be on its way between two gateways.
            known = await self._stored(call_id)
            if known is None:
                raise UnknownCall(f"there is no call {call_id}")
            if known != "live" or not self._shared:
                raise CallOver(f"the call {call_id} has ended")
        if not await self._live.post(_inbox(call_id), msgspec.msgpack.encode(letter), self.KEPT_S):
            raise Full(f"too much waits to be told to the call {call_id}; try again in a few seconds")

    # ── from other gateways ───────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        if self._shared:
            self._polling = asyncio.create_task(self._poll(), name="telephony")

    async def stop(self) -> None:
        tasks = [*self._ending, *([self._polling] if self._polling is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.POLL_S)
            try:
                async with asyncio.timeout(self.POLL_TIMEOUT_S):
                    await self.look()
            except (DutingError, TimeoutError) as error:
                log.warning("telephony.not_seen", error=type(error).__name__)
            except Exception as error:
                log.error("telephony.failed", error=type(error).__name__)

    async def look(self) -> None:
        """Take what was told of calls that are heard here; runs every ``POLL_S``."""
        for inbox in await self._live.waiting():
            call_id = inbox.removeprefix(_INBOX)
            if call_id == inbox or call_id not in self.calls:
                continue
            for message in await self._live.collect(inbox):
                try:
                    letter = msgspec.msgpack.decode(message, type=_Letter)
                except msgspec.MsgspecError:  # of another release
                    log.error("telephony.not_read", call_id=call_id)
                    continue
                self._deliver(call_id, letter)

    # ── to the call ───────────────────────────────────────────────────────────────────────────────

    def _deliver(self, call_id: str, letter: _Letter) -> None:
        late_ms = max(0, round((self._wall() - letter.at) * 1000))
        for event in letter.events:
            outcome = "applied"
            try:
                self._apply(call_id, event, late_ms)
            except KeyError:
                outcome = "too_late"  # the call has ended meanwhile
            except IngestError:
                outcome = "refused"
            if outcome != "applied":
                log.warning("telephony.not_applied", call_id=call_id, kind=kind_of(event), outcome=outcome)
            EVENTS.labels(kind_of(event), outcome).inc()

    def _apply(self, call_id: str, event: TelephonyEvent, late_ms: int) -> None:
        match event:
            case UpdateEvent():
                self.calls.change(call_id, event.fields)
            case HangupEvent():
                self._hang_up(call_id, event.by)
            case _:
                self.calls.tell(call_id, _told(event), event.media_ms, late_ms)

    def _hang_up(self, call_id: str, by: Channel | None) -> None:
        if call_id not in self.calls:
            raise KeyError(call_id)
        ending = asyncio.create_task(self._end(call_id, by))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _end(self, call_id: str, by: Channel | None) -> None:
        with suppress(KeyError):  # its connections have ended it at the same moment
            await self.calls.hang_up(call_id, by)


def _told(event: HoldEvent | ResumeEvent | TransferEvent | KeyEvent) -> Told:
    match event:
        case HoldEvent():
            return Told("held")
        case ResumeEvent():
            return Told("resumed")
        case TransferEvent():
            return Told("transfer", to=event.to)
        case KeyEvent():
            return Told("key", channel=event.channel)


_INBOX = "call:"


def _inbox(call_id: str) -> str:
    return f"{_INBOX}{call_id}"


def _key(call_id: str, event_id: str) -> str:
    """Ids are anybody's: neither their length nor what stands in them is to be seen elsewhere."""
    digest = hashlib.blake2b(f"{call_id}\x1f{event_id}".encode(), digest_size=16).hexdigest()
    return f"telephony:{digest}"


def decoded(body: bytes) -> list[TelephonyEvent]:
    """The events of a request: one object, or a list of them.

    Raises ``ValueError`` with what was expected, what came, and where.
    """
    try:
        given: Any = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("expected JSON: an event, or a list of events") from None
    events: list[TelephonyEvent] = given if isinstance(given, list) else [given]
    if not 1 <= len(events) <= MOST_EVENTS:
        raise ValueError(f"expected 1 to {MOST_EVENTS} events, got {len(events)}")
    for number, event in enumerate(events):
        _check(event, f" - at `$[{number}]`" if isinstance(given, list) else "")
    return events


_DECODER = msgspec.json.Decoder(list[TelephonyEvent] | TelephonyEvent)
_LONGEST_ID, _LONGEST_TO = 128, 128
_LONGEST_CALL_MS = 86_400_000


def _check(event: TelephonyEvent, place: str) -> None:
    if event.id is not None and not 1 <= len(event.id) <= _LONGEST_ID:
        raise ValueError(f"expected an id of 1 to {_LONGEST_ID} characters, got {len(event.id)}{place}")
    if event.media_ms is not None and not 0 <= event.media_ms <= _LONGEST_CALL_MS:
        raise ValueError(f"expected media_ms from 0 to {_LONGEST_CALL_MS}, got {event.media_ms}{place}")
    if isinstance(event, TransferEvent) and event.to is not None and not 1 <= len(event.to) <= _LONGEST_TO:
        raise ValueError(f"expected 1 to {_LONGEST_TO} characters in to, got {len(event.to)}{place}")
    if isinstance(event, UpdateEvent):
        try:
            fields(event.fields)
        except IngestError as error:
            raise ValueError(f"{error}{place}") from None
