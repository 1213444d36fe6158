"""Packets in order, and their sound on the sender's clock."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from aiortc import RTCPeerConnection
from hypothesis import given
from hypothesis import strategies as st

from app.ingest.webrtc import RATE, InOrder, Voice, put_in_order
from streams.events import AudioFrame, Gap

FRAME = RATE // 50


def packet(number):
    return SimpleNamespace(
        sequence_number=number & 0xFFFF, timestamp=number * FRAME, _data=str(number).encode()
    )


def passed(numbers):
    buffer, out = InOrder(), []
    for number in numbers:
        _, frame = buffer.add(packet(number))
        if frame is not None:
            out.append(int(frame.data))
    return out, buffer


def test_packets_leave_in_order_and_at_once_when_none_is_missing():
    assert passed([7, 8, 9])[0] == [7, 8, 9]
    assert passed([7, 9, 8, 10, 11])[0] == [7, 8, 9, 10]  # one for each that comes


def test_what_is_lost_is_waited_for_a_while_and_what_comes_later_is_dropped():
    out, buffer = passed([0, *range(2, 20), 1, *range(20, 30)])
    assert 1 not in out
    assert out == [0, *range(2, out[-1] + 1)]
    assert out[-1] >= 29 - InOrder.DEPTH
    assert buffer.late == 1


def test_numbers_begin_anew_after_sixteen_bits():
    assert passed(range(65_530, 65_545))[0] == list(range(65_530, 65_545))


@given(st.lists(st.integers(0, 65_535), max_size=60))
def test_whatever_numbers_come_nothing_piles_up(numbers):
    buffer = InOrder()
    for number in numbers:
        buffer.add(packet(number))
        assert len(buffer._waiting) <= InOrder.DEPTH + 1


async def test_aiortc_still_keeps_its_buffer_where_it_is_replaced():
    connection = RTCPeerConnection()
    transceiver = connection.addTransceiver("audio")
    try:
        assert put_in_order(transceiver.receiver)
    finally:
        await connection.close()


def frames(voice):
    return voice.take() + voice.finish()


def tone(count=FRAME):
    return np.full(count, 5_000, np.int16)


def length(items):
    return sum(item.duration_ms for item in items)


def test_sound_lies_where_its_stamps_say_whenever_it_comes():
    voice = Voice("c", "agent")
    for number in range(50):
        voice.put(4_000_000_000 + number * FRAME, tone())
    items = frames(voice)
    assert items[0].media_ms == 0
    assert length(items) == pytest.approx(1_000, abs=2)


@pytest.mark.parametrize("start", [0, (1 << 32) - 3 * FRAME], ids=["usual", "stamps wrap"])
def test_a_lost_packet_is_filled_and_a_long_hole_is_a_gap(start):
    voice = Voice("c", "agent")
    for number in [*range(10), *range(12, 20), *range(70, 90)]:
        voice.put((start + number * FRAME) % (1 << 32), tone())
    items = frames(voice)
    [gap] = [item for item in items if isinstance(item, Gap)]
    assert (gap.media_ms, gap.duration_ms) == (400, 1_000)
    assert items[-1].media_ms + items[-1].duration_ms == pytest.approx(1_800, abs=2)


def test_what_comes_twice_is_heard_once():
    voice = Voice("c", "agent")
    for number in (0, 1, 1, 0, 2):
        voice.put(number * FRAME, tone())
    assert length(frames(voice)) == pytest.approx(60, abs=2)


@given(st.lists(st.tuples(st.integers(0, (1 << 32) - 1), st.integers(1, 2_000)), max_size=20))
def test_whatever_stamps_come_the_channel_only_goes_forward(given_frames):
    voice, reach = Voice("c", "agent"), 0
    for stamp, count in given_frames:
        voice.put(stamp, tone(count))
        for item in voice.take():
            assert isinstance(item, AudioFrame | Gap)
            assert item.media_ms >= reach - 2
            reach = item.media_ms + item.duration_ms
