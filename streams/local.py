"""The runner on one machine: asyncio around the pure parts, the model in worker threads.

The path of one call: ``hear`` (an edge hands in ordered frames) → the call's listeners → the scheduler
in front of the model → the call's detector → ``emit`` (the outlet). Voice detection runs on the event
loop, sixty times faster than real time, so that no queue is needed in front of it: what the loop has not
yet taken waits in the socket, whose buffer is the bound, and a peer that sends faster is slowed by TCP.

Bounds and what happens at them:

* jobs in front of the model: see ``batching``; when finals wait too long, ``degrade`` acts
* events on their way to the outlet: finals, alerts and call events are never dropped (their number follows
  from the speech admitted); partials and speech edges are dropped while more than ``CROWDED`` wait
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import structlog
from msgspec.structs import replace
from prometheus_client import Counter, Gauge, Histogram

from streams.batching import Batch, Job, Kind, Scheduler, Shape
from streams.call import CallDetector, LiveCall
from streams.degrade import Degradation
from streams.events import (
    AudioFrame,
    CallEnded,
    CallInfo,
    CallStarted,
    CallUpdated,
    Channel,
    Detection,
    Gap,
    Health,
    Latency,
    OutletEvent,
    RuleCard,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    Utterance,
)
from streams.guards import Reading, rejected, suspicious
from streams.listen import Endpointing, Heard
from streams.raising import raised
from streams.transcribe import FULL_WINDOW, Prompt, Request, Transcriber, window_for
from streams.vad import SileroVad, Vad

log = structlog.get_logger(__name__)

CALLS = Gauge("duting_calls", "Calls in progress")
JOBS = Gauge("duting_jobs_waiting", "Jobs in front of the model", ["kind"])
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
AUDIO = Counter("duting_audio_seconds", "Audio received, all channels")
SPEECH = Counter("duting_speech_seconds", "Speech sent to the model as finals")
GAPS = Counter("duting_gap_seconds", "Audio that never came or was dropped", ["reason"])
REJECTED = Counter("duting_readings_rejected", "Readings that a guard refused", ["reason"])
RETRIES = Counter("duting_retries", "Suspicious readings sent again", ["reason"])
DETECTIONS = Counter("duting_detections", "What rules found", ["rule"])
DROPPED = Counter("duting_events_dropped", "Replaceable events dropped on the way to the outlet")


class CallRefused(Exception):
    """The call cannot be taken. ``retryable``: it may be, a little later."""

    def __init__(self, message: str, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class FrameSink(Protocol):
    """Keeps a call's audio; ``app.recorder.Recorders`` is one. None of these may block."""

    def start(self, call: CallInfo) -> None: ...

    def frame(self, frame: AudioFrame) -> None: ...

    async def close(self, call_id: str, media_ms: int) -> None: ...


@dataclass(frozen=True, slots=True)
class _Task:
    utterance: Utterance
    cut_s: float
    first: Reading | None = None
    """Of the short window, when this is a retry."""
    queue_s: float = 0.0
    """Waited so far, on earlier passes."""
    asr_s: float = 0.0


@dataclass(slots=True)
class _Open:
    """A call as the runner holds it."""

    live: LiveCall
    prompt: Prompt
    paced: bool
    drained: asyncio.Event
    """Set while the model owes this call nothing."""
    partials: int = 0
    finished: dict[Channel, int] | None = None
    """Media time of the last final cut per channel: a partial from before it is stale."""


