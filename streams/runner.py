"""The hearing of all calls of one process: what edges open, feed and close, whatever comes behind it.

Every ``LISTEN_S`` the runner takes what has come for all calls and has it judged (``streams.judge``),
hundreds of times faster than real time; while a call's audio is with the judge, no more is taken of it. What
waits in a source is bounded there, and beyond that in the socket's buffer: a peer that sends faster is slowed
by TCP.
``hear`` is for an edge that hands in frames itself, such as a replay.

What follows from what is heard is up to ``streams.local`` (one process does all) and ``streams.gateway``
(workers behind a broker do).
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Generic, Literal, Protocol, TypeVar

import structlog
from prometheus_client import Counter, Gauge

from streams.arrival import Silence
from streams.degrade import Step
from streams.events import (
    SAMPLE_RATE,
    AudioFrame,
    CallEnded,
    CallInfo,
    CallUpdated,
    Channel,
    Gap,
    Health,
    Hold,
    Inward,
    SpeechStarted,
    SpeechStopped,
    Telephony,
    Trouble,
    Utterance,
)
from streams.heard import HeardCall
from streams.judge import Answer, Judge, LocalJudge, Question
from streams.listen import Endpointing, Heard

log = structlog.get_logger(__name__)

CALLS = Gauge("duting_calls", "Calls in progress")
AUDIO = Counter("duting_audio_seconds", "Audio received, all channels")
GAPS = Counter("duting_gap_seconds", "Audio that never came or was dropped", ["reason"])
REFUSED = Counter("duting_calls_refused", "Calls for which there was no room")
TROUBLES = Counter("duting_troubles", "Times that something was wrong with a call's sound", ["kind"])

EndReason = Literal["hangup", "disconnected", "interrupted", "error"]
Noticed = CallUpdated | Gap | Inward | SpeechStarted | SpeechStopped
"""What is heard of a call beside its utterances, or told by its telephony."""


class CallRefused(Exception):
    """The call cannot be taken. ``retryable``: it may be, a little later."""

    def __init__(self, message: str, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class FrameSink(Protocol):
    """Keeps a call's audio; ``app.recording.RecordingProcess`` is one. None of these may block."""

    def start(self, call: CallInfo, wire_rate: int) -> None: ...

    def frame(self, frame: AudioFrame) -> None: ...

    async def close(self, call_id: str, media_ms: int) -> None: ...


class Source(Protocol):
    """Where a call's audio waits until the runner comes round."""

    rate: int
    """Hertz at which it comes, before it is brought to ``SAMPLE_RATE``."""

    @property
    def arrived_s(self) -> float:
        """Clock at which the newest of it came in."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether anybody brings audio; a telephone that was cut off may come back."""
        ...

    def take(self) -> Sequence[AudioFrame | Gap | Trouble]:
        """What has come since the last time, each channel's in order, and what was wrong on its way."""
        ...


@dataclass(slots=True)
class Open:
    """A call as a runner holds it."""

    heard: HeardCall
    paced: bool
    source: Source | None
    asked_ms: dict[Channel, int] = field(default_factory=dict, init=False)
    """Where the last partial of a channel ended that went to the model."""
    ended: bool = field(default=False, init=False)
    silence: Silence = field(default_factory=Silence, init=False)
    heard_all: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    """Set while nothing of the call is with the judge."""

    def __post_init__(self) -> None:
        self.heard_all.set()

    @property
    def call_id(self) -> str:
        return self.heard.info.call_id


C = TypeVar("C", bound=Open)


def batched(calls: Sequence[C], size: int) -> Iterator[Sequence[C]]:
    return (calls[at : at + size] for at in range(0, len(calls), size))


