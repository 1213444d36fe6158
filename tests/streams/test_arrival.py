"""How fast audio comes: a wrong sample rate, and what only looks like one."""

import random

import pytest

from streams.arrival import FAST, SLOW, Arrival


def come(speed, seconds=60.0, step_s=0.064, jitter=0.0, seed=1, pauses=0.0):
    """What is told of audio that comes ``speed`` times as fast as speech."""
    dice = random.Random(seed)
    arrival, told, owed = Arrival(), [], 0.0
    clock = 100.0
    while clock < 100.0 + seconds:
        clock += step_s
        owed += step_s * speed * 1000
        if dice.random() < jitter:
            continue
        if pauses and int(clock) % 6 < pauses * 6:
            owed = 0.0
            continue
        media, owed = int(owed), owed - int(owed)
        if (speed_ := arrival.came(media, clock)) is not None:
            told.append((round(clock - 100, 1), speed_))
    return told


@pytest.mark.parametrize("speed", [2.0, 0.5, 3.0, 44.1 / 16, 8 / 11.025, 6.0, 1 / 6])
def test_a_wrong_rate_is_told_once_within_twenty_seconds(speed):
    [(after_s, told)] = come(speed)
    assert told.is_wrong
    assert told.times == pytest.approx(speed, rel=0.02)
    assert 15 <= after_s <= 20
    assert told.since_s == pytest.approx(100, abs=1)


@pytest.mark.parametrize("speed", [1.0, 0.9, 1.1, SLOW + 0.02, FAST - 0.02])
@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.9])
def test_the_right_one_is_not_however_the_network_shakes(speed, jitter):
    assert come(speed, jitter=jitter) == []


def test_what_was_held_up_comes_all_at_once_and_is_no_wrong_rate():
    arrival = Arrival()
    clock, told = 0.0, []
    for _ in range(30):
        for _ in range(40):
            clock += 0.064
            told.append(arrival.came(64, clock))
        clock += 4.0
        told.append(arrival.came(4_064, clock))
    assert not any(told)


def test_a_peer_that_sends_nothing_while_nobody_speaks_is_not_slow():
    assert come(1.0, seconds=120, pauses=0.5) == []


def test_a_rate_that_is_put_right_is_told():
    arrival, told = Arrival(), []
    for n in range(1000):
        speed = arrival.came(128 if n < 500 else 64, n * 0.064)
        told += [speed] if speed is not None else []
    assert [speed.is_wrong for speed in told] == [True, False]
