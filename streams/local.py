"""The runner on one machine: asyncio around the pure parts, the model in worker threads.

The path of one call: its ``Source`` (an edge) → the call's listeners → the recogniser → the call's detector
→ ``emit`` (the outlet). Every ``LISTEN_S`` the runner takes what has come for all calls and has it judged in
one run. That is done on the event loop, hundreds of times faster than real time; what waits in a source is
bounded there, and beyond that in the socket's buffer: a peer that sends faster is slowed by TCP. ``hear`` is
for an edge that hands in frames itself, such as a replay.

Bounds and what happens at them:

* jobs in front of the model: see ``batching``; when finals wait too long, ``degrade`` acts
* events on their way to the outlet: see ``outbox``
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import structlog
from msgspec.structs import replace
from prometheus_client import Counter, Gauge

from streams.agreement import settled
from streams.call import CallDetector, LiveCall, hear_together
from streams.events import (
    SAMPLE_RATE,
    AudioFrame,
    CallEnded,
    CallInfo,
    CallStarted,
    CallUpdated,
    Channel,
    Detection,
    Gap,
    Health,
    Hold,
    OutletEvent,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    Utterance,
    Word,
)
from streams.listen import Endpointing, Heard
from streams.outbox import Outbox
from streams.pacing import Pacing
from streams.recognise import Recogniser
from streams.telling import Teller
from streams.transcribe import Prompt, Transcriber
from streams.vad import SileroVad, Vad
from streams.work import Recognised

log = structlog.get_logger(__name__)

CALLS = Gauge("duting_calls", "Calls in progress")
AUDIO = Counter("duting_audio_seconds", "Audio received, all channels")
GAPS = Counter("duting_gap_seconds", "Audio that never came or was dropped", ["reason"])

EndReason = Literal["hangup", "disconnected", "interrupted", "error"]


class CallRefused(Exception):
    """The call cannot be taken. ``retryable``: it may be, a little later."""

    def __init__(self, message: str, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class FrameSink(Protocol):
    """Keeps a call's audio; ``app.recorder.Recorders`` is one. None of these may block."""

    def start(self, call: CallInfo, wire_rate: int) -> None: ...

    def frame(self, frame: AudioFrame) -> None: ...

    async def close(self, call_id: str, media_ms: int) -> None: ...


class Source(Protocol):
    """Where a call's audio waits until the runner comes round."""

    rate: int
    """Hertz at which it comes, before it is brought to ``SAMPLE_RATE``."""
    arrived_s: float
    """Clock at which the newest of it came in."""

    def take(self) -> Sequence[AudioFrame | Gap]:
        """What has come since the last time, each channel's in order."""
        ...


@dataclass(slots=True)
class _Open:
    """A call as the runner holds it."""

    live: LiveCall
    prompt: Prompt
    paced: bool
    source: Source | None
    drained: asyncio.Event
    """Set while the model owes this call nothing."""
    hypotheses: dict[str, str] = field(default_factory=dict)
    """The last partial text of each utterance that is still being said."""
    asked_ms: dict[Channel, int] = field(default_factory=dict)
    """Where the last partial of a channel ended that went to the model."""
    suspected: set[str] = field(default_factory=set)
    """Utterances still being said in which a partial has raised something."""
    searches: int = 0
    """Word times that the model still owes."""
    answers: dict[str, Recognised] = field(default_factory=dict)
    """Those that wait for the one before them on their channel."""
    finished_ms: dict[Channel, int] = field(default_factory=dict)
    """Where the last final of a channel ended: a partial from before it is stale."""


def _moved(detection: Detection, transcript: Transcript) -> Detection:
    """The detection at the times of its words."""
    spans = detection.evidence.spans
    start, end = transcript.time_of(min(a for a, _ in spans)), transcript.time_of(max(b for _, b in spans))
    return replace(detection, media_start_ms=start, media_end_ms=max(start, end))


