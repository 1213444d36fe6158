"""Hold music, ring-back, and what must not pass for them; all of it made here."""

import numpy as np
import pytest

from streams.events import SAMPLE_RATE, CallInfo, Hold
from streams.followed import FollowedCall
from streams.heard import HeardCall
from streams.judge import LocalJudge
from streams.music import BLOCK_MS, Holds, Music
from streams.silero import WINDOW
from streams.testing import LoudnessVad, hear, music, play, silence, speak, telephone, tone

RANDOM = np.random.default_rng(3)


def noise(ms, level=1500, colour=0.0):
    """White, or with ``colour`` the low frequencies stronger."""
    white = RANDOM.normal(0, 1, ms * SAMPLE_RATE // 1000)
    spectrum = np.fft.rfft(white)
    spectrum /= np.maximum(1, np.arange(len(spectrum))) ** colour
    out = np.fft.irfft(spectrum, len(white))
    return (out * (level / out.std())).clip(-32768, 32767).astype(np.int16)


def ring_back(times, on_ms=1000, off_ms=4000):
    return np.concatenate([tone(on_ms, hertz=450.0), silence(off_ms)] * times)


def heard(samples, spoken=(), pieces=4):
    """Changes, as (held, ms). ``spoken``: ranges in ms that the judge takes for speech."""
    windows = samples[: len(samples) // WINDOW * WINDOW].reshape(-1, WINDOW)
    probabilities = np.zeros(len(windows), np.float32)
    for start, end in spoken:
        probabilities[start // 32 : end // 32] = 1
    found, listener = [], Music()
    for at in range(0, len(windows), pieces):
        found += listener.heard(windows[at : at + pieces], probabilities[at : at + pieces], at * WINDOW)
    return [tuple(change) for change in found]


@pytest.mark.parametrize("seed", range(5))
def test_music_puts_a_call_on_hold_within_six_seconds_and_tells_when_it_began(seed):
    [(held, media_ms)] = heard(np.concatenate([silence(3000), telephone(music(8000, seed=seed))]))
    assert held
    assert media_ms == pytest.approx(3000, abs=2 * BLOCK_MS)


def test_music_over_a_noisy_line_is_music():
    assert heard(music(8000) + noise(8000, level=200)) == [(True, 0)]


def test_a_steady_tone_is_music_too():
    assert heard(tone(6000)) == [(True, 0)]


@pytest.mark.parametrize("colour", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("level", [100, 1500, 6000])
def test_noise_of_any_colour_is_not_music(level, colour):
    assert heard(noise(20_000, level, colour)) == []


def test_silence_is_not_music():
    assert heard(silence(30_000)) == []


def test_speech_is_not_music_though_it_is_as_tonal():
    assert heard(speak(20_000, 150, swing=2), spoken=[(0, 20_000)]) == []


def test_a_voice_that_the_judge_misses_now_and_then_is_not_music():
    words = [(at, at + 500) for at in range(0, 20_000, 900)]
    assert heard(speak(20_000, 150, swing=4), spoken=words) == []


def test_too_soft_music_is_somebody_elses_radio():
    assert heard(music(20_000, level=60)) == []


def test_three_seconds_of_music_are_too_short():
    assert heard(np.concatenate([music(3000), silence(5000)])) == []


def test_speech_takes_the_call_back():
    samples = np.concatenate([music(10_000), speak(4000)])
    back = heard(samples, spoken=[(10_000, 14_000)])
    assert [held for held, _ in back] == [True, False]
    assert back[1][1] == pytest.approx(10_000, abs=BLOCK_MS)


def test_one_syllable_that_the_judge_hears_in_the_music_does_not_take_it_back():
    assert heard(music(20_000), spoken=[(9_000, 9_400)]) == [(True, 0)]


def test_silence_takes_the_call_back_from_when_it_began():
    back = heard(np.concatenate([music(8000), silence(4000)]))
    assert [held for held, _ in back] == [True, False]
    assert back[1][1] == pytest.approx(8000, abs=BLOCK_MS)


def test_a_bar_of_rest_does_not_take_it_back():
    assert heard(np.concatenate([music(8000), silence(1200), music(6000)])) == [(True, 0)]


def test_noise_in_the_musics_place_takes_it_back():
    back = heard(np.concatenate([music(8000), noise(8000)]))
    assert [held for held, _ in back] == [True, False]


def test_ring_back_is_a_hold_through_its_own_pauses():
    [(held, media_ms)] = heard(np.concatenate([silence(2000), ring_back(6)]))
    assert held
    assert media_ms == pytest.approx(2000, abs=2 * BLOCK_MS)


def test_ring_back_ends_when_nothing_rings_any_more():
    back = heard(np.concatenate([ring_back(3), silence(6000)]))
    assert [held for held, _ in back] == [True, False]
    assert back[1][1] == pytest.approx(11_000, abs=2 * BLOCK_MS)


def test_a_busy_tone_is_no_hold():
    assert heard(np.concatenate([tone(350, hertz=450.0), silence(350)] * 40)) == []


def test_one_beep_is_no_ring_back():
    assert heard(np.concatenate([tone(1000), silence(20_000)])) == []


def test_a_beep_every_fifteen_seconds_is_that_of_a_recorder():
    assert heard(np.concatenate([tone(600), silence(14_400)] * 3)) == []


def test_an_answer_between_two_beeps_is_no_hold():
    samples = np.concatenate([tone(1000), speak(4000), tone(1000), speak(4000)])
    assert heard(samples, spoken=[(1000, 5000), (6000, 10_000)]) == []


@pytest.mark.parametrize("pieces", [2, 3, 17, 700])
def test_how_the_windows_come_in_pieces_changes_nothing(pieces):
    samples = np.concatenate([music(7000), silence(4000), music(7000, seed=2), speak(3000)])
    assert heard(samples, [(18_000, 21_000)], pieces) == heard(samples, [(18_000, 21_000)], 1)


def test_where_audio_is_missing_nothing_plays():
    listener = Music()
    windows = music(8000).reshape(-1, WINDOW)
    none = np.zeros(len(windows), np.float32)
    assert [c.held for c in listener.heard(windows, none, 0)] == [True]
    after = listener.heard(windows[:2], none[:2], windows.size + 5 * SAMPLE_RATE)
    assert [tuple(c) for c in after] == [(False, 8000)]


def test_a_call_is_on_hold_as_long_as_one_of_its_channels_plays():
    holds = Holds("c", ("agent", "customer"))
    windows, quiet = music(8000).reshape(-1, WINDOW), silence(8000).reshape(-1, WINDOW)
    none = np.zeros(len(windows), np.float32)
    assert [h.held for h in holds.heard("agent", windows, none, 0)] == [True]
    assert holds.heard("customer", windows, none, 0) == []
    assert holds.heard("agent", quiet, none, windows.size) == []
    [back] = holds.heard("customer", quiet, none, windows.size)
    assert (back.held, back.source) == (False, "music")
    assert back.media_ms == pytest.approx(8000, abs=BLOCK_MS)


def test_where_the_telephony_tells_of_holds_music_tells_nothing():
    holds = Holds("c", ("agent",))
    holds.telephony_told()
    windows = music(8000).reshape(-1, WINDOW)
    assert holds.heard("agent", windows, np.zeros(len(windows), np.float32), 0) == []


class Seen:
    def __init__(self):
        self.events = []

    def on_event(self, event):
        self.events.append(event)
        return []

    def wake_at(self):
        return None

    def suspects(self, utterance_id):
        return False


class Deaf(LoudnessVad):
    """Hears speech nowhere."""

    def probabilities(self, windows):
        return np.zeros(len(windows), np.float32)


def test_the_detector_of_a_call_is_told_of_the_hold_and_a_listener_of_its_windows():
    seen = Seen()
    call, judge = HeardCall(CallInfo(call_id="c")), LocalJudge(Deaf)
    judge.open("c", call.info.channels)
    followed = FollowedCall(call.info, seen, paced=True)
    for frame in play("c", "agent", music(7000)):
        call.take(frame, 0.0)
        for item in hear([call], judge)[0]:
            followed.noticed(item, call.media_ms)
    assert seen.events == [Hold(call_id="c", media_ms=0, held=True, source="music")]