class LocalRunner:
    """Runs all calls of one process. Every method belongs to the event loop that ``start`` ran on.

    Args:
        transcriber: the one model.
        detector: makes a call's detector from its metadata.
        card: what raising needs to know of a rule.
        prompt: the bias for a call, as text.
        redact: masks personal data, keeping lengths.
        emit: stores and publishes events; raises when it cannot, and is then tried again.
        audio: keeps the recordings, or ``None``.
        most_calls: beyond this, new calls are refused.
    """

    CROWDED = 5_000
    BATCH_TIMEOUT_S = 120.0
    TICK_S = 0.1
    STALLED_S = 0.6
    """A paced call that has sent nothing for this long: its media time goes on by the clock."""
    LONGEST_PARTIAL_MS = 10_000
    DRAIN_TIMEOUT_S = 60.0

    def __init__(
        self,
        *,
        transcriber: Transcriber,
        detector: Callable[[CallInfo], CallDetector],
        card: Callable[[str], RuleCard],
        prompt: Callable[[CallInfo], str],
        redact: Callable[[str], str],
        emit: Callable[[Sequence[OutletEvent]], Awaitable[object]],
        audio: FrameSink | None,
        most_calls: int,
        vad: Callable[[], Vad] = SileroVad,
        endpointing: Endpointing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transcriber, self._detector, self._card = transcriber, detector, card
        self._prompt_text, self._redact, self._emit = prompt, redact, emit
        self._audio, self._most_calls = audio, most_calls
        self._vad, self._endpointing, self._clock = vad, endpointing, clock
        self._scheduler: Scheduler[_Task] = Scheduler(transcriber.largest_batch)
        self._degradation = Degradation()
        self._calls: dict[str, _Open] = {}
        self._prompts: dict[str, Prompt] = {}
        self._free = transcriber.workers
        self._pool = ThreadPoolExecutor(transcriber.workers, thread_name_prefix="model")
        self._running: set[asyncio.Task[None]] = set()
        self._outbox: deque[OutletEvent] = deque()
        self._eased = asyncio.Event()
        """Set whenever a batch is done."""
        self._posted = asyncio.Event()
        self._delivered = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # ── life ──────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._tick(), name="timers"),
            asyncio.create_task(self._deliver(), name="deliver"),
        ]

    async def stop(self) -> None:
        """End every call as interrupted, wait for what the model owes and for the outlet."""
        await asyncio.gather(*(self.close(call_id, "interrupted") for call_id in list(self._calls)))
        await self.flush()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def flush(self) -> None:
        """Wait until everything posted so far is stored."""
        while self._outbox:
            self._delivered.clear()
            await self._delivered.wait()

    @property
    def calls(self) -> int:
        return len(self._calls)

    def health(self) -> Health:
        return Health(
            step=self._degradation.step,
            name=self._degradation.name,
            queue_wait_ms=round(self._degradation.wait_s * 1000, 1),
            calls=len(self._calls),
        )

    # ── a call ────────────────────────────────────────────────────────────────────────────────────

    def open(self, info: CallInfo, paced: bool) -> None:
        """Begin a call. ``paced``: it arrives in real time (a replay may come faster).

        Raises ``CallRefused`` when the id is in use or there is no room.
        """
        if info.call_id in self._calls:
            raise CallRefused(
                f"the call {info.call_id} is in progress already; give each call an id of its own",
                retryable=False,
            )
        if len(self._calls) >= self._most_calls or self._degradation.step == 4:
            raise CallRefused(
                f"no room for another call ({len(self._calls)} in progress, "
                f"step {self._degradation.name}); try again in a few seconds",
                retryable=True,
            )
        live = LiveCall(info, self._detector(info), self._vad, self._endpointing)
        drained = asyncio.Event()
        drained.set()
        self._calls[info.call_id] = _Open(live, self._prompt(info), paced, drained, finished={})
        CALLS.set(len(self._calls))
        if self._audio is not None:
            self._audio.start(info)
        started = CallStarted(call=info)
        self._post([started])
        self._raise(live, live.detector.on_event(started), None)
        log.info("call.started", call_id=info.call_id, protocol=info.protocol)

    def update(self, info: CallInfo) -> None:
        """The telephony knows more now: metadata of the call has changed."""
        call = self._calls[info.call_id]
        call.live.info = info
        updated = CallUpdated(call=info, media_ms=call.live.media_ms)
        self._post([updated])
        self._raise(call.live, call.live.detector.on_event(updated), None)

    def hear(self, item: AudioFrame | Gap) -> None:
        """Take the next frame, or gap, of a call in progress; ``KeyError`` if there is no such call."""
        call, now = self._calls[item.call_id], self._clock()
        if isinstance(item, Gap):
            GAPS.labels(item.reason).inc(item.duration_ms / 1000)
            self._post([item])
        else:
            AUDIO.inc(item.duration_ms / 1000)
            if self._audio is not None:
                self._audio.frame(item)
        self._heard(call, call.live.hear(item, now), now)
        self._wake(call, call.live.watermark_ms)

    async def ready(self) -> None:
        """Back-pressure for a caller that is not paced by a telephone: returns when the model keeps up."""
        while len(self._scheduler) > 8:
            self._eased.clear()
            await self._eased.wait()
        await asyncio.sleep(0)

    async def close(self, call_id: str, reason: str) -> None:
        """End a call: cut what is being said, wait for its finals, then tell everybody."""
        call = self._calls.get(call_id)
        if call is None:
            return
        now = self._clock()
        self._heard(call, call.live.finish(), now)
        media_ms = call.live.media_ms
        try:
            await asyncio.wait_for(call.drained.wait(), self.DRAIN_TIMEOUT_S)
        except TimeoutError:
            log.error("call.not_drained", call_id=call_id, owed=call.live.pending)
        if self._calls.get(call_id) is not call:
            return
        ended = CallEnded(call_id=call_id, media_ms=media_ms, reason=reason)  # type: ignore[arg-type]
        self._raise(call.live, call.live.detector.on_event(ended), None)
        if self._audio is not None:
            await self._audio.close(call_id, media_ms)
        self._calls.pop(call_id, None)
        CALLS.set(len(self._calls))
        self._post([ended])
        log.info("call.ended", call_id=call_id, reason=reason, media_ms=media_ms, gap_ms=call.live.gap_ms)

    # ── listen → transcribe ───────────────────────────────────────────────────────────────────────

    def _heard(self, call: _Open, heard: list[Heard], now: float) -> None:
        for item in heard:
            if isinstance(item, SpeechStarted | SpeechStopped):
                self._post([item])
                self._raise(call.live, call.live.edge(item), None)
            elif item.final or self._wants(call, item):
                self._submit(call, _Task(item, now), Kind.FINAL if item.final else Kind.PARTIAL, now)
        self._dispatch()

    def _wants(self, call: _Open, partial: Utterance) -> bool:
        call.partials += 1
        step = self._degradation.step
        # A replay that runs faster than speech has nobody to show partials to.
        return (
            call.paced
            and partial.duration_ms <= self.LONGEST_PARTIAL_MS
            and (step == 0 or (step == 1 and call.partials % 2 == 0))
        )

    def _submit(self, call: _Open, task: _Task, kind: Kind, now: float) -> None:
        utterance = task.utterance
        frames = FULL_WINDOW if kind is Kind.RETRY else window_for(utterance.duration_ms / 1000)
        if kind is Kind.FINAL:
            call.drained.clear()
            assert call.finished is not None
            call.finished[utterance.channel] = utterance.end_ms
            SPEECH.inc(utterance.duration_ms / 1000)
        job = Job(
            (utterance.call_id, utterance.channel), kind, Shape(frames, len(call.prompt.tokens)), now, task
        )
        for gone in self._scheduler.submit(job):
            if gone is job and task.first is not None:
                self._settle(call, task, task.first)

    def _prompt(self, info: CallInfo) -> Prompt:
        text = self._prompt_text(info)
        if text not in self._prompts:
            self._prompts[text] = self._transcriber.prompt(text)
        return self._prompts[text]

    def _dispatch(self) -> None:
        while self._free:
            batch = self._scheduler.next_batch(self._clock())
            if batch is None:
                break
            self._free -= 1
            task = asyncio.create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        for kind in Kind:
            JOBS.labels(kind.name.lower()).set(self._scheduler.waiting(kind))

    async def _run(self, batch: Batch[_Task]) -> None:
        started = self._clock()
        jobs = [job for job in batch.jobs if job.channel[0] in self._calls]
        try:
            readings = await self._read(jobs, batch.shape)
        finally:
            self._free += 1
            self._eased.set()
        seconds = self._clock() - started
        if jobs:
            self._scheduler.cost.learn(batch.shape, len(jobs), seconds)
            BATCH_SIZE.observe(len(jobs))
            BATCH_SECONDS.observe(seconds)
        for job, reading in zip(jobs, readings, strict=True):
            wait = started - job.arrived_s
            QUEUE_WAIT.labels(job.kind.name.lower()).observe(wait)
            if job.kind in (Kind.FINAL, Kind.SUSPICIOUS):
                self._measure(wait)
            call = self._calls.get(job.channel[0])
            if call is not None:
                task = job.payload
                timed = _Task(
                    task.utterance, task.cut_s, task.first, task.queue_s + wait, task.asr_s + seconds
                )
                self._answered(call, job.kind, timed, reading)
        self._dispatch()

    async def _read(self, jobs: list[Job[_Task]], shape: Shape) -> list[Reading | None]:
        """Readings in order; ``None`` where the model failed. A batch that fails is tried job by job."""
        if not jobs:
            return []
        requests = [Request(job.payload.utterance.pcm, self._calls[job.channel[0]].prompt) for job in jobs]
        loop = asyncio.get_running_loop()
        try:
            return list(
                await asyncio.wait_for(
                    loop.run_in_executor(self._pool, self._transcriber.transcribe, requests, shape.frames),
                    self.BATCH_TIMEOUT_S,
                )
            )
        except Exception as error:
            log.error("model.failed", batch=len(jobs), frames=shape.frames, error=type(error).__name__)
        if len(jobs) == 1:
            return [None]
        return [reading for job in jobs for reading in await self._read([job], shape)]

    def _measure(self, wait_s: float) -> None:
        if self._degradation.observe(wait_s, self._clock()):
            STEP.set(self._degradation.step)
            log.warning("degradation", step=self._degradation.step, name=self._degradation.name)
            self._post([self.health()])
            if self._degradation.step >= 2:
                self._scheduler.give_up(Kind.PARTIAL)
            if self._degradation.step >= 3:
                for job in self._scheduler.give_up(Kind.RETRY):
                    call = self._calls.get(job.channel[0])
                    if call is not None and job.payload.first is not None:
                        self._settle(call, job.payload, job.payload.first)

    # ── transcribe → detect → raise ───────────────────────────────────────────────────────────────

    def _answered(self, call: _Open, kind: Kind, task: _Task, reading: Reading | None) -> None:
        if kind is Kind.PARTIAL:
            self._partial(call, task.utterance, reading)
            return
        if reading is None:
            self._settle(call, task, task.first)
            return
        if task.first is not None:
            better = max((reading, task.first), key=lambda r: (not self._refused(r, call), r.log_probability))
            self._settle(call, task, better)
            return
        doubt = suspicious(reading)
        if doubt is None or self._degradation.step >= 3:
            self._settle(call, task, reading)
            return
        RETRIES.labels(doubt).inc()
        retry = _Task(task.utterance, task.cut_s, reading, task.queue_s, task.asr_s)
        self._submit(call, retry, Kind.RETRY, self._clock())

    def _refused(self, reading: Reading, call: _Open) -> str | None:
        return rejected(reading, call.prompt.text)

    def _transcript(self, utterance: Utterance, reading: Reading | None, refused: str | None) -> Transcript:
        believed = reading is not None and refused is None
        return Transcript(
            call_id=utterance.call_id,
            utterance_id=utterance.utterance_id,
            role=utterance.channel,
            start_ms=utterance.start_ms,
            end_ms=utterance.end_ms,
            text=reading.text if reading is not None and believed else "",
            final=utterance.final,
            confidence=round(math.exp(min(0.0, reading.log_probability)), 3)
            if reading is not None and believed
            else None,
            rejected=refused,
        )

    def _partial(self, call: _Open, utterance: Utterance, reading: Reading | None) -> None:
        assert call.finished is not None
        stale = utterance.start_ms < call.finished.get(utterance.channel, -1)
        if stale or reading is None or self._refused(reading, call):
            return
        transcript = self._transcript(utterance, reading, None)
        self._post([replace(transcript, text=self._redact(transcript.text))])

    def _settle(self, call: _Open, task: _Task, reading: Reading | None) -> None:
        """The final word on an utterance: exactly one transcript leaves, empty if nothing is believed."""
        refused = "model_failed" if reading is None else self._refused(reading, call)
        if refused is not None:
            REJECTED.labels(refused).inc()
        transcript = self._transcript(task.utterance, reading, refused)
        done_s = self._clock()
        for ready, detections in call.live.transcribed(transcript):
            self._post([replace(ready, text=self._redact(ready.text))])
            # A transcript that waited for the one before it has waited in a queue.
            self._raise(call.live, detections, (task, done_s))
        if not call.live.pending:
            call.drained.set()

    def _raise(self, live: LiveCall, detections: list[Detection], timed: tuple[_Task, float] | None) -> None:
        now = self._clock()
        for detection in detections:
            DETECTIONS.labels(detection.rule_id).inc()
            latency = self._latency(live, detection, timed, now)
            self._post(raised(detection, self._card(detection.rule_id), latency, self._redact))

    def _latency(
        self, live: LiveCall, detection: Detection, timed: tuple[_Task, float] | None, now: float
    ) -> Latency:
        entered = [a.entered(detection.media_end_ms) for c, a in live.arrivals.items() if c == detection.role]
        entered = entered or [a.entered(detection.media_end_ms) for a in live.arrivals.values()]
        since = max((e for e in entered if e is not None), default=now)

        def ms(seconds: float) -> float:
            return round(max(0.0, seconds) * 1000, 1)

        if timed is None:
            return Latency(vad=ms(now - since), queue=0.0, asr=0.0, rules=0.0)
        task, done_s = timed
        queue = max(0.0, done_s - task.cut_s - task.asr_s)
        return Latency(
            vad=ms(task.cut_s - since), queue=ms(queue), asr=ms(task.asr_s), rules=ms(now - done_s)
        )

    # ── timers and delivery ───────────────────────────────────────────────────────────────────────

    def _wake(self, call: _Open, now_ms: int) -> None:
        self._raise(call.live, call.live.wake(now_ms), None)

    async def _tick(self) -> None:
        """Serve timers of calls that send nothing, and notice when finals wait."""
        while True:
            await asyncio.sleep(self.TICK_S)
            now = self._clock()
            for call in list(self._calls.values()):
                silent_s = now - (call.live.last_arrival_s or now)
                if call.paced and silent_s > self.STALLED_S:
                    self._wake(call, call.live.media_ms + int(silent_s * 1000))
            # An idle model measures no waits; the average must still come down, and rise when it is stuck.
            self._measure(self._scheduler.oldest_final_wait(now))
            self._dispatch()

    def _post(self, events: Sequence[OutletEvent]) -> None:
        for event in events:
            replaceable = isinstance(event, SpeechStarted | SpeechStopped) or (
                isinstance(event, Transcript) and not event.final
            )
            if replaceable and len(self._outbox) > self.CROWDED:
                DROPPED.inc()
                continue
            self._outbox.append(event)
        self._posted.set()

    async def _deliver(self) -> None:
        """Hand events to the outlet in order, many at a time; they leave the outbox once they are stored."""
        pause = 0.1
        while True:
            await self._posted.wait()
            self._posted.clear()
            while self._outbox:
                events = list(self._outbox)[:500]
                try:
                    await self._emit(events)
                except Exception as error:
                    log.error("outlet.failed", waiting=len(self._outbox), error=type(error).__name__)
                    await asyncio.sleep(pause)
                    pause = min(5.0, pause * 2)
                    continue
                pause = 0.1
                for _ in events:
                    self._outbox.popleft()
                self._delivered.set()
