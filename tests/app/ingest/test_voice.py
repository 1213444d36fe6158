"""One voice's packets on its sender's clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ingest.packets import RATE, InOrder, Packet
from app.ingest.voice import MOST_PACKETS, Voice
from streams.audio import rms_dbfs
from streams.events import AudioFrame, Gap
from tests.app.ingest.test_opus import OpusDecoder, packets, tone

FRAME = RATE // 50


def decode(payload):
    """Payloads of this file: how many samples of a tone, and which it is; ``x``: none."""
    if payload == b"x":
        raise ValueError("no packet")
    return tone(int(payload))


def spoken(voice, numbers, start=0, payload=b"20", before=None):
    """Put packets of 20 ms; where a number is missing one was lost."""
    for number in numbers:
        lost = 0 if before is None else number - before - 1
        voice.put(Packet((start + number * FRAME) & 0xFFFF_FFFF, payload, lost))
        before = number
    return before


def new():
    return Voice("c", "agent", decode)


def everything(voice):
    return voice.take() + voice.finish()


def length(items):
    return sum(item.duration_ms for item in items)


def end(items):
    return items[-1].media_ms + items[-1].duration_ms


def gaps(items):
    return [(item.media_ms, item.duration_ms) for item in items if isinstance(item, Gap)]


def pcm(items):
    return np.concatenate([np.frombuffer(i.pcm, "<i2") for i in items if isinstance(i, AudioFrame)])


def test_sound_lies_where_its_stamps_say_whenever_it_is_taken():
    voice, items = new(), []
    spoken(voice, range(10), start=4_000_000_000)
    items += voice.take()
    spoken(voice, range(10, 50), start=4_000_000_000)
    items += everything(voice)
    assert items[0].media_ms == 0
    assert length(items) == pytest.approx(1_000, abs=2)


@pytest.mark.parametrize("start", [0, (1 << 32) - 3 * FRAME], ids=["usual", "stamps wrap"])
def test_a_lost_packet_is_filled_and_a_long_hole_is_a_gap(start):
    voice = new()
    spoken(voice, [*range(10), *range(12, 20), *range(70, 90)], start)
    items = everything(voice)
    assert gaps(items) == [(400, 1_000)]
    assert end(items) == pytest.approx(1_800, abs=2)
    # Where two packets are missing something is heard, softer towards the end.
    heard = pcm(items)
    assert -30 < rms_dbfs(heard[16 * 220 : 16 * 235]) < rms_dbfs(heard[16 * 200 : 16 * 210])


def test_what_is_filled_in_does_not_click():
    voice = new()
    spoken(voice, [*range(10), *range(11, 20)])
    heard = pcm(everything(voice)).astype(int)
    # A tone of 300 Hz at 8,000 rises by at most 950 from one of 16,000 samples to the next.
    assert np.abs(np.diff(heard[160:-160])).max() < 1_200


def test_a_packet_that_cannot_be_read_is_as_good_as_lost():
    voice = new()
    last = spoken(voice, range(10))
    voice.put(Packet(10 * FRAME, b"x"))
    spoken(voice, range(11, 20), before=last + 1)
    items = everything(voice)
    assert voice.unreadable == 1
    assert (gaps(items), length(items)) == ([], pytest.approx(400, abs=2))


def test_a_sender_that_pauses_while_nobody_speaks_is_silent():
    voice = new()
    spoken(voice, range(10))
    voice.put(Packet(30 * FRAME, b"20"))  # the next number, 400 ms later
    items = everything(voice)
    assert gaps(items) == []
    assert length(items) == pytest.approx(620, abs=2)
    assert np.abs(pcm(items)[16 * 250 : 16 * 550]).max() <= 2  # rounding of the resampler


def test_one_that_pauses_for_longer_leaves_a_gap():
    voice = new()
    spoken(voice, range(10))
    voice.put(Packet(300 * FRAME, b"20"))
    items = everything(voice)
    assert gaps(items) == [(200, 5_800)]
    assert end(items) == pytest.approx(6_020, abs=2)


@pytest.mark.parametrize("stamp", [123, 3_000_000_000], ids=["behind", "ahead"])
def test_another_stream_goes_on_behind_the_one_before(stamp):
    voice = new()
    spoken(voice, range(100), start=1_000_000)
    voice.put(Packet(stamp, b"20", begins=True))
    spoken(voice, range(1, 50), start=stamp)
    items = everything(voice)
    assert (gaps(items), length(items)) == ([], pytest.approx(3_000, abs=2))


def test_stamps_that_begin_anew_do_too():
    voice = new()
    spoken(voice, range(100), start=3_000_000_000)
    spoken(voice, range(50), start=123)
    assert length(everything(voice)) == pytest.approx(3_000, abs=2)


def test_a_runner_that_never_comes_round_costs_the_oldest_and_leaves_a_gap():
    voice = new()
    spoken(voice, range(50))
    assert length(voice.take()) > 900
    spoken(voice, range(50, 50 + MOST_PACKETS + 100), before=49)
    items = everything(voice)
    assert gaps(items)[0][1] == pytest.approx(2_000, abs=2)
    assert end(items) == pytest.approx((150 + MOST_PACKETS) * 20, abs=2)


def test_opus_over_a_network_that_loses_every_tenth_packet_keeps_its_time():
    voice, order = Voice("c", "agent", OpusDecoder()), InOrder()
    for number, payload in enumerate(packets(tone(2_000))):
        if number % 10 != 5:
            for one in order.put(1, number, number * FRAME, payload):
                voice.put(one)
    for one in order.flush():
        voice.put(one)
    items = everything(voice)
    assert order.lost == 10
    assert (gaps(items), length(items)) == ([], pytest.approx(2_000, abs=2))
    levels = [rms_dbfs(piece) for piece in np.split(pcm(items)[1_600:30_400], 18)]
    assert max(levels) - min(levels) < 3


@given(
    st.lists(
        st.builds(
            Packet,
            st.integers(0, (1 << 32) - 1) | st.integers(0, 100_000),
            st.sampled_from([b"0", b"3", b"20", b"60", b"x"]),
            st.integers(0, 40_000),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_whatever_comes_the_channel_only_goes_forward(sent):
    voice, reach = new(), 0
    for packet in sent:
        voice.put(packet)
        for item in voice.take():
            assert item.media_ms >= reach - 2
            reach = item.media_ms + item.duration_ms
    for item in voice.finish():
        assert item.media_ms >= reach - 2
