from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.audio import MULAW, ChannelAudio, encode_mulaw
from streams.events import SAMPLE_RATE, AudioFrame, CallInfo, SpeechStarted, SpeechStopped, Utterance
from streams.heard import HeardCall
from streams.judge import LocalJudge
from streams.listen import Endpointing
from streams.testing import Alone, LoudnessVad, hear, play, silence, tone
from streams.vad import SileroVad


def listen(*pieces, rules=None, frame_ms=20):
    listener = Alone("c", "agent", LoudnessVad(), rules)
    out = []
    for frame in play("c", "agent", np.concatenate(pieces), frame_ms=frame_ms):
        out += listener.push(frame)
    return out + listener.finish()


def named(heard, call_id):
    return msgspec.structs.replace(heard, call_id=call_id)


def finals(heard):
    return [h for h in heard if isinstance(h, Utterance) and h.final]


def test_one_stretch_of_speech_gives_start_stop_and_one_final():
    heard = listen(silence(1000), tone(1500), silence(1500))
    edges = [h for h in heard if not isinstance(h, Utterance)]
    assert [type(e) for e in edges] == [SpeechStarted, SpeechStopped]
    assert abs(edges[0].media_ms - 1000) <= 40
    assert abs(edges[1].media_ms - 2500) <= 40
    [final] = finals(heard)
    assert final.endpoint == "pause"
    # Pre-roll before, a short tail behind.
    assert 650 <= final.start_ms <= 750
    assert abs(final.end_ms - 2500) <= 40


def test_silence_gives_nothing():
    assert listen(silence(5000)) == []


def test_a_click_is_no_speech():
    assert listen(silence(500), tone(90), silence(1500)) == []


def test_a_pause_shorter_than_the_hangover_does_not_cut():
    heard = listen(tone(800), silence(300), tone(800), silence(1000))
    assert len(finals(heard)) == 1


def test_a_short_pause_gives_a_partial_of_all_that_was_said_before_it():
    heard = listen(tone(1500), silence(300), tone(800), silence(1000))
    inner, last = [h for h in heard if isinstance(h, Utterance) and h.endpoint == "breath"]
    assert not inner.final
    assert abs(inner.end_ms - 1500) <= 40
    [final] = finals(heard)
    assert inner.utterance_id == last.utterance_id == final.utterance_id


def test_what_is_heard_up_to_the_last_breath_is_the_final_sample_by_sample():
    heard = listen(silence(700), tone(1500), silence(300), tone(800), silence(1000))
    last = [h for h in heard if isinstance(h, Utterance) and h.endpoint == "breath"][-1]
    [final] = finals(heard)
    assert (last.pcm, last.start_ms, last.end_ms) == (final.pcm, final.start_ms, final.end_ms)


def test_the_pause_that_ends_an_utterance_gives_a_breath_only_where_it_is_much_longer():
    def breaths(*pieces):
        return [h for h in listen(*pieces) if isinstance(h, Utterance) and h.endpoint == "breath"]

    assert breaths(tone(1500), silence(1000)), (
        "half a second of silence: the breath comes long before its end"
    )
    assert not breaths(tone(6500), silence(1000)), "cut at the breath itself"


def test_breaths_close_to_each_other_are_one():
    heard = listen(*[tone(200), silence(200)] * 6, silence(1000))
    breaths = [h.end_ms for h in heard if isinstance(h, Utterance) and h.endpoint == "breath"]
    assert all(b - a >= 500 - 64 for a, b in pairwise(breaths))


def test_a_long_utterance_is_cut_at_a_short_breath():
    heard = listen(tone(6500), silence(260), tone(2000), silence(1000))
    assert [u.endpoint for u in finals(heard)] == ["soft", "pause"]


def test_somebody_who_never_pauses_is_cut_hard_and_nothing_is_lost():
    heard = listen(tone(40_000), silence(1000), rules=Endpointing(longest=15_000))
    cut = finals(heard)
    assert [u.endpoint for u in cut[:-1]] == ["hard"] * (len(cut) - 1)
    assert len(cut) == 4
    for before, after in pairwise(cut):
        assert after.start_ms == before.start_ms + before.duration_ms
    # The speech goes on: only one start and one stop.
    assert [type(h) for h in heard if not isinstance(h, Utterance)] == [SpeechStarted, SpeechStopped]


