"""Which jobs form the next batch. Pure: the clock is an argument, in seconds.

Every call's utterances meet here, above the model. The rules, in the order in which they are asked:

1. A job belongs to a *class*: suspicious finals, doubted readings, finals, breaths, partials, retries, word
   times, background.
   The class gives its deadline (arrival + ``BUDGET_S``) and its rank. A job whose deadline has passed ranks
   with the finals, so that nothing starves; but not a partial, which is nothing worth once it is late.
   Among partials the call that was served longest ago comes first, so that no talkative call takes
   what is left of the machine for itself; finals go by their deadline alone.
2. When a worker is free, the first job by (rank, deadline) leads the batch: there is no fixed wait, and
   no job waits while a worker is idle.
3. Jobs of the same shape (window and prompt) join it, in the same order, while the batch's predicted time
   keeps the leader's deadline; where that is lost already, as long as a larger batch serves more jobs
   a second. (``<|startoftranscript|>`` must stand at the same position throughout a batch.)
4. At most one partial per channel waits; a newer one takes its place, a final removes it.

Finals are never dropped, nor what decides about one. Everything else is bounded: one partial per channel, and
``most_retries`` each of retries and of word times, beyond which ``Scheduler.submit`` gives them back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

Payload = TypeVar("Payload")


class Kind(IntEnum):
    """Classes of jobs, most urgent first."""

    SUSPICIOUS = 0
    """A final in which something was already suspected."""
    DOUBTED = 1
    """Read already, but its words may be the prompt's own; goes again without it. An alert may hang on it: it
    is never given up, and bounded by what was read, as there is at most one for each reading."""
    FINAL = 2
    AHEAD = 3
    """Up to a breath: a partial that is the final too if the silence goes on."""
    PARTIAL = 4
    RETRY = 5
    """A final that the short window got wrong; goes again with a larger one."""
    WORDS = 6
    """When each word of a final that raised an alert was said."""
    BACKGROUND = 7
    """A final of a recording that is replayed: nobody waits for it."""


PARTIALS = (Kind.AHEAD, Kind.PARTIAL)
"""Readings of what is still being said. One per channel waits."""

FINALS = (Kind.SUSPICIOUS, Kind.FINAL)
"""Somebody waits for these: their wait is what degradation measures."""

BUDGET_S = {
    Kind.SUSPICIOUS: 0.3,
    Kind.DOUBTED: 0.3,
    Kind.FINAL: 0.8,
    Kind.AHEAD: 0.4,
    Kind.PARTIAL: 1.0,
    Kind.RETRY: 2.5,
    Kind.WORDS: 4.0,
    Kind.BACKGROUND: 20.0,
}


class Shape(NamedTuple):
    """What all jobs of one batch have in common."""

    frames: int
    """Window of the encoder, in mel frames of 10 ms."""
    prompt: int
    """Tokens before ``<|startoftranscript|>``."""


@dataclass(frozen=True, slots=True)
class Job(Generic[Payload]):
    channel: tuple[str, str]
    """(call_id, channel): who waits for it."""
    kind: Kind
    shape: Shape
    arrived_s: float
    payload: Payload

    @property
    def deadline_s(self) -> float:
        return self.arrived_s + BUDGET_S[self.kind]

    @property
    def call_id(self) -> str:
        return self.channel[0]

    def rank(self, now_s: float, served_s: float = 0.0) -> tuple[int, float]:
        """Smaller is more urgent. ``served_s``: when a partial of this call was last computed."""
        if self.kind in PARTIALS:
            return int(self.kind), served_s
        if now_s >= self.deadline_s:
            return min(int(self.kind), int(Kind.FINAL)), self.deadline_s
        return int(self.kind), self.deadline_s


@dataclass(frozen=True, slots=True)
class Batch(Generic[Payload]):
    jobs: tuple[Job[Payload], ...]

    @property
    def shape(self) -> Shape:
        return self.jobs[0].shape


@dataclass
class CostModel:
    """How long a batch takes, learnt from those that were run.

    Until a (window, size) was seen, ``seconds`` scales from what was: a batch costs a fixed part and a part
    per job, both in proportion to the window. The starting values only have to be of the right order.
    """

    per_frame_s: float = 8e-5
    """Seconds per job and mel frame."""
    fixed_s: float = 0.02
    learning: float = 0.2
    _seen: dict[tuple[int, int], float] = field(default_factory=dict)

    def seconds(self, shape: Shape, size: int) -> float:
        seen = self._seen.get((shape.frames, size))
        if seen is not None:
            return seen
        return self.fixed_s + self.per_frame_s * shape.frames * size

    def learn(self, shape: Shape, size: int, seconds: float) -> None:
        key = (shape.frames, size)
        before = self._seen.get(key)
        self._seen[key] = seconds if before is None else before + self.learning * (seconds - before)
        predicted = self.fixed_s + self.per_frame_s * shape.frames * size
        self.per_frame_s *= 1 + 0.1 * self.learning * (seconds - predicted) / max(predicted, 1e-6)
        self.per_frame_s = max(1e-8, self.per_frame_s)


class Scheduler(Generic[Payload]):
    """The one queue in front of the model. Not thread-safe: it belongs to one event loop."""

    MEMORY_S = 30.0

    def __init__(self, largest_batch: int, cost: CostModel | None = None, most_retries: int = 64) -> None:
        if largest_batch < 1:
            raise ValueError(f"expected a batch of at least 1, got {largest_batch}")
        self._largest = largest_batch
        self._most_retries = most_retries
        self.cost = cost or CostModel()
        self._jobs: list[Job[Payload]] = []
        self._served: dict[str, float] = {}
        """When a partial of a call was last computed; forgotten after ``MEMORY_S``."""

    def __len__(self) -> int:
        return len(self._jobs)

    def waiting(self, kind: Kind) -> int:
        return sum(job.kind is kind for job in self._jobs)

    def oldest_final_wait(self, now_s: float) -> float:
        """Seconds that the longest waiting final has waited; 0 when none waits."""
        waits = [now_s - j.arrived_s for j in self._jobs if j.kind in FINALS]
        return max(waits, default=0.0)

    def submit(self, job: Job[Payload]) -> list[Job[Payload]]:
        """Queue ``job``; return the jobs that were given up for it.

        A partial gives way to a newer partial and to the final of its channel. A retry, or a question for
        word times, beyond ``most_retries`` is given up itself (and returned): the first reading then stands.
        """
        if job.kind in (Kind.RETRY, Kind.WORDS) and self.waiting(job.kind) >= self._most_retries:
            return [job]
        superseded: list[Job[Payload]] = []
        if job.kind in (*PARTIALS, *FINALS):
            superseded = [j for j in self._jobs if j.kind in PARTIALS and j.channel == job.channel]
            for old in superseded:
                self._jobs.remove(old)
        self._jobs.append(job)
        return superseded

    def give_up(self, kind: Kind) -> list[Job[Payload]]:
        """Remove and return all waiting partials, retries or word times (when the service degrades)."""
        if kind in (*FINALS, Kind.DOUBTED, Kind.BACKGROUND):
            raise ValueError("finals are never given up")
        gone = [job for job in self._jobs if job.kind is kind]
        self._jobs = [job for job in self._jobs if job.kind is not kind]
        return gone

    def next_batch(self, now_s: float, last_worker: bool = False) -> Batch[Payload] | None:
        """The batch that a free worker should take now; ``None`` when nothing waits that it may take.

        ``last_worker``: all others are busy, at least one of them with a retry. Its window takes several
        times as long as a short one: the last worker leaves further retries alone until their deadline has
        passed, so that a final never finds every worker in one.
        """
        may = [
            job
            for job in self._jobs
            if not (last_worker and job.kind is Kind.RETRY and now_s < job.deadline_s)
        ]
        if not may:
            return None
        order = sorted(may, key=lambda job: job.rank(now_s, self._served.get(job.call_id, 0.0)))
        leader = order[0]
        mates = [job for job in order[1:] if job.shape == leader.shape]
        size = 1
        while size <= len(mates) and size < self._largest and self._may_grow(leader, size + 1, now_s):
            size += 1
        chosen = (leader, *mates[: size - 1])
        taken = {id(job) for job in chosen}
        self._jobs = [job for job in self._jobs if id(job) not in taken]
        if any(job.kind in PARTIALS for job in chosen):
            self._served = {c: at for c, at in self._served.items() if now_s - at < self.MEMORY_S}
            self._served |= {job.call_id: now_s for job in chosen if job.kind in PARTIALS}
        return Batch(chosen)

    def _may_grow(self, leader: Job[Payload], size: int, now_s: float) -> bool:
        larger = self.cost.seconds(leader.shape, size)
        if now_s + larger <= leader.deadline_s:
            return True
        return larger / size < self.cost.seconds(leader.shape, size - 1) / (size - 1)
