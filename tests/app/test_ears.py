"""What a call sounds like, to whoever listens to it now."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ears import KEPT_MS, LEAD_MS, PER_MS, SLACK_MS, Ears, Listening, Sinks
from streams.events import AudioFrame, CallInfo

CALL = CallInfo(call_id="c")


def frame(start_ms, length_ms=100, channel="agent", level=1_000):
    pcm = np.full(length_ms * PER_MS, level, "<i2").tobytes()
    return AudioFrame(call_id="c", channel=channel, media_ms=start_ms, pcm=pcm)


def taken(ears, milliseconds):
    return ears.take(milliseconds * PER_MS)


def test_both_channels_are_heard_at_their_media_time_mixed():
    ears = Ears("both")
    for at in range(0, 500, 100):
        ears.hear(frame(at))
        ears.hear(frame(at, channel="customer", level=500))
    assert set(taken(ears, 200)[-50 * PER_MS :]) == {1_500}


def test_one_channel_alone_is_heard_by_who_wants_it():
    ears = Ears("customer")
    for at in range(0, 500, 100):
        ears.hear(frame(at))
        ears.hear(frame(at, channel="customer", level=500))
    assert set(taken(ears, 200)) <= {0, 500}


def test_before_anything_comes_and_where_nothing_comes_there_is_silence():
    ears = Ears("both")
    assert not taken(ears, 20).any()
    for at in range(0, 300, 100):
        ears.hear(frame(at))
    heard = np.concatenate([taken(ears, 20) for _ in range(50)])
    assert heard[: 300 * PER_MS].any()
    assert not heard[-100 * PER_MS :].any()


class Played:
    """A call and its listener in real time: frames of 100 ms come, and five pieces of 20 ms are played."""

    def __init__(self, wanted="both"):
        self.ears, self.heard = Ears(wanted), []

    def second(self, *frames_of, tenths=10):
        for tenth in range(tenths):
            for frames in frames_of:
                if (one := frames(tenth)) is not None:
                    self.ears.hear(one)
            self.heard += [taken(self.ears, 20) for _ in range(5)]

    def silent(self, last_ms):
        """Share of the last so many milliseconds in which nothing was heard."""
        samples = np.concatenate(self.heard)[-last_ms * PER_MS :]
        return 1 - np.count_nonzero(samples) / len(samples)

    @property
    def delay_ms(self):
        """From the newest sound to what is played next."""
        return (self.ears._newest - self.ears._at) / PER_MS


def steady(from_ms, channel="agent", level=1_000):
    return lambda tenth: frame(from_ms + tenth * 100, channel=channel, level=level)


def test_sound_is_played_a_fifth_of_a_second_after_it_came():
    played = Played()
    for second in range(5):
        played.second(steady(second * 1_000))
    assert played.silent(4_000) == 0
    assert played.delay_ms + 100 == LEAD_MS  # as the newest came


@pytest.mark.parametrize("pause", [1, 2, 3, 5, 8, 30])
def test_after_a_pause_of_which_the_channels_time_knows_nothing_it_is_heard_again(pause):
    played = Played()
    played.second(steady(0))
    played.second(lambda _: None, tenths=pause)
    played.second(steady(1_000))
    played.second(steady(2_000))
    assert played.silent(1_500) == 0


@pytest.mark.parametrize("pause", [1, 2, 3, 5, 8, 30])
def test_after_a_pause_in_the_channels_own_time_it_is_heard_again(pause):
    played = Played()
    played.second(steady(0))
    played.second(lambda _: None, tenths=pause)
    played.second(steady(1_000 + pause * 100))
    played.second(steady(2_000 + pause * 100))
    assert played.silent(1_500) == 0


@pytest.mark.parametrize("late", [1, 3, 6])
def test_a_channel_that_lags_is_waited_for(late):
    played = Played()
    for second in range(4):
        agent = steady(second * 1_000)
        customer = steady(second * 1_000 - late * 100, "customer", 500)
        played.second(agent, lambda tenth, s=second, c=customer: c(tenth) if s or tenth >= late else None)
    assert set(np.concatenate(played.heard)[-1_500 * PER_MS :]) == {1_500}


def test_what_an_uneven_moment_has_cost_is_made_up_for():
    played = Played()
    played.second(steady(0))
    # Half a second comes late and at once.
    played.second(lambda _: None, tenths=5)
    for at in range(1_000, 1_500, 100):
        played.ears.hear(frame(at))
    for second in range(22):  # the look that began with it, and another one
        played.second(steady(1_500 + second * 1_000))
    assert played.silent(10_000) == 0
    assert played.delay_ms + 100 <= LEAD_MS + SLACK_MS


def test_who_is_slow_hears_what_is_now():
    ears = Ears("both")
    for at in range(0, 60_000, 100):
        ears.hear(frame(at, level=at // 100 + 1))
    assert sum(len(samples) for _, samples in ears._pieces["agent"]) <= (KEPT_MS + 100) * PER_MS
    assert taken(ears, 20).max() >= (60_000 - KEPT_MS) // 100


async def test_only_calls_that_run_here_are_heard_and_ears_end_with_them():
    listening = Listening()
    sinks = Sinks([listening, Listening()])
    assert "c" not in listening
    sinks.start(CALL, 8_000)
    assert "c" in listening
    ears, other = listening.open("c", "both"), listening.open("c", "agent")
    listening.shut("c", other)
    sinks.frame(frame(0))
    await sinks.close("c", 100)
    assert ears.ended
    assert not other.ended
    assert taken(ears, 300).any()
    assert "c" not in listening
    assert listening.open("c", "both").ended  # it has just ended


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5_000), st.integers(1, 300), st.sampled_from(["agent", "customer", "unknown"])
        ),
        max_size=30,
    ),
    st.lists(st.integers(1, 100), max_size=30),
)
def test_whatever_comes_as_much_is_played_as_is_asked_for(frames, takes):
    ears = Ears("both")
    for index, (start, length, channel) in enumerate(frames):
        ears.hear(frame(start, length, channel, level=30_000))
        if index < len(takes):
            assert len(taken(ears, takes[index])) == takes[index] * PER_MS
