"""What the recogniser asks of the model for an utterance, and what comes of it. Values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from streams.events import Transcript, Utterance, Word
from streams.guards import Reading
from streams.parts import Part, Parts, clip
from streams.transcribe import Prompt

WITHOUT_PROMPT = -1
"""Prompt length of a job that is no reading: it shares no batch with readings."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """A transcript and how long its way through the model took. Seconds; ``cut_s``, ``done_s`` are clocks."""

    transcript: Transcript
    utterance: Utterance
    cut_s: float
    done_s: float
    asr_s: float
    """In batches, over all passes."""
    read: int = 0
    """Characters from the text's start that were read up to a breath; all of them in a final."""


@dataclass(frozen=True, slots=True)
class Task:
    utterance: Utterance
    prompt: Prompt
    cut_s: float
    parts: Parts | None = None
    """Of the utterance, when it is read part by part."""
    part: Part | None = None
    """What of it this is; else it is all of the utterance behind ``parts``."""
    first: Reading | None = None
    """Of the short window, when this is a retry."""
    doubted: Reading | None = None
    """What may only have been read in the prompt, when this is the reading without it."""
    asr_s: float = 0.0

    @property
    def pcm(self) -> bytes:
        """What of the utterance goes to the model."""
        if self.part is not None:
            return clip(self.utterance, self.part.start_ms)
        if self.parts is not None:
            return clip(self.utterance, self.parts.next_ms())
        return self.utterance.pcm


@dataclass(frozen=True, slots=True)
class Search:
    """Where in an utterance its words are."""

    utterance: Utterance
    prompt: Prompt
    text: str
    answer: Callable[[tuple[Word, ...]], None]
