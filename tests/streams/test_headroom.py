import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.headroom import Headroom


def at_work(
    headroom: Headroom, share: float, seconds: float, speech: float = 0, finals: bool = True
) -> float:
    """Let the workers be busy for ``share`` of ``seconds``; returns the clock.

    ``speech``: seconds of it that are read per second.
    """
    now = 0.0
    while now < seconds:
        now += 0.1
        headroom.worked(0.1 * share * headroom.workers, finals, now)
        if speech:
            headroom.served(0.1 * speech, now)
    return now


def test_an_idle_model_gives_partials_their_best_pace() -> None:
    assert Headroom(2).partial_pace_ms(0.0) == Headroom.PACE_MS


def test_it_sees_how_busy_the_workers_are() -> None:
    headroom = Headroom(2)
    now = at_work(headroom, 0.6, 20)
    assert headroom.busy(now) == pytest.approx(0.6, abs=0.05)


def test_partials_slow_down_as_the_workers_fill() -> None:
    paces = []
    for share in (0.2, 0.5, 0.65, 0.75, 0.85):
        headroom = Headroom(2)
        paces.append(headroom.partial_pace_ms(at_work(headroom, share, 20)))
    assert paces == sorted(paces)
    assert paces[0] == Headroom.PACE_MS < paces[-1]


def test_partials_stop_before_finals_have_to_wait() -> None:
    headroom = Headroom(2)
    assert headroom.partial_pace_ms(at_work(headroom, 1.0, 20)) is None


def test_the_pace_recovers_when_the_work_is_over() -> None:
    headroom = Headroom(2)
    now = at_work(headroom, 1.0, 20)
    assert headroom.partial_pace_ms(now + 10) == Headroom.PACE_MS


def test_a_burst_of_calls_is_judged_by_what_they_will_cost() -> None:
    headroom = Headroom(workers=2, call_cost=0.1)
    taken = 0
    while headroom.has_room(taken):
        taken += 1
    assert taken == 16


def test_what_a_call_costs_is_learnt_from_calls_that_run() -> None:
    headroom = Headroom(workers=2, call_cost=0.5)
    at_work(headroom, share=0.4, seconds=60, speech=16)
    assert headroom.call_cost == pytest.approx(0.4 * 2 / 16, rel=0.2)
    assert headroom.has_room(28)


def test_partials_do_not_count_against_new_calls() -> None:
    headroom = Headroom(workers=2, call_cost=0.05)
    at_work(headroom, share=1.0, seconds=60, speech=4, finals=False)
    assert headroom.has_room(20)


def test_what_was_read_ahead_and_became_final_counts_as_final() -> None:
    headroom, now = Headroom(workers=2, call_cost=0.5), 0.0
    while now < 60:
        now += 0.1
        headroom.worked(0.08, finals=False, now_s=now)
        headroom.was_final(0.08, now)
        headroom.served(1.6, now)
    assert headroom.call_cost == pytest.approx(0.8 / 16, rel=0.2)


def test_a_busy_model_reads_nothing_twice() -> None:
    busy = []
    for share in (0.3, 0.9):
        headroom = Headroom(2)
        busy.append(headroom.is_busy(at_work(headroom, share, 20)))
    assert busy == [False, True]


def test_a_few_words_teach_nothing() -> None:
    headroom = Headroom(workers=2, call_cost=0.05)
    at_work(headroom, share=0.9, seconds=60, speech=0.2)
    assert headroom.call_cost == 0.05


def test_a_burst_that_has_not_spoken_yet_does_not_make_calls_seem_cheap() -> None:
    headroom = Headroom(workers=2, call_cost=0.07)
    at_work(headroom, share=1.0, seconds=30, speech=2.0 / 0.07)
    assert headroom.call_cost == pytest.approx(0.07, rel=0.1)
    assert not headroom.has_room(30)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 2), st.booleans()), max_size=50))
def test_the_pace_is_always_within_its_bounds(batches: list[tuple[float, float, bool]]) -> None:
    headroom, now = Headroom(2), 0.0
    for pause, seconds, finals in batches:
        now += pause
        headroom.worked(seconds, finals, now)
        pace = headroom.partial_pace_ms(now)
        assert pace is None or Headroom.PACE_MS <= pace <= Headroom.SLOW_PACE_MS
