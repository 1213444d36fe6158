"""One peer that sends a channel of a call over WebRTC: its packets in order, its sound on its own clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import av
import numpy as np
import structlog
from aiortc import RTCPeerConnection, RTCRtpReceiver
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtp import RtpPacket
from prometheus_client import Counter

from streams.audio import S16LE, ChannelAudio, Samples
from streams.conceal import HISTORY_MS, conceal
from streams.events import AudioFrame, Channel, Gap

log = structlog.get_logger(__name__)

CONCEALED = Counter("duting_webrtc_concealed_ms", "Audio that was lost on its way and filled in")

RATE = 48_000
"""Of Opus over RTP (RFC 7587), whatever was spoken into it."""
MOST_CONCEALED = RATE // 10
"""Samples: a longer hole is a gap."""
MOST_READY_MS = 5_000
"""Audio that waits for the runner; beyond it the oldest is dropped, and is a gap."""


class InOrder:
    """Puts RTP packets of audio in order; stands where aiortc has its own buffer.

    aiortc's waits for a lost packet until sixteen more have come. This one waits for ``DEPTH`` (100 ms at
    20 ms a packet) and then goes on; what comes later than that is dropped.
    """

    DEPTH = 5

    def __init__(self) -> None:
        self._waiting: dict[int, RtpPacket] = {}
        """By number, unwrapped; at most ``DEPTH`` and one."""
        self._next: int | None = None
        self.late = 0

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Take a packet; the first of the pair is for video alone."""
        number = packet.sequence_number
        if self._next is None:
            self._next = number
        # The nearest number to the next one that has these sixteen bits.
        number = self._next + ((number - self._next + 0x8000) & 0xFFFF) - 0x8000
        if number < self._next:
            self.late += 1
        else:
            self._waiting[number] = packet
        if self._next not in self._waiting and len(self._waiting) > self.DEPTH:
            self._next = min(self._waiting)
        ready = self._waiting.pop(self._next, None)
        if ready is None:
            return False, None
        self._next += 1
        return False, JitterFrame(data=ready._data, timestamp=ready.timestamp)  # type: ignore[attr-defined]


def put_in_order(receiver: RTCRtpReceiver) -> bool:
    """Let ``receiver`` use ``InOrder``; ``False``: this aiortc keeps its buffer elsewhere, and uses that."""
    name = "_RTCRtpReceiver__jitter_buffer"
    if not hasattr(receiver, name):
        return False
    setattr(receiver, name, InOrder())
    return True


class Voice:
    """Decoded frames of one track in, audio of the channel out. Pure.

    Media time is the sender's: RTP time since its first sample, so that neither jitter nor a late packet
    shows. A hole of up to 100 ms is filled with what was heard before it, a longer one is a ``Gap``.
    """

    def __init__(self, call_id: str, channel: Channel) -> None:
        self._audio = ChannelAudio(call_id, channel, RATE, S16LE)
        self._first: int | None = None
        self._next = 0
        """Samples since the first, behind the last frame."""
        self._number = 0
        self._heard: Samples = np.zeros(0, np.int16)

    @property
    def ready_ms(self) -> int:
        return self._audio.ready_ms

    def put(self, stamp: int, samples: Samples) -> None:
        """Take a frame. ``stamp``: its RTP time; ``samples``: int16 mono at ``RATE``."""
        if self._first is None:
            self._first = stamp
        # 32 bits that may wrap at any time: the nearest to what is expected.
        ahead = (stamp - self._first - self._next + (1 << 31)) % (1 << 32) - (1 << 31)
        if ahead < 0:
            return  # it came twice
        if 0 < ahead <= MOST_CONCEALED:
            filled = conceal(self._heard, ahead, RATE)
            CONCEALED.inc(ahead * 1000 / RATE)
            self._append(filled)
        elif ahead > ChannelAudio.LONGEST_JUMP_MS * RATE // 1000:
            self._first = (stamp - self._next) % (1 << 32)  # another stream: it goes on behind this one
        elif ahead:
            self._next += ahead
        self._append(samples)

    def _append(self, samples: Samples) -> None:
        with suppress(ValueError):
            self._audio.put(self._number, self._next * 1000 // RATE, samples.tobytes())
        self._number += 1
        self._next += len(samples)
        self._heard = np.concatenate([self._heard, samples])[-RATE * HISTORY_MS // 1000 :]

    def take(self) -> list[AudioFrame | Gap]:
        return self._audio.take()

    def finish(self) -> list[AudioFrame | Gap]:
        return self._audio.flush()


def mono(frame: av.AudioFrame) -> Samples:
    """Of a packed 16-bit frame, the mean of its channels."""
    samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))
    return samples.astype(np.int32).mean(axis=1).astype(np.int16)


class TrackLeg:
    """What one peer brings of a call: its track, drained as it comes. A call's ``Leg``."""

    def __init__(
        self, connection: RTCPeerConnection, call_id: str, channel: Channel, clock: Callable[[], float]
    ) -> None:
        self.connection, self.call_id = connection, call_id
        self._voice, self._clock = Voice(call_id, channel), clock
        self._draining: asyncio.Task[None] | None = None
        self._connected = False
        self.dropped = asyncio.Event()
        """The call wants no more of it."""
        self.arrived_s: float = clock()

    @property
    def is_connected(self) -> bool:
        return self.connection.connectionState == "connected"

    def drain(self, track: MediaStreamTrack) -> None:
        """Begin with a track. It has to be read whatever becomes of it: aiortc's queue is unbounded."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(track))

    async def _drain(self, track: MediaStreamTrack) -> None:
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                self.arrived_s = self._clock()
                if not isinstance(frame, av.AudioFrame) or frame.pts is None:
                    continue
                self._voice.put(frame.pts, mono(frame))
                if self._voice.ready_ms > MOST_READY_MS:
                    self._voice.take()

    def take(self) -> Sequence[AudioFrame | Gap]:
        return self._voice.take()

    def finish(self) -> Sequence[AudioFrame | Gap]:
        return self._voice.finish()

    def drop(self, message: str, code: int) -> None:
        self.dropped.set()

    async def aclose(self) -> None:
        await self.connection.close()
        if self._draining is not None:
            self._draining.cancel()
            with suppress(asyncio.CancelledError):
                await self._draining
