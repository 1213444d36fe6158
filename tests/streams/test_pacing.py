from __future__ import annotations

from streams.events import SpeechStarted, SpeechStopped
from streams.pacing import Pacing


def edge(at: int) -> SpeechStarted:
    return SpeechStarted(call_id="c", channel="agent", media_ms=at)


def test_nothing_is_held_back_while_no_words_are_owed() -> None:
    pacing = Pacing()
    pacing.hold(1000, edge(700))
    pacing.hold(1000, None)
    assert list(pacing.due()) == [(1000, edge(700)), (1000, None)]
    assert list(pacing.due()) == []


def test_what_was_heard_waits_for_the_words_before_it() -> None:
    pacing = Pacing(lead_ms=3000)
    pacing.cut("u1", 5000)
    pacing.hold(8000, edge(7700))
    pacing.hold(8001, edge(7900))
    pacing.hold(9000, None)
    assert list(pacing.due()) == [(8000, edge(7700))], "three seconds ahead and no more"
    assert list(pacing.read("u1")) == []
    assert list(pacing.due()) == [(8001, edge(7900)), (9000, None)]


def test_an_utterance_is_heard_before_it_is_read() -> None:
    pacing = Pacing(lead_ms=3000)
    pacing.cut("u1", 5000)
    stopped = SpeechStopped(call_id="c", channel="agent", media_ms=19_500)
    pacing.hold(17_000, edge(16_700))
    pacing.hold(18_000, None)
    pacing.hold(20_000, stopped)
    pacing.cut("u2", 20_000)
    pacing.hold(21_000, edge(20_700))
    assert list(pacing.due()) == []
    assert list(pacing.read("u2")) == [(17_000, edge(16_700)), (20_000, stopped)], "no timer meanwhile"
    assert list(pacing.due()) == [], "the first is still owed"
    assert list(pacing.read("u1")) == []
    assert list(pacing.due()) == [(21_000, edge(20_700))]


def test_of_timers_that_wait_one_after_the_other_the_last_serves_all() -> None:
    pacing = Pacing()
    pacing.cut("u1", 0)
    for at in range(4000, 60_000, 20):
        pacing.hold(at, None)
    pacing.hold(60_000, edge(59_700))
    assert list(pacing.read("u1")) == []
    assert list(pacing.due()) == [(59_980, None), (60_000, edge(59_700))]


def test_at_the_end_nothing_is_owed_any_more() -> None:
    pacing = Pacing()
    pacing.cut("u1", 0)
    pacing.hold(30_000, edge(29_000))
    assert list(pacing.rest()) == [(30_000, edge(29_000))]
    assert list(pacing.read("u2")) == [], "of which nothing is known"