def test_the_end_of_the_audio_ends_the_utterance():
    [final] = finals(listen(silence(500), tone(1000)))
    assert final.endpoint == "end"


def test_partials_grow_and_keep_the_id_of_their_final():
    heard = listen(tone(4000), silence(1000))
    partials = [h for h in heard if isinstance(h, Utterance) and not h.final]
    [final] = finals(heard)
    assert len(partials) >= 3
    assert {p.utterance_id for p in partials} == {final.utterance_id}
    lengths = [p.duration_ms for p in partials]
    assert lengths == sorted(lengths)


def test_the_pre_roll_reaches_into_the_pause_that_ended_the_utterance_before():
    heard = finals(listen(tone(6500), silence(300), tone(1500), silence(900)))
    assert len(heard) == 2
    onset = 6_800
    assert heard[1].start_ms <= onset - 100


def test_a_hole_in_the_media_time_counts_as_silence():
    listener = Alone("c", "agent", LoudnessVad())
    out = []
    for frame in play("c", "agent", tone(1000)):
        out += listener.push(frame)
    for frame in play("c", "agent", tone(1000), start_ms=61_000):
        out += listener.push(frame)
    out += listener.finish()
    first, second = finals(out)
    assert abs(first.end_ms - 1000) <= 100
    assert second.start_ms >= 60_900
    assert abs(listener.media_ms - 62_000) <= 40


def test_a_frame_shorter_than_a_window_is_kept_for_the_next():
    assert len(finals(listen(silence(200), tone(700), silence(900), frame_ms=1))) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(20, 4000)), min_size=1, max_size=12))
def test_utterances_are_ordered_do_not_overlap_and_pair_with_edges(pieces):
    heard = listen(*(tone(ms) if loud else silence(ms) for loud, ms in pieces))
    cut = finals(heard)
    for before, after in pairwise(cut):
        assert after.start_ms >= before.start_ms + before.duration_ms
    for utterance in cut:
        assert 0 <= utterance.start_ms < utterance.end_ms
        assert len(utterance.pcm) % 2 == 0
        assert utterance.duration_ms <= 15_000 + 1000
    starts = sum(isinstance(h, SpeechStarted) for h in heard)
    stops = sum(isinstance(h, SpeechStopped) for h in heard)
    assert starts == stops


def test_two_runs_over_the_same_audio_are_equal():
    audio = (silence(300), tone(900), silence(700), tone(2500), silence(600))
    assert listen(*audio) == listen(*audio)
    assert SAMPLE_RATE == 16_000