class Runner(Generic[C]):
    """Every method belongs to the event loop that ``start`` ran on.

    What a subclass does with what is heard: ``_begin``, ``_notice``, ``_submit``, ``_reach``, ``_finish``,
    ``_end``; and what it knows of the model: ``_refusal``, ``_pace``, ``_suspects``.

    Args:
        audio: keeps the recordings, or ``None``.
        most_calls: beyond this, new calls are refused.
        judge: judges what comes in; here and at once by default.
    """

    TICK_S = 0.1
    LISTEN_S = 0.064
    """How often audio is taken from the sources: 32 ms of delay on average. Two windows a channel at a time
    cost half of one at a time."""
    LONGEST_ROUND_S = 0.2
    """With very many calls rounds come less often, so that they never take more than a quarter of the
    loop's time; but as often as this. What else a call needs of the loop waits less then."""
    CALLS_AT_ONCE = 32
    """So many calls of a round are judged together; between, what else waits for the loop has its turn.
    Still more together saves little."""
    STALLED_S = 0.6
    """A paced call that has sent nothing for this long: its media time goes on by the clock."""
    LONGEST_PARTIAL_MS = 8_000
    shares_calls = False
    """Whether a call that was cut off may come back over another process."""

    def __init__(
        self,
        *,
        audio: FrameSink | None,
        most_calls: int,
        judge: Judge | None = None,
        endpointing: Endpointing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._audio, self._most_calls = audio, most_calls
        self._judge, self._endpointing = judge or LocalJudge(), endpointing
        self.clock = clock
        self._calls: dict[str, C] = {}
        self._to_ask: list[C] = []
        self._is_asking = False
        self._tasks: list[asyncio.Task[None]] = []

    # ── what comes behind ─────────────────────────────────────────────────────────────────────────

    def health(self) -> Health:
        raise NotImplementedError

    async def flush(self) -> None:
        """Wait until everything posted so far is stored."""
        raise NotImplementedError

    async def ready(self) -> None:
        """Back-pressure for a caller that is not paced by a telephone: returns when the model keeps up."""
        raise NotImplementedError

    def _refusal(self, calls: int) -> str | None:
        """Why no call beyond ``calls`` can be taken that comes at the pace of speech."""
        raise NotImplementedError

    def _begin(self, heard: HeardCall, paced: bool, source: Source | None) -> C:
        """A call begins: make what is kept of it, and tell of it."""
        raise NotImplementedError

    def _notice(self, call: C, event: Noticed) -> None:
        raise NotImplementedError

    def _submit(self, call: C, utterance: Utterance) -> None:
        """An utterance was cut, or its beginning is worth reading."""
        raise NotImplementedError

    def _reach(self, call: C, media_ms: int) -> None:
        """Timers may be served up to here."""
        raise NotImplementedError

    async def _finish(self, call: C, ended: CallEnded) -> None:
        """Nothing more will be heard: returns when what has to be told before the end is told."""

    def _end(self, call: C, ended: CallEnded) -> None:
        """The call is over, and its recording whole: tell it."""
        raise NotImplementedError

    def _pace(self) -> tuple[Step, int | None]:
        """The step of degradation, and the speech between two partials that the model can bear."""
        raise NotImplementedError

    def _suspects(self, call: C, utterance_id: str) -> bool:
        raise NotImplementedError

    def _serve(self) -> None:
        """Runs every ``TICK_S``."""

    # ── life ──────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        self._tasks += [
            asyncio.create_task(self._tick(), name="timers"),
            asyncio.create_task(self._come_round(), name="listen"),
        ]

    async def stop(self) -> None:
        """End every call as interrupted, and wait until what followed from that is stored."""
        await asyncio.gather(*(self.close(call_id, "interrupted") for call_id in list(self._calls)))
        await self.flush()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def calls(self) -> int:
        return len(self._calls)

    def has(self, call_id: str) -> bool:
        """Whether a call is in progress here, and not about to end."""
        call = self._calls.get(call_id)
        return call is not None and not call.ended

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
        calls, step = len(self._calls), self._pace()[0]
        full = f"step {step}" if calls >= self._most_calls or step == "refuse_calls" else None
        reason = (self._refusal(calls) if paced else None) or full
        if reason is not None:
            REFUSED.inc()
            raise CallRefused(
                f"no room for another call ({calls} in progress, {reason}); try again in a few seconds",
                retryable=True,
            )
        heard = HeardCall(info, self._endpointing)
        heard.last_arrival_s = self.clock()
        if self._audio is not None:
            self._audio.start(info, source.rate if source is not None else SAMPLE_RATE)
        self._judge.open(info.call_id, info.channels)
        self._calls[info.call_id] = self._begin(heard, paced, source)
        CALLS.set(len(self._calls))
        log.info("call.started", call_id=info.call_id, protocol=info.protocol)

    def update(self, info: CallInfo) -> None:
        """The telephony knows more now: metadata of the call has changed."""
        call = self._calls[info.call_id]
        call.heard.info = info
        self._notice(call, CallUpdated(call=info, media_ms=call.heard.media_ms))

    def signal(self, event: Telephony) -> None:
        """The telephony tells what happens in a call; ``KeyError`` if there is no such call."""
        call = self._calls[event.call_id]
        if isinstance(event, Hold):
            call.heard.told(event)
            self._judge.told(event)
        self._notice(call, event)

    def hear(self, item: AudioFrame | Gap) -> None:
        """Take the next frame, or gap, of a call in progress; ``KeyError`` if there is no such call."""
        call = self._calls[item.call_id]
        self._take(call, [item], self.clock())
        self._ask([call])

    def take(self, call_id: str) -> None:
        """Take what has come for a call; it is heard soon, and before the call is closed."""
        if (call := self._calls.get(call_id)) is not None:
            self._listen([call])

    def listen(self, call_id: str | None = None) -> None:
        """Take what has come for all calls, or for one, and return when it is heard."""
        only = self._calls.get(call_id) if call_id is not None else None
        calls = list(self._calls.values()) if call_id is None else [only] if only else []
        self._listen(calls)
        self._judge.wait(lambda: any(call.heard.is_asking for call in calls))

    def _listen(self, calls: Sequence[C]) -> None:
        taken: list[C] = []
        for call in calls:
            if call.source is not None:
                self._guarded(call, partial(self._draw, call, call.source, taken))
        if taken:
            self._ask(taken)

    def _draw(self, call: C, source: Source, taken: list[C]) -> None:
        """Take what has come for a call; one that has something joins ``taken``."""
        if items := source.take():
            self._take(call, items, source.arrived_s)
            taken.append(call)

    def _take(self, call: C, items: Sequence[AudioFrame | Gap | Trouble], arrived_s: float) -> None:
        for item in items:
            if isinstance(item, Trouble):
                self._trouble(call, item)
                continue
            if isinstance(item, AudioFrame) and (over := call.silence.over(call.call_id, item.media_ms)):
                self._trouble(call, over)
            call.heard.take(item, arrived_s)
            if isinstance(item, Gap):
                GAPS.labels(item.reason).inc(item.duration_ms / 1000)
                self._notice(call, item)
            else:
                AUDIO.inc(item.duration_ms / 1000)
                if self._audio is not None:
                    self._audio.frame(item)

    def _ask(self, calls: Sequence[C]) -> None:
        """Have judged what was taken of calls; of one that is being judged, that follows on the answer."""
        self._to_ask += calls
        if self._is_asking:  # a judge that answers at once
            return
        self._is_asking = True
        try:
            while self._to_ask:
                calls, self._to_ask = self._to_ask, []
                self._ask_once(calls)
        finally:
            self._is_asking = False

    def _ask_once(self, calls: Sequence[C]) -> None:
        asked: list[tuple[C, int]] = []
        questions: list[Question] = []
        for call in calls:
            if call.heard.is_asking:
                continue
            if own := call.heard.ask():
                call.heard_all.clear()
                asked.append((call, len(own)))
                questions += own
            else:
                self._guarded(call, partial(self._reach, call, call.heard.watermark_ms))
        if not asked:
            return
        try:
            self._judge.judge(questions, partial(self._answered, asked))
        except Exception:
            for call, _ in asked:
                call.heard.unanswered()
                call.heard_all.set()
            raise

    def _answered(self, asked: Sequence[tuple[C, int]], answers: Sequence[Answer]) -> None:
        given, more = iter(answers), []
        for call, count in asked:
            call.heard_all.set()
            if self._guarded(call, partial(self._hear, call, list(islice(given, count)))):
                more.append(call)
        # What was taken meanwhile, and what is behind a hole; and timers may be served up to here.
        self._ask(more)

    def _hear(self, call: C, answers: Sequence[Answer]) -> None:
        self._heard(call, call.heard.answered(answers))

    def _guarded(self, call: C, work: Callable[[], None]) -> bool:
        """A source or a detector that fails in one call must not cost the others their round.

        Returns whether it did not fail.
        """
        try:
            work()
            return True
        except Exception as error:
            # The message may quote what was said: only the place is told.
            place = traceback.extract_tb(error.__traceback__)[-1]
            at = f"{place.filename.rpartition('/')[2]}:{place.lineno}"
            log.error("call.failed", call_id=call.call_id, error=type(error).__name__, at=at)
            return False

    def _heard(self, call: C, items: Sequence[Heard | Hold | Trouble]) -> None:
        for item in items:
            if isinstance(item, Trouble):
                self._trouble(call, item)
            elif not isinstance(item, Utterance):
                self._notice(call, item)
            elif item.final or self._wants(call, item):
                self._submit(call, item)

    def _wants(self, call: C, partial: Utterance) -> bool:
        """Whether the model has time for this partial; a replay has nobody to show partials to."""
        step, pace_ms = self._pace()
        if not call.paced or step not in ("all", "fewer_partials"):
            return False
        if partial.endpoint == "breath":
            wanted = True
        else:
            since = max(partial.start_ms, call.asked_ms.get(partial.channel, 0))
            if pace_ms is not None and self._suspects(call, partial.utterance_id):
                pace_ms = 0
            wanted = (
                pace_ms is not None
                and partial.duration_ms <= self.LONGEST_PARTIAL_MS
                and partial.end_ms - since >= pace_ms * (2 if step == "fewer_partials" else 1)
            )
        if wanted:
            call.asked_ms[partial.channel] = partial.end_ms
        return wanted

    async def close(self, call_id: str, reason: EndReason, by: Channel | None = None) -> None:
        """End a call: cut what is being said, wait for its finals, then tell everybody.

        ``by``: who hung up, where the telephony says so.
        """
        call = self._calls.get(call_id)
        if call is None:
            return
        while call.heard.is_asking:
            await call.heard_all.wait()
        self._heard(call, call.heard.finish())
        media_ms = call.heard.media_ms
        ended = CallEnded(call_id=call_id, media_ms=media_ms, reason=reason, by=by)
        await self._finish(call, ended)
        if self._calls.get(call_id) is not call or call.ended:
            return  # it was closed by somebody else meanwhile
        call.ended = True
        if self._audio is not None:
            await self._audio.close(call_id, media_ms)
        self._calls.pop(call_id, None)
        self._judge.close(call_id)
        CALLS.set(len(self._calls))
        self._end(call, ended)
        log.info("call.ended", call_id=call_id, reason=reason, media_ms=media_ms, gap_ms=call.heard.gap_ms)

    # ── what is wrong with its sound ──────────────────────────────────────────────────────────────

    def _trouble(self, call: C, trouble: Trouble) -> None:
        if trouble.present:
            TROUBLES.labels(trouble.kind).inc()
            log.warning(
                "call.trouble", call_id=call.call_id, kind=trouble.kind, channel=trouble.channel,
                measured=trouble.measured,
            )  # fmt: skip
        self._notice(call, trouble)

    def _look_for_silence(self, call: C, silent_s: float) -> None:
        is_connected = call.source is None or call.source.is_connected
        if is_connected and not call.heard.is_held:
            trouble = call.silence.look(call.call_id, silent_s, call.heard.media_ms)
            if trouble is not None:
                self._trouble(call, trouble)

    # ── timers ────────────────────────────────────────────────────────────────────────────────────

    async def _come_round(self) -> None:
        due, busy_s = self.clock(), 0.0
        while True:
            # By the clock, not by the pause: otherwise each round's own time would add to the delay.
            wanted = max(self.LISTEN_S, 4 * busy_s)
            due = max(due + min(wanted, self.LONGEST_ROUND_S), self.clock())
            await asyncio.sleep(due - self.clock())
            busy_s = 0.0
            for calls in batched(list(self._calls.values()), self.CALLS_AT_ONCE):
                began = self.clock()
                try:
                    # One may have ended since the round began.
                    self._listen([c for c in calls if self._is_free(c)])
                except Exception as error:
                    # What was taken is lost, the calls go on.
                    log.error("listen.failed", error=type(error).__name__)
                busy_s += self.clock() - began
                await asyncio.sleep(0)

    def _is_free(self, call: C) -> bool:
        return self._calls.get(call.call_id) is call and not call.heard.is_asking

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self.TICK_S)
            try:
                self.serve_timers()
            except Exception as error:
                log.error("timers.failed", error=type(error).__name__)

    def serve_timers(self) -> None:
        """Serve the timers of calls that send nothing; runs every ``TICK_S``."""
        now = self.clock()
        for call in list(self._calls.values()):
            silent_s = now - (call.heard.last_arrival_s or now)
            if call.paced and silent_s > self.STALLED_S:
                reached = call.heard.media_ms + int(silent_s * 1000)
                self._guarded(call, partial(self._reach, call, reached))
                self._guarded(call, partial(self._look_for_silence, call, silent_s))
        self._serve()