class LocalRunner:
    """Runs all calls of one process. Every method belongs to the event loop that ``start`` ran on.

    Args:
        transcriber: the one model.
        detector: makes a call's detector from its metadata.
        prompt: the bias for a call, as text.
        redact: masks personal data, keeping lengths.
        emit: stores and publishes events; raises when it cannot, and is then tried again.
        audio: keeps the recordings, or ``None``.
        most_calls: beyond this, new calls are refused.
    """

    TICK_S = 0.1
    LISTEN_S = 0.064
    """How often audio is taken from the sources: 32 ms of delay on average. Two windows a channel at a time
    cost half of one at a time."""
    LONGEST_ROUND_S = 0.2
    """With very many calls rounds come less often, so that they never take more than a third of the loop's
    time; but as often as this."""
    STALLED_S = 0.6
    """A paced call that has sent nothing for this long: its media time goes on by the clock."""
    PARTIAL_CONFIDENCE = 0.5
    """Below it a partial is shown but settles nothing: a model that guesses falls back on its prompt, which
    is full of the very phrases that rules look for."""
    LONGEST_PARTIAL_MS = 8_000
    DRAIN_TIMEOUT_S = 300.0
    UNPACED_JOBS = 8
    """Jobs that a call that comes faster than speech may have in front of the model."""

    def __init__(
        self,
        *,
        transcriber: Transcriber,
        detector: Callable[[CallInfo], CallDetector],
        prompt: Callable[[CallInfo], str],
        redact: Callable[[str], str],
        emit: Callable[[Sequence[OutletEvent]], Awaitable[object]],
        audio: FrameSink | None,
        most_calls: int,
        vad: Callable[[], Vad] = SileroVad,
        endpointing: Endpointing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._detector, self._prompt = detector, prompt
        self._audio, self._most_calls = audio, most_calls
        self._vad, self._endpointing, self._clock = vad, endpointing, clock
        self.clock = clock
        self._recogniser = Recogniser(
            transcriber,
            on_final=self._on_final,
            on_partial=self._on_partial,
            on_step=lambda: self._outbox.post([self.health()]),
            clock=clock,
        )
        self._calls: dict[str, _Open] = {}
        self._outbox = Outbox(emit, clock)
        self._teller = Teller(redact, self._outbox.post, clock)
        self._tasks: list[asyncio.Task[None]] = []

    # ── life ──────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._tick(), name="timers"),
            asyncio.create_task(self._come_round(), name="listen"),
            asyncio.create_task(self._outbox.deliver(), name="deliver"),
        ]

    async def stop(self) -> None:
        """End every call as interrupted, wait for what the model owes and for the outlet."""
        await asyncio.gather(*(self.close(call_id, "interrupted") for call_id in list(self._calls)))
        await self.flush()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._recogniser.close()

    async def flush(self) -> None:
        """Wait until everything posted so far is stored."""
        await self._outbox.flush()

    @property
    def calls(self) -> int:
        return len(self._calls)

    def health(self) -> Health:
        degradation = self._recogniser.degradation
        return Health(
            step=degradation.step,
            name=degradation.name,
            queue_wait_ms=round(degradation.wait_s * 1000, 1),
            calls=len(self._calls),
        )

    # ── a call ────────────────────────────────────────────────────────────────────────────────────

    def open(self, info: CallInfo, paced: bool, source: Source | None = None) -> None:
        """Begin a call. ``paced``: it arrives in real time (a replay may come faster).

        Its audio is taken from ``source``, or handed in with ``hear`` if there is none.

        Raises ``CallRefused`` when the id is in use or there is no room.
        """
        if info.call_id in self._calls:
            raise CallRefused(
                f"the call {info.call_id} is in progress already; give each call an id of its own",
                retryable=False,
            )
        step, calls = self._recogniser.degradation.name, len(self._calls)
        full = paced and not self._recogniser.headroom.has_room(calls)
        if calls >= self._most_calls or step == "refuse_calls" or full:
            reason = "the speech model is at its limit" if full else f"step {step}"
            raise CallRefused(
                f"no room for another call ({calls} in progress, {reason}); try again in a few seconds",
                retryable=True,
            )
        pacing = None if paced else Pacing()
        live = LiveCall(info, self._detector(info), self._vad, self._endpointing, pacing)
        live.last_arrival_s = self._clock()
        drained = asyncio.Event()
        drained.set()
        prompt = self._recogniser.prompt(self._prompt(info))
        self._calls[info.call_id] = _Open(live, prompt, paced, source, drained)
        CALLS.set(len(self._calls))
        if self._audio is not None:
            self._audio.start(info, source.rate if source is not None else SAMPLE_RATE)
        started = CallStarted(call=info)
        self._outbox.post([started])
        self._teller.tell(live, live.detector.on_event(started))
        log.info("call.started", call_id=info.call_id, protocol=info.protocol)

    def update(self, info: CallInfo) -> None:
        """The telephony knows more now: metadata of the call has changed."""
        live = self._calls[info.call_id].live
        live.info = info
        updated = CallUpdated(call=info, media_ms=live.media_ms)
        self._outbox.post([updated])
        self._teller.tell(live, live.detector.on_event(updated))

    def signal(self, event: Hold) -> None:
        """The telephony tells what happens in a call; ``KeyError`` if there is no such call."""
        live = self._calls[event.call_id].live
        self._teller.tell(live, live.signal(event))

    def hear(self, item: AudioFrame | Gap) -> None:
        """Take the next frame, or gap, of a call in progress; ``KeyError`` if there is no such call."""
        call = self._calls[item.call_id]
        self._take(call, [item], self._clock())
        self._hear([call])

    def listen(self, call_id: str | None = None) -> None:
        """Take what has come for all calls, or for one, and hear it; runs every ``LISTEN_S``."""
        only = self._calls.get(call_id) if call_id is not None else None
        calls = list(self._calls.values()) if call_id is None else [only] if only else []
        heard = []
        for call in calls:
            if call.source is not None and (items := call.source.take()):
                self._take(call, items, call.source.arrived_s)
                heard.append(call)
        if heard:
            self._hear(heard)

    def _take(self, call: _Open, items: Sequence[AudioFrame | Gap], arrived_s: float) -> None:
        for item in items:
            if isinstance(item, Gap):
                GAPS.labels(item.reason).inc(item.duration_ms / 1000)
                self._outbox.post([item])
            else:
                AUDIO.inc(item.duration_ms / 1000)
                if self._audio is not None:
                    self._audio.frame(item)
            self._teller.tell(call.live, call.live.take(item, arrived_s))

    def _hear(self, calls: Sequence[_Open]) -> None:
        for live, heard in hear_together(call.live for call in calls):
            self._heard(self._calls[live.info.call_id], heard)
        for call in calls:
            self._teller.tell(call.live, call.live.wake(call.live.watermark_ms))

    async def ready(self) -> None:
        """Back-pressure for a caller that is not paced by a telephone: returns when the model keeps up."""
        await self._recogniser.ready(self.UNPACED_JOBS)
        await asyncio.sleep(0)

    async def close(self, call_id: str, reason: EndReason, by: Channel | None = None) -> None:
        """End a call: cut what is being said, wait for its finals, then tell everybody.

        ``by``: who hung up, where the telephony says so.
        """
        call = self._calls.get(call_id)
        if call is None:
            return
        self._heard(call, call.live.finish())
        media_ms = call.live.media_ms
        try:
            await asyncio.wait_for(call.drained.wait(), self.DRAIN_TIMEOUT_S)
        except TimeoutError:
            log.error("call.not_drained", call_id=call_id, owed=call.live.pending)
        if self._calls.get(call_id) is not call:
            return
        self._teller.tell(call.live, call.live.end())
        ended = CallEnded(call_id=call_id, media_ms=media_ms, reason=reason, by=by)
        self._teller.tell(call.live, call.live.detector.on_event(ended))
        if self._audio is not None:
            await self._audio.close(call_id, media_ms)
        self._calls.pop(call_id, None)
        self._recogniser.forget(call_id)
        CALLS.set(len(self._calls))
        self._outbox.post([ended])
        log.info("call.ended", call_id=call_id, reason=reason, media_ms=media_ms, gap_ms=call.live.gap_ms)

    # ── listen → transcribe ───────────────────────────────────────────────────────────────────────

    def _heard(self, call: _Open, heard: Sequence[Heard | Hold]) -> None:
        for item in heard:
            if isinstance(item, SpeechStarted | SpeechStopped):
                self._outbox.post([item])
            self._teller.tell(call.live, call.live.noticed(item))
            if not isinstance(item, Utterance):
                continue
            if item.final:
                call.drained.clear()
                call.finished_ms[item.channel] = item.end_ms
                suspected = item.utterance_id in call.suspected
                call.suspected.discard(item.utterance_id)
                self._recogniser.submit(item, call.prompt, live=call.paced, suspected=suspected)
            elif self._wants(call, item):
                self._recogniser.submit(item, call.prompt, live=call.paced)

    def _wants(self, call: _Open, partial: Utterance) -> bool:
        """Whether the model has time for this partial; a replay has nobody to show partials to."""
        step = self._recogniser.degradation.name
        if not call.paced or step not in ("all", "fewer_partials"):
            return False
        if partial.endpoint == "breath":
            wanted = True
        else:
            since = max(partial.start_ms, call.asked_ms.get(partial.channel, 0))
            pace_ms = self._recogniser.partial_pace_ms()
            if pace_ms is not None and call.live.detector.suspects(partial.utterance_id):
                pace_ms = 0
            wanted = (
                pace_ms is not None
                and partial.duration_ms <= self.LONGEST_PARTIAL_MS
                and partial.end_ms - since >= pace_ms * (2 if step == "fewer_partials" else 1)
            )
        if wanted:
            call.asked_ms[partial.channel] = partial.end_ms
        return wanted

    # ── transcribe → detect → raise ───────────────────────────────────────────────────────────────

    def _on_partial(self, recognised: Recognised) -> None:
        transcript = recognised.transcript
        call = self._calls.get(transcript.call_id)
        if call is None or transcript.start_ms < call.finished_ms.get(transcript.role, -1):
            return
        self._teller.transcript(transcript)
        before = call.hypotheses.get(transcript.utterance_id, "")
        call.hypotheses[transcript.utterance_id] = transcript.text
        certain = recognised.read
        confidence = transcript.confidence or 0.0
        if confidence < self.PARTIAL_CONFIDENCE:
            certain = 0
        elif certain < len(transcript.text):
            certain += settled(before[certain:], transcript.text[certain:], confidence)
        # Also where nothing is settled: what the text may hold decides when it is read again.
        findings = call.live.detector.on_event(replace(transcript, settled=certain))
        if any(isinstance(finding, Detection) and not finding.shadow for finding in findings):
            call.suspected.add(transcript.utterance_id)
        self._teller.tell(call.live, findings, recognised)

    def _on_final(self, recognised: Recognised) -> None:
        call = self._calls.get(recognised.transcript.call_id)
        if call is None:
            return
        call.hypotheses.pop(recognised.transcript.utterance_id, None)
        call.answers[recognised.transcript.utterance_id] = recognised
        for ready, findings in call.live.transcribed(recognised.transcript):
            self._teller.transcript(ready)
            answer = call.answers.pop(ready.utterance_id)
            self._teller.tell(call.live, findings, answer)
            self._locate(call, ready, [f for f in findings if isinstance(f, Detection)], answer)
        if not call.live.pending and not call.searches:
            call.drained.set()

    def _locate(
        self, call: _Open, transcript: Transcript, detections: list[Detection], answer: Recognised
    ) -> None:
        """Put alerts and markers where their phrase lies; so far its place in the text was all that told."""
        detections = [
            d
            for d in detections
            if d.evidence.spans
            and d.utterance_id in (None, transcript.utterance_id)
            and not d.withdrawn
            and not d.shadow
        ]
        if not detections:
            return

        def located(words: tuple[Word, ...]) -> None:
            call.searches -= 1
            exact = replace(transcript, words=words)
            for detection in detections if words else ():
                self._teller.again(call.live, _moved(detection, exact), answer)
            if not call.live.pending and not call.searches:
                call.drained.set()

        call.searches += 1
        self._recogniser.locate(answer.utterance, call.prompt, transcript.text, located)

    # ── timers and delivery ───────────────────────────────────────────────────────────────────────

    async def _come_round(self) -> None:
        due = began = ended = self._clock()
        while True:
            # By the clock, not by the pause: otherwise each round's own time would add to the delay.
            wanted = max(self.LISTEN_S, 3 * (ended - began))
            due = max(due + min(wanted, self.LONGEST_ROUND_S), ended)
            await asyncio.sleep(due - ended)
            began = self._clock()
            try:
                self.listen()
            except Exception as error:
                # What was taken is lost, the calls go on.
                log.error("listen.failed", error=type(error).__name__)
            ended = self._clock()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self.TICK_S)
            self.serve_timers()

    def serve_timers(self) -> None:
        """Serve the timers of calls that send nothing, and notice when finals wait; runs every ``TICK_S``."""
        now = self._clock()
        for call in list(self._calls.values()):
            silent_s = now - (call.live.last_arrival_s or now)
            if call.paced and silent_s > self.STALLED_S:
                reached = call.live.media_ms + int(silent_s * 1000)
                self._teller.tell(call.live, call.live.wake(reached))
        self._recogniser.tick()
