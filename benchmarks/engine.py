"""The real recognition engine between clips and answers; every single reading is kept."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from app.build import rules
from benchmarks.speech import CHUNK_MS, TELEPHONE_RATE, Clip
from detectors.panel import Panel
from detectors.rules import Pack
from streams.audio import MULAW, ChannelAudio
from streams.bias import bias
from streams.events import Alert, AudioFrame, CallInfo, Channel, Gap, OutletEvent, Transcript, Utterance, Word
from streams.guards import Reading
from streams.local import CallRefused, LocalRunner
from streams.recognise import Recogniser
from streams.transcribe import FULL_WINDOW, Prompt, Request, WhisperTranscriber
from streams.work import Recognised

Offer = Literal["batches", "live"]
"""``batches``: as a recording, so many at once that batches form. ``live``: one per worker, nobody waits."""
ROLES: tuple[Channel, ...] = ("agent", "customer")
ROUND_MS = 60
"""Audio of a channel that is handed in at a time: three chunks, about what the service takes in a round."""
REFUSED_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Pass:
    """One clip once through the model."""

    frames: int
    """Window, mel frames of 10 ms."""
    batch: int
    reading: Reading


class Watched:
    """A transcriber that keeps what it was asked and what it read. Thread-safe like the one inside."""

    def __init__(self, inner: WhisperTranscriber) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self.passes: dict[bytes, list[Pass]] = {}
        """By the clip's samples, in the order in which they were read."""
        self.busy_s = 0.0
        """Seconds in the model, over all workers."""

    @property
    def workers(self) -> int:
        return self._inner.workers

    @property
    def largest_batch(self) -> int:
        return self._inner.largest_batch

    @property
    def speech_cost(self) -> float:
        return self._inner.speech_cost

    def enter(self) -> None:
        self._inner.enter()

    def prompt(self, text: str) -> Prompt:
        return self._inner.prompt(text)

    def transcribe(self, requests: Sequence[Request], frames: int) -> list[Reading]:
        started = time.perf_counter()
        readings = self._inner.transcribe(requests, frames)
        seconds = time.perf_counter() - started
        with self._lock:
            self.busy_s += seconds
            for request, reading in zip(requests, readings, strict=True):
                self.passes.setdefault(request.pcm, []).append(Pass(frames, len(requests), reading))
        return readings

    def locate(self, request: Request, text: str) -> tuple[Word, ...]:
        return self._inner.locate(request, text)

    def warm_up(self) -> None:
        self._inner.warm_up()

    def forget(self) -> None:
        self.passes.clear()
        self.busy_s = 0.0


@dataclass
class Answer:
    """What the engine made of one clip."""

    clip: Clip
    transcript: Transcript
    passes: list[Pass]

    @property
    def retried(self) -> bool:
        return len(self.passes) > 1


@dataclass
class Cost:
    """Of a whole run, in seconds."""

    speech: float
    wall: float
    cpu: float
    """Of the whole process, all threads."""
    busy: float
    """In the model, over all workers."""

    def summary(self) -> dict[str, float]:
        return {
            "rtf": round(self.wall / self.speech, 4),
            "cpu_per_speech_second": round(self.cpu / self.speech, 4),
            "model_per_speech_second": round(self.busy / self.speech, 4),
        }


class Stopwatch:
    """Wall and processor time between two moments."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def cost(self, speech: float, busy: float) -> Cost:
        return Cost(speech, time.perf_counter() - self._wall, time.process_time() - self._cpu, busy)


def recognise(
    clips: Sequence[Clip], transcriber: Watched, prompt: str, offer: Offer
) -> tuple[list[Answer], Cost]:
    """Every clip as one final utterance through scheduler, retries and guards; answers in clip order."""
    pcm = [clip.heard.astype("<i2").tobytes() for clip in clips]
    transcriber.forget()
    finals: dict[str, Recognised] = {}

    async def run() -> Cost:
        answered = asyncio.Event()

        def on_final(recognised: Recognised) -> None:
            finals[recognised.transcript.call_id] = recognised
            answered.set()

        recogniser = Recogniser(transcriber, on_final, lambda _: None, lambda: None)
        told = recogniser.prompt(prompt)
        # Enough that a worker that becomes free finds mates for its leader; bounded.
        most = transcriber.workers if offer == "live" else 8 * transcriber.workers
        watch = Stopwatch()
        for index, samples in enumerate(pcm):
            while index - len(finals) >= most:
                answered.clear()
                await answered.wait()
            milliseconds = len(samples) // 32
            utterance = Utterance(
                call_id=str(index),
                channel="unknown",
                start_ms=0,
                end_ms=milliseconds,
                pcm=samples,
                final=True,
                endpoint="pause",
            )
            recogniser.submit(utterance, told, live=offer == "live")
        while len(finals) < len(pcm):
            answered.clear()
            await answered.wait()
        cost = watch.cost(sum(len(p) for p in pcm) / 32_000, transcriber.busy_s)
        recogniser.close()
        return cost

    cost = asyncio.run(run())
    answers = [
        Answer(clip, finals[str(index)].transcript, transcriber.passes.get(pcm[index], []))
        for index, clip in enumerate(clips)
    ]
    return answers, cost


def in_full_windows(clips: Sequence[Clip], transcriber: Watched, prompt: str) -> tuple[list[Reading], Cost]:
    """The reference: every clip alone in the full 30 s window, same prompt, no guard and no second try."""
    told = transcriber.prompt(prompt)
    transcriber.forget()
    requests = [Request(clip.heard.astype("<i2").tobytes(), told) for clip in clips]
    watch = Stopwatch()
    with ThreadPoolExecutor(transcriber.workers) as pool:
        readings = list(pool.map(lambda r: transcriber.transcribe([r], FULL_WINDOW)[0], requests))
    return readings, watch.cost(sum(r.seconds for r in requests), transcriber.busy_s)


# ── whole calls ────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Listened:
    """What the whole path made of one call."""

    name: str
    seconds: float
    """Of audio, one channel."""
    finals: list[Transcript] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    """Those that stand."""
    alerted: dict[str, float] = field(default_factory=dict)
    """By alert: seconds from the beginning of the call until it was raised."""
    started: float = 0.0
    """Clock at the call's first sample."""


