"""The RTP packets of one voice in order (RFC 3550). Pure: order and stamps decide, no clock.

A packet that is missing is waited for until those behind it hold ``HELD`` of sound: so late may one come that
another has overtaken. What comes later than that is dropped.
"""

from __future__ import annotations

from typing import Final, NamedTuple

RATE: Final = 48_000
"""Of stamps: Opus over RTP counts so, whatever was spoken into it (RFC 7587, 4.1)."""
HELD: Final = RATE // 10
"""Stamps from the first packet that waits to the newest: 100 ms."""
MOST_WAITING: Final = 50
"""Packets, whatever their stamps say."""
FURTHEST_BACK: Final = 100
"""A number further back than this is not late: its sender has begun to count anew."""


class Packet(NamedTuple):
    """A packet in its order."""

    stamp: int
    """RTP time of its first sample, 32 bits that may wrap."""
    payload: bytes
    lost: int = 0
    """Packets before it that did not come."""
    begins: bool = False
    """Its stamp has nothing to do with the one before: another stream begins."""


class InOrder:
    """Numbered packets in, the same in order out."""

    def __init__(self) -> None:
        self._source: int | None = None
        self._next = 0
        """Number of the packet that is due, unwrapped."""
        self._begins = False
        self._waiting: dict[int, tuple[int, bytes]] = {}
        """By number, unwrapped: stamp and payload; at most ``MOST_WAITING``."""
        self.late = 0
        """Packets that came too late, or twice."""
        self.lost = 0

    @property
    def is_waiting(self) -> bool:
        return bool(self._waiting)

    def put(self, source: int, number: int, stamp: int, payload: bytes) -> list[Packet]:
        """Take a packet; return those whose turn has come.

        ``source``: its SSRC; another one is another stream, as when a softphone hands the call on.
        ``number``: 16 bits, ``stamp``: 32 bits.
        """
        # The nearest to the next one that has these sixteen bits.
        unwrapped = self._next + ((number - self._next + 0x8000) & 0xFFFF) - 0x8000
        if source != self._source or unwrapped < self._next - FURTHEST_BACK:
            rest = self.flush()
            self._source, self._next, self._begins = source, number, True
            self._waiting[number] = (stamp, payload)
            return [*rest, *self._release()]
        if unwrapped < self._next or unwrapped in self._waiting:
            self.late += 1
            return []
        self._waiting[unwrapped] = (stamp, payload)
        return self._release()

    def flush(self) -> list[Packet]:
        """Give out all that waits: nothing more comes, or not for a while."""
        out = []
        while self._waiting:
            out += self._release(held=0)
        return out

    def _release(self, held: int = HELD) -> list[Packet]:
        out = []
        while self._waiting:
            lost = 0
            if self._next not in self._waiting:
                first, newest = min(self._waiting), max(self._waiting)
                ahead = (self._waiting[newest][0] - self._waiting[first][0]) & 0xFFFF_FFFF
                if ahead < held and len(self._waiting) < MOST_WAITING:
                    break
                lost = first - self._next
                self.lost += lost
                self._next = first
            stamp, payload = self._waiting.pop(self._next)
            out.append(Packet(stamp, payload, lost, self._begins))
            self._begins = False
            self._next += 1
        return out
