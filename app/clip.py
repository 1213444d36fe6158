"""A piece of a recording as a WAV file, which every machine plays: both channels, agent left."""

from __future__ import annotations

import io
import wave
from typing import BinaryIO

import av
import numpy as np
import soxr

from streams.events import SAMPLE_RATE

BEFORE_S = 1.0
"""A seek goes that far ahead: what Opus decodes first is not right yet (RFC 7845, 4.6: 80 ms)."""


def clip(recording: BinaryIO, start_ms: int, end_ms: int) -> bytes:
    """The recording from ``start_ms`` to ``end_ms``, as far as there is any.

    ``recording`` is read from its beginning, and left open, anywhere. 16 bits, at ``SAMPLE_RATE`` or less.
    Raises ``av.FFmpegError``, ``OSError`` or ``IndexError`` where it cannot be read.
    """
    recording.seek(0)
    with av.open(recording, "r") as container:
        stream = container.streams.audio[0]
        rate, channels = stream.rate, stream.channels
        first, last = start_ms * rate // 1000, end_ms * rate // 1000
        pieces = _pieces(container, stream, first, last)
        if pieces is None:  # this file cannot be sought in: it is still written
            recording.seek(0)
            with av.open(recording, "r") as again:
                pieces = _decoded(again, again.streams.audio[0], first, last)
    samples = np.concatenate(pieces) if pieces else np.zeros((0, channels), np.int16)
    if rate > SAMPLE_RATE:  # Opus comes out at 48 kHz, whatever went in
        samples, rate = soxr.resample(samples, rate, SAMPLE_RATE), SAMPLE_RATE
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(channels)
        written.setsampwidth(2)
        written.setframerate(rate)
        written.writeframes(np.ascontiguousarray(samples, "<i2").tobytes())
    return file.getvalue()


def _pieces(
    container: av.container.InputContainer, stream: av.AudioStream, first: int, last: int
) -> list[np.ndarray] | None:
    ahead_s = first / stream.rate - BEFORE_S
    if ahead_s <= 0:
        return _decoded(container, stream, first, last)
    try:
        container.seek(int(ahead_s * 1_000_000))
        pieces = _decoded(container, stream, first, last)
    except av.FFmpegError:
        return None
    return pieces or None


def _decoded(
    container: av.container.InputContainer, stream: av.AudioStream, first: int, last: int
) -> list[np.ndarray]:
    """Pieces of shape (samples, channels); positions are in samples since the recording's first."""
    plain = av.AudioResampler(format="s16p", layout=stream.layout.name, rate=stream.rate)
    found: list[np.ndarray] = []
    at: int | None = None
    for frame in container.decode(stream):
        if at is None:
            # From here on without a hole, whatever the container says.
            at = max(0, round((frame.time or 0.0) * stream.rate))
        frame.pts = None
        for piece in plain.resample(frame):
            samples = piece.to_ndarray().T
            start, stop = max(0, first - at), min(len(samples), last - at)
            if stop > start:
                found.append(samples[start:stop])
            at += len(samples)
        if at >= last:
            break
    return found
