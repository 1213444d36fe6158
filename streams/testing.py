"""Fakes for tests and benchmarks: sound without a microphone, a transcriber without a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from streams.audio import Samples
from streams.events import SAMPLE_RATE, AudioFrame, Channel, Hold, Trouble, Word
from streams.guards import Reading
from streams.heard import HeardCall
from streams.judge import LocalJudge
from streams.listen import Endpointing, Heard, Listener
from streams.transcribe import Prompt, Request
from streams.vad import Probabilities, Vad


def tone(ms: int, level: int = 8_000, hertz: float = 220.0) -> Samples:
    """A sine, int16 at ``SAMPLE_RATE``."""
    t = np.arange(ms * SAMPLE_RATE // 1000) / SAMPLE_RATE
    return (level * np.sin(2 * np.pi * hertz * t)).astype(np.int16)


def silence(ms: int) -> Samples:
    return np.zeros(ms * SAMPLE_RATE // 1000, np.int16)


def speak(
    ms: int,
    hertz: float = 150.0,
    level: int = 9_000,
    swing: float = 0.0,
    formants: Sequence[float] = (600.0, 1_200.0, 2_500.0),
) -> Samples:
    """A voice that holds one vowel: harmonics of ``hertz`` through resonances, int16 at ``SAMPLE_RATE``.

    ``swing``: how far its pitch goes up and down three times a second, semitones.
    """
    t = np.arange(ms * SAMPLE_RATE // 1000) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(hertz * 2 ** (swing * np.sin(6 * np.pi * t) / 12)) / SAMPLE_RATE
    out = np.zeros_like(t)
    for n in range(1, int(3_800 / hertz) + 1):
        strength = 0.02 + sum(1 / (1 + ((n * hertz - formant) / 100) ** 2) for formant in formants)
        out += strength / n**0.5 * np.cos(n * phase + n)
    peak = np.abs(out).max(initial=1e-9)
    spoken: Samples = (level / peak * out).astype(np.int16)
    return spoken


def music(ms: int, level: int = 5_000, seed: int = 1) -> Samples:
    """Three notes at a time struck every 800 ms and fading, int16 at ``SAMPLE_RATE``: a plain hold tune."""
    dice = np.random.default_rng(seed)
    scale = 196.0 * 2 ** (np.array([0, 2, 4, 7, 9, 12, 14, 16]) / 12)
    out = np.zeros(ms * SAMPLE_RATE // 1000)
    beat = SAMPLE_RATE * 8 // 10
    for start in range(0, len(out), beat):
        t = np.arange(min(beat, len(out) - start)) / SAMPLE_RATE
        for note in dice.choice(scale, 3, replace=False):
            for n in range(1, 5):
                out[start : start + beat] += np.exp(-t) * np.sin(2 * np.pi * n * note * t) / n**1.5
    played: Samples = (level / np.abs(out).max(initial=1e-9) * out).astype(np.int16)
    return played


def telephone(samples: Samples) -> Samples:
    """What of ``samples`` a telephone lets through: 300 to 3400 Hz."""
    spectrum = np.fft.rfft(samples)
    hertz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    spectrum[(hertz < 300) | (hertz > 3_400)] = 0
    heard: Samples = np.fft.irfft(spectrum, len(samples)).clip(-32768, 32767).astype(np.int16)
    return heard


def play(
    call_id: str, channel: Channel, samples: Samples, start_ms: int = 0, frame_ms: int = 20
) -> Iterator[AudioFrame]:
    """``samples`` as the frames an ingest edge would hand in."""
    step = frame_ms * SAMPLE_RATE // 1000
    for position in range(0, len(samples), step):
        yield AudioFrame(
            call_id=call_id,
            channel=channel,
            media_ms=start_ms + position * 1000 // SAMPLE_RATE,
            pcm=samples[position : position + step].astype("<i2").tobytes(),
        )


class LoudnessVad:
    """Everything louder than ``level`` is speech."""

    def __init__(self, level: float = 500.0) -> None:
        self._level = level

    def probabilities(self, windows: Samples) -> Probabilities:
        levels = np.sqrt(np.mean(np.square(windows.astype(np.float32)), axis=1))
        loud: Probabilities = (levels > self._level).astype(np.float32)
        return loud


class Alone(Listener):
    """A channel that nobody else is heard with: ``push`` does all of it."""

    def __init__(
        self, call_id: str, channel: Channel, vad: Vad, endpointing: Endpointing | None = None
    ) -> None:
        super().__init__(call_id, channel, endpointing)
        self._vad = vad

    def push(self, frame: AudioFrame) -> list[Heard]:
        """Take the next frame and return what was heard, in order of media time."""
        self.offer(frame)
        out: list[Heard] = []
        while len(windows := self.windows()):
            out += self.judged(self._vad.probabilities(windows))
        return out


def hear(calls: Sequence[HeardCall], judge: LocalJudge) -> list[list[Heard | Hold | Trouble]]:
    """Hear together what ``calls`` have taken; return what was heard of each."""
    out: list[list[Heard | Hold | Trouble]] = [[] for _ in calls]
    while any(asked := [call.ask() for call in calls]):
        answers = iter(judge.answers([question for own in asked for question in own]))
        for heard, call, own in zip(out, calls, asked, strict=True):
            if own:
                heard += call.answered([next(answers) for _ in own])
    return out


@dataclass
class ScriptedTranscriber:
    """Answers with what ``script`` says of a request, after ``seconds`` of pretended work.

    Thread-safe as far as ``script`` is. ``batches`` keeps what was asked: (window, number of requests).
    """

    script: Callable[[Request], str]
    workers: int = 2
    largest_batch: int = 8
    speech_cost: float = 0.0
    seconds: float = 0.0
    log_probability: float = -0.2
    batches: list[tuple[int, int]] = field(default_factory=list)

    def enter(self) -> None:
        """It computes nothing."""

    def prompt(self, text: str) -> Prompt:
        return Prompt(text, tuple(range(len(text))))

    def transcribe(self, requests: Sequence[Request], frames: int) -> list[Reading]:
        self.batches.append((frames, len(requests)))
        if self.seconds:
            time.sleep(self.seconds)
        return [self._reading(request) for request in requests]

    def locate(self, request: Request, text: str) -> tuple[Word, ...]:
        """Every character as long as the others."""
        step = request.seconds * 1000 / max(1, len(text))
        return tuple(
            Word(text=character, start_ms=round(n * step), end_ms=round((n + 1) * step))
            for n, character in enumerate(text)
        )

    def _reading(self, request: Request) -> Reading:
        text = self.script(request)
        return Reading(
            text=text,
            tokens=len(text),
            log_probability=self.log_probability,
            no_speech=0.0,
            seconds=request.seconds,
        )
