"""What a telephone plays in a benchmark: scripted calls, their long silences cut, and the truth moved along.

Pure but for reading the files. Times are seconds, positions are 20 ms chunks of a call as it is played.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from msgspec import structs
from websockets.frames import Frame, Opcode

from app.demo.truth import ScriptedCall, Span, Turn
from app.phones.twilio import CHUNK, RATE, tracks
from streams.audio import encode_mulaw

CHUNK_S = CHUNK / RATE
LONGEST_SILENCE_S = 0.4
"""On both channels. Longer ones are cut, so that there is about one second of speech per second of call."""
SHORTEST_CALL_S = 8.0
"""What remains of a run is filled with the beginning of a call, if that much of it fits."""

Kept = tuple[tuple[float, float], ...]
"""Stretches (from, to) of a recording that are played, in order."""


@dataclass(frozen=True)
class Material:
    """One scripted call, ready to be sent: ``chunks[k]`` is what goes over the wire at its 20 ms ``k``."""

    call: ScriptedCall
    """Turns and spans as played."""
    chunks: tuple[bytes, ...]
    """Masked WebSocket frames of both tracks' ``media`` messages."""
    stop: bytes

    @property
    def seconds(self) -> float:
        return len(self.chunks) * CHUNK_S


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


def cut(call: ScriptedCall) -> tuple[ScriptedCall, dict[str, np.ndarray]]:
    """A call as it is played: truth and tracks (``inbound``, ``outbound``; int16, 8 kHz) without silences."""
    audio = tracks(call.audio)
    stretches = kept(call.turns, len(audio["inbound"]) / RATE)
    played = {
        name: np.concatenate([samples[round(a * RATE) : round(b * RATE)] for a, b in stretches])
        for name, samples in audio.items()
    }
    return replace(call, turns=packed(call.turns, stretches)), played


def material(call: ScriptedCall) -> Material:
    """Read, cut and encode one scripted call."""
    played, audio = cut(call)
    return Material(played, tuple(_chunks(call.name, audio)), _frame(_stop(call.name)))


def start(call: ScriptedCall, call_id: str, parameters: dict[str, str]) -> bytes:
    """The frames that open a stream."""
    connected = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    begun = {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": f"MZ{call.name}",
        "start": {
            "streamSid": f"MZ{call.name}",
            "accountSid": "ACbench",
            "callSid": call_id,
            "tracks": ["inbound", "outbound"],
            "customParameters": parameters,
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1},
        },
    }
    return _frame(connected) + _frame(begun)


def _chunks(name: str, audio: dict[str, np.ndarray]) -> list[bytes]:
    coded = {track: encode_mulaw(samples) for track, samples in audio.items()}
    length = min(len(c) for c in coded.values())
    out, sequence = [], 1
    for number, position in enumerate(range(0, length - CHUNK + 1, CHUNK)):
        wire = b""
        for track, payload in coded.items():
            sequence += 1
            media = {
                "track": track,
                "chunk": str(number + 1),
                "timestamp": str(position * 1000 // RATE),
                "payload": base64.b64encode(payload[position : position + CHUNK]).decode(),
            }
            message = {"event": "media", "sequenceNumber": str(sequence), "streamSid": f"MZ{name}"}
            wire += _frame({**message, "media": media})
        out.append(wire)
    return out


def _stop(name: str) -> dict[str, object]:
    return {"event": "stop", "sequenceNumber": "0", "streamSid": f"MZ{name}"}


def _frame(message: dict[str, object]) -> bytes:
    return Frame(Opcode.TEXT, json.dumps(message).encode()).serialize(mask=True)
