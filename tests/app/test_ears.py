"""What a call sounds like, to whoever listens to it now."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.ears import KEPT_MS, LEAD_MS, PER_MS, Ears, Listening, Sinks
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
    assert set(taken(ears, 100)[-50 * PER_MS :]) == {1_500}


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
    assert heard[: LEAD_MS * PER_MS - 100 * PER_MS].any()
    assert not heard[-100 * PER_MS :].any()


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
