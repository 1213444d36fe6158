"""Recordings to frames: WAV, FLAC, Ogg and whatever else FFmpeg's libraries read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from prometheus_client import Counter

from app.errors import MediaError
from streams.events import SAMPLE_RATE, AudioFrame, Channel

NOT_FINITE = Counter("duting_samples_not_finite", "Samples that were no number or infinite; silence instead")


@dataclass(frozen=True)
class Recording:
    """A file that holds one call: stereo is agent left, customer right; mono is both mixed."""

    path: Path
    channels: tuple[Channel, ...]
    seconds: float | None
    """As the container says; ``None`` when it does not."""

    def frames(self, call_id: str) -> Iterator[AudioFrame]:
        """The audio at ``SAMPLE_RATE`` in pieces of about 100 ms, the channels in turn."""
        layout = "stereo" if len(self.channels) == 2 else "mono"
        resampler = av.AudioResampler(format="s16p", layout=layout, rate=SAMPLE_RATE)
        position, step = 0, SAMPLE_RATE // 10
        buffer = np.zeros((len(self.channels), 0), np.int16)
        for planes in self._planes(resampler):
            buffer = np.concatenate([buffer, planes], axis=1)
            while buffer.shape[1] >= step:
                yield from self._cut(call_id, buffer[:, :step], position)
                buffer, position = buffer[:, step:], position + step
        if buffer.shape[1]:
            yield from self._cut(call_id, buffer, position)

    def _planes(self, resampler: av.AudioResampler) -> Iterator[np.ndarray]:
        try:
            with av.open(str(self.path)) as container:
                for frame in container.decode(audio=0):
                    for ready in resampler.resample(bounded(frame)):
                        yield ready.to_ndarray()
                for ready in resampler.resample(None):
                    yield ready.to_ndarray()
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            raise MediaError(f"{self.path.name}: the audio is damaged: {error.strerror}") from None

    def _cut(self, call_id: str, planes: np.ndarray, position: int) -> Iterator[AudioFrame]:
        for channel, samples in zip(self.channels, planes, strict=True):
            yield AudioFrame(
                call_id=call_id,
                channel=channel,
                media_ms=position * 1000 // SAMPLE_RATE,
                pcm=samples.astype("<i2").tobytes(),
            )


def bounded(frame: av.AudioFrame) -> av.AudioFrame:
    """``frame`` within full scale, with silence for samples that are NaN or infinite.

    Left to the conversion to integers, both would be loud clicks.
    """
    if frame.format.name.rstrip("p") not in ("flt", "dbl"):
        return frame
    planes = frame.to_ndarray()
    if bool((np.abs(planes) <= 1.0).all()):  # false for NaN too
        return frame
    wrong = ~np.isfinite(planes)
    NOT_FINITE.inc(int(wrong.sum()))
    finite: Any = np.clip(np.where(wrong, 0, planes), -1.0, 1.0).astype(planes.dtype)
    repaired = av.AudioFrame.from_ndarray(finite, format=frame.format.name, layout=frame.layout.name)
    repaired.sample_rate, repaired.pts, repaired.time_base = frame.sample_rate, frame.pts, frame.time_base
    return repaired


def open_recording(path: Path) -> Recording:
    """Look at a file. Raises ``MediaError`` if it is missing, empty, no audio, or has over two channels."""
    if not path.is_file():
        raise MediaError(f"{path}: expected an audio file, found none; check the path")
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: the file is empty")
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise MediaError(f"{path}: expected an audio stream (WAV, FLAC, Ogg …), found none")
            stream = container.streams.audio[0]
            count = stream.codec_context.channels
            seconds = container.duration / av.time_base if container.duration else None
    except av.error.FFmpegError as error:
        raise MediaError(
            f"{path}: expected audio (WAV, FLAC, Ogg …), but it cannot be read: {error.strerror}"
        ) from None
    if count not in (1, 2):
        raise MediaError(f"{path}: expected one channel (mixed) or two (agent, customer), got {count}")
    return Recording(path, ("agent", "customer") if count == 2 else ("unknown",), seconds)
