import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.media import open_recording
from streams import silero
from streams.silero import CELLS, CONTEXT, WINDOW, Silero
from streams.testing import silence, tone

RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def graph():
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(silero.path()), sess_options=options, providers=["CPUExecutionProvider"]
    )


def windows_of(samples):
    scaled = samples[: len(samples) // WINDOW * WINDOW].reshape(-1, WINDOW).astype(np.float32) / 32768
    contexts = np.vstack([np.zeros((1, CONTEXT), np.float32), scaled[:-1, -CONTEXT:]])
    return np.hstack([contexts, scaled])


def by_graph(graph, windows):
    state = np.zeros((1, 1, CELLS), np.float32)
    probabilities, h, c = graph.run(None, {"input": windows, "h": state, "c": state})
    return probabilities.reshape(-1), h.reshape(-1), c.reshape(-1)


def by_network(windows):
    h, c = np.zeros((1, CELLS), np.float32), np.zeros((1, CELLS), np.float32)
    return silero.network().run(windows, [len(windows)], h, c), h[0], c[0]


def sounds(short_call):
    frames = list(open_recording(short_call).frames("c"))
    speech = np.concatenate([np.frombuffer(f.pcm, "<i2") for f in frames if f.channel == "agent"])
    return {
        "speech": speech,
        "hiss": RNG.normal(0, 300, 48_000).astype(np.int16),
        "clipped noise": RNG.choice([-32768, 32767], 48_000).astype(np.int16),
        "ring-back": tone(3000, hertz=450.0),
        "silence": silence(3000),
    }


def test_it_says_what_the_graph_says_of_speech_and_of_noise(graph, short_call):
    for name, samples in sounds(short_call).items():
        windows = windows_of(samples)
        for ours, theirs in zip(by_network(windows), by_graph(graph, windows), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5, err_msg=name)


def test_many_channels_together_are_each_judged_as_if_alone(short_call):
    channels = sorted((windows_of(s) for s in sounds(short_call).values()), key=len, reverse=True)
    counts = [len(w) for w in channels]
    h, c = np.zeros((len(counts), CELLS), np.float32), np.zeros((len(counts), CELLS), np.float32)
    heard = silero.network().run(np.concatenate(channels), counts, h, c)
    for index, probabilities in enumerate(np.split(heard, np.cumsum(counts)[:-1])):
        alone, state, _ = by_network(channels[index])
        assert np.abs(probabilities - alone).max() < 1e-4
        assert np.abs(h[index] - state).max() < 1e-4


def test_a_file_that_holds_another_network_is_named():
    with pytest.raises(ValueError, match=r"expected the weight .* of shape"):
        Silero({})


def test_a_transform_that_is_not_mirrored_is_refused():
    weights = dict(silero.initializers(silero.path().read_bytes()))
    name = "encoder.feature_extractor.forward_basis_buffer"
    weights[name] = weights[name].copy()
    weights[name][3, 0, 7] += 0.1
    with pytest.raises(ValueError, match="not mirrored"):
        Silero(weights)


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=200))
def test_a_damaged_file_gives_an_error_and_nothing_else(content):
    try:
        Silero(dict(silero.initializers(content)))
    except (ValueError, IndexError):
        return
    raise AssertionError("these bytes are no network")
