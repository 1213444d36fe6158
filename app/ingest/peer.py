"""What every telephone's protocol comes down to: what a peer says, whatever its wire. Pure.

A protocol is one parser, a subclass of ``Parser``: messages in, what they say and audio out; no socket, no
clock. What stands around it is the same for all: ``app.ingest.connection`` brings what it says to the call,
``app.ingest.session`` is its WebSocket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from app.errors import IngestError
from streams.events import AudioFrame, CallInfo, Channel, Gap, Hint

CALL_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
NORMAL = 1000
"""WebSocket close code of a peer whose work is done (RFC 6455, 7.4.1)."""
MOST_MS = 7 * 24 * 3_600_000
"""Of a stamp: a week. What is beyond it is a broken clock."""
MOST_FIELDS = 64
"""Of metadata."""
LONGEST_NAME, LONGEST_VALUE = 64, 1024
"""Characters of a field's name and of its value."""

_DIRECTIONS = ("inbound", "outbound")


# ── what a peer says ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Opened:
    """A peer offers a call, or the part of it that comes over this connection."""

    call: CallInfo
    """Its ``channels`` are all that the call will have, over whatever connections."""
    channels: tuple[Channel, ...]
    """Those that come over this connection."""
    rate: int
    """Hertz on the wire."""
    token: str | None = None
    """The ingest token, where the protocol carries one in its messages."""
    stamped: bool = False
    """The peer stamps its audio: where it sent nothing for a while, its times show it."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The peer is done. ``disconnected``: it may come back, the call goes on for a while."""

    reason: Literal["hangup", "disconnected"] = "hangup"
    by: Channel | None = None
    """Who hung up, where the telephony says so."""


@dataclass(frozen=True, slots=True)
class Changed:
    """The metadata of the call has changed: only what is new, named as in ``call_info``."""

    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Told:
    """What the telephony tells of the call, at this moment of its audio."""

    what: Literal["held", "resumed", "key", "transfer"]
    channel: Channel | None = None
    """Of a key: who pressed it."""
    to: str | None = None
    """Of a transfer: an account or a queue."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the peer is to be sent at once: text, or binary."""

    data: str | bytes


@dataclass(frozen=True, slots=True)
class Probe:
    """The peer only tries whether somebody is there; no call comes of it."""

    token: str | None = None


Said = Opened | Closed | Changed | Told | Reply | Probe


# ── how it is read ────────────────────────────────────────────────────────────────────────────────


class Parser:
    """One connection's protocol, from its first message to its last.

    ``text`` and ``binary`` raise ``IngestError`` on anything the protocol does not allow, and on a message
    that is too long; the connection is over then. They return what a message says, in order: a ``Reply``
    before ``Opened`` is on the wire before anything slow is begun.

    Audio waits, undecoded, until ``take``; whoever calls bounds it by ``ready_ms``.
    """

    name: ClassVar[str]
    """Of the protocol: in ``CallInfo.protocol``, in logs and in the route."""
    rate: int = 8_000
    """Hertz on the wire; right from ``Opened`` on."""
    quiet_s: float = 0.0
    """Its peer may send nothing for so long while all is well, as with a call on hold. Whether it is still
    there is then told by the WebSocket's pings, or by TCP's."""

    def text(self, data: str | bytes) -> Sequence[Said]:
        """Take the next text message; bytes are its UTF-8."""
        raise IngestError(f"{self.name}: expected binary messages, got a text one", 1003)

    def binary(self, data: bytes) -> Sequence[Said]:
        """Take the next binary message."""
        raise IngestError(f"{self.name}: expected text messages, got a binary one", 1003)

    @property
    def ready_ms(self) -> int:
        """Audio of the longest channel that ``take`` would give out."""
        raise NotImplementedError

    @property
    def late_chunks(self) -> int:
        """Pieces of audio that were dropped because they came too late or twice."""
        return 0

    def take(self) -> list[AudioFrame | Gap]:
        """The audio that has come in order since the last time, each channel's in one frame.

        Media time here is the connection's: milliseconds since its first sample, or as the peer stamps it.
        """
        raise NotImplementedError

    def finish(self) -> list[AudioFrame | Gap]:
        """The connection is over: give out what still waits, also for its order."""
        raise NotImplementedError

    def gone(self, code: int | None) -> Closed:
        """The peer has closed the connection; what that says of its call.

        ``code``: that the peer gave (of a WebSocket; RFC 6455, 7.4), ``None`` where it gave none.
        """
        return Closed("disconnected")

    def hint(self, hint: Hint) -> str | bytes | None:
        """How the peer is told what its agent may say next; ``None`` where it cannot be."""
        return None

    def refusal(self, message: str, code: int) -> str | bytes | None:
        """What the peer is sent before the connection is closed from here; ``code``: of the WebSocket."""
        return None


