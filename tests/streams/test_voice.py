"""Loudness, pitch and pauses from sound made here: tones, and voices as a telephone lets them through."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from streams.events import SAMPLE_RATE, Utterance
from streams.testing import silence, speak, telephone, tone
from streams.voice import SHAPES, SILENT_DB, measured, voice

NOISE = np.random.default_rng(7)


def noise(ms, level):
    return NOISE.normal(0, level, ms * SAMPLE_RATE // 1000).clip(-32768, 32767).astype(np.int16)


@pytest.mark.parametrize("hertz", [80, 100, 120, 150, 190, 240, 300, 360, 400])
def test_the_pitch_is_found_though_the_telephone_keeps_the_fundamental_back(hertz):
    heard = telephone(speak(2000, hertz)) + noise(2000, 60)
    sound = measured(heard)
    assert sound.pitch_hz == pytest.approx(hertz, rel=0.03)
    assert sound.voiced > 0.8


def test_a_lively_voice_has_a_wider_spread_than_a_flat_one():
    flat, lively = measured(speak(3000, 200)), measured(speak(3000, 200, swing=5))
    assert flat.pitch_spread < 0.5
    assert 4 < lively.pitch_spread < 10
    assert lively.pitch_hz == pytest.approx(200, rel=0.1)


def test_levels_are_decibels_below_full_scale():
    assert measured(tone(2000, level=32767)).level_db == pytest.approx(-3.0, abs=0.2)
    assert measured(tone(2000, level=3277)).level_db == pytest.approx(-23.0, abs=0.2)


def test_the_peak_is_that_of_the_loudest_fifth_of_a_second():
    quiet_then_loud = np.concatenate([tone(2000, level=2000), tone(300, level=16000)])
    sound = measured(quiet_then_loud)
    assert sound.peak_db == pytest.approx(20 * math.log10(16000 / 32768) - 3, abs=0.4)
    assert sound.level_db < sound.peak_db - 5


def test_silence_around_the_speech_is_no_pause_silence_within_it_is():
    spoken = speak(1000, 150)
    around = np.concatenate([silence(500), spoken, silence(500)])
    within = np.concatenate([spoken, silence(1000), spoken])
    assert measured(around).paused < 0.05
    assert measured(within).paused == pytest.approx(1 / 3, abs=0.05)
    assert measured(around).level_db == pytest.approx(measured(spoken).level_db, abs=0.6)


@pytest.mark.parametrize("level", [3, 300, 9000])
def test_noise_is_not_voiced(level):
    sound = measured(noise(4000, level))
    assert sound.voiced < 0.3


def test_too_little_voiced_sound_has_no_pitch():
    click = np.concatenate([silence(300), speak(60, 150), silence(300)])
    assert measured(click).pitch_hz is None
    assert measured(click).pitch_spread is None


def test_the_offset_of_a_line_is_no_loudness():
    offset = np.full(32_000, 4000, np.int16)
    assert measured(offset).level_db == SILENT_DB
    assert measured(offset + tone(2000, 1000)).level_db == pytest.approx(-33.3, abs=0.3)


def test_a_long_utterance_costs_no_more_frames_and_sounds_the_same():
    short, long = measured(speak(4000, 130)), measured(speak(60_000, 130))
    assert long.pitch_hz == pytest.approx(short.pitch_hz, rel=0.01)
    assert long.level_db == pytest.approx(short.level_db, abs=0.3)


def test_the_event_bears_the_names_and_times_of_its_utterance():
    utterance = Utterance(
        call_id="c",
        channel="customer",
        start_ms=500,
        end_ms=2400,
        pcm=speak(2000, 220).tobytes(),
        final=True,
        endpoint="pause",
    )
    event = voice(utterance)
    assert (event.call_id, event.channel, event.utterance_id) == ("c", "customer", "c:customer:500")
    assert (event.start_ms, event.end_ms, event.media_ms) == (500, 2400, 2400)
    assert event.pitch_hz == pytest.approx(220, rel=0.02)


def test_a_brighter_voice_has_another_timbre_and_loudness_is_not_in_it():
    dull, bright = speak(2000, 150, formants=(350, 900)), speak(2000, 150, formants=(900, 2600))
    assert measured(dull).timbre[0] > measured(bright).timbre[0] + 2
    assert measured(dull // 4).timbre[0] == pytest.approx(measured(dull).timbre[0], abs=0.5)
    assert measured(silence(2000)).timbre == ()


def plausible(sound):
    assert SILENT_DB <= sound.level_db <= 0.1
    assert SILENT_DB <= sound.peak_db <= 0.1
    assert 0 <= sound.voiced <= 1
    assert 0 <= sound.paused <= 1
    assert all(map(math.isfinite, sound.timbre))
    assert len(sound.timbre) in (0, 2 * SHAPES)
    assert (sound.pitch_hz is None) == (sound.pitch_spread is None)
    if sound.pitch_hz is not None:
        assert 70 <= sound.pitch_hz <= 420
        assert 0 <= sound.pitch_spread < 40


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.int16, st.integers(0, 6000)))
def test_no_samples_make_it_fail(pcm):
    plausible(measured(pcm))


@pytest.mark.parametrize(
    "pcm",
    [
        np.zeros(0, np.int16),
        np.zeros(1, np.int16),
        np.zeros(64_000, np.int16),
        np.full(64_000, -32768, np.int16),
        np.tile(np.array([-32768, 32767], np.int16), 20_000),
        np.tile(np.array([32767] * 80 + [-32768] * 80, np.int16), 300),
        np.eye(1, 40_000, 20_000, dtype=np.int16)[0] * 32767,
        speak(2000, 120).astype(np.int32).__mul__(30).clip(-32768, 32767).astype(np.int16),
    ],
    ids=["empty", "one", "silence", "full offset", "nyquist", "square", "click", "clipped voice"],
)
def test_extremes_are_measured_too(pcm):
    plausible(measured(pcm))


@given(st.binary(max_size=3000))
@settings(max_examples=40, deadline=None)
def test_an_utterance_of_half_a_sample_is_no_mistake(pcm):
    utterance = Utterance(
        call_id="c", channel="agent", start_ms=0, end_ms=1, pcm=pcm, final=True, endpoint="end"
    )
    plausible(voice(utterance))
