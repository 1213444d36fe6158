"""What the sockets saw, against what was told; and the floor that is told."""

from __future__ import annotations

from benchmarks.appended import Plan, Played, script
from benchmarks.feed import summary
from benchmarks.feed_load import ALERT, FeedReport
from streams.events import Alert, CallEnded, CallStarted


def test_lost_and_doubled_are_counted_for_each_socket() -> None:
    report = FeedReport(
        delays_s=[[0.1, 0.2, 0.3], [0.1, 0.1]],
        numbers=[[0, 1, 2], [1, 1]],
        resyncs=0,
        closed=0,
        slow_resyncs=0,
        slow_closed=0,
        bytes=0,
        cpu_s=0.0,
        worst_lag_s=0.0,
    )
    figures = summary(report, Played(events=9, alerts=3, late_s=0.0))
    assert (figures["sockets"], figures["lost"], figures["doubled"], figures["max_s"]) == (2, 2, 1, 0.3)


def test_an_alerts_number_and_moment_are_found_in_its_frame() -> None:
    frame = (
        b'{"cursor":8,"type":"alert.raised","call_id":"c","alert":{"id":"bench-0000042-' + b"7" * 20 + b'"}}'
    )
    found = ALERT.search(frame)
    assert found is not None
    assert (int(found[1]), int(found[2])) == (42, int("7" * 20))


def test_a_plan_has_as_many_calls_events_and_alerts_as_it_says() -> None:
    plan = Plan(calls=50, events_per_call_s=2.0, alerts_s=10.0, seconds=20.0)
    events = [event for _, some in script(plan) for event in some]
    live = sum(isinstance(each, CallStarted) for each in events) - sum(
        isinstance(each, CallEnded) for each in events
    )
    assert live == 50
    assert sum(isinstance(each, Alert) for each in events) == 200
    assert 1500 < len(events) < 2300
