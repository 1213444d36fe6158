"""How many calls a measured model holds: the real scheduler over simulated speech, on a simulated clock.

Nothing waits and nothing is computed: the two sides of each call speak in turn; partials, finals and retries
meet in ``streams.batching.Scheduler``; each batch takes as long as was measured for its window and size.
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from streams.batching import Job, Kind, Scheduler, Shape
from streams.listen import Endpointing
from streams.local import LocalRunner
from streams.transcribe import retry_window_for, window_for

BatchSeconds = Callable[[int, int], float]
"""(window in mel frames, batch size) → seconds."""


def interpolated(measured: Mapping[tuple[int, int], float]) -> BatchSeconds:
    """Seconds of any batch from those measured at (frames, size): linear between, proportional below.

    Beyond the largest window or batch the last slope goes on. Needs at least one of each.
    """
    if not measured:
        raise ValueError("expected at least one measured batch")
    frames = sorted({f for f, _ in measured})
    sizes = sorted({s for _, s in measured})

    def along(points: Sequence[int], at: int, value: Callable[[int], float]) -> float:
        if len(points) == 1:
            return value(points[0]) * at / points[0]
        right = min(max(1, bisect_left(points, at)), len(points) - 1)
        low, high = points[right - 1], points[right]
        share = (at - low) / (high - low)
        # Below what was measured a batch still costs its launches: half of the smallest at least.
        return max(0.5 * value(points[0]), value(low) + share * (value(high) - value(low)))

    def seconds(window: int, size: int) -> float:
        return along(frames, window, lambda f: along(sizes, size, lambda s: measured[f, s]))

    return seconds


@dataclass(frozen=True)
class Speech:
    """How people talk in the simulation. Seconds."""

    utterance: float = 3.2
    """Median; log-normal with ``spread``."""
    spread: float = 0.6
    pause: float = 0.5
    """Mean between one turn's end and the next one's beginning, whoever speaks."""
    shortest: float = 0.5
    longest: float = 15.0
    retried: float = 0.06
    """Share of finals that are doubted and go again."""


@dataclass
class Waits:
    """Seconds from the cut of an utterance to its settled text, and what the worker did."""

    finals: list[float] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    busy: float = 0.0

    def percentile(self, share: float) -> float:
        ordered = sorted(self.finals)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


@dataclass(frozen=True, slots=True)
class _Said:
    cut_s: float
    retried: bool


def arrivals(
    calls: int, seconds: float, speech: Speech, rng: random.Random, partials: bool
) -> list[tuple[float, Job[_Said]]]:
    """Every job that ``calls`` calls hand in, by time: two channels of a call speak in turn."""
    rules = Endpointing()
    out: list[tuple[float, Job[_Said]]] = []

    def add(at: float, channel: tuple[str, str], kind: Kind, frames: int, said: _Said) -> None:
        out.append((at, Job(channel, kind, Shape(frames, 1), at, said)))

    for call in range(calls):
        clock = rng.uniform(0.0, speech.utterance)
        turn = 0
        while clock < seconds:
            drawn = rng.lognormvariate(math.log(speech.utterance), speech.spread)
            length = min(speech.longest, max(speech.shortest, drawn))
            channel = (str(call), "agent" if turn % 2 == 0 else "customer")
            said = _Said(clock + length, rng.random() < speech.retried)
            at = rules.first_partial / 1000
            while partials and at < min(length, LocalRunner.LONGEST_PARTIAL_MS / 1000):
                add(clock + at, channel, Kind.PARTIAL, window_for(at), said)
                at += rules.partial_every / 1000
            add(clock + length, channel, Kind.FINAL, window_for(length), said)
            clock += length + rng.expovariate(1 / speech.pause)
            turn += 1
    return sorted(out, key=lambda item: item[0])


def simulate(
    calls: int,
    cost: BatchSeconds,
    largest_batch: int,
    seconds: float = 120.0,
    speech: Speech | None = None,
    partials: bool = True,
    workers: int = 1,
    seed: int = 3,
) -> Waits:
    """Run ``calls`` calls for ``seconds`` of simulated time and let the queue run empty."""
    speech = speech or Speech()
    jobs = arrivals(calls, seconds, speech, random.Random(seed), partials)
    scheduler: Scheduler[_Said] = Scheduler(largest_batch)
    for frames in (250, 500, 1000, 1500):
        for size in range(1, largest_batch + 1):
            scheduler.cost.learn(Shape(frames, 1), size, cost(frames, size))
    out = Waits()
    free = workers
    ends: list[tuple[float, int, tuple[Job[_Said], ...]]] = []
    """A heap of running batches: (end, tie breaker, jobs)."""
    serial = position = 0
    while position < len(jobs) or ends or len(scheduler):
        now = min(
            jobs[position][0] if position < len(jobs) else math.inf,
            ends[0][0] if ends else math.inf,
        )
        while position < len(jobs) and jobs[position][0] <= now:
            scheduler.submit(jobs[position][1])
            position += 1
        while ends and ends[0][0] <= now:
            _, _, done = heapq.heappop(ends)
            free += 1
            for job in done:
                _answer(job, now, scheduler, out)
        while free and (batch := scheduler.next_batch(now)) is not None:
            spent = cost(batch.shape.frames, len(batch.jobs))
            scheduler.cost.learn(batch.shape, len(batch.jobs), spent)
            out.batches.append(len(batch.jobs))
            out.busy += spent
            free -= 1
            serial += 1
            heapq.heappush(ends, (now + spent, serial, batch.jobs))
    return out


def _answer(job: Job[_Said], now: float, scheduler: Scheduler[_Said], out: Waits) -> None:
    if job.kind is Kind.PARTIAL:
        return
    if job.kind is Kind.FINAL and job.payload.retried:
        again = Job(job.channel, Kind.RETRY, Shape(retry_window_for(job.shape.frames), 1), now, job.payload)
        if not any(gone is again for gone in scheduler.submit(again)):
            return
    out.finals.append(now - job.payload.cut_s)


def most_calls(
    cost: BatchSeconds,
    largest_batch: int,
    p95_s: float = 1.0,
    limit: int = 4096,
    seconds: float = 120.0,
    partials: bool = True,
    workers: int = 1,
) -> int:
    """The largest number of calls whose finals take at most ``p95_s`` at the 95th percentile; 0 if none."""

    def holds(calls: int) -> bool:
        waits = simulate(calls, cost, largest_batch, seconds, partials=partials, workers=workers)
        return waits.percentile(0.95) <= p95_s and waits.busy <= workers * seconds

    low, high = 0, 1
    while high <= limit and holds(high):
        low, high = high, 2 * high
    high = min(high, limit + 1)
    while high - low > max(1, low // 32):
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
