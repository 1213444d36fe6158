"""All calls' utterances through the one model: schedules batches, retries suspects, degrades under load.

The asyncio edge around ``batching``, ``degrade``, ``guards`` and a ``Transcriber``. The runners of one
machine and of many use it alike.
"""

from __future__ import annotations

import asyncio
import math
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import structlog
from prometheus_client import Counter, Gauge, Histogram

from streams.batching import FINALS, Batch, Job, Kind, Scheduler, Shape
from streams.degrade import Degradation
from streams.events import Transcript, Utterance, Word
from streams.guards import Reading, decided, recited, rejected, suspicious
from streams.headroom import Headroom
from streams.parts import Parts, joined
from streams.transcribe import (
    Prompt,
    Request,
    Transcriber,
    retry_window_for,
    window_for,
)
from streams.work import WITHOUT_PROMPT, Recognised, Search, Task

log = structlog.get_logger(__name__)

JOBS = Gauge("duting_jobs_waiting", "Jobs in front of the model", ["kind"])
_JOBS = {kind: JOBS.labels(kind.name.lower()) for kind in Kind}
STEP = Gauge("duting_degradation_step", "0 all … 4 new calls refused")
QUEUE_WAIT = Histogram(
    "duting_queue_wait_seconds",
    "Utterance cut → batch started",
    ["kind"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.7, 1.2, 2.5, 5, 10),
)
BATCH_SIZE = Histogram("duting_batch_size", "Jobs per batch", buckets=(1, 2, 4, 8, 16, 32, 64))
BATCH_SECONDS = Histogram(
    "duting_batch_seconds", "Model time of a batch", buckets=(0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 10)
)
MODEL = Counter("duting_model_seconds", "Worker time in batches, shared among their jobs", ["kind"])
_MODEL = {kind: MODEL.labels(kind.name.lower()) for kind in Kind}
READ = Counter("duting_model_jobs", "Jobs that went through the model", ["kind"])
_READ = {kind: READ.labels(kind.name.lower()) for kind in Kind}
SPEECH = Counter("duting_speech_seconds", "Speech sent to the model as finals")
REJECTED = Counter("duting_readings_rejected", "Readings that a guard refused", ["reason"])
READ_AHEAD = Counter("duting_finals_read_ahead", "Finals that had been read when their silence was over")
RETRIES = Counter("duting_retries", "Suspicious readings sent again", ["reason"])
RECITED = Counter("duting_readings_recited", "Of the prompt's words, read again without it", ["kept"])


