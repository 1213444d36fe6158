"""Sound as numbers: decoding, resampling and putting chunks in order. Pure, counted in samples."""

from __future__ import annotations

from collections.abc import Callable
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


def _alaw_table() -> Samples:
    """ITU-T G.711 A-law: each byte's linear value, 13 significant bits left-aligned in 16."""
    # Every other bit is inverted on the wire, so that silence has edges to find the clock by.
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, code & 15
    magnitude = np.where(
        exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 0x108) << np.maximum(exponent - 1, 0)
    )
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


_ALAW = _alaw_table()


def decode_alaw(payload: bytes) -> Samples:
    """Return int16 samples, shape (len(payload),)."""
    return _ALAW[np.frombuffer(payload, np.uint8)]


def decode_s16le(payload: bytes) -> Samples:
    """Return int16 samples, shape (len(payload) // 2,); ``payload``: an even number of bytes."""
    return np.frombuffer(payload, "<i2").astype(np.int16, copy=False)


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
        self._stream: soxr.ResampleStream | Doubler | None = None
        if rate * 2 == SAMPLE_RATE:
            # soxr works in blocks and is 64 ms behind on average, 118 at worst: everybody waits for that.
            self._stream = Doubler()
        elif rate != SAMPLE_RATE:
            # "MQ": telephone speech holds nothing that a longer filter could save.
            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="int16", quality="MQ")

    def push(self, samples: Samples, last: bool = False) -> Samples:
        """Return what is ready; ``last`` gives out the rest. Two milliseconds behind from 8 kHz."""
        if self._stream is None:
            return samples
        out: Samples = self._stream.resample_chunk(np.ascontiguousarray(samples), last=last)
        return out


class Doubler:
    """Twice the sample rate: each sample, and behind it what a half-band filter makes of its neighbours.

    A windowed sinc (Kaiser, beta 8: what a telephone lets through, up to 3.4 kHz, has images 60 dB down);
    linear phase, no shift in time, ``AHEAD`` samples behind. The same however the stream is cut.
    """

    AHEAD = 16
    """Samples on each side that go into one between two others."""

    _offsets = np.arange(-AHEAD, AHEAD) + 0.5
    _taps = np.sinc(_offsets) * np.kaiser(2 * AHEAD, 8.0)
    _taps = (_taps / _taps.sum()).astype(np.float32)

    def __init__(self) -> None:
        self._held = np.zeros(self.AHEAD - 1, np.int16)
        """Neighbours before the next sample, and samples whose neighbours behind have not come."""

    def resample_chunk(self, samples: Samples, last: bool = False) -> Samples:
        parts = [self._held, samples]
        if last:
            parts.append(np.zeros(self.AHEAD, np.int16))
        held = np.concatenate(parts)
        count = len(held) - 2 * self.AHEAD + 1
        if count <= 0:
            self._held = held
            return np.zeros(0, np.int16)
        # The taps are the same from both ends: a correlation, then, is the convolution.
        between = np.correlate(held.astype(np.float32), self._taps, "valid")
        np.rint(between, out=between)
        np.minimum(between, 32767, out=between)
        np.maximum(between, -32768, out=between)
        out = np.empty((count, 2), np.int16)
        out[:, 0] = held[self.AHEAD - 1 : self.AHEAD - 1 + count]
        out[:, 1] = between
        self._held = held[count:].copy()
        return out.reshape(-1)


class Codec(NamedTuple):
    """How a wire codes samples."""

    width: int
    """Bytes per sample."""
    decode: Callable[[bytes], Samples]


MULAW = Codec(1, decode_mulaw)
ALAW = Codec(1, decode_alaw)
S16LE = Codec(2, decode_s16le)


