"""What is heard in a call: where somebody speaks, and which words."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from streams.events.calls import SAMPLE_RATE, Channel


class SpeechStarted(Struct, frozen=True, kw_only=True, tag=True):
    call_id: str
    channel: Channel
    media_ms: int
    """Onset of the speech, a little before the moment at which it was noticed."""


class SpeechStopped(Struct, frozen=True, kw_only=True, tag=True):
    call_id: str
    channel: Channel
    media_ms: int
    """End of the last speech heard, before the hangover."""


class Utterance(Struct, frozen=True, kw_only=True, tag=True):
    """One stretch of speech of one channel between two endpoints, or its beginning (not ``final``)."""

    call_id: str
    channel: Channel
    start_ms: int
    """Of the first sample in ``pcm``, pre-roll included. With call and channel it names the utterance."""
    end_ms: int
    """End of the speech, without the hangover."""
    pcm: bytes
    """Signed 16-bit little-endian mono at ``SAMPLE_RATE``."""
    final: bool
    endpoint: Literal["pause", "soft", "hard", "end", "breath", "partial"]
    """The last two are of partial ones: after a breath, or in the middle of speaking."""
    """Why it was cut here."""

    @property
    def utterance_id(self) -> str:
        return f"{self.call_id}:{self.channel}:{self.start_ms}"

    @property
    def media_ms(self) -> int:
        return self.end_ms

    @property
    def duration_ms(self) -> int:
        return len(self.pcm) // 2 * 1000 // SAMPLE_RATE


class Voice(Struct, frozen=True, kw_only=True, tag=True):
    """How an utterance sounds; told when it was cut, before its transcript. ``streams.voice`` measures it."""

    call_id: str
    channel: Channel
    utterance_id: str
    start_ms: int
    end_ms: int
    level_db: float
    """Loudness of its speech, dB relative to full scale."""
    peak_db: float
    """Of its loudest fifth of a second."""
    pitch_hz: float | None
    """Median fundamental frequency; ``None`` where too little is voiced."""
    pitch_spread: float | None
    """Between the first and the third quartile, in semitones."""
    voiced: float
    """Share of its speech that is voiced, 0 to 1."""
    paused: float
    """Share of its length in which nobody speaks, 0 to 1."""
    timbre: tuple[float, ...] = ()
    """The shape of its spectrum, as ``streams.voice.timbre`` has it; empty where there is no speech."""

    @property
    def media_ms(self) -> int:
        return self.end_ms


class Word(Struct, frozen=True, kw_only=True):
    text: str
    start_ms: int
    end_ms: int


class Transcript(Struct, frozen=True, kw_only=True, tag=True):
    """What an utterance says. Exactly one final one per utterance, also when it is empty."""

    call_id: str
    utterance_id: str
    role: Channel
    start_ms: int
    end_ms: int
    text: str
    """Simplified Chinese as the model wrote it. Empty when a guard rejected it (``rejected`` says why)."""
    final: bool
    confidence: float | None = None
    """Mean probability per token, 0 to 1."""
    rejected: str | None = None
    settled: int | None = None
    """Of a partial one: characters from the start that later readings will hardly change. What stands
    behind them is context, no evidence. ``None``: all of it."""
    words: tuple[Word, ...] = ()

    @property
    def media_ms(self) -> int:
        return self.end_ms

    def time_of(self, index: int) -> int:
        """Media time of the boundary before character ``index`` of ``text``.

        From word times where there are any, else by proportion of characters over the speech.
        """
        at = 0
        for word in self.words:
            if index < at + len(word.text):
                share = (index - at) / max(1, len(word.text))
                return round(word.start_ms + share * (word.end_ms - word.start_ms))
            at += len(word.text)
        if self.words:
            return self.words[-1].end_ms
        share = index / max(1, len(self.text))
        return round(self.start_ms + share * (self.end_ms - self.start_ms))
