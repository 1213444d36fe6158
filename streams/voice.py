"""How an utterance sounds: loudness, pitch, voicing, pauses. Pure: PCM in, numbers out.

The pitch is the period of the harmonics up to 2.5 kHz (autocorrelation by way of each frame's spectrum): a
telephone does not let the fundamental itself through, and what it lets through has the same period. The
spectrum's magnitude is taken, not its power, so that one strong formant does not pass for a voice
of its own.

It runs on the event loop for every utterance of every call: 1.5 ms for four seconds. More than
``MOST_FRAMES`` are not looked at: a long utterance is sampled more coarsely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from streams.audio import Samples
from streams.events import SAMPLE_RATE, Utterance, Voice

Floats = npt.NDArray[np.float32]

SILENT_DB: Final = -120.0
"""Level of digital silence."""
LOWEST_HZ, HIGHEST_HZ = 75.0, 400.0
MOST_FRAMES: Final = 250

RATE: Final = SAMPLE_RATE // 2
"""Hertz at which it is measured: a telephone lets nothing through above 3.4 kHz."""
_FRAME, _HOP, _PEAK = RATE // 25, RATE // 50, RATE // 5
_DEPTH_DB: Final = 26.0
"""What is this much below the loudest tenth is a pause, not speech."""
_FAINT_DB: Final = -62.0
"""What is below this is never speech; as the floor in ``vad``."""

_SPECTRUM: Final = _FRAME
_FIRST, _LAST = 3, 100
"""Bins between which harmonics are looked for: 75 Hz to 2.5 kHz."""
_STEP: Final = 0.5
"""Samples between two lags: a harmonic at 2.5 kHz repeats every three samples."""
_SHORTEST, _LONGEST = RATE / HIGHEST_HZ - 1, RATE / LOWEST_HZ + 2
"""Samples of a period."""
_VOICED: Final = 0.45
"""Share of a frame that repeats after one period; above it the frame is voiced."""
_OCTAVE_COST: Final = 0.04
"""A period twice as long has to explain this much more: what repeats after one repeats after two."""
_NEAR: Final = 1.8
"""A frame's pitch further than this factor from the utterance's is a mistake by an octave."""
_LEAST_VOICED: Final = 5
"""Frames, a tenth of a second: less tells nothing of a speaker's pitch."""

_WINDOW: Final = np.hanning(_FRAME).astype(np.float32)
_LAGS: Final = np.arange(_SHORTEST - _STEP, _LONGEST + 2 * _STEP, _STEP)
_COST: Final = (_OCTAVE_COST * np.log2(_LAGS[1:-1] / _LAGS[1])).astype(np.float32)