Frames = Callable[[str], Sequence[AudioFrame | Gap]]
"""By call id: the frames of a call, all channels, in order."""


def both_sides(clip: Clip) -> Frames:
    """The clip on both channels of a call: rules listen to one of them each."""
    return telephone(dict.fromkeys(ROLES, clip.payload))


def telephone(payloads: Mapping[Channel, bytes]) -> Frames:
    """A call of these channels, G.711 mu-law at 8 kHz, in the pieces in which a wire brings it."""

    def frames(call_id: str) -> list[AudioFrame | Gap]:
        channels = {role: ChannelAudio(call_id, role, TELEPHONE_RATE, MULAW) for role in payloads}
        out: list[AudioFrame | Gap] = []
        step = TELEPHONE_RATE * CHUNK_MS // 1000
        for number, start in enumerate(range(0, max(map(len, payloads.values()), default=0), step)):
            for role, channel in channels.items():
                if piece := payloads[role][start : start + step]:
                    channel.put(number, number * CHUNK_MS, piece)
                if channel.ready_ms >= ROUND_MS:
                    out += channel.take()
        return out + [item for channel in channels.values() for item in channel.flush()]

    return frames


def listen(
    calls: Sequence[tuple[str, float, Frames]],
    transcriber: Watched,
    paced: bool,
    at_once: int,
    prompt: str | None = None,
    pack: Pack | None = None,
) -> tuple[list[Listened], Cost]:
    """Whole calls through the runner: VAD, endpointing, model, guards, the default pack's rules.

    ``paced``: in real time with partials, as a telephone brings them; else finals only, as fast as it goes.
    ``prompt`` replaces the service's own, ``pack`` the default one. ``Cost.speech`` is that of the finals.
    """
    pack = rules(None) if pack is None else pack
    out = {name: Listened(name, seconds) for name, seconds, _ in calls}

    async def emit(events: Sequence[OutletEvent]) -> None:
        for event in events:
            if isinstance(event, Alert):
                listened = out[event.call_id]
                # Raised again it has better times; withdrawn it was none.
                listened.alerts = [alert for alert in listened.alerts if alert.id != event.id]
                if event.state == "open":
                    listened.alerts.append(event)
                    listened.alerted.setdefault(event.id, time.monotonic() - listened.started)
            elif isinstance(event, Transcript) and event.final:
                out[event.call_id].finals.append(event)

    async def run() -> Cost:
        runner = LocalRunner(
            transcriber=transcriber,
            detector=lambda call: Panel(call, pack),
            prompt=lambda call: bias(call, pack.hot_words()) if prompt is None else prompt,
            redact=lambda text: text,
            emit=emit,
            audio=None,
            most_calls=len(calls) + 1,
        )
        room = asyncio.Semaphore(at_once)

        async def one(name: str, frames: Frames) -> None:
            async with room:
                info = CallInfo(call_id=name, channels=ROLES)
                while True:
                    try:
                        runner.open(info, paced=paced)
                        break
                    except CallRefused as refused:
                        # A busy machine takes the next file a little later.
                        if not refused.retryable:
                            raise
                        await asyncio.sleep(REFUSED_PAUSE_S)
                items = frames(name)
                started = out[name].started = time.monotonic()
                for item in items:
                    if paced:
                        due = started + (item.media_ms + ROUND_MS) / 1000
                        await asyncio.sleep(max(0.0, due - time.monotonic()))
                    runner.hear(item)
                    if not paced:
                        await runner.ready()
                await runner.close(name, "hangup")

        await runner.start()
        watch = Stopwatch()
        await asyncio.gather(*(one(name, frames) for name, _, frames in calls))
        await runner.flush()
        finals = sum(t.end_ms - t.start_ms for listened in out.values() for t in listened.finals)
        cost = watch.cost(max(finals / 1000, 1e-3), transcriber.busy_s)
        await runner.stop()
        return cost

    transcriber.forget()
    cost = asyncio.run(run())
    for listened in out.values():
        listened.finals.sort(key=lambda t: (t.start_ms, t.role))
    return list(out.values()), cost
