import numpy as np
import pytest

from app.demo.truth import load
from app.media import open_recording
from streams.events import SAMPLE_RATE
from streams.testing import silence, tone
from streams.vad import WINDOW, WINDOW_MS, SileroVad

RNG = np.random.default_rng(7)


def judged(samples):
    windows = samples[: len(samples) // WINDOW * WINDOW].reshape(-1, WINDOW)
    vad = SileroVad()
    return np.concatenate([vad.probabilities(windows[i : i + 3]) for i in range(0, len(windows), 3)])


@pytest.mark.parametrize(
    "sound",
    [
        silence(4000),
        tone(4000, hertz=450.0),
        (RNG.normal(0, 300, 4 * SAMPLE_RATE)).astype(np.int16),
        tone(4000, hertz=697.0, level=4000) + tone(4000, hertz=1209.0, level=4000),
    ],
    ids=["silence", "ring-back", "hiss", "DTMF"],
)
def test_what_is_no_speech_is_not_taken_for_it(sound):
    assert (judged(sound) > 0.5).mean() < 0.05


def test_speech_is_found_where_the_script_has_it_and_nowhere_else(short_call):
    [call] = [c for c in load(short_call.parent) if c.name == "short"]
    frames = list(open_recording(short_call).frames("c"))
    for role in ("agent", "customer"):
        samples = np.concatenate([np.frombuffer(f.pcm, "<i2") for f in frames if f.channel == role])
        speech = judged(samples) > 0.5
        at = (np.arange(len(speech)) + 0.5) * WINDOW_MS / 1000
        said = np.zeros(len(speech), bool)
        for turn in call.turns:
            if turn.role == role:
                said |= (at >= turn.start - 0.2) & (at <= turn.end + 0.3)
        assert speech[said].mean() > 0.6
        assert speech[~said].mean() < 0.05


def test_the_first_window_after_a_long_silence_is_judged_as_if_it_had_listened_all_along(short_call):
    samples = np.concatenate(
        [np.frombuffer(f.pcm, "<i2") for f in open_recording(short_call).frames("c") if f.channel == "agent"]
    )
    first = judged(np.concatenate([silence(10_000), samples]))[10_000 // WINDOW_MS :]
    assert np.argmax(first > 0.5) - np.argmax(judged(samples) > 0.5) <= 2