# ── whose audio it is ─────────────────────────────────────────────────────────────────────────────


SIDES: Final[Mapping[str, Channel]] = {"agent": "agent", "customer": "customer", "mixed": "unknown"}
"""Whose audio comes over a connection, by the names that telephony gives it; ``mixed``: both in one."""


def side(given: object, what: str) -> Channel:
    """Whose audio it is; ``what`` says where this was given. Raises ``IngestError``."""
    if not isinstance(given, str) or given not in SIDES:
        came = "nothing" if given is None else repr(given)[:40]
        raise IngestError(f"expected {what} 'agent', 'customer' or 'mixed', got {came}")
    return SIDES[given]


def both(channel: Channel) -> tuple[Channel, ...]:
    """All channels of a call of which ``channel`` comes over a connection of its own."""
    return ("unknown",) if channel == "unknown" else ("agent", "customer")


# ── metadata ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Fields:
    """Metadata by the names that telephony uses for it."""

    agent: str | None = None
    team: str | None = None
    queue: str | None = None
    customer: str | None = None
    customer_level: str | None = None
    direction: Literal["inbound", "outbound"] | None = None
    attributes: dict[str, str] = field(default_factory=dict)


def fields(given: Mapping[str, object]) -> Fields:
    """Sort metadata: ``agent``, ``team``, ``queue``, ``customer``, ``customer_level``, ``direction``; the
    rest is custom.

    Raises ``IngestError`` where there is too much of it, a name or value is too long or of another kind, or
    the direction is unknown.
    """
    if len(given) > MOST_FIELDS:
        raise IngestError(f"expected at most {MOST_FIELDS} fields of metadata, got {len(given)}")
    texts: dict[str, str] = {}
    for name, value in given.items():
        if not name or len(name) > LONGEST_NAME:
            raise IngestError(
                f"expected names of metadata of 1 to {LONGEST_NAME} characters, got {len(name)}"
            )
        if isinstance(value, bool):
            value = "true" if value else "false"
        if not isinstance(value, str | int | float):
            raise IngestError(f"expected text for the metadata field {name!r}, got {type(value).__name__}")
        text = str(value)
        if len(text) > LONGEST_VALUE:
            raise IngestError(
                f"expected at most {LONGEST_VALUE} characters for the field {name!r}, got {len(text)}"
            )
        texts[name] = text
    direction = texts.pop("direction", None)
    if direction not in (None, *_DIRECTIONS):
        raise IngestError(f"expected direction 'inbound' or 'outbound', got {direction[:40]!r}")
    return Fields(
        agent=texts.pop("agent", None),
        team=texts.pop("team", None) or None,
        queue=texts.pop("queue", None),
        customer=texts.pop("customer", None),
        customer_level=texts.pop("customer_level", None),
        direction=direction,  # type: ignore[arg-type]
        attributes=texts,
    )


def call_info(
    call_id: str,
    protocol: str,
    given: Mapping[str, object],
    channels: tuple[Channel, ...] = ("agent", "customer"),
) -> CallInfo:
    """A call as the telephony describes it; raises ``IngestError`` on an id or on metadata out of bounds."""
    if not CALL_ID.fullmatch(call_id):
        raise IngestError("expected a call id of 1 to 128 letters, digits, '_', '.', ':' or '-'")
    known = fields(given)
    return CallInfo(
        call_id=call_id,
        protocol=protocol,
        agent=known.agent,
        team=known.team,
        queue=known.queue,
        customer=known.customer,
        customer_level=known.customer_level,
        direction=known.direction,
        attributes=known.attributes,
        channels=channels,
    )


def changed(call: CallInfo, given: Mapping[str, object]) -> CallInfo:
    """The call with new metadata: what is given wins, everything else stays. Raises ``IngestError``."""
    known = fields(given)
    attributes = {**call.attributes, **known.attributes}
    if len(attributes) > MOST_FIELDS:
        raise IngestError(f"expected at most {MOST_FIELDS} fields of metadata in all, got {len(attributes)}")
    return CallInfo(
        call_id=call.call_id,
        protocol=call.protocol,
        agent=known.agent or call.agent,
        team=known.team or call.team,
        queue=known.queue or call.queue,
        customer=known.customer or call.customer,
        customer_level=known.customer_level or call.customer_level,
        direction=known.direction or call.direction,
        attributes=attributes,
        started_at=call.started_at,
        channels=call.channels,
    )


def masked(number: str) -> str:
    """A customer's number as people may see it: its last four digits, or fewer where it is short."""
    digits = re.sub(r"\D", "", number)
    shown = digits[-4:] if len(digits) >= 8 else digits[-2:] if len(digits) >= 5 else ""
    return f"****{shown}"
