"""What a connection that can say no more than a UUID brings: a call and one of its channels. Pure.

Asterisk's AudioSocket sends 16 bytes, and then audio. There are two ways to a UUID that is let in:

* **Booked.** Whoever places the connection tells call, channel and metadata over HTTP first, and is given a
  random UUID for it: ``Bookings``. It is held in this process: in a cluster, book at the gateway that the
  audio will go to.
* **Signed.** Where nobody can call HTTP, the UUID says all itself: Asterisk's own id of the call, the
  channel, and a signature with the ingest token (``sign``). There is no room for metadata.

    ssssssss-nnnn-nnnn-cmmm-mmmmmmmmmmmm    hexadecimal
    s  second at which the call began, n  its number: ${UNIQUEID} or ${LINKEDID} of a channel is s.n, decimal
    c  a: the agent's channel, c: the customer's
    m  first 15 digits of SHA1(token:SHA1(token:s.n:channel)), what ``SHA1()`` of a dialplan can do

The hash is taken twice around the secret, as HMAC does (RFC 2104), so that nobody can lengthen what was
signed; 60 bits of it are more than can be tried over a network. It is good for ``SIGNED_S``: both ways, who
reads along on the wire can say the same UUID again; AudioSocket belongs on a network of its own.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from uuid import UUID

from app.errors import Overloaded
from streams.events import CallInfo, Channel

SIGNED_S = 4 * 3_600
"""So long after a call has begun its signed UUIDs are let in."""
AHEAD_S = 300
"""So much the clock of the telephone system may be ahead."""
_LETTERS: dict[str, Channel] = {"a": "agent", "c": "customer"}


@dataclass(frozen=True, slots=True)
class Booking:
    call: CallInfo
    channel: Channel
    valid_s: float


class Bookings:
    """UUIDs that were given out. At most ``most``: when it is full, new ones are refused."""

    USUAL_S, LONGEST_S = 120.0, 3_600.0
    """Seconds that a UUID is held for, unless its owner says how many, and at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[UUID, tuple[float, Booking]] = {}
        """With the clock at which each ends."""

    def __len__(self) -> int:
        return len(self._held)

    def book(self, uuid: UUID, booking: Booking, now_s: float) -> None:
        """Hold ``uuid`` (random) until ``booking.valid_s`` from now; raises ``Overloaded``."""
        if len(self._held) >= self._most:
            self._held = {one: held for one, held in self._held.items() if held[0] > now_s}
        if len(self._held) >= self._most:
            raise Overloaded(f"{self._most} bookings are held already; try again in a few seconds")
        self._held[uuid] = (now_s + booking.valid_s, booking)

    def find(self, uuid: UUID, now_s: float) -> Booking | None:
        """What ``uuid`` was given out for; ``None``: nothing, or too long ago.

        From now on it is held as long again: a connection that breaks may come back.
        """
        ends_s, booking = self._held.get(uuid, (0.0, None))
        if booking is None:
            return None
        if ends_s <= now_s:
            del self._held[uuid]
            return None
        self._held[uuid] = (now_s + booking.valid_s, booking)
        return booking


def sign(token: str, second: int, number: int, channel: Channel) -> UUID:
    """The UUID of the call ``second.number`` (32 bits each) and one of its channels."""
    signature = _signature(token, f"{second}.{number}", channel)
    return UUID(f"{second:08x}{number:08x}{channel[0]}{signature}")


def signed(uuid: UUID, token: str, wall_s: float) -> tuple[str, Channel] | None:
    """Call id and channel, where ``uuid`` was signed with ``token`` and is still good.

    ``wall_s``: seconds since 1970. ``None``: it is none of ours, or too old.
    """
    channel = _LETTERS.get(uuid.hex[16])
    if channel is None:
        return None
    second, number = int(uuid.hex[:8], 16), int(uuid.hex[8:16], 16)
    call_id = f"{second}.{number}"
    right = hmac.compare_digest(_signature(token, call_id, channel), uuid.hex[17:])
    return (call_id, channel) if right and -SIGNED_S <= second - wall_s <= AHEAD_S else None


def _signature(token: str, call_id: str, channel: Channel) -> str:
    # A dialplan has nothing better, and what breaks SHA-1 (collisions) does not help against a keyed hash.
    inner = hashlib.sha1(f"{token}:{call_id}:{channel}".encode()).hexdigest()  # noqa: S324
    return hashlib.sha1(f"{token}:{inner}".encode()).hexdigest()[:15]  # noqa: S324
