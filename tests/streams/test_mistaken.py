"""Which codec it was: every way of misreading, and nothing else."""

import numpy as np
import pytest

from streams.events import SAMPLE_RATE
from streams.mistaken import mistaken, roughness
from streams.testing import music, silence, tone
from tests.streams.misread import conversation, right, wrong

PIECE = 2_048
SPOKEN = conversation()
RANDOM = np.random.default_rng(5)


def readings(samples):
    """What is said of every piece in which something is heard."""
    pieces = samples[: len(samples) // PIECE * PIECE].reshape(-1, PIECE)
    return [mistaken(p) for p in pieces if np.square(p.astype(float)).mean() > 200**2]


@pytest.mark.parametrize("how", list(wrong(SPOKEN)))
def test_speech_that_was_misread_is_known_for_what_it_is(how):
    expected, heard = wrong(SPOKEN)[how]
    found = [reading for reading in readings(heard) if reading not in (None, "right")]
    assert found.count(expected) >= 4
    assert found.count(expected) > 0.8 * len(found)


@pytest.mark.parametrize("how", list(right(SPOKEN)))
def test_speech_that_was_read_rightly_is_not_mistaken(how):
    found = readings(right(SPOKEN)[how])
    assert set(found) == {"right", None}
    assert found.count("right") > found.count(None)


@pytest.mark.parametrize("level", [300, 3_000, 20_000])
def test_noise_is_as_rough_in_every_reading(level):
    noise = RANDOM.normal(0, level, 20 * PIECE).clip(-32768, 32767).astype(np.int16)
    assert set(readings(noise)) == {None}
    assert roughness(noise) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("sound", [music(8_000), tone(4_000, hertz=1_100.0), tone(4_000, hertz=2_100.0)])
def test_music_and_the_tones_of_a_fax_are_not_mistaken(sound):
    assert set(readings(sound)) <= {"right", None}


def test_silence_is_nothing():
    assert roughness(silence(128)) == 0
    for level in (0, 8, -32124):
        assert mistaken(np.full(PIECE, level, np.int16)) == "right"


def test_a_click_is_nothing():
    click = np.zeros(PIECE, np.int16)
    click[300:304] = (20_000, -30_000, 25_000, -8_000)
    assert mistaken(click) is None


def test_any_samples_are_borne():
    for _ in range(50):
        size = int(RANDOM.integers(2, 600)) * 2
        mistaken(RANDOM.integers(-32768, 32768, size).astype(np.int16))
    assert SAMPLE_RATE == 16_000
