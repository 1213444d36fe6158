"""Opus packets decoded."""

from __future__ import annotations

import contextlib

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ingest.opus import OpusDecoder
from app.ingest.packets import RATE


def packets(samples, layout="mono"):
    """``samples`` as a softphone codes them, 20 ms a packet."""
    codec = av.CodecContext.create("libopus", "w")
    codec.format, codec.layout, codec.sample_rate = "s16", layout, RATE
    codec.bit_rate, codec.options = 32_000, {"application": "voip"}
    out = []
    for start in range(0, len(samples), RATE // 50):
        piece = samples[start : start + RATE // 50].reshape(1, -1)
        if layout == "stereo":
            piece = np.repeat(piece, 2, axis=1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), "s16", layout)
        frame.sample_rate = RATE
        out += [bytes(packet) for packet in codec.encode(frame)]
    return out


def tone(milliseconds, hertz=300):
    t = np.arange(RATE * milliseconds // 1000) / RATE
    return (8_000 * np.sin(2 * np.pi * hertz * t)).astype(np.int16)


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_what_was_coded_is_heard_on_one_channel(layout):
    decode = OpusDecoder()
    sent = packets(tone(400), layout)
    heard = np.concatenate([decode(one) for one in sent])
    assert heard.dtype == np.int16
    assert len(heard) == len(sent) * RATE // 50
    steady = heard[RATE // 10 : RATE * 3 // 10].astype(float)
    assert np.sqrt(np.mean(steady**2)) == pytest.approx(8_000 / np.sqrt(2), rel=0.15)
    spectrum = np.abs(np.fft.rfft(steady))
    assert np.argmax(spectrum) * RATE / len(steady) == pytest.approx(300, abs=6)


def test_no_packet_is_no_sound():
    assert len(OpusDecoder()(b"")) == 0


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_what_is_no_packet_is_refused_and_the_next_one_is_heard(noise):
    decode = OpusDecoder()
    for payload in noise:
        with contextlib.suppress(ValueError):
            assert len(decode(payload)) <= RATE * 120 // 1000
    assert len(decode(packets(tone(40))[0])) == RATE // 50
