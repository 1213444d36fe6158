"""The judge in this process: one answer a question, each call by itself."""

from __future__ import annotations

import numpy as np
import pytest

from streams.events import Hold
from streams.judge import LocalJudge, Question
from streams.silero import WINDOW
from streams.testing import LoudnessVad, music, silence, tone
from streams.vad import SileroVad


def question(samples: np.ndarray, call_id: str = "c", first: int = 0, channel="agent") -> Question:
    return Question(call_id, channel, first, samples[: len(samples) // WINDOW * WINDOW].reshape(-1, WINDOW))


def opened(*call_ids: str, vad=LoudnessVad) -> LocalJudge:
    judge = LocalJudge(vad)
    for call_id in call_ids:
        judge.open(call_id, ("agent", "customer"))
    return judge


def test_each_question_has_its_answer_in_the_order_in_which_it_was_asked():
    judge, got = opened("a", "b"), []
    judge.judge([question(tone(640), "a"), question(silence(320), "b")], got.append)
    [[loud, quiet]] = got
    assert len(loud.probabilities) == 20
    assert (loud.probabilities > 0.5).all()
    assert len(quiet.probabilities) == 10
    assert (quiet.probabilities < 0.5).all()


def test_a_call_that_is_not_open_is_an_error_and_so_is_a_channel_that_it_has_not():
    judge = opened("a")
    with pytest.raises(KeyError):
        judge.answers([question(tone(640), "b")])
    with pytest.raises(KeyError):
        judge.answers([question(tone(640), "a", channel="unknown")])
    judge.close("a")
    judge.close("never")
    with pytest.raises(KeyError):
        judge.answers([question(tone(640), "a")])


def test_music_holds_a_call_until_the_telephony_tells_of_holds_itself():
    for told in (False, True):
        judge = opened("c", vad=SileroVad)
        if told:
            judge.told(Hold(call_id="c", media_ms=0, held=False, source="telephony"))
        [answer] = judge.answers([question(music(7_000))])
        assert [type(found) for found in answer.found] == ([] if told else [Hold])


def test_a_hold_of_a_call_that_is_over_is_nothing():
    opened().told(Hold(call_id="gone", media_ms=0, held=True, source="telephony"))
