"""The runner on one machine: hearing, the model in worker threads, the detectors, all in one process.

The path of one call: its ``Source`` (an edge) → ``HeardCall`` → the recogniser → ``FollowedCall`` → ``emit``
(the outlet).

Bounds and what happens at them:

* jobs in front of the model: see ``batching``; when finals wait too long, ``degrade`` acts
* events on their way to the outlet: see ``outbox``
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog

from streams.degrade import Step
from streams.events import CallEnded, CallInfo, CallStarted, Health, Inward, OutletEvent, Utterance, Word
from streams.followed import CallDetector, FollowedCall
from streams.heard import HeardCall
from streams.judge import Judge
from streams.listen import Endpointing
from streams.outbox import Outbox
from streams.recognise import Recogniser
from streams.runner import CallRefused, EndReason, FrameSink, Noticed, Open, Runner, Source
from streams.sealing import Seal
from streams.telling import Teller
from streams.transcribe import Prompt, Transcriber
from streams.voice import voice
from streams.work import Recognised

__all__ = ["CallRefused", "EndReason", "LocalRunner"]

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Call(Open):
    followed: FollowedCall
    prompt: Prompt
    drained: asyncio.Event
    """Set while the model owes this call nothing."""
    answers: dict[str, Recognised] = field(default_factory=dict)
    """Those that wait for the one before them on their channel."""


class LocalRunner(Runner[_Call]):
    """Runs all calls of one process. Every method belongs to the event loop that ``start`` ran on.

    Args:
        transcriber: the one model.
        detector: makes a call's detector from its metadata.
        prompt: the bias for a call, as text.
        redact: masks personal data, keeping lengths.
        emit: stores and publishes events; raises when it cannot, and is then tried again.
        audio: keeps the recordings, or ``None``.
        most_calls: beyond this, new calls are refused.
        seal: closes what was masked into a box that is kept; ``None``: it is kept nowhere.
    """

    DRAIN_TIMEOUT_S = 300.0
    finals_only = False
    """No partials: for words that follow a script, of which a beginning says nothing."""
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
        judge: Judge | None = None,
        endpointing: Endpointing | None = None,
        clock: Callable[[], float] = time.monotonic,
        seal: Seal | None = None,
    ) -> None:
        super().__init__(
            audio=audio, most_calls=most_calls, judge=judge, endpointing=endpointing, clock=clock
        )
        self._detector, self._prompt = detector, prompt
        self._recogniser = Recogniser(
            transcriber,
            on_final=self._on_final,
            on_partial=self._on_partial,
            on_step=lambda: self._outbox.post([self.health()]),
            clock=clock,
        )
        self._outbox: Outbox[OutletEvent] = Outbox(emit, clock)
        self._teller = Teller(redact, self._outbox.post, clock, seal)

    # ── life ──────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        await super().start()
        self._tasks.append(asyncio.create_task(self._outbox.deliver(), name="deliver"))

    async def stop(self) -> None:
        """End every call as interrupted, wait for what the model owes and for the outlet."""
        await super().stop()
        self._recogniser.close()

    async def flush(self) -> None:
        await self._outbox.flush()

    def health(self) -> Health:
        degradation = self._recogniser.degradation
        return Health(
            step=degradation.step,
            name=degradation.name,
            queue_wait_ms=round(degradation.wait_s * 1000, 1),
            calls=len(self._calls),
        )

    async def ready(self) -> None:
        await self._recogniser.ready(self.UNPACED_JOBS)
        await asyncio.sleep(0)

    # ── listen → transcribe ───────────────────────────────────────────────────────────────────────

    def _refusal(self, calls: int) -> str | None:
        return None if self._recogniser.headroom.has_room(calls) else "the speech model is at its limit"

    def _begin(self, heard: HeardCall, paced: bool, source: Source | None) -> _Call:
        info = heard.info
        drained = asyncio.Event()
        drained.set()
        followed = FollowedCall(info, self._detector(info), paced)
        prompt = self._recogniser.prompt(self._prompt(info))
        call = _Call(heard, paced, source, followed, prompt, drained)
        self._outbox.post([CallStarted(call=info)])
        self._teller.tell(call.followed, call.heard.entered, followed.begin())
        return call

    def _notice(self, call: _Call, event: Noticed) -> None:
        if not isinstance(event, Inward):
            self._outbox.post([event])
        self._teller.tell(
            call.followed, call.heard.entered, call.followed.noticed(event, call.heard.media_ms)
        )

    def _reach(self, call: _Call, media_ms: int) -> None:
        self._teller.tell(call.followed, call.heard.entered, call.followed.wake(media_ms))

    def _submit(self, call: _Call, utterance: Utterance) -> None:
        if not utterance.final:
            self._recogniser.submit(utterance, call.prompt, live=call.paced)
            return
        call.drained.clear()
        suspected = call.followed.is_suspected(utterance.utterance_id)
        findings = call.followed.cut(voice(utterance), call.heard.media_ms)
        self._teller.tell(call.followed, call.heard.entered, findings)
        self._recogniser.submit(utterance, call.prompt, live=call.paced, suspected=suspected)

    def _pace(self) -> tuple[Step, int | None]:
        step = self._recogniser.degradation.name
        return ("no_partials" if self.finals_only else step), self._recogniser.partial_pace_ms()

    def _suspects(self, call: _Call, utterance_id: str) -> bool:
        return call.followed.detector.suspects(utterance_id)

    async def _finish(self, call: _Call, ended: CallEnded) -> None:
        try:
            await asyncio.wait_for(call.drained.wait(), self.DRAIN_TIMEOUT_S)
        except TimeoutError:
            log.error("call.not_drained", call_id=call.call_id, owed=call.followed.owed)
        if not call.ended:
            findings = call.followed.end(ended, call.heard.watermark_ms)
            self._teller.tell(call.followed, call.heard.entered, findings)

    def _end(self, call: _Call, ended: CallEnded) -> None:
        self._recogniser.forget(call.call_id)
        self._outbox.post([ended])

    # ── transcribe → detect → raise ───────────────────────────────────────────────────────────────

    def _on_partial(self, recognised: Recognised) -> None:
        transcript = recognised.transcript
        call = self._calls.get(transcript.call_id)
        findings = call.followed.partial(transcript, recognised.read) if call is not None else None
        if call is None or findings is None:
            return
        self._teller.transcript(transcript)
        self._teller.tell(call.followed, call.heard.entered, findings, recognised)

    def _on_final(self, recognised: Recognised) -> None:
        call = self._calls.get(recognised.transcript.call_id)
        if call is None:
            return
        call.answers[recognised.transcript.utterance_id] = recognised
        for ready, findings in call.followed.transcribed(recognised.transcript):
            self._teller.transcript(ready)
            answer = call.answers.pop(ready.utterance_id)
            self._teller.tell(call.followed, call.heard.entered, findings, answer)
            if call.followed.search(ready, findings):
                # Alerts and markers move to where their words lie; so far the place in the text was all
                # that told.
                self._locate(call, answer, ready.text)
        self._check_drained(call)

    def _locate(self, call: _Call, answer: Recognised, text: str) -> None:
        def located(words: tuple[Word, ...]) -> None:
            for detection in call.followed.located(answer.utterance.utterance_id, words):
                self._teller.again(call.followed, call.heard.entered, detection, answer)
            self._check_drained(call)

        self._recogniser.locate(answer.utterance, call.prompt, text, located)

    @staticmethod
    def _check_drained(call: _Call) -> None:
        if not call.followed.owed:
            call.drained.set()

    def _serve(self) -> None:
        """Notice when finals wait."""
        self._recogniser.tick()
