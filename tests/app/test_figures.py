"""The floor's figures: of what was told, over which time, and none where nobody told anything."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from app.api.floor_views import MOODS_MOST, moods, script_state
from app.figures import FloorFigures, seconds
from app.store import Store
from app.store.times import read, written
from streams.events import Progress, Step
from tests.app.store_support import alert, emotion, open_store, started

BEGAN = read("2026-03-01T08:30:00.000Z")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = open_store(database_url)
    yield opened
    opened.close()


class Clock:
    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> datetime:
        return self.now

    def at(self, seconds: float) -> str:
        self.now = BEGAN + timedelta(seconds=seconds)
        return written(self.now)


def test_the_time_to_acknowledge_is_the_median_over_the_first_person_of_each_alert(store: Store) -> None:
    clock = Clock()
    figures = FloorFigures(store, clock)
    raised = [(alert(number), clock.at(0)) for number in range(1, 5)]
    store.log.append([(started(), clock.at(0)), *raised])
    assert (figures().acknowledge_ms, figures().acknowledged) == (None, 0)
    store.log.append([(alert(1, state="acknowledged"), clock.at(10))])
    store.log.append(
        [(alert(4, state="escalated"), clock.at(15)), (alert(2, state="resolved"), clock.at(40))]
    )
    store.log.append(
        [(alert(1, state="resolved"), clock.at(50)), (alert(3, state="false_alarm"), clock.at(60))]
    )
    assert (figures().acknowledge_ms, figures().acknowledged) == (40_000, 3)


def test_it_reads_on_where_it_was_and_forgets_what_was_yesterday(store: Store) -> None:
    clock = Clock()
    figures = FloorFigures(store, clock)
    store.log.append([(started(), clock.at(0)), (alert(1), clock.at(0)), (alert(2), clock.at(0))])
    store.log.append([(alert(1, state="acknowledged"), clock.at(8))])
    assert figures().acknowledged == 1
    day = 24 * 3600.0
    store.log.append([(alert(2, state="acknowledged"), clock.at(day))])
    assert (figures().acknowledged, figures().acknowledge_ms) == (2, (day + 8) * 500)
    clock.at(day + 20)
    assert figures().acknowledged == 1


def test_many_who_ask_at_once_are_told_the_same(store: Store) -> None:
    clock = Clock()
    figures = FloorFigures(store, clock)
    before = figures()
    store.log.append([(started("c1", attributes={"waited_s": "3"}), clock.at(1))])
    assert figures() is before
    clock.at(5)
    assert figures().answered == 1


def test_the_service_level_is_of_calls_whose_waiting_the_telephony_told_within_the_hour(store: Store) -> None:
    clock = Clock()
    told = ["4", "25", "25.5", "", "soon", "-1", "nan", "inf", "1e9"]
    store.log.append([(started("early", attributes={"waited_s": "1"}), clock.at(0))])
    store.log.append(
        [
            (started(f"c{number}", attributes={"waited_s": text}), clock.at(3500))
            for number, text in enumerate(told)
        ]
    )
    store.log.append([(started("silent", attributes={"note": '"waited_s"'}), clock.at(3500))])
    clock.at(3601)
    figures = FloorFigures(store, clock)()
    assert (figures.in_time, figures.answered, figures.answer_limit_s) == (2, 3, 25.0)


def test_seconds_are_numbers_that_somebody_can_wait() -> None:
    assert seconds(["0", " 12 ", "86400", "86401", "二十"]) == [0.0, 12.0, 86400.0]


def test_a_curve_is_the_customers_and_not_longer_than_a_card() -> None:
    told = [emotion(n * 1000, role="customer" if n % 2 else "agent") for n in range(100)]
    curve = moods(told)
    assert len(curve) == MOODS_MOST
    assert {mood.role for mood in curve} == {"customer"}
    assert curve[-1].media_ms == told[-1].media_end_ms


def progress(script: str, *states: str) -> Progress:
    given: Any = states
    steps = tuple(
        Step(
            id=f"s{place}", name={"zh": f"第{place}步"}, state=state, due_ms=9000 if state == "due" else None
        )
        for place, state in enumerate(given)
    )
    return Progress(call_id="c1", script=script, name={"zh": script}, media_ms=0, steps=steps)


def test_a_script_is_as_far_as_its_needed_steps_are_said() -> None:
    state = script_state([progress("sale", "done", "too_late", "skipped", "missed", "due", "waiting")])
    assert state is not None
    assert (state.done, state.steps, state.missed) == (2, 5, 1)
    assert (state.next, state.due_ms) == ({"zh": "第4步"}, 9000)


def test_a_call_in_no_script_shows_the_rules_own_list() -> None:
    assert script_state([]) is None
    rules, sale, card = progress("rules", "waiting"), progress("sale", "done"), progress("card", "due")
    for lists, name in (([rules], "rules"), ([sale, card, rules], "card"), ([rules, sale], "sale")):
        state = script_state(lists)
        assert state is not None
        assert state.script == name