def _cosines() -> Floats:
    """From the magnitudes of a frame to its autocorrelation at ``_LAGS``, shape (bins, lags).

    Over that of the window at each lag, so that a steady tone gives 1 wherever it repeats.
    """
    turns = 2 * np.pi / _SPECTRUM * np.outer(np.arange(_SPECTRUM // 2 + 1), _LAGS)
    window = np.abs(np.fft.rfft(_WINDOW, _SPECTRUM))
    window[1:-1] *= 2
    fades = window @ np.cos(turns) / window.sum()
    cosines: Floats = (np.cos(turns) / fades)[_FIRST : _LAST + 1].astype(np.float32)
    return cosines


_COSINES: Final = _cosines()

SHAPES: Final = 6
_EDGES: Final = 700 * (np.geomspace(1 + 150 / 700, 1 + 3_400 / 700, 16) - 1)
"""Hertz, on the mel scale: what a telephone lets through, in 14 bands."""


def _bands() -> Floats:
    """From a frame's magnitudes to the bands between ``_EDGES``, triangles, shape (bins, bands)."""
    hertz = np.arange(_SPECTRUM // 2 + 1) * RATE / _SPECTRUM
    low, top, high = _EDGES[:-2], _EDGES[1:-1], _EDGES[2:]
    rising = (hertz[:, None] - low) / (top - low)
    falling = (high - hertz[:, None]) / (high - top)
    triangles: Floats = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    return triangles


def _waves() -> Floats:
    """Cosines over the bands, shape (bands, SHAPES), without the constant one."""
    bands = len(_EDGES) - 2
    places = (np.arange(bands) + 0.5) / bands
    waves: Floats = (np.cos(np.pi * np.outer(places, np.arange(1, SHAPES + 1))) / bands).astype(np.float32)
    return waves


_BANDS, _WAVES = _bands(), _waves()


@dataclass(frozen=True)
class Sound:
    """What ``Voice`` says of an utterance, without its names and times."""

    level_db: float = SILENT_DB
    peak_db: float = SILENT_DB
    pitch_hz: float | None = None
    pitch_spread: float | None = None
    voiced: float = 0.0
    paused: float = 0.0
    timbre: tuple[float, ...] = ()


def voice(utterance: Utterance) -> Voice:
    """Measure ``utterance``; never raises, whatever its samples are."""
    sound = measured(np.frombuffer(utterance.pcm, "<i2", len(utterance.pcm) // 2))
    return Voice(
        call_id=utterance.call_id,
        channel=utterance.channel,
        utterance_id=utterance.utterance_id,
        start_ms=utterance.start_ms,
        end_ms=utterance.end_ms,
        level_db=sound.level_db,
        peak_db=sound.peak_db,
        pitch_hz=sound.pitch_hz,
        pitch_spread=sound.pitch_spread,
        voiced=sound.voiced,
        paused=sound.paused,
        timbre=sound.timbre,
    )


def measured(pcm: Samples) -> Sound:
    """``pcm``: int16 at ``SAMPLE_RATE``, any length. What is no longer than one frame is not measured."""
    if len(pcm) <= 2 * _FRAME:
        return Sound()
    samples = halved(pcm)
    hop = max(_HOP, -(-(len(samples) - _FRAME) // (MOST_FRAMES - 1)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FRAME)[::hop]
    power = np.einsum("ij,ij->i", frames, frames) / _FRAME
    levels = 10 * np.log10(power + 1e-12)
    speech = levels > max(_FAINT_DB, float(np.quantile(levels, 0.9)) - _DEPTH_DB)
    if not speech.any():
        return Sound(level_db=_db(power), peak_db=_db(power.max()))
    spoken = np.flatnonzero(speech)
    within = speech[spoken[0] : spoken[-1] + 1]
    width = max(1, min(len(power), round(_PEAK / hop)))
    sums = np.cumsum(np.concatenate([[0.0], power]))
    peak = float((sums[width:] - sums[:-width]).max()) / width
    magnitudes = np.abs(np.fft.rfft(frames[spoken] * _WINDOW, _SPECTRUM, axis=1)).astype(
        np.float32, copy=False
    )
    periods, strengths = _periods(magnitudes[:, _FIRST : _LAST + 1])
    pitches = RATE / periods[strengths > _VOICED]
    enough = len(pitches) >= _LEAST_VOICED
    low, middle, high = np.quantile(pitches, (0.25, 0.5, 0.75)).tolist() if enough else (0.0, 0.0, 0.0)
    return Sound(
        level_db=_db(power[spoken]),
        peak_db=_db(peak),
        pitch_hz=round(middle, 1) if enough else None,
        pitch_spread=round(12 * float(np.log2(high / low)), 2) if enough else None,
        voiced=round(len(pitches) / len(spoken), 3),
        paused=round(1 - float(within.mean()), 3),
        timbre=timbre(magnitudes),
    )


def timbre(magnitudes: Floats) -> tuple[float, ...]:
    """The shape of the spectrum: ``SHAPES`` means over the frames, then as many standard deviations.

    The first coefficient tells how steeply the spectrum falls (a raised voice is bright), the others
    finer differences; the loudness is in none of them. Decibels.
    """
    bands = 20 * np.log10(magnitudes @ _BANDS + 1e-6)
    shapes = bands @ _WAVES
    values = np.concatenate([shapes.mean(axis=0), shapes.std(axis=0)])
    return tuple(np.round(values.astype(float), 2).tolist())


def _periods(magnitudes: Floats) -> tuple[Floats, Floats]:
    """Of each frame's magnitudes from ``_FIRST`` on: its period, how much of it repeats so, 0 to about 1."""
    repeats = magnitudes @ _COSINES / (magnitudes.sum(axis=1, keepdims=True) + np.float32(1e-9))
    judged = np.minimum(repeats[:, 1:-1], 1) - _COST
    # Nearly all frames of an utterance are within an octave around their median: the others are found again.
    best = judged.argmax(axis=1)
    rows = np.arange(len(best))
    sure = repeats[rows, best + 1] > _VOICED
    if sure.any():
        middle = float(np.median(_LAGS[best[sure] + 1]))
        first, last = np.searchsorted(_LAGS[1:-1], (middle / _NEAR, middle * _NEAR)).tolist()
        best = judged[:, first : last + 1].argmax(axis=1) + first
    best += 1
    left, top, right = repeats[rows, best - 1], repeats[rows, best], repeats[rows, best + 1]
    is_peak = (top >= left) & (top >= right)
    curve = np.where(is_peak, 2 * top - left - right, 1.0) + np.float32(1e-9)
    periods = _LAGS[best] + np.where(is_peak, 0.5 * _STEP * (right - left) / curve, 0.0)
    return periods.astype(np.float32), np.where(is_peak, top, 0.0).astype(np.float32)


def halved(pcm: Samples) -> Floats:
    """``pcm`` at ``RATE``, full scale 1, without the line's offset, which is no loudness."""
    x = pcm[: len(pcm) // 2 * 2].astype(np.float32)
    even, odd = x[0::2], x[1::2]
    # Binomial, 1-3-3-1: above 6 kHz, what would fold into the voice's harmonics, 25 dB down.
    out = 3.0 * (even + odd)
    out[1:] += odd[:-1]
    out[:1] += even[:1]
    out[:-1] += even[1:]
    out[-1:] += odd[-1:]
    out -= out.mean()
    out *= np.float32(1 / (8 * 32768))
    return out


def _db(power: npt.NDArray[np.floating] | float) -> float:
    return round(max(SILENT_DB, 10 * float(np.log10(np.mean(power) + 1e-12))), 1)
