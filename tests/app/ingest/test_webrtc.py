"""Where our code takes hold of aiortc: with the real one on both ends."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack

from app.errors import DutingError
from app.ingest import webrtc
from app.ingest.peer import Closed
from app.ingest.webrtc import STILL_S, VoiceLeg
from streams.events import AudioFrame, Gap


@pytest_asyncio.fixture
async def ends():
    """A peer that sends, and one that receives."""
    both = [RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2)]
    yield both
    for one in both:
        await one.close()


async def connected(ends, track, prepare):
    """Connect both; ``prepare`` is given the receiver when the description is complete."""
    sends, receives = ends
    sends.addTrack(track)
    await sends.setLocalDescription(await sends.createOffer())
    await receives.setRemoteDescription(RTCSessionDescription(sends.localDescription.sdp, "offer"))
    await receives.setLocalDescription(await receives.createAnswer())
    [transceiver] = receives.getTransceivers()
    prepare(transceiver.receiver)
    await sends.setRemoteDescription(RTCSessionDescription(receives.localDescription.sdp, "answer"))
    return transceiver.receiver


class Enough:
    """Calls that are noted, until there were ``count`` of them."""

    def __init__(self, count):
        self.calls, self._count, self._reached = [], count, asyncio.Event()

    def __call__(self, call):
        self.calls.append(call)
        if len(self.calls) >= self._count:
            self._reached.set()

    async def wait(self):
        async with asyncio.timeout(10):
            await self._reached.wait()


def queued(receiver):
    """What waits in aiortc for its decoder, and behind it."""
    return receiver._RTCRtpReceiver__decoder_queue.qsize() + receiver.track._queue.qsize()


def test_this_aiortc_is_built_as_it_has_to_be():
    webrtc.check()


def test_another_aiortc_is_refused_with_what_is_expected(monkeypatch):
    monkeypatch.setattr(webrtc, "_BUFFER", "_another_name")
    with pytest.raises(DutingError, match=r"1\.13 to 1\.16"):
        webrtc.check()


async def test_packets_are_taken_before_aiortc_decodes_them(ends):
    packets = Enough(10)
    receiver = await connected(ends, AudioStreamTrack(), lambda one: webrtc.tap(one, packets))
    await packets.wait()
    assert queued(receiver) == 0
    assert all(one.payload for one in packets.calls)
    numbers = [one.sequence_number for one in packets.calls]
    assert numbers == [(numbers[0] + n) & 0xFFFF for n in range(len(numbers))]


async def test_a_screen_costs_no_decoding(ends):
    came = Enough(20)

    def prepare(receiver):
        handle = receiver._handle_rtp_packet

        async def handled(packet, arrival_time_ms):
            await handle(packet, arrival_time_ms)
            came(packet)

        receiver._handle_rtp_packet = handled
        webrtc.discard(receiver)

    receiver = await connected(ends, VideoStreamTrack(), prepare)
    await came.wait()
    assert queued(receiver) == 0
    assert not any(one.type == "inbound-rtp" for one in (await receiver.getStats()).values())


class Clock:
    def __init__(self):
        self.now = 10.0

    def __call__(self):
        return self.now


class Rtp:
    """A packet as aiortc hands it on."""

    def __init__(self, number, payload):
        self.ssrc, self.sequence_number, self.timestamp, self.payload = 1, number, number * 960, payload


@pytest.fixture
def leg():
    clock, ended = Clock(), []
    leg = VoiceLeg("c", "agent", clock, ended.append)
    leg.clock, leg.ended = clock, ended
    return leg


@pytest.fixture(scope="module")
def payloads():
    from tests.app.ingest.test_opus import packets, tone

    return packets(tone(400))


def length(items):
    assert all(isinstance(item, AudioFrame | Gap) for item in items)
    return sum(item.duration_ms for item in items)


def test_what_waits_for_a_lost_packet_is_heard_once_nothing_more_comes(leg, payloads):
    for number in (0, 1, 2, 4, 5):
        leg.receive(Rtp(number, payloads[number]))
    first = length(leg.take())
    leg.clock.now += STILL_S + 0.1
    assert first + length(leg.take()) + length(leg.finish()) == pytest.approx(120, abs=2)


def test_at_the_end_nothing_is_left_behind(leg, payloads):
    for number in (0, 1, 3):
        leg.receive(Rtp(number, payloads[number]))
    assert length(leg.finish()) == pytest.approx(80, abs=2)


def test_a_leg_knows_when_its_newest_sound_came(leg, payloads):
    leg.clock.now = 12.5
    leg.receive(Rtp(0, payloads[0]))
    assert leg.arrived_s == 12.5


def test_a_leg_that_the_call_wants_no_more_closes_its_connection(leg):
    leg.drop("another has taken its place", 4409)
    assert leg.ended == [Closed("disconnected")]
