"""Calls for an engine that is no telephone exchange: the lines of the load, their audio as arrays.

The same calls in the same order as ``benchmarks.load`` plays them, at the same times, as 16 kHz audio that
went through the telephone's mu-law and 8 kHz.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from app.demo import truth
from app.phones.twilio import RATE
from benchmarks.load import GRACE_S, PAUSE_S, orders
from benchmarks.material import cut, fitting, heard
from detectors.panel import Panel
from detectors.rules.model import Pack
from streams.audio import Resampler, decode_mulaw, encode_mulaw
from streams.events import (
    SAMPLE_RATE,
    Alert,
    CallInfo,
    CallStarted,
    Channel,
    Detection,
    Evidence,
    Transcript,
)

CHANNELS: dict[str, Channel] = {"inbound": "customer", "outbound": "agent"}


@dataclass(frozen=True)
class Audio:
    """A scripted call as heard behind a telephone."""

    call: truth.ScriptedCall
    samples: dict[Channel, np.ndarray]
    """int16 at ``SAMPLE_RATE``, equally long."""

    @property
    def seconds(self) -> float:
        return min(len(s) for s in self.samples.values()) / SAMPLE_RATE

    def first(self, seconds: float) -> Audio:
        end = round(seconds * SAMPLE_RATE)
        return Audio(self.call, {channel: s[:end] for channel, s in self.samples.items()})


def audio(call: truth.ScriptedCall) -> Audio:
    """Read one call. As the telephone's path does it: mu-law, 8 kHz, then up to ``SAMPLE_RATE``."""
    played, sides = cut(call)
    samples = {
        channel: Resampler(RATE).push(decode_mulaw(encode_mulaw(side)), last=True)
        for channel, side in sides.items()
    }
    return Audio(played, samples)


@dataclass(frozen=True)
class Read:
    """What an engine had read of one stretch of a channel when its answer came."""

    at_s: float
    channel: Channel
    start_s: float
    end_s: float
    """Media time."""
    text: str
    done: bool
    """Whether the engine will not read this stretch again."""


@dataclass
class Heard:
    """One call and what an engine read of it."""

    call: truth.ScriptedCall
    """Truth of what was played, under an id of its own."""
    started_s: float
    """Clock at media time 0."""
    reads: list[Read]


Listen = Callable[[Audio, str], Awaitable[tuple[float, list[Read]]]]
"""(audio, call id) → clock at media time 0, and what was read; plays in real time."""


async def lines(
    audios: Sequence[Audio], number: int, seconds: float, spread_s: float, seed: int, listen: Listen
) -> tuple[list[Heard], float]:
    """Play as ``benchmarks.load`` does: ``number`` lines, calls back to back, for ``seconds``.

    Returns what was heard and how late, at worst, this loop was in seconds: as late were the telephones.
    """
    by_name = {a.call.name: a for a in audios}
    begun = time.monotonic()
    numbers = count(1)
    out: list[Heard] = []

    async def line(index: int) -> None:
        await asyncio.sleep(spread_s * index / number)
        for name in orders(sorted(by_name), seed, index):
            chosen = by_name[name]
            remaining = begun + seconds - time.monotonic() - GRACE_S
            length = fitting(chosen.call, chosen.seconds, remaining)
            if length is None:
                return
            call_id = f"{name}-{next(numbers)}"
            started, reads = await listen(chosen.first(length), call_id)
            out.append(Heard(heard(chosen.call, call_id, length), started, reads))
            await asyncio.sleep(PAUSE_S)

    lag = _Lag()
    watching = asyncio.create_task(lag.watch())
    try:
        await asyncio.gather(*(line(index) for index in range(number)))
    finally:
        watching.cancel()
    return out, lag.worst_s


class _Lag:
    """How late this event loop wakes."""

    EVERY_S = 0.02

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def watch(self) -> None:
        while True:
            due = time.monotonic() + self.EVERY_S
            await asyncio.sleep(self.EVERY_S)
            self.worst_s = max(self.worst_s, time.monotonic() - due)


def first_seen(heard: Heard, pack: Pack, slack_s: float = truth.SLACK_S) -> dict[tuple[str, float], float]:
    """(rule, start of the turn) → clock at which our rules first found it in what had been read.

    With every answer the rules read the call anew as it then stands: all stretches that are done, and the
    latest reading of those that are not. So an engine is judged by what it wrote, not by how it delivers it.
    """
    out: dict[tuple[str, float], float] = {}
    wanted = heard.call.expected
    standing: dict[tuple[Channel, float | None], Read] = {}
    seen: set[tuple[object, ...]] = set()
    for read in sorted(heard.reads, key=lambda r: r.at_s):
        if not read.text.strip():
            continue
        # One stretch of a channel is open at a time; a done one is known by where it starts.
        standing[read.channel, read.start_s if read.done else None] = read
        if read.done:
            standing.pop((read.channel, None), None)
        state = tuple(sorted((r.start_s, r.channel, r.text) for r in standing.values()))
        if state in seen:
            continue
        seen.add(state)
        for detection in _found(heard.call.name, list(standing.values()), pack):
            for want in wanted:
                key = (want.rule, want.start)
                if key not in out and _lies_in(detection, want, slack_s):
                    out[key] = read.at_s
    return out


def alerts(call: truth.ScriptedCall, seen: dict[tuple[str, float], float]) -> list[Alert]:
    """What was seen as alerts at their turns, for ``truth.score``: its repetitions hold here too."""
    return [
        Alert(
            id=f"{want.rule}@{want.start}",
            call_id=call.name,
            rule_id=want.rule,
            rule_version="",
            name={},
            severity="info",
            role="unknown",
            media_start_ms=round(want.start * 1000),
            media_end_ms=round(want.end * 1000),
            evidence=Evidence(text=""),
        )
        for want in call.expected
        if (want.rule, want.start) in seen
    ]


def score(calls: Sequence[Heard], pack: Pack) -> tuple[truth.Score, list[float]]:
    """Phrases seen and missed, and the seconds from each phrase's end until it was seen."""
    seen = {heard.call.name: first_seen(heard, pack) for heard in calls}
    started = {heard.call.name: heard.started_s for heard in calls}
    scored = truth.score(
        [heard.call for heard in calls],
        {heard.call.name: alerts(heard.call, seen[heard.call.name]) for heard in calls},
    )
    delays = [
        seen[want.call][want.rule, want.start] - started[want.call] - want.phrase_end
        for want, _ in scored.hit
    ]
    return scored, sorted(delays)


def _found(call_id: str, reads: list[Read], pack: Pack) -> list[Detection]:
    info = CallInfo(call_id=call_id)
    panel = Panel(info, pack)
    out = panel.on_event(CallStarted(call=info))
    for read in sorted(reads, key=lambda r: (r.end_s, r.start_s)):
        start_ms = round(read.start_s * 1000)
        transcript = Transcript(
            call_id=call_id,
            utterance_id=f"{call_id}:{read.channel}:{start_ms}",
            role=read.channel,
            start_ms=start_ms,
            end_ms=max(start_ms + 1, round(read.end_s * 1000)),
            text=read.text.strip(),
            final=True,
        )
        out += panel.on_event(transcript)
    return [d for d in out if isinstance(d, Detection) and not d.withdrawn]


def _lies_in(found: Detection, want: truth.Expected, slack_s: float) -> bool:
    start, end = found.media_start_ms / 1000, found.media_end_ms / 1000
    return found.rule_id == want.rule and start <= want.end + slack_s and end >= want.start - slack_s
