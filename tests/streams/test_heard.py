"""A call between what came in, what the judge was asked, and what it answered."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.events import CallInfo, Hold, SpeechStarted, Utterance
from streams.heard import HeardCall
from streams.judge import Answer, LocalJudge
from streams.testing import LoudnessVad, hear, play, silence, tone

CALL = CallInfo(call_id="c")
SPOKEN = np.concatenate([silence(700), tone(2500), silence(300), tone(1400), silence(900), tone(900)])


def a_call():
    judge = LocalJudge(LoudnessVad)
    judge.open("c", CALL.channels)
    return HeardCall(CALL), judge


def test_what_is_with_the_judge_is_not_heard_yet():
    call, judge = a_call()
    for frame in play("c", "agent", tone(500)):
        call.take(frame, 1.0)
    questions = call.ask()
    assert (call.is_asking, call.media_ms, call.ask()) == (True, 0, [])
    heard = call.answered(judge.answers(questions))
    assert (call.is_asking, call.media_ms) == (False, 500)
    assert [type(h) for h in heard] == [SpeechStarted]


def test_what_a_judge_that_failed_was_asked_is_asked_again():
    call, judge = a_call()
    for frame in play("c", "agent", tone(500)):
        call.take(frame, 1.0)
    call.ask()
    call.unanswered()
    for frame in play("c", "agent", tone(500), 500):
        call.take(frame, 2.0)
    assert [type(h) for h in hear([call], judge)[0]] == [SpeechStarted, Utterance]
    assert call.media_ms == 1000


def test_less_than_a_window_is_asked_about_when_the_rest_has_come():
    call, judge = a_call()
    for frame in play("c", "agent", tone(20)):
        call.take(frame, 1.0)
    assert (call.ask(), call.is_asking, call.media_ms) == ([], False, 20)
    for frame in play("c", "agent", tone(20), 20):
        call.take(frame, 1.0)
    [question] = call.ask()
    # What comes now was not asked about, though the customer's channel had nothing to ask.
    for channel in CALL.channels:
        for frame in play("c", channel, tone(100), 40 if channel == "agent" else 0):
            call.take(frame, 1.1)
    call.answered(judge.answers([question]))
    assert call.media_ms == 40
    assert [(q.channel, q.first, len(q.windows)) for q in call.ask()] == [
        ("agent", 512, 3),
        ("customer", 0, 3),
    ]


def test_what_is_behind_a_hole_is_a_question_of_its_own():
    call, judge = a_call()
    for frame in [*play("c", "agent", tone(1000)), *play("c", "agent", tone(1000), 60_000)]:
        call.take(frame, 1.0)
    questions = call.ask()
    # A second and a half of silence ends what was said before it.
    assert [(q.first, len(q.windows)) for q in questions] == [(0, 2500 // 32)]
    heard = call.answered(judge.answers(questions))
    assert [h.end_ms for h in heard if isinstance(h, Utterance) and h.final] == [1024]
    assert call.media_ms == 2500
    heard = hear([call], judge)[0]
    assert [h.media_ms for h in heard if isinstance(h, SpeechStarted)] == [60_000]
    assert call.media_ms == 61_000


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3000), st.booleans()), min_size=1, max_size=30))
def test_how_late_the_judge_answers_changes_nothing(pieces):
    whole, judge = a_call()
    for frame in play("c", "agent", SPOKEN):
        whole.take(frame, 0.0)
    expected = hear([whole], judge)[0] + whole.finish()
    call, judge = a_call()
    out, waiting, at, turn = [], [], 0, 0
    while at < len(SPOKEN):
        size, is_answered = pieces[turn % len(pieces)]
        for frame in play("c", "agent", SPOKEN[at : at + size], at * 1000 // 16_000, frame_ms=60_000):
            call.take(frame, 0.0)
        at, turn = at + size, turn + 1
        waiting = waiting or call.ask()
        if waiting and is_answered:
            out += call.answered(judge.answers(waiting))
            waiting = []
    if waiting:
        out += call.answered(judge.answers(waiting))
    out += hear([call], judge)[0] + call.finish()
    assert out == expected


def test_a_call_is_held_by_what_was_told_and_by_what_was_heard():
    call, _ = a_call()
    call.told(Hold(call_id="c", media_ms=0, held=True, source="telephony"))
    assert call.is_held
    for frame in play("c", "agent", tone(64)):
        call.take(frame, 0.0)
    [question] = call.ask()
    over = Hold(call_id="c", media_ms=64, held=False, source="music")
    assert over in call.answered([Answer(np.zeros(len(question.windows), np.float32), [over])])
    assert not call.is_held
