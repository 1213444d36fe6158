"""One call in progress: its listeners, its detector, the order of its transcripts. No clock of its own."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from streams.events import (
    AudioFrame,
    CallEvent,
    CallInfo,
    Channel,
    Finding,
    Gap,
    Hold,
    RuleCard,
    Transcript,
    Utterance,
)
from streams.listen import Endpointing, Heard, Listener
from streams.music import Holds
from streams.pacing import Entry, Pacing
from streams.vad import Probabilities, Vad, together
from streams.voice import voice


class CallDetector(Protocol):
    """What a call needs of its detectors; ``detectors.panel.Panel`` is one."""

    def on_event(self, event: CallEvent) -> list[Finding]: ...

    def wake_at(self) -> int | None: ...

    def on_wake(self, now_ms: int) -> list[Finding]: ...

    def card(self, rule_id: str) -> RuleCard:
        """What raising needs to know of a rule: as it stands in the rules that this call began with."""
        ...

    def suspects(self, utterance_id: str) -> bool:
        """Whether its last partial transcript holds something that one more reading may settle."""
        ...


class Arrivals:
    """When each moment of a channel's media time entered the server; covers the last ``KEPT`` entries.

    One entry per ``STEP_MS`` of media: a minute of audio, enough for any utterance and its way through
    the model.
    """

    STEP_MS = 60
    KEPT = 1_000

    def __init__(self) -> None:
        self._media: deque[int] = deque(maxlen=self.KEPT)
        self._clock: deque[float] = deque(maxlen=self.KEPT)

    def note(self, media_ms: int, now_s: float) -> None:
        if not self._media or media_ms - self._media[-1] >= self.STEP_MS:
            self._media.append(media_ms)
            self._clock.append(now_s)

    def entered(self, media_ms: int) -> float | None:
        """Clock at which the sample at ``media_ms`` was in the server; ``None`` if not known."""
        if not self._media:
            return None
        index = min(bisect_left(self._media, media_ms), len(self._media) - 1)
        return self._clock[index]


@dataclass(slots=True)
class _Line:
    """Final transcripts of one channel leave in the order in which the utterances were cut."""

    waiting: deque[str] = field(default_factory=deque)
    ready: dict[str, Transcript] = field(default_factory=dict)

    def arrived(self, transcript: Transcript) -> list[Transcript]:
        self.ready[transcript.utterance_id] = transcript
        out = []
        while self.waiting and self.waiting[0] in self.ready:
            out.append(self.ready.pop(self.waiting.popleft()))
        return out


class LiveCall:
    """The state of one call between its first frame and its end.

    ``take`` for everything that comes in, ``hear_together`` for what is to be heard of it, ``transcribed``
    for everything the model answers, ``wake`` as time passes. All return what follows from it; nothing is
    sent anywhere from here.

    ``pacing``: of a call that comes faster than speech; it holds back from the detector what is heard before
    the words around it are there.
    """

    ALIVE_MS = 2_000
    """A channel that lags this far behind the other one has stopped: it no longer holds back timers."""

    def __init__(
        self,
        info: CallInfo,
        detector: CallDetector,
        vad: Callable[[], Vad],
        endpointing: Endpointing | None = None,
        pacing: Pacing | None = None,
    ) -> None:
        self.info = info
        self.detector = detector
        self._pacing = pacing
        self.listeners = {
            channel: Listener(info.call_id, channel, vad(), endpointing) for channel in info.channels
        }
        self.arrivals = {channel: Arrivals() for channel in info.channels}
        self._holds = Holds(info.call_id, info.channels)
        self.gap_ms = 0
        self.last_arrival_s: float | None = None
        self._lines: dict[Channel, _Line] = {channel: _Line() for channel in info.channels}
        self._woken_ms = 0

    @property
    def media_ms(self) -> int:
        """How far the call was heard: the furthest channel."""
        return max(listener.media_ms for listener in self.listeners.values())

    @property
    def watermark_ms(self) -> int:
        """Media time up to which every living channel was heard: timers are served up to here."""
        front = self.media_ms
        return min(
            (m.media_ms for m in self.listeners.values() if front - m.media_ms <= self.ALIVE_MS),
            default=front,
        )

    @property
    def pending(self) -> int:
        """Finals that the model still owes."""
        return sum(len(line.waiting) for line in self._lines.values())

    def take(self, item: AudioFrame | Gap, arrived_s: float) -> list[Finding]:
        """Take the next piece of a channel; ``hear_together`` then hears it.

        ``arrived_s``: clock at which its last sample came in. Raises ``KeyError`` when the call has no such
        channel.
        """
        if isinstance(item, Gap):
            self.gap_ms += item.duration_ms
            return self._tell(item)
        self.last_arrival_s = arrived_s
        self.arrivals[item.channel].note(item.media_ms + item.duration_ms, arrived_s)
        self.listeners[item.channel].offer(item)
        return []

    def judged(self, listener: Listener, probabilities: Probabilities) -> list[Heard | Hold]:
        """Take what the judge says of ``listener``'s windows; return what was heard."""
        holds = self._holds.heard(listener.channel, listener.windows(), probabilities, listener.position)
        return [*holds, *self._note(listener.judged(probabilities))]

    def entered(self, channel: Channel, media_ms: int) -> float | None:
        """When the sample at ``media_ms`` was in the server; by the later channel if this is none."""
        if channel in self.arrivals:
            return self.arrivals[channel].entered(media_ms)
        known = [e for a in self.arrivals.values() if (e := a.entered(media_ms)) is not None]
        return max(known, default=None)

    def finish(self) -> list[Heard]:
        """No more audio will come: cut what is being said on every channel."""
        return [heard for listener in self.listeners.values() for heard in self._note(listener.finish())]

    def _note(self, heard: list[Heard]) -> list[Heard]:
        for item in heard:
            if isinstance(item, Utterance) and item.final:
                self._lines[item.channel].waiting.append(item.utterance_id)
                if self._pacing is not None:
                    self._pacing.cut(item.utterance_id, self.media_ms)
        return heard

    def noticed(self, item: Heard | Hold) -> list[Finding]:
        """What the detector says of something heard; of an utterance, how it sounds. Partials say nothing."""
        if not isinstance(item, Utterance):
            return self._tell(item)
        return self._tell(voice(item)) if item.final else []

    def signal(self, event: Hold) -> list[Finding]:
        """The telephony tells of a hold."""
        self._holds.telephony_told()
        return self.detector.on_event(event)

    def transcribed(self, transcript: Transcript) -> list[tuple[Transcript, list[Finding]]]:
        """Take one final transcript; return those that may now leave, each with what it raised."""
        out = []
        for ready in self._lines[transcript.role].arrived(transcript):
            before = self._serve(self._pacing.read(ready.utterance_id)) if self._pacing is not None else []
            out.append((ready, [*before, *self.detector.on_event(ready)]))
        return out

    def wake(self, now_ms: int) -> list[Finding]:
        """Serve every timer that is due at media time ``now_ms``."""
        if self._pacing is None:
            return self._wake(now_ms)
        self._pacing.hold(now_ms, None)
        return self._serve(self._pacing.due())

    def end(self) -> list[Finding]:
        """Nothing more will be heard and no words will come: serve what is due at the end."""
        before = self._serve(self._pacing.rest()) if self._pacing is not None else []
        return [*before, *self._wake(self.watermark_ms)]

    def _tell(self, event: CallEvent) -> list[Finding]:
        if self._pacing is None:
            return self.detector.on_event(event)
        self._pacing.hold(self.media_ms, event)
        return self._serve(self._pacing.due())

    def _serve(self, entries: Iterable[Entry]) -> list[Finding]:
        return [
            finding
            for heard_ms, event in entries
            for finding in (self._wake(heard_ms) if event is None else self.detector.on_event(event))
        ]

    def _wake(self, now_ms: int) -> list[Finding]:
        now_ms = max(now_ms, self._woken_ms)
        self._woken_ms = now_ms
        out: list[Finding] = []
        # A detector that asks for the same moment again and again must not hold the loop.
        for _ in range(100):
            due = self.detector.wake_at()
            if due is None or due > now_ms:
                break
            out += self.detector.on_wake(now_ms)
        return out


def hear_together(calls: Iterable[LiveCall]) -> list[tuple[LiveCall, list[Heard | Hold]]]:
    """Hear what ``calls`` have taken: one run of the judge for all their channels.

    Returns every call that had something to hear, with its speech edges, utterances and holds, those of each
    channel in order.
    """
    asked = [
        (call, listener, windows)
        for call in calls
        for listener in call.listeners.values()
        if len(windows := listener.windows())
    ]
    judged = together([(listener.vad, windows) for _, listener, windows in asked])
    out: dict[int, tuple[LiveCall, list[Heard | Hold]]] = {}
    for (call, listener, _), probabilities in zip(asked, judged, strict=True):
        heard = call.judged(listener, probabilities)
        out.setdefault(id(call), (call, []))[1].extend(heard)
    return list(out.values())
