"""What of an utterance was read before it ended: part by part, from breath to breath. Pure.

While the speaker goes on, what was read up to a breath is the utterance's settled text; when the utterance
ends, it is its final, or spares the final the reading of what it holds. Read as a whole up to each breath the
model makes fewer mistakes, as it knows what came before; read part by part nothing is read twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from streams.events import Utterance
from streams.guards import Reading

INTO_PAUSE_MS = 64
"""A part ends this far into the pause behind it; the rest of the pause is the next part's pre-roll."""


@dataclass(slots=True, eq=False)
class Part:
    """A stretch of an utterance that goes through the model in one piece."""

    start_ms: int
    end_ms: int
    """Where its speech ends."""
    done: bool = False
    reading: Reading | None = None
    """``None`` also where the model failed."""
    decided: bool = False
    """It was also read without the prompt."""
    seconds: float = 0.0
    """Of the model's time."""


@dataclass(slots=True)
class Parts:
    """The parts of one utterance that are in the model or were, in order and without holes."""

    utterance_id: str
    start_ms: int
    parts: list[Part] = field(default_factory=list)
    told_ms: int = 0
    """Where the last beginning ended that was told."""

    def next_ms(self) -> int:
        """Where the next part begins."""
        return self.parts[-1].end_ms + INTO_PAUSE_MS if self.parts else self.start_ms

    def next(self, utterance: Utterance, whole: bool = False) -> Part:
        """The part from here, or from the beginning, to the utterance's end; ``taken`` once in the model."""
        return Part(self.start_ms if whole else self.next_ms(), utterance.end_ms)

    def taken(self, part: Part) -> None:
        """A part from the beginning stands for all before it."""
        self.parts = [*self.before(part), part]

    def before(self, part: Part) -> list[Part]:
        """The parts that come before this one."""
        return [p for p in self.parts if p.end_ms < part.start_ms]

    def covers(self, utterance: Utterance) -> bool:
        """Whether nothing was said behind the last part."""
        return bool(self.parts) and self.parts[-1].end_ms >= utterance.end_ms

    @property
    def whole(self) -> bool:
        """Whether there is one part only: it was read as the final would be."""
        return len(self.parts) == 1

    @property
    def done(self) -> bool:
        return all(part.done for part in self.parts)

    @property
    def readings(self) -> list[Reading]:
        """Of the parts that were read and have words."""
        return [p.reading for p in self.parts if p.reading is not None and p.reading.text]

    @property
    def failed(self) -> bool:
        return any(part.done and part.reading is None for part in self.parts)


def clip(utterance: Utterance, start_ms: int) -> bytes:
    """The utterance's samples from a moment of media time on."""
    return utterance.pcm[max(0, start_ms - utterance.start_ms) * 32 :]


def joined(readings: Sequence[Reading]) -> Reading:
    """Readings of successive parts as one. Expects at least one."""
    tokens = sum(reading.tokens for reading in readings)
    return Reading(
        text=join([reading.text for reading in readings]),
        tokens=tokens,
        log_probability=sum(r.log_probability * r.tokens for r in readings) / max(1, tokens),
        no_speech=max(reading.no_speech for reading in readings),
        seconds=sum(reading.seconds for reading in readings),
    )


def join(texts: Sequence[str]) -> str:
    """Parts were cut at breaths: a full stop that the model put there is a comma."""
    kept = [text for text in texts if text]
    return "，".join([*(text.rstrip("。.,，、 ") for text in kept[:-1]), *kept[-1:]])
