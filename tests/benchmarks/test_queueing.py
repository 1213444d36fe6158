from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.queueing import Speech, arrivals, interpolated, most_calls, simulate
from streams.batching import Kind


def test_costs_are_linear_between_what_was_measured() -> None:
    cost = interpolated({(500, 1): 0.1, (500, 4): 0.4, (1000, 1): 0.2, (1000, 4): 0.8})
    assert cost(500, 1) == pytest.approx(0.1)
    assert cost(750, 1) == pytest.approx(0.15)
    assert cost(500, 2) == pytest.approx(0.2)
    assert cost(1000, 8) == pytest.approx(1.6)


def test_a_batch_never_costs_less_than_half_of_the_smallest_measured() -> None:
    cost = interpolated({(500, 1): 0.1, (1000, 1): 0.3, (500, 2): 0.12, (1000, 2): 0.34})
    assert cost(250, 1) == pytest.approx(0.05)


def test_one_measured_batch_scales_in_proportion() -> None:
    assert interpolated({(500, 2): 0.2})(1000, 4) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="at least one"):
        interpolated({})


def test_the_same_seed_makes_the_same_speech() -> None:
    def made(seed: int) -> list[float]:
        return [at for at, _ in arrivals(3, 20.0, Speech(), random.Random(seed), partials=True)]

    assert made(1) == made(1) != made(2)


def test_a_partial_comes_before_its_final() -> None:
    jobs = arrivals(2, 30.0, Speech(), random.Random(1), partials=True)
    assert all(at < job.payload.cut_s for at, job in jobs if job.kind is Kind.PARTIAL)
    assert all(at == job.payload.cut_s for at, job in jobs if job.kind is Kind.FINAL)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 8), st.booleans())
def test_every_final_is_answered_once_and_none_before_its_batch_is_done(
    calls: int, largest: int, partials: bool
) -> None:
    wanted = sum(
        job.kind is Kind.FINAL for _, job in arrivals(calls, 20.0, Speech(), random.Random(3), partials)
    )
    waits = simulate(calls, lambda _, size: 0.05 + 0.01 * size, largest, 20.0, partials=partials)
    assert len(waits.finals) == wanted
    assert min(waits.finals) >= 0.05


def test_an_idle_model_answers_in_the_time_of_one_batch() -> None:
    waits = simulate(1, lambda *_: 0.1, 8, 60.0, Speech(retried=0.0), partials=False)
    assert waits.percentile(0.95) == pytest.approx(0.1)


def test_a_model_that_is_too_slow_for_one_call_holds_none() -> None:
    assert most_calls(lambda *_: 5.0, 8, p95_s=1.0) == 0


def test_two_workers_hold_about_twice_as_many() -> None:
    one = most_calls(lambda _, size: 0.1 * size, 4, seconds=40.0, partials=False)
    two = most_calls(lambda _, size: 0.1 * size, 4, seconds=40.0, partials=False, workers=2)
    assert 1.5 * one <= two <= 3 * one