class Recogniser:
    """One per process. Every method belongs to one event loop.

    Args:
        on_final: gets exactly one ``Recognised`` per final utterance submitted, also when the model fails.
        on_partial: gets those partials that were worth the model's time.
        on_step: told when the degradation step has changed.
    """

    BATCH_TIMEOUT_S = 120.0
    PROMPTS = 256
    """Prompts kept ready: calls differ in the few words of their metadata. The oldest goes."""

    def __init__(
        self,
        transcriber: Transcriber,
        on_final: Callable[[Recognised], None],
        on_partial: Callable[[Recognised], None],
        on_step: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transcriber = transcriber
        self._on_final, self._on_partial, self._on_step = on_final, on_partial, on_step
        self._clock = clock
        self._scheduler: Scheduler[Task | Search] = Scheduler(transcriber.largest_batch)
        self.degradation = Degradation()
        self.headroom = Headroom(transcriber.workers, transcriber.speech_cost)
        self._prompts: dict[str, Prompt] = {}
        self._free = transcriber.workers
        self._retrying = 0
        """Workers that are busy with a retry."""
        self._pool = ThreadPoolExecutor(
            transcriber.workers, thread_name_prefix="model", initializer=transcriber.enter
        )
        self._running: set[asyncio.Task[None]] = set()
        self._parts: dict[tuple[str, str], Parts] = {}
        """By channel: what was read of the utterance in progress. Goes with its final, or with the call."""
        self._ending: dict[int, tuple[Kind, Task]] = {}
        """Finals that wait for parts which are in the model, by the identity of their ``Parts``."""
        self._eased = asyncio.Event()
        """Set whenever a batch is done."""

    def prompt(self, text: str) -> Prompt:
        if text not in self._prompts:
            if len(self._prompts) >= self.PROMPTS:
                del self._prompts[next(iter(self._prompts))]
            self._prompts[text] = self._transcriber.prompt(text)
        return self._prompts[text]

    def submit(self, utterance: Utterance, prompt: Prompt, live: bool, suspected: bool = False) -> None:
        """Queue an utterance; the answer comes to ``on_final`` or, perhaps, ``on_partial``.

        ``live``: somebody waits for it; a recording that is replayed gives way. ``suspected``: a partial has
        raised an alert that the final is to bear out.
        """
        now = self._clock()
        channel = (utterance.call_id, utterance.channel)
        parts = self._parts.get(channel)
        if parts is None or parts.utterance_id != utterance.utterance_id:
            parts = Parts(utterance.utterance_id, utterance.start_ms)
        if not utterance.final:
            self._parts[channel] = parts
            breath = utterance.endpoint == "breath"
            part = parts.next(utterance, whole=not self.headroom.is_busy(now)) if breath else None
            task = Task(utterance, prompt, now, parts, part)
            if utterance.end_ms > parts.next_ms():
                self._queue(task, Kind.AHEAD if breath else Kind.PARTIAL, now)
        else:
            SPEECH.inc(utterance.duration_ms / 1000)
            self._parts.pop(channel, None)
            kind = (Kind.SUSPICIOUS if suspected else Kind.FINAL) if live else Kind.BACKGROUND
            self._end(Task(utterance, prompt, now), parts, kind)
        self._dispatch()

    def _end(self, final: Task, parts: Parts, kind: Kind) -> None:
        """Read an utterance that has ended, or as much of it as was not read yet."""
        now = self._clock()
        covered = parts.covers(final.utterance)
        # Read in one piece it reads better: worth its time as long as there is some.
        reads_again = not (covered and parts.whole) and not self.headroom.is_busy(now)
        if not parts.parts or parts.failed or reads_again:
            self._queue(final, kind, now)
            return
        READ_AHEAD.inc()
        self.headroom.was_final(sum(part.seconds for part in parts.parts), now)
        self._ending[id(parts)] = (kind, final)
        if not covered:
            part = parts.next(final.utterance)
            parts.taken(part)
            self._queue(replace(final, parts=parts, part=part), kind, now)
        elif parts.done:
            # Not at once: whoever submits must come to know of the final before its answer.
            call_id = final.utterance.call_id
            asyncio.get_running_loop().call_soon(self._guarded, call_id, lambda: self._join(parts))

    def _join(self, parts: Parts) -> None:
        """All parts of an utterance that has ended are read."""
        ending = self._ending.pop(id(parts), None)
        if ending is None:
            return  # a part that a longer one has replaced came late
        kind, final = ending
        final = replace(final, asr_s=parts.parts[-1].seconds)
        believed = [r for r in parts.readings if rejected(r, final.prompt.text) is None]
        if parts.whole:
            self._answered(final, parts.parts[0].reading, parts.parts[0].decided)
        elif parts.failed or len(believed) < len(parts.readings):
            self._queue(final, kind, self._clock())
            self._dispatch()
        else:
            self._answered(final, joined(believed) if believed else parts.parts[-1].reading, False)

    def forget(self, call_id: str) -> None:
        """The call is over."""
        for channel in [channel for channel in self._parts if channel[0] == call_id]:
            del self._parts[channel]

    def locate(
        self, utterance: Utterance, prompt: Prompt, text: str, answer: Callable[[tuple[Word, ...]], None]
    ) -> None:
        """Ask when the words of a final's ``text`` were said; ``answer`` gets none when there is no time.

        Times are media time. ``answer`` is called exactly once, perhaps at once.
        """
        if self.degradation.step >= 3:
            answer(())
            return
        search = Search(utterance, prompt, text, answer)
        shape = Shape(window_for(utterance.duration_ms / 1000), WITHOUT_PROMPT)
        job: Job[Task | Search] = Job(
            (utterance.call_id, utterance.channel), Kind.WORDS, shape, self._clock(), search
        )
        if self._scheduler.submit(job):
            answer(())
        self._dispatch()

    async def ready(self, most_waiting: int) -> None:
        """Return when at most ``most_waiting`` jobs wait: back-pressure for what is not paced by speech."""
        while len(self._scheduler) > most_waiting:
            self._eased.clear()
            await self._eased.wait()

    def tick(self) -> None:
        """Call a few times a second: an idle model measures no waits, and neither does one that is stuck."""
        self._measure(self._scheduler.oldest_final_wait(self._clock()))
        self._dispatch()

    def partial_pace_ms(self) -> int | None:
        """Speech between two partials of an utterance that the machine can bear now; ``None``: none."""
        return self.headroom.partial_pace_ms(self._clock())

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    # ── the way through the model ─────────────────────────────────────────────────────────────────

    def _queue(self, task: Task, kind: Kind, now: float) -> None:
        utterance = task.utterance
        frames = window_for(len(task.pcm) / 32_000)
        # A beginning will be read again, a final will not.
        lasts = task.utterance.final or task.part is not None
        if kind is Kind.RETRY or (task.doubted is not None and lasts):
            frames = retry_window_for(frames)
        shape = Shape(frames, len(self._told(task).tokens))
        job: Job[Task | Search] = Job((utterance.call_id, utterance.channel), kind, shape, now, task)
        for gone in self._scheduler.submit(job):
            if gone is job:
                self._settle(task, task.first)

    def _told(self, task: Task) -> Prompt:
        """What the model is told before it reads."""
        return task.prompt if task.doubted is None else self.prompt("")

    def _dispatch(self) -> None:
        while self._free:
            last = self._free == 1 and self._retrying > 0
            batch = self._scheduler.next_batch(self._clock(), last_worker=last)
            if batch is None:
                break
            self._free -= 1
            self._retrying += batch.jobs[0].kind is Kind.RETRY
            for job in batch.jobs:
                if job.kind is Kind.AHEAD and isinstance(job.payload, Task):
                    self._into_model(job.payload)
            task = asyncio.create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        for kind, gauge in _JOBS.items():
            gauge.set(self._scheduler.waiting(kind))

    @staticmethod
    def _into_model(task: Task) -> None:
        if task.parts is not None and task.part is not None:
            task.parts.taken(task.part)

    async def _run(self, batch: Batch[Task | Search]) -> None:
        started = self._clock()
        tasks = [job.payload for job in batch.jobs if isinstance(job.payload, Task)]
        found: list[Reading | tuple[Word, ...] | None]
        try:
            if tasks:
                found = [*await self._read(tasks, batch.shape)]
            else:
                found = [
                    await self._search(job.payload) for job in batch.jobs if isinstance(job.payload, Search)
                ]
        finally:
            self._free += 1
            self._retrying -= batch.jobs[0].kind is Kind.RETRY
            self._eased.set()
        seconds = self._clock() - started
        self._scheduler.cost.learn(batch.shape, len(batch.jobs), seconds)
        # Second readings and word times are given up before a final has to wait: they need no room.
        needed = sum(map(self._is_needed, batch.jobs)) / len(batch.jobs)
        self.headroom.worked(seconds * (1 - needed), finals=False, now_s=self._clock())
        self.headroom.worked(seconds * needed, finals=True, now_s=self._clock())
        BATCH_SIZE.observe(len(batch.jobs))
        BATCH_SECONDS.observe(seconds)
        for job, answer in zip(batch.jobs, found, strict=True):
            wait = started - job.arrived_s
            QUEUE_WAIT.labels(job.kind.name.lower()).observe(wait)
            _MODEL[job.kind].inc(seconds / len(batch.jobs))
            _READ[job.kind].inc()
            if job.kind in FINALS:
                self._measure(wait)
            if isinstance(job.payload, Search):
                tell, words = job.payload.answer, answer if isinstance(answer, tuple) else ()
                self._guarded(job.call_id, partial(tell, words))
            else:
                task = replace(job.payload, asr_s=job.payload.asr_s + seconds)
                reading = answer if isinstance(answer, Reading) else None
                share_s = seconds / len(batch.jobs)
                self._guarded(job.call_id, partial(self._answer, job.kind, task, reading, share_s))
        self._dispatch()

    @staticmethod
    def _is_needed(job: Job[Task | Search]) -> bool:
        """Whether it is a final's, so that its time cannot be saved."""
        if job.kind is Kind.DOUBTED:
            return isinstance(job.payload, Task) and job.payload.utterance.final
        return job.kind in (*FINALS, Kind.BACKGROUND)

    async def _read(self, tasks: list[Task], shape: Shape) -> list[Reading | None]:
        """Readings in order; ``None`` where the model failed. A batch that fails is tried job by job."""
        requests = [Request(task.pcm, self._told(task)) for task in tasks]
        loop = asyncio.get_running_loop()
        try:
            work = loop.run_in_executor(self._pool, self._transcriber.transcribe, requests, shape.frames)
            return list(await asyncio.wait_for(work, self.BATCH_TIMEOUT_S))
        except Exception as error:
            # Whatever the engine throws must not end the path: the utterance then has an empty transcript.
            log.error("model.failed", batch=len(tasks), frames=shape.frames, error=type(error).__name__)
        if len(tasks) == 1:
            return [None]
        return [reading for task in tasks for reading in await self._read([task], shape)]

    async def _search(self, search: Search) -> tuple[Word, ...]:
        """Words in media time; none where the model failed."""
        utterance = search.utterance
        request = Request(utterance.pcm, search.prompt)
        loop = asyncio.get_running_loop()
        try:
            work = loop.run_in_executor(self._pool, self._transcriber.locate, request, search.text)
            words = await asyncio.wait_for(work, self.BATCH_TIMEOUT_S)
        except Exception as error:
            # Times are a refinement: without them the places stay as they were estimated.
            log.error("words.failed", call_id=utterance.call_id, error=type(error).__name__)
            return ()
        shift = utterance.start_ms
        return tuple(
            Word(text=word.text, start_ms=word.start_ms + shift, end_ms=word.end_ms + shift) for word in words
        )

    def _measure(self, wait_s: float) -> None:
        if not self.degradation.observe(wait_s, self._clock()):
            return
        step = self.degradation.step
        STEP.set(step)
        log.warning("degradation", step=step, name=self.degradation.name)
        if step >= 2:
            self._scheduler.give_up(Kind.PARTIAL)
            self._scheduler.give_up(Kind.AHEAD)
        if step >= 3:
            for job in (*self._scheduler.give_up(Kind.RETRY), *self._scheduler.give_up(Kind.WORDS)):
                if isinstance(job.payload, Search):
                    job.payload.answer(())
                else:
                    self._settle(job.payload, job.payload.first)
        self._on_step()

    # ── what is believed ──────────────────────────────────────────────────────────────────────────

    def _answer(self, kind: Kind, task: Task, reading: Reading | None, share_s: float) -> None:
        """Take a reading of the model's. ``share_s``: of the batch's time, this reading's part."""
        if task.part is not None:
            task.part.seconds += share_s
            if id(task.parts) in self._ending and not task.utterance.final:
                self.headroom.was_final(share_s, self._clock())
        told = task.doubted
        if told is not None:
            if reading is not None:
                reading = decided(told, reading, task.prompt.text)
            RECITED.labels("yes" if reading is told else "no").inc()
            task = replace(task, doubted=None)
        elif reading is not None and recited(reading, task.prompt.text):
            # No evidence, neither for a final nor for a beginning, before it was read without the prompt.
            again = kind if kind is Kind.BACKGROUND else Kind.DOUBTED
            self._queue(replace(task, doubted=reading), again, self._clock())
            return
        if task.part is None or task.parts is None:
            self._answered(task, reading, told is not None)
            return
        parts = task.parts
        task.part.done, task.part.reading, task.part.decided = True, reading, told is not None
        if id(parts) not in self._ending:
            self._answered(task, reading, told is not None)
            return
        if parts.done:
            self._join(parts)

    @staticmethod
    def _guarded(call_id: str, tell: Callable[[], None]) -> None:
        """A detector that fails on one text must not cost the other calls of the batch theirs."""
        try:
            tell()
        except Exception as error:
            # The message may quote the text: only the place is logged.
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error(
                "answer.failed",
                call_id=call_id,
                error=type(error).__name__,
                at=f"{place.filename}:{place.lineno}",
            )

    def _answered(self, task: Task, reading: Reading | None, is_decided: bool) -> None:
        """``is_decided``: it was also read without the prompt, and in a larger window."""
        if not task.utterance.final:
            if reading is not None and rejected(reading, task.prompt.text) is None:
                self._tell_partial(task, reading)
        elif reading is None:
            self._settle(task, task.first)
        elif task.first is not None:
            self._settle(task, max((task.first, reading), key=lambda r: self._belief(r, task)))
        else:
            doubt = None if is_decided else suspicious(reading)
            if doubt is None or self.degradation.step >= 3:
                self._settle(task, reading)
            else:
                RETRIES.labels(doubt).inc()
                self._queue(replace(task, first=reading), Kind.RETRY, self._clock())

    def _tell_partial(self, task: Task, reading: Reading) -> None:
        """Show what was read behind the parts before it; not while one of these is still in the model."""
        parts = task.parts
        before = (parts.before(task.part) if task.part else parts.parts) if parts else []
        overtaken = task.part is None and any(p.end_ms > task.utterance.end_ms for p in before)
        if overtaken or not all(part.done for part in before):
            return
        if parts is not None:
            if task.utterance.end_ms < parts.told_ms:
                return  # it was read twice, and a longer one meanwhile
            parts.told_ms = task.utterance.end_ms
        # What a guard refused is no evidence behind a partial either.
        heard = [p.reading for p in before if p.reading and rejected(p.reading, task.prompt.text) is None]
        whole = joined([*heard, reading])
        read = len(whole.text) - (0 if task.part else len(reading.text))
        self._on_partial(replace(self._recognised(task, whole, None), read=read))

    @staticmethod
    def _belief(reading: Reading, task: Task) -> tuple[bool, float]:
        return rejected(reading, task.prompt.text) is None, reading.log_probability

    def _settle(self, task: Task, reading: Reading | None) -> None:
        refused = "model_failed" if reading is None else rejected(reading, task.prompt.text)
        if refused is not None:
            REJECTED.labels(refused).inc()
        self.headroom.served(task.utterance.duration_ms / 1000, self._clock())
        self._on_final(self._recognised(task, reading, refused))

    def _recognised(self, task: Task, reading: Reading | None, refused: str | None) -> Recognised:
        utterance = task.utterance
        believed = reading if refused is None else None
        transcript = Transcript(
            call_id=utterance.call_id,
            utterance_id=utterance.utterance_id,
            role=utterance.channel,
            start_ms=utterance.start_ms,
            end_ms=utterance.end_ms,
            text=believed.text if believed else "",
            final=utterance.final,
            confidence=round(math.exp(min(0.0, believed.log_probability)), 3) if believed else None,
            rejected=refused,
        )
        return Recognised(transcript, utterance, task.cut_s, self._clock(), task.asr_s)
