"""One voice that comes in packets: on its sender's clock, with what was lost filled in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import numpy as np
from prometheus_client import Counter

from app.ingest.packets import RATE, Packet
from streams.audio import S16LE, ChannelAudio, Samples
from streams.conceal import HISTORY_MS, OVERLAP_MS, conceal, crossfaded
from streams.events import AudioFrame, Channel, Gap

CONCEALED = Counter("duting_webrtc_concealed_ms", "Audio that was lost on its way and filled in")

MOST_CONCEALED: Final = RATE // 10
"""Samples: a longer hole is a ``Gap``."""
MOST_QUIET: Final = RATE
"""Samples: so long a sender that sends nothing while nobody speaks (DTX) is taken to be silent."""
LONGEST_JUMP: Final = ChannelAudio.LONGEST_JUMP_MS * RATE // 1000
MOST_PACKETS: Final = 250
"""That wait for the runner, 5 s of the usual ones; beyond it the oldest is dropped, and is a gap."""
HISTORY: Final = RATE * HISTORY_MS // 1000
OVERLAP: Final = RATE * OVERLAP_MS // 1000

Decode = Callable[[bytes], Samples]
"""A payload's sound, int16 mono at ``RATE``; ``ValueError`` where it holds none."""


class Voice:
    """Packets in order in, audio of the channel out.

    Media time is the sender's: its stamps since the first one, so that neither jitter nor a packet that came
    late shows. Packets wait as they are until ``take``.
    """

    def __init__(self, call_id: str, channel: Channel, decode: Decode) -> None:
        self._decode = decode
        self._packets: deque[Packet] = deque()
        self._audio = ChannelAudio(call_id, channel, RATE, S16LE)
        self._number = 0
        """Of the next piece that goes to ``_audio``."""
        self._origin: int | None = None
        """Stamp of media time 0."""
        self._next = 0
        """Samples of media time up to which the voice was heard."""
        self._run: list[Samples] = []
        """Heard since the last piece, without a hole."""
        self._run_at = 0
        """Samples of media time at which it begins."""
        self._history: Samples = np.zeros(0, np.int16)
        """What was heard before it."""
        self._lost = False
        """What was to come before the next packet did not come, or was no sound."""
        self.unreadable = 0
        """Packets that the decoder refused."""

    def put(self, packet: Packet) -> None:
        if len(self._packets) >= MOST_PACKETS:
            dropped = self._packets.popleft()
            first = self._packets[0]
            self._packets[0] = first._replace(
                lost=first.lost + dropped.lost + 1, begins=first.begins or dropped.begins
            )
        self._packets.append(packet)

    def take(self) -> list[AudioFrame | Gap]:
        """What has come since the last time."""
        while self._packets:
            self._hear(self._packets.popleft())
        self._hand_on()
        return self._audio.take()

    def finish(self) -> list[AudioFrame | Gap]:
        """The voice is over: what still waits, also in the resampler."""
        return [*self.take(), *self._audio.flush()]

    def _hear(self, packet: Packet) -> None:
        self._lost = self._lost or packet.lost > 0
        try:
            samples = self._decode(packet.payload)
        except ValueError:
            self.unreadable += 1
            self._lost = True
            return
        if not len(samples):
            return
        ahead = self._ahead(packet)
        if not ahead:
            pass
        elif self._lost and ahead <= MOST_CONCEALED:
            filled = conceal(self._tail(), ahead + OVERLAP, RATE)
            self._append(filled[:ahead])
            samples = crossfaded(filled[ahead:], samples)
            CONCEALED.inc(ahead * 1000 / RATE)
        elif not self._lost and ahead <= MOST_QUIET:
            self._append(np.zeros(ahead, np.int16))
        else:
            self._hand_on()
            self._next += ahead
            self._history = np.zeros(0, np.int16)
        self._append(samples)
        self._lost = False

    def _ahead(self, packet: Packet) -> int:
        """Samples between what was heard and this packet."""
        if self._origin is not None and not packet.begins:
            # 32 bits that may wrap at any time: the nearest to what is expected.
            ahead = (packet.stamp - self._origin - self._next + (1 << 31)) % (1 << 32) - (1 << 31)
            if 0 <= ahead <= LONGEST_JUMP:
                return ahead
        # Another stream, or stamps that began anew: it goes on behind what was heard.
        self._origin = packet.stamp - self._next
        return 0

    def _append(self, samples: Samples) -> None:
        if not self._run:
            self._run_at = self._next
        self._run.append(samples)
        self._next += len(samples)

    def _tail(self) -> Samples:
        """The newest ``HISTORY`` that was heard without a gap, or less."""
        pieces, count = [], 0
        for piece in reversed(self._run):
            pieces.append(piece)
            count += len(piece)
            if count >= HISTORY:
                break
        return np.concatenate([self._history, *reversed(pieces)])[-HISTORY:]

    def _hand_on(self) -> None:
        """Bring what was heard without a hole to the channel, in one piece: cheaper than packet by packet."""
        if not self._run:
            return
        piece = np.concatenate(self._run)
        self._history = np.concatenate([self._history, piece[-HISTORY:]])[-HISTORY:]
        self._run = []
        with suppress(ValueError):  # a time that cannot be, which `_ahead` lets through no more
            self._audio.put(self._number, self._run_at * 1000 // RATE, piece.tobytes())
        self._number += 1
