"""What a telephone plays in a benchmark: scripted calls, their long silences cut, and the truth moved along.

Pure but for reading the files. Times are seconds, positions are 20 ms chunks of a call as it is played.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from msgspec import structs

from app.demo.truth import ScriptedCall, Span, Turn
from app.phones.call import sides
from benchmarks.wires import CHUNK_S, RATE, WIRES, Wire
from streams.events import Channel

TWILIO = WIRES["twilio"]
LONGEST_SILENCE_S = 0.4
"""On both channels. Longer ones are cut, so that there is about one second of speech per second of call."""
SHORTEST_CALL_S = 8.0
"""What remains of a run is filled with the beginning of a call, if that much of it fits."""

Kept = tuple[tuple[float, float], ...]
"""Stretches (from, to) of a recording that are played, in order."""


@dataclass(frozen=True)
class Material:
    """One scripted call, ready to be sent."""

    call: ScriptedCall
    """Turns and spans as played."""
    legs: tuple[tuple[bytes, ...], ...]
    """For each connection what goes over the wire at each 20 ms."""

    @property
    def seconds(self) -> float:
        return len(self.legs[0]) * CHUNK_S


def kept(turns: Sequence[Turn], length: float, longest: float = LONGEST_SILENCE_S) -> Kept:
    """The stretches of a call of ``length`` seconds that remain when silences keep ``longest`` at most.

    A silence is what no turn covers, before the first and behind the last one too; its middle goes, on
    both channels, so that turns stay as far apart as ``longest``.
    """
    out: list[tuple[float, float]] = []
    begin = reached = 0.0
    edges = [(max(0.0, t.start), min(length, t.end)) for t in sorted(turns, key=lambda t: t.start)]
    for start, end in [*edges, (length, length)]:
        silence = start - reached
        if silence > longest:
            # Nothing is said before the first turn: all that is kept stands next to it.
            before = 0.0 if reached == 0.0 else longest if start == length else longest / 2
            after = longest - before
            if reached + before > begin:
                out.append((begin, reached + before))
            begin = start - after
        reached = max(reached, end)
    if length > begin:
        out.append((begin, length))
    return tuple(out)


def moved(time: float, stretches: Kept) -> float:
    """Where ``time`` of the recording lies in what is played; inside a cut, where the cut is."""
    played = 0.0
    for start, end in stretches:
        if time < start:
            return played
        if time <= end:
            return played + time - start
        played += end - start
    return played


def packed(turns: Sequence[Turn], stretches: Kept) -> tuple[Turn, ...]:
    """The turns with their times, and those of their spans, as played."""
    return tuple(
        structs.replace(
            turn,
            start=moved(turn.start, stretches),
            end=moved(turn.end, stretches),
            spans=tuple(Span(s.rule, moved(s.start, stretches), moved(s.end, stretches)) for s in turn.spans),
        )
        for turn in turns
    )


def talk_share(call: ScriptedCall, seconds: float) -> float:
    """Seconds of speech, both channels together, per second of the first ``seconds`` of a call."""
    speech = sum(max(0.0, min(t.end, seconds) - t.start) for t in call.turns)
    return speech / seconds if seconds else 0.0


def fitting(call: ScriptedCall, seconds: float, remaining: float) -> float | None:
    """How many seconds of a call of ``seconds`` to play when ``remaining`` are left; ``None``: none.

    A call that does not fit is hung up behind the last turn that does.
    """
    if seconds <= remaining:
        return seconds
    ends = [end for end in (t.end + LONGEST_SILENCE_S / 2 for t in call.turns) if end <= remaining]
    # Turns may overlap: the last that fits may end before one that does not, which is then cut.
    length = max(ends, default=0.0)
    return length if length >= SHORTEST_CALL_S else None


def heard(call: ScriptedCall, call_id: str, seconds: float) -> ScriptedCall:
    """The truth of a call that was hung up after ``seconds``, under the id that it was placed with."""
    return replace(call, name=call_id, turns=tuple(t for t in call.turns if t.end <= seconds))


def cut(call: ScriptedCall) -> tuple[ScriptedCall, dict[Channel, np.ndarray]]:
    """A call as it is played: truth and sides (``agent``, ``customer``; int16, 8 kHz) without silences."""
    audio = sides(call.audio, RATE)
    stretches = kept(call.turns, len(audio["agent"]) / RATE)
    played: dict[Channel, np.ndarray] = {
        channel: np.concatenate([samples[round(a * RATE) : round(b * RATE)] for a, b in stretches])
        for channel, samples in audio.items()
    }
    return replace(call, turns=packed(call.turns, stretches)), played


def material(call: ScriptedCall, wire: Wire = TWILIO) -> Material:
    """Read, cut and encode one scripted call."""
    played, audio = cut(call)
    return Material(played, tuple(wire.encode(call.name, audio)))
