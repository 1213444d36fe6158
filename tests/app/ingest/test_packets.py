"""RTP packets in order."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from app.ingest.packets import MOST_WAITING, RATE, InOrder

FRAME = RATE // 50
"""20 ms."""


def put(order, number, source=1, frame=FRAME):
    return order.put(source, number & 0xFFFF, number * frame & 0xFFFF_FFFF, str(number).encode())


def passed(order, numbers, **options):
    """Number and count of lost ones before it, of every packet that came out."""
    return [(int(one.payload), one.lost) for n in numbers for one in put(order, n, **options)]


def numbers(packets):
    return [int(one.payload) for one in packets]


def test_packets_in_order_go_through_at_once():
    order = InOrder()
    assert passed(order, [7, 8, 9]) == [(7, 0), (8, 0), (9, 0)]
    assert not order.is_waiting


def test_one_that_was_overtaken_is_waited_for():
    order = InOrder()
    assert numbers(put(order, 7)) == [7]
    assert [put(order, n) for n in (9, 10, 11, 12, 13)] == [[]] * 5
    assert numbers(put(order, 8)) == [8, 9, 10, 11, 12, 13]
    assert (order.lost, order.late) == (0, 0)


def test_one_that_does_not_come_is_given_up_when_100_ms_wait_behind_it():
    order = InOrder()
    assert passed(order, [7, 9, 10, 11, 12, 13]) == [(7, 0)]
    assert passed(order, [14]) == [(9, 1), (10, 0), (11, 0), (12, 0), (13, 0), (14, 0)]
    # The next one is not later for it.
    assert passed(order, [15]) == [(15, 0)]
    assert passed(order, [8]) == []
    assert (order.lost, order.late) == (1, 1)


def test_long_packets_are_not_waited_for_any_longer():
    order = InOrder()
    assert passed(order, [7, 9, 10, 11], frame=3 * FRAME) == [(7, 0), (9, 1), (10, 0), (11, 0)]


def test_one_that_comes_twice_goes_through_once():
    order = InOrder()
    assert passed(order, [7, 7, 9, 9, 8]) == [(7, 0), (8, 0), (9, 0)]
    assert order.late == 2


def test_numbers_and_stamps_begin_anew_after_their_bits():
    order, first = InOrder(), 0xFFFF_FFFF // FRAME - 3
    sent = list(range(first, first + 9))
    assert passed(order, [*sent[:4], *sent[5:], sent[4]])[-5:] == [(n, 0) for n in sent[4:]]


def test_another_source_is_another_stream_whatever_its_numbers():
    order = InOrder()
    passed(order, [40_000, 40_001, 40_003])
    [last, first] = put(order, 11, source=2)
    assert (int(last.payload), last.begins) == (40_003, False)
    assert (int(first.payload), first.lost, first.begins) == (11, 0, True)
    assert [one.begins for one in put(order, 12, source=2)] == [False]


def test_a_sender_that_counts_anew_is_heard_at_once():
    order = InOrder()
    passed(order, range(40_000, 40_050))
    [first] = put(order, 20_000)
    assert first.begins
    assert passed(order, [20_001]) == [(20_001, 0)]


def test_what_waits_is_given_out_when_nothing_more_comes():
    order = InOrder()
    passed(order, [7, 9, 12])
    assert [(int(one.payload), one.lost) for one in order.flush()] == [(9, 1), (12, 2)]
    assert order.flush() == []


def test_jitter_of_100_ms_loses_nothing():
    chance, order = random.Random(1), InOrder()
    sent = sorted(range(2_000), key=lambda n: n * 20 + chance.random() * 100)
    out = [n for n, _ in passed(order, sent)] + numbers(order.flush())
    # The very first may have been overtaken: nobody knows that it is to come.
    assert out == list(range(out[0], 2_000))
    assert order.lost == 0


@given(
    st.lists(
        st.tuples(
            st.integers(1, 2),
            st.integers(0, 0xFFFF) | st.integers(0, 60),
            st.integers(0, 0xFFFF_FFFF) | st.integers(0, 200_000),
        ),
        max_size=200,
    )
)
def test_whatever_comes_each_packet_leaves_once_and_nothing_piles_up(sent):
    order, out = InOrder(), []
    for index, (source, number, stamp) in enumerate(sent):
        out += order.put(source, number, stamp, str(index).encode())
        assert len(order._waiting) <= MOST_WAITING
    out += order.flush()
    assert len({one.payload for one in out}) == len(out)
    assert len(out) + order.late == len(sent)
