"""One peer that sends a channel of a call over WebRTC; the only file that reaches into aiortc.

aiortc decodes every packet in a thread of its own and waits for a lost one until sixteen more have come. Here
the packets are taken as they come in, where aiortc has its jitter buffer: its own threads have nothing to do,
its queues stay empty, and decoding is done for many packets at once when the runner comes round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Final

import aiortc
import structlog
from aiortc import RTCRtpReceiver
from aiortc.rtp import RtpPacket
from prometheus_client import Counter

from app.errors import DutingError
from app.ingest.opus import OpusDecoder
from app.ingest.packets import InOrder
from app.ingest.peer import Closed
from app.ingest.voice import Voice
from streams.events import AudioFrame, Channel, Gap

log = structlog.get_logger(__name__)

LOST = Counter("duting_webrtc_lost_packets", "Packets of voices that did not come")
LATE = Counter("duting_webrtc_late_packets", "Packets of voices that came too late to be heard, or twice")

STILL_S: Final = 0.2
"""Nothing has come for so long: what waits for a lost packet is heard without it."""
_BUFFER: Final = "_RTCRtpReceiver__jitter_buffer"


class _Tap:
    """Stands where aiortc has its jitter buffer, and hands every packet on."""

    def __init__(self, take: Callable[[RtpPacket], None]) -> None:
        self._take = take

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        """Neither is a picture to be asked for, nor is there anything to decode."""
        self._take(packet)
        return False, None


def check() -> None:
    """Raise ``DutingError`` where this aiortc is not built as it has to be."""
    probe = RTCRtpReceiver("audio", SimpleNamespace(state="new"))  # type: ignore[arg-type]
    if not hasattr(probe, _BUFFER) or not hasattr(probe, "_enabled"):
        raise DutingError(
            f"aiortc {aiortc.__version__} keeps its packets elsewhere than 1.13 to 1.16 do: install one of "
            "these"
        )


def tap(receiver: RTCRtpReceiver, take: Callable[[RtpPacket], None]) -> None:
    """Let ``take`` have every packet of ``receiver``; no frame comes out of its track any more."""
    setattr(receiver, _BUFFER, _Tap(take))


def discard(receiver: RTCRtpReceiver) -> None:
    """Throw every packet of ``receiver`` away as it comes: nothing is decoded, nothing is reported.

    To be called when the connection's description is complete; aiortc sets this itself before that.
    """
    receiver._enabled = False


class VoiceLeg:
    """What one peer brings of a call: the packets of its voice. A call's ``Leg``."""

    def __init__(
        self, call_id: str, channel: Channel, clock: Callable[[], float], end: Callable[[Closed], None]
    ) -> None:
        """``end``: closes the connection, when the call wants no more of it."""
        self.call_id = call_id
        self._clock, self._end = clock, end
        self._order = InOrder()
        self._voice = Voice(call_id, channel, OpusDecoder())
        self.arrived_s: float = clock()

    def receive(self, packet: RtpPacket) -> None:
        """A packet has come."""
        self.arrived_s = self._clock()
        for ready in self._order.put(packet.ssrc, packet.sequence_number, packet.timestamp, packet.payload):
            self._voice.put(ready)

    def take(self) -> Sequence[AudioFrame | Gap]:
        if self._order.is_waiting and self._clock() - self.arrived_s > STILL_S:
            self._flush()
        return self._voice.take()

    def finish(self) -> Sequence[AudioFrame | Gap]:
        self._flush()
        LOST.inc(self._order.lost)
        LATE.inc(self._order.late)
        if self._order.late or self._voice.unreadable:
            log.info(
                "webrtc.packets",
                call_id=self.call_id,
                lost=self._order.lost,
                late=self._order.late,
                unreadable=self._voice.unreadable,
            )
        return self._voice.finish()

    def _flush(self) -> None:
        for ready in self._order.flush():
            self._voice.put(ready)

    def drop(self, message: str, code: int) -> None:
        log.info("webrtc.dropped", call_id=self.call_id, code=code)
        self._end(Closed("disconnected"))
