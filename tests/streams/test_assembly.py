"""Connections on the media time of their call: late, returning, twice, by another clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.assembly import Placement, Timeline
from streams.events import SAMPLE_RATE, AudioFrame, Gap

BOTH = ("agent", "customer")
LOUD = 8_000


def frame(start_ms, length_ms=20, channel="agent", level=LOUD):
    count = length_ms * SAMPLE_RATE // 1000
    # Every sample tells its moment, so that what is left shows what was cut.
    return AudioFrame(
        call_id="c", channel=channel, media_ms=start_ms, pcm=np.full(count, level, "<i2").tobytes()
    )


def spans(items):
    return [(type(i).__name__, i.channel, i.media_ms, i.media_ms + i.duration_ms) for i in items]


def alone(stamped=True):
    timeline = Timeline("c", BOTH)
    return timeline, Placement(timeline, BOTH, stamped)


def test_the_first_connection_gives_the_call_its_media_time():
    timeline, placement = alone()
    assert spans(placement.place([frame(0), frame(0, channel="customer")], 100.02)) == [
        ("AudioFrame", "agent", 0, 20),
        ("AudioFrame", "customer", 0, 20),
    ]
    assert timeline.zero_s == pytest.approx(100.0)
    assert timeline.at(103.5) == 3_500


def test_a_channel_that_comes_late_begins_where_the_clock_says_and_what_it_missed_is_a_gap():
    timeline = Timeline("c", BOTH)
    Placement(timeline, ["agent"], True).place([frame(0)], 100.02)
    late = Placement(timeline, ["customer"], False)
    assert spans(late.place([frame(0, channel="customer")], 108.02)) == [
        ("Gap", "customer", 0, 8_000),
        ("AudioFrame", "customer", 8_000, 8_020),
    ]


def test_two_connections_that_begin_together_have_missed_nothing():
    timeline = Timeline("c", BOTH)
    Placement(timeline, ["agent"], False).place([frame(0)], 100.02)
    other = Placement(timeline, ["customer"], False)
    assert spans(other.place([frame(0, channel="customer")], 100.32)) == [
        ("AudioFrame", "customer", 300, 320)
    ]


def test_a_new_stream_counts_from_zero_and_goes_on_where_the_clock_says():
    timeline, placement = alone()
    placement.place([frame(0, 5_000), frame(0, 5_000, "customer")], 105.0)
    back = Placement(timeline, BOTH, True)
    assert spans(back.place([frame(0), frame(0, channel="customer")], 112.02)) == [
        ("Gap", "agent", 5_000, 12_000),
        ("AudioFrame", "agent", 12_000, 12_020),
        ("Gap", "customer", 5_000, 12_000),
        ("AudioFrame", "customer", 12_000, 12_020),
    ]


def test_a_stream_that_goes_on_with_its_own_times_says_nothing_twice():
    timeline, placement = alone()
    placement.place([frame(0, 60_000)], 160.0)
    back = Placement(timeline, BOTH, True)
    # A recorder that says its last sixteen seconds again, all at once.
    assert spans(back.place([frame(50_000, 16_000)], 166.0)) == [("AudioFrame", "agent", 60_000, 66_000)]


def test_of_a_gap_that_was_heard_in_part_the_rest_is_left():
    _timeline, placement = alone()
    placement.place([frame(0, 1_000)], 101.0)
    gap = Gap(call_id="c", channel="agent", media_ms=500, duration_ms=1_500, reason="missing")
    assert spans(placement.place([gap], 102.0)) == [("Gap", "agent", 1_000, 2_000)]


def test_where_another_process_heard_the_beginning_only_what_nobody_heard_is_a_gap():
    timeline = Timeline("c", BOTH, zero_s=100.0)
    timeline.before_ms = 20_000
    placement = Placement(timeline, BOTH, True)
    assert spans(placement.place([frame(0)], 123.02)) == [
        ("Gap", "agent", 20_000, 23_000),
        ("AudioFrame", "agent", 23_000, 23_020),
    ]


def run(placement, seconds, rate=1.0, level=LOUD, start_s=100.0, begun_ms=0, jitter=None, channel="customer"):
    """Play ``seconds`` in pieces of 200 ms by a clock that runs ``rate`` as fast as ours."""
    out = []
    for number in range(round(seconds * 5)):
        at = begun_ms + number * 200
        spoken = start_s + (at + 200) / 1000 / rate
        out += placement.place([frame(at, 200, channel, level)], spoken + (jitter(number) if jitter else 0))
    return out


@pytest.mark.parametrize("rate", [0.999, 1.001], ids=["slow", "fast"])
def test_a_connection_by_another_clock_is_put_right_in_a_quiet_moment(rate):
    timeline = Timeline("c", BOTH)
    Placement(timeline, ["agent"], False).place([frame(0)], 100.02)
    placement = Placement(timeline, ["customer"], False)
    run(placement, 600, rate, level=20)
    end_ms = timeline.at(100 + 600 / rate)
    assert abs(timeline.reach["customer"] - end_ms) <= 150


def test_a_connection_that_only_comes_late_now_and_then_is_left_alone():
    timeline = Timeline("c", BOTH)
    Placement(timeline, ["agent"], False).place([frame(0)], 100.02)
    placement = Placement(timeline, ["customer"], False)
    out = run(placement, 120, level=20, jitter=lambda n: 0.4 if n % 7 else 0.0)
    assert not any(isinstance(item, Gap) for item in out)
    assert sum(item.duration_ms for item in out) == 120_000


def test_nothing_is_put_in_or_left_out_while_somebody_speaks_before_patience_ends():
    timeline = Timeline("c", BOTH)
    Placement(timeline, ["agent"], False).place([frame(0)], 100.02)
    placement = Placement(timeline, ["customer"], False)
    slow = run(placement, 14, 0.98)
    assert spans(slow)[-1][2:] == (13_804, 14_004)
    later = run(placement, 6, 0.98, begun_ms=14_000)
    assert spans(later)[-1][3] > 20_000


def test_where_the_peer_sent_nothing_for_a_while_and_has_no_stamps_the_call_goes_on_and_it_is_a_gap():
    timeline, placement = alone(stamped=False)
    run(placement, 10, channel="agent")
    out = run(placement, 4, start_s=130.0, begun_ms=10_000, level=20, channel="agent")
    [gap] = [item for item in out if isinstance(item, Gap)]
    assert 29_000 <= gap.duration_ms <= 30_200
    assert abs(timeline.reach["agent"] - timeline.at(144.0)) <= 200


def test_a_peer_that_stamps_its_audio_and_brings_all_of_it_is_believed():
    _timeline, placement = alone(stamped=True)
    run(placement, 30, channel="agent")
    out = run(placement, 30, start_s=135.0, begun_ms=30_000, level=20, channel="agent")
    assert not any(isinstance(item, Gap) for item in out)


moves = st.lists(
    st.one_of(
        st.tuples(
            st.just("audio"),
            st.sampled_from(BOTH),
            st.integers(1, 400),
            st.integers(-200, 3_000),
            st.floats(0, 5, allow_nan=False),
        ),
        st.tuples(st.just("new"), st.sampled_from([*BOTH, "both"]), st.booleans()),
    ),
    max_size=40,
)


@given(moves)
def test_whatever_connections_do_each_channel_only_ever_goes_forward(sequence):
    timeline = Timeline("c", BOTH)
    placement, at, now = Placement(timeline, BOTH, True), 0, 100.0
    reach = dict.fromkeys(BOTH, 0)
    for move in sequence:
        if move[0] == "new":
            channels = BOTH if move[1] == "both" else [move[1]]
            placement, at = Placement(timeline, channels, move[2]), 0
            continue
        _, channel, length, jump, pause = move
        if channel not in placement.channels:
            continue
        at, now = max(0, at + jump), now + pause
        for item in placement.place([frame(at, length, channel)], now):
            assert item.media_ms >= reach[item.channel] - 2
            assert item.duration_ms > 0
            reach[item.channel] = item.media_ms + item.duration_ms
        at += length
