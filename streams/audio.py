"""Sound as numbers: decoding, resampling and putting chunks in order. Pure, counted in samples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soxr

from streams.events import SAMPLE_RATE, AudioFrame, Channel, Gap

Samples = npt.NDArray[np.int16]


def _mulaw_table() -> Samples:
    """ITU-T G.711 mu-law: each byte's linear value, 14 significant bits left-aligned in 16."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    exponent, mantissa = (code >> 4) & 7, code & 15
    magnitude = (((mantissa << 3) + 0x84) << exponent) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


_MULAW = _mulaw_table()


def decode_mulaw(payload: bytes) -> Samples:
    """Return int16 samples, shape (len(payload),)."""
    return _MULAW[np.frombuffer(payload, np.uint8)]


def encode_mulaw(samples: Samples) -> bytes:
    """Inverse of ``decode_mulaw`` up to quantisation (ITU-T G.711). ``samples``: int16, any length."""
    linear = samples.astype(np.int32)
    sign = np.where(linear < 0, 0x80, 0)
    magnitude = np.minimum(np.abs(linear), 32635) + 0x84
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (exponent + 3)) & 15
    return bytes((~(sign | (exponent << 4) | mantissa) & 0xFF).astype(np.uint8))


def rms_dbfs(samples: Samples) -> float:
    """Level in decibels relative to full scale; an empty or silent input gives −120."""
    if samples.size == 0:
        return -120.0
    mean_square = float(np.mean(np.square(samples.astype(np.float32) / 32768.0)))
    return max(-120.0, 10.0 * float(np.log10(mean_square + 1e-12)))


class Resampler:
    """One channel's stream from ``rate`` hertz to ``SAMPLE_RATE``; keeps the filter's state."""

    def __init__(self, rate: int) -> None:
        if not 4_000 <= rate <= 192_000:
            raise ValueError(f"expected a sample rate from 4000 to 192000 Hz, got {rate}")
        # "MQ": telephone speech holds nothing that a longer filter could save.
        self._stream = (
            None
            if rate == SAMPLE_RATE
            else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="int16", quality="MQ")
        )

    def push(self, samples: Samples, last: bool = False) -> Samples:
        """Return what is ready, a few milliseconds behind; ``last`` gives out the rest."""
        if self._stream is None:
            return samples
        out: Samples = self._stream.resample_chunk(np.ascontiguousarray(samples), last=last)
        return out


class Chunk(NamedTuple):
    """A piece of one channel as the wire brings it: numbered and stamped, maybe out of order."""

    number: int
    media_ms: int
    samples: Samples
    """int16, at the wire's rate."""


class ChannelAudio:
    """Makes ordered 16 kHz frames of one channel out of numbered chunks.

    A chunk leaves at once when its number is the next one, or its time follows what was given out (some peers
    number the chunks of both channels together). One that comes early waits for those before it, at most
    ``depth`` chunks long (100 ms at 20 ms a chunk); then what is missing becomes a ``Gap``. One that comes
    after its place was given up is dropped. Nothing waits on a clock: order alone decides.
    """

    DRIFT_MS = 60
    """A wire that stamps whole milliseconds, or by its own clock, is off by a little: that is no gap."""
    FOLLOWS_MS = 10
    """Less than the shortest chunk: what comes this close behind is the next one, whatever its number."""
    LONGEST_JUMP_MS = 600_000

    def __init__(self, call_id: str, channel: Channel, rate: int, depth: int = 5) -> None:
        self.call_id, self.channel, self._rate, self._depth = call_id, channel, rate, depth
        self._waiting: dict[int, Chunk] = {}
        self._next: int | None = None
        self._resampler = Resampler(rate)
        self._origin_ms: int | None = None
        self._read = 0
        """Samples taken from the wire since ``_origin_ms``."""
        self._written = 0
        """Samples at ``SAMPLE_RATE`` given out since ``_origin_ms``."""
        self.late = 0
        """Chunks dropped because they came too late or twice."""

    def push(self, chunk: Chunk) -> list[AudioFrame | Gap]:
        """Take one chunk; return what is now in order. Raises ``ValueError`` on an impossible time."""
        if self._origin_ms is not None:
            ahead = chunk.media_ms - self._wire_ms()
            if abs(ahead) > self.LONGEST_JUMP_MS:
                raise ValueError(
                    f"expected a timestamp within {self.LONGEST_JUMP_MS // 60_000} minutes of "
                    f"{self._wire_ms()} ms, got {chunk.media_ms} ms"
                )
        if self._next is None:
            self._next = chunk.number
        if chunk.number < self._next or chunk.number in self._waiting:
            self.late += 1
            return []
        self._waiting[chunk.number] = chunk
        out = self._release()
        if len(self._waiting) > self._depth:
            self._next = min(self._waiting)
            out += self._release()
        return out

    def flush(self) -> list[AudioFrame | Gap]:
        """Give out everything that still waits, and the resampler's tail: the channel has ended."""
        out: list[AudioFrame | Gap] = []
        while self._waiting:
            self._next = min(self._waiting)
            out += self._release()
        out += self._emit(np.zeros(0, np.int16), last=True)
        return out

    def _release(self) -> list[AudioFrame | Gap]:
        out: list[AudioFrame | Gap] = []
        while self._waiting:
            number = min(self._waiting)
            chunk = self._waiting[number]
            follows = self._origin_ms is not None and chunk.media_ms - self._wire_ms() < self.FOLLOWS_MS
            if number != self._next and not follows:
                break
            del self._waiting[number]
            self._next = number + 1
            out += self._place(chunk)
        return out

    def _wire_ms(self) -> int:
        assert self._origin_ms is not None
        return self._origin_ms + self._read * 1000 // self._rate

    def _place(self, chunk: Chunk) -> list[AudioFrame | Gap]:
        out: list[AudioFrame | Gap] = []
        if self._origin_ms is None:
            self._origin_ms = max(0, chunk.media_ms)
        else:
            missing = chunk.media_ms - self._wire_ms()
            if missing > self.DRIFT_MS:
                out += self._emit(np.zeros(0, np.int16), last=True)
                out.append(
                    Gap(
                        call_id=self.call_id,
                        channel=self.channel,
                        media_ms=self._wire_ms(),
                        duration_ms=missing,
                        reason="missing",
                    )
                )
                self._resampler = Resampler(self._rate)
                self._origin_ms, self._read, self._written = chunk.media_ms, 0, 0
        self._read += len(chunk.samples)
        return out + self._emit(chunk.samples)

    def _emit(self, samples: Samples, last: bool = False) -> list[AudioFrame | Gap]:
        if self._origin_ms is None:
            return []
        ready = self._resampler.push(samples, last)
        if not len(ready):
            return []
        media_ms = self._origin_ms + self._written * 1000 // SAMPLE_RATE
        self._written += len(ready)
        return [
            AudioFrame(call_id=self.call_id, channel=self.channel, media_ms=media_ms, pcm=ready.tobytes())
        ]