def test_frames_of_one_sample_or_of_none_are_taken():
    listener = Alone("c", "agent", LoudnessVad())
    for start in range(600):
        [frame] = play("c", "agent", np.ones(1, np.int16), start_ms=start * 1000 // SAMPLE_RATE)
        assert listener.push(frame) == []
    assert listener.push(AudioFrame(call_id="c", channel="agent", media_ms=37, pcm=b"")) == []
    assert listener.media_ms == 37
    assert listener.finish() == []


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 4000), min_size=1, max_size=40))
def test_how_the_audio_is_cut_into_frames_changes_nothing(sizes):
    audio = np.concatenate([silence(700), tone(2500), silence(300), tone(5000), silence(230), tone(900)])
    whole = Alone("c", "agent", LoudnessVad())
    expected = whole.push(next(play("c", "agent", audio, frame_ms=60_000))) + whole.finish()
    listener, out, at = Alone("c", "agent", LoudnessVad()), [], 0
    while at < len(audio):
        size = sizes[at % len(sizes)]
        for frame in play("c", "agent", audio[at : at + size], at * 1000 // SAMPLE_RATE, frame_ms=60_000):
            out += listener.push(frame)
        at += size
    assert out + listener.finish() == expected


def test_many_channels_heard_together_hear_what_each_hears_alone():
    channels = [np.concatenate([silence(100 * n), tone(900 + 300 * n), silence(800)]) for n in range(5)]
    together_, alone = [], [listen(audio, frame_ms=64) for audio in channels]
    judge = LocalJudge(LoudnessVad)
    calls = [HeardCall(CallInfo(call_id=f"c{n}", channels=("agent",))) for n in range(len(channels))]
    for call in calls:
        judge.open(call.info.call_id, call.info.channels)
    frames = [list(play("c", "agent", audio, frame_ms=64)) for audio in channels]
    found = {id(call): [] for call in calls}
    for at in range(max(map(len, frames))):
        for call, own in zip(calls, frames, strict=True):
            for frame in own[at : at + 1]:
                call.take(frame, arrived_s=0.0)
        for call, heard in zip(calls, hear(calls, judge), strict=True):
            found[id(call)] += heard
    together_ = [found[id(call)] + call.finish() for call in calls]
    assert [[named(h, "c") for h in heard] for heard in together_] == alone


def test_a_minute_of_clipped_noise_gives_bounded_utterances():
    noise = np.random.default_rng(1).choice(np.array([-32768, 32767], np.int16), 60 * SAMPLE_RATE)
    for vad in (SileroVad(), LoudnessVad()):
        listener = Alone("c", "agent", vad)
        heard = [h for f in play("c", "agent", noise, frame_ms=64) for h in listener.push(f)]
        cut = [h for h in heard + listener.finish() if isinstance(h, Utterance)]
        assert all(u.duration_ms <= Endpointing().longest for u in cut)


def test_a_channel_that_never_stops_talking_is_cut_at_the_longest_and_held_no_longer():
    listener, rules = Alone("c", "agent", LoudnessVad()), Endpointing()
    cut, latest = [], 0
    for frame in play("c", "agent", tone(120_000), frame_ms=64):
        for heard in listener.push(frame):
            if isinstance(heard, Utterance) and heard.final:
                cut.append(heard)
                latest = max(latest, frame.media_ms + frame.duration_ms - heard.end_ms)
    assert len(cut) >= 120_000 // rules.longest
    assert {u.endpoint for u in cut} == {"hard"}
    # Nobody waits longer for a text than the part behind the quietest window.
    assert latest <= rules.longest // 3 + 100


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-32768, 32767), max_size=3000))
def test_any_samples_whatever_are_heard_without_an_error(values):
    listener = Alone("c", "agent", SileroVad())
    for frame in play("c", "agent", np.array(values * 4, np.int16), frame_ms=64):
        listener.push(frame)
    listener.finish()


def telephone(samples):
    """``samples`` at 8 kHz as the listening path gets them: mu-law in chunks of 20 ms, taken every 60 ms."""
    audio, listener = ChannelAudio("c", "customer", 8_000, MULAW), Alone("c", "customer", SileroVad())
    wire, out = encode_mulaw(samples.astype(np.int16)), []
    for number, at in enumerate(range(0, len(wire), 160)):
        audio.put(number + 1, at // 8, wire[at : at + 160])
        if number % 3 == 2:
            out += [heard for frame in audio.take() for heard in listener.push(frame)]
    out += [heard for frame in audio.flush() for heard in listener.push(frame)]
    return finals(out + listener.finish())


SECONDS = np.arange(20 * 8_000) / 8_000
RNG = np.random.default_rng(11)


def pitch(hertz):
    return np.sin(2 * np.pi * hertz * SECONDS)


@pytest.mark.parametrize(
    "sound",
    [
        # GB/T 3380: 450 Hz, one second on, four off; busy 0.35 s on and off.
        6_000 * pitch(450) * (SECONDS % 5 < 1),
        6_000 * pitch(450) * (SECONDS % 0.7 < 0.35),
        # ITU-T Q.23: "5", then "9", a tenth of a second each.
        5_000 * (pitch(770) + pitch(1336)) * (SECONDS % 0.2 < 0.1),
        5_000 * (pitch(852) + pitch(1477)) * (SECONDS % 0.5 < 0.1),
        RNG.normal(0, 20, len(SECONDS)),
        RNG.normal(0, 3_000, len(SECONDS)),
        RNG.choice([-32_000, 32_000], len(SECONDS)),
        np.zeros(len(SECONDS)),
    ],
    ids=["ring-back", "busy", "DTMF", "DTMF with pauses", "line noise", "loud noise", "clipped", "nothing"],
)
def test_what_is_no_speech_never_reaches_the_model(sound):
    assert telephone(sound) == []
