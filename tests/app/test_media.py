import wave

import av
import numpy as np
import pytest

from app.media import NOT_FINITE, open_recording
from streams.events import SAMPLE_RATE
from streams.testing import Alone
from streams.vad import SileroVad


def float_wav(path, samples):
    """Mono, 32-bit float."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def heard(path):
    return np.frombuffer(b"".join(f.pcm for f in open_recording(path).frames("c")), "<i2")


def test_samples_that_are_no_numbers_become_silence_and_are_counted(tmp_path):
    samples = np.full(SAMPLE_RATE, 0.25)
    samples[1000:1100], samples[2000], samples[3000] = np.nan, np.inf, -np.inf
    before = NOT_FINITE._value.get()
    pcm = heard(float_wav(tmp_path / "nan.wav", samples))
    assert NOT_FINITE._value.get() - before == 102
    assert len(pcm) == SAMPLE_RATE
    assert not pcm[1000:1100].any()
    assert pcm[2000] == pcm[3000] == 0
    assert np.abs(np.delete(pcm, [*range(1000, 1100), 2000, 3000]) - 8192).max() <= 1


def test_nothing_but_infinity_is_a_silent_call(tmp_path):
    path = float_wav(tmp_path / "inf.wav", np.full(2 * SAMPLE_RATE, np.inf))
    listener = Alone("c", "unknown", SileroVad())
    assert [h for f in open_recording(path).frames("c") for h in listener.push(f)] == []
    assert listener.finish() == []


def test_samples_beyond_full_scale_are_clipped(tmp_path):
    pcm = heard(float_wav(tmp_path / "loud.wav", np.array([1e30, -1e30, 0.0] * 400)))
    assert (pcm.max(), pcm.min()) == (32767, -32768)


@pytest.mark.parametrize("samples", [1, 100, 511])
def test_a_recording_shorter_than_a_window_is_heard_to_its_end_without_a_word(tmp_path, samples):
    path = tmp_path / "short.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.full(2 * samples, 9000, "<i2").tobytes())
    listeners = {c: Alone("c", c, SileroVad()) for c in ("agent", "customer")}
    for frame in open_recording(path).frames("c"):
        assert listeners[frame.channel].push(frame) == []
    assert [listener.finish() for listener in listeners.values()] == [[], []]