class ChannelAudio:
    """Makes ordered 16 kHz frames of one channel out of numbered chunks.

    A chunk is in order at once when its number is the next one, or its time follows what was before it
    (some peers number the chunks of both channels together). One that comes early waits for those before it,
    at most ``depth`` chunks long (100 ms at 20 ms a chunk); then what is missing becomes a ``Gap``. One that
    comes after its place was given up is dropped. Nothing waits on a clock: order alone decides.

    ``put`` only puts chunks in order; ``take`` decodes and resamples all of them in one piece, because
    a piece of 20 ms costs as much as one of 100 ms. ``ready_ms`` is what its caller has to bound.
    """

    DRIFT_MS = 60
    """A wire that stamps whole milliseconds, or by its own clock, is off by a little: that is no gap."""
    FOLLOWS_MS = 10
    """Less than the shortest chunk: what comes this close behind is the next one, whatever its number."""
    LONGEST_JUMP_MS = 600_000

    def __init__(self, call_id: str, channel: Channel, rate: int, codec: Codec, depth: int = 5) -> None:
        self.call_id, self.channel, self._rate, self._depth = call_id, channel, rate, depth
        self._codec = codec
        self._waiting: dict[int, tuple[int, bytes]] = {}
        """Chunks that came early, by number: media time and payload."""
        self._ready: list[bytes] = []
        """Payloads in order, not decoded yet."""
        self._ready_bytes = 0
        self._out: list[AudioFrame | Gap] = []
        """What ``take`` gives out before ``_ready``."""
        self._next: int | None = None
        self._resampler = Resampler(rate)
        self._origin_ms: int | None = None
        self._read = 0
        """Samples taken from the wire since ``_origin_ms``."""
        self._written = 0
        """Samples at ``SAMPLE_RATE`` given out since ``_origin_ms``."""
        self.late = 0
        """Chunks dropped because they came too late or twice."""

    @property
    def ready_ms(self) -> int:
        """Audio that the next ``take`` has to decode."""
        return self._ready_bytes // self._codec.width * 1000 // self._rate

    def put(self, number: int, media_ms: int, payload: bytes) -> None:
        """Take one chunk as the wire brings it: numbered and stamped, maybe out of order.

        Raises ``ValueError`` on an impossible time.
        """
        if self._origin_ms is not None:
            ahead = media_ms - self._wire_ms()
            if number == self._next and not self._waiting and abs(ahead) <= self.DRIFT_MS:
                # Nearly every chunk.
                self._next = number + 1
                self._append(payload)
                return
            if abs(ahead) > self.LONGEST_JUMP_MS:
                raise ValueError(
                    f"expected a timestamp within {self.LONGEST_JUMP_MS // 60_000} minutes of "
                    f"{self._wire_ms()} ms, got {media_ms} ms"
                )
        if self._next is None:
            self._next = number
        if number < self._next or number in self._waiting:
            self.late += 1
            return
        self._waiting[number] = (media_ms, payload)
        self._release()
        if len(self._waiting) > self._depth:
            self._next = min(self._waiting)
            self._release()

    def append(self, payload: bytes) -> None:
        """Take the next chunk of a wire that neither numbers nor stamps its audio: whole samples, in order.

        Not together with ``put``.
        """
        if self._origin_ms is None:
            self._origin_ms = 0
        self._append(payload)

    def take(self) -> list[AudioFrame | Gap]:
        """Give out what has come in order since the last time."""
        if self._ready:
            self._decode()
        out, self._out = self._out, []
        return out

    def flush(self) -> list[AudioFrame | Gap]:
        """Give out everything that still waits, and the resampler's tail: the channel has ended."""
        while self._waiting:
            self._next = min(self._waiting)
            self._release()
        self._decode(last=True)
        return self.take()

    def _release(self) -> None:
        while self._waiting:
            number = min(self._waiting)
            media_ms, payload = self._waiting[number]
            follows = self._origin_ms is not None and media_ms - self._wire_ms() < self.FOLLOWS_MS
            if number != self._next and not follows:
                break
            del self._waiting[number]
            self._next = number + 1
            self._place(media_ms, payload)

    def _wire_ms(self) -> int:
        assert self._origin_ms is not None
        return self._origin_ms + self._read * 1000 // self._rate

    def _place(self, media_ms: int, payload: bytes) -> None:
        if self._origin_ms is None:
            self._origin_ms = max(0, media_ms)
        else:
            missing = media_ms - self._wire_ms()
            if missing > self.DRIFT_MS:
                self._decode(last=True)
                self._out.append(
                    Gap(
                        call_id=self.call_id,
                        channel=self.channel,
                        media_ms=self._wire_ms(),
                        duration_ms=missing,
                        reason="missing",
                    )
                )
                self._resampler = Resampler(self._rate)
                self._origin_ms, self._read, self._written = media_ms, 0, 0
        self._append(payload)

    def _append(self, payload: bytes) -> None:
        self._ready.append(payload)
        self._ready_bytes += len(payload)
        self._read += len(payload) // self._codec.width

    def _decode(self, last: bool = False) -> None:
        if self._origin_ms is None:
            return
        samples = self._codec.decode(b"".join(self._ready))
        self._ready, self._ready_bytes = [], 0
        ready = self._resampler.push(samples, last)
        if not len(ready):
            return
        media_ms = self._origin_ms + self._written * 1000 // SAMPLE_RATE
        self._written += len(ready)
        self._out.append(
            AudioFrame(call_id=self.call_id, channel=self.channel, media_ms=media_ms, pcm=ready.tobytes())
        )
