"""A network that loses packets is the same one in every run, and what it lets through is heard."""

from __future__ import annotations

import random

import numpy as np
import pytest

from app.ingest.packets import RATE
from app.phones.whip import Network
from benchmarks.loss import coded, heard, through
from streams.events import AudioFrame, Gap

PACKETS = [bytes([number % 256]) for number in range(2_000)]


def test_a_good_network_brings_all_packets_in_order() -> None:
    assert [one.payload for one in through(Network(), PACKETS, random.Random(1))] == PACKETS


def test_so_many_packets_are_lost_and_with_one_seed_the_same() -> None:
    one, again = (through(Network(loss=0.05), PACKETS, random.Random(1)) for _ in range(2))
    assert one == again
    assert 1 - len(one) / len(PACKETS) == pytest.approx(0.05, abs=0.02)


def test_late_packets_overtake_each_other_and_none_is_lost() -> None:
    numbers = [one.number for one in through(Network(jitter_s=0.1), PACKETS, random.Random(1))]
    assert numbers != sorted(numbers)
    assert sorted(numbers) == list(range(len(PACKETS)))


def test_what_came_through_is_as_long_as_what_was_said() -> None:
    tone = (8_000 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE)).astype(np.int16)
    arrived = through(Network(loss=0.05), coded(tone), random.Random(1))
    items = list(heard("call", {"agent": arrived, "customer": []}))
    ms = sum(item.duration_ms for item in items if isinstance(item, AudioFrame | Gap))
    assert ms == pytest.approx(3_000, abs=60)
