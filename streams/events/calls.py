"""How a call comes in: who it is, its sound, and what the telephony tells of it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

Channel = Literal["agent", "customer", "unknown"]
"""Who is heard on a channel; ``unknown`` is the one channel of a mixed mono recording."""

SAMPLE_RATE = 16_000
"""Hertz. Everything behind the decoder is mono, signed 16-bit, at this rate."""


class CallInfo(Struct, frozen=True, kw_only=True):
    """What the telephony knows about a call; arrives with its start and may be updated."""

    call_id: str
    protocol: str = "replay"
    agent: str | None = None
    """The agent's account or extension."""
    team: str | None = None
    """Who supervises it: as the telephony says, else the team of the agent's account."""
    queue: str | None = None
    customer: str | None = None
    """The customer's number or id, already masked for display."""
    customer_level: str | None = None
    """VIP level in the bank's own words."""
    direction: Literal["inbound", "outbound"] | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    """Custom fields, as the telephony sent them."""
    started_at: str | None = None
    """Wall clock of media time 0, RFC 3339; ``None`` where nobody knows: a recording."""
    channels: tuple[Channel, ...] = ("agent", "customer")


class CallStarted(Struct, frozen=True, kw_only=True, tag=True):
    call: CallInfo

    @property
    def call_id(self) -> str:
        return self.call.call_id

    @property
    def media_ms(self) -> int:
        return 0


class CallUpdated(Struct, frozen=True, kw_only=True, tag=True):
    call: CallInfo
    media_ms: int

    @property
    def call_id(self) -> str:
        return self.call.call_id


class CallEnded(Struct, frozen=True, kw_only=True, tag=True):
    call_id: str
    media_ms: int
    """The call's length."""
    reason: Literal["hangup", "disconnected", "interrupted", "error"] = "hangup"
    """``interrupted``: the server stopped or was killed while the call ran."""
    by: Channel | None = None
    """Who hung up, where the telephony says so."""


class Hold(Struct, frozen=True, kw_only=True, tag=True):
    """The customer was put on hold, or taken back (not ``held``)."""

    call_id: str
    media_ms: int
    held: bool
    source: Literal["telephony", "music"]
    """``music``: nobody said so, but music plays on a channel."""


class KeyPressed(Struct, frozen=True, kw_only=True, tag=True):
    """Somebody pressed a key of the telephone (DTMF). Which one is not kept: it may belong to a PIN."""

    call_id: str
    channel: Channel
    media_ms: int


class Transfer(Struct, frozen=True, kw_only=True, tag=True):
    """The telephony hands the call to somebody else; whom, if it says so, as an account or a queue."""

    call_id: str
    media_ms: int
    to: str | None = None


Telephony = Hold | KeyPressed | Transfer
"""What a telephone, or the system around it, tells of a call while it runs."""


class AudioFrame(Struct, frozen=True, kw_only=True, tag=True):
    """A piece of one channel's audio, in order, without holes."""

    call_id: str
    channel: Channel
    media_ms: int
    """Of the first sample."""
    pcm: bytes
    """Signed 16-bit little-endian mono at ``SAMPLE_RATE``."""

    @property
    def duration_ms(self) -> int:
        return len(self.pcm) // 2 * 1000 // SAMPLE_RATE


class Gap(Struct, frozen=True, kw_only=True, tag=True):
    """Audio of one channel that never came, or that was dropped; silence stands in its place."""

    call_id: str
    channel: Channel
    media_ms: int
    duration_ms: int
    reason: Literal["missing", "late", "overload"]


TroubleKind = Literal["silent", "dead", "clipping", "noise"]
"""``silent``: the call is up, and no audio comes at all. ``dead``: one channel brings nothing while the other
side speaks. ``clipping``: too loud for its line. ``noise``: where speech should be, as of a wrong codec."""


class Trouble(Struct, frozen=True, kw_only=True, tag=True):
    """Something is wrong with a call's sound, or is right again (not ``present``)."""

    call_id: str
    channel: Channel
    """``unknown``: all of them."""
    kind: TroubleKind
    present: bool
    media_ms: int
    """When it was noticed."""
    since_ms: int
    """When it began, or ended."""
    measured: str = ""
    """For people: ``8 s``, ``5 %``, ``A-law as mu-law``."""


Inward = Telephony | Trouble
"""What only the detectors of a call are told; people see what follows from it."""
