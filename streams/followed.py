"""A call as the detectors follow it: the order of what they are told, timers, what partials settle. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from streams.agreement import settled
from streams.events import (
    CallEnded,
    CallEvent,
    CallInfo,
    CallStarted,
    CallUpdated,
    Channel,
    Detection,
    Finding,
    RuleCard,
    Transcript,
    Voice,
    Word,
)
from streams.pacing import Entry, Pacing


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

    def snapshot(self) -> bytes:
        """All of its state, to go on elsewhere."""
        ...

    def restore(self, snapshot: bytes) -> None:
        """Go on from a snapshot; raises ``ValueError`` when it comes from other rules."""
        ...


class _State(Struct, kw_only=True):
    """All of a followed call but its detector."""

    info: CallInfo
    pacing: Pacing | None
    waiting: dict[Channel, list[str]] = field(default_factory=dict)
    """Utterances whose final is owed, by channel, in the order in which they were cut."""
    ready: dict[str, Transcript] = field(default_factory=dict)
    """Finals that wait for the one before them on their channel."""
    hypotheses: dict[str, str] = field(default_factory=dict)
    """The last partial text of each utterance that is still being said."""
    suspected: set[str] = field(default_factory=set)
    """Utterances still being said in which a partial has raised something."""
    cut_ms: dict[Channel, int] = field(default_factory=dict)
    """Where the last utterance of a channel ended: a partial from before it is stale."""
    searches: dict[str, tuple[Transcript, list[Detection]]] = field(default_factory=dict)
    """Finals whose words are looked for, with what is to be moved there."""
    woken_ms: int = 0


class FollowedCall:
    """The state of one call's supervision, from its start until its end was told.

    ``begin`` first; ``noticed`` for what was heard, ``cut`` for an utterance that has ended, ``wake`` as time
    passes, ``partial``, ``transcribed`` and ``located`` for what the model answers; ``end`` when nothing more
    will be heard and no words are owed. All return what follows.

    ``paced``: the call comes at the pace of speech; else what is heard is held back from the detector until
    the words around it are there (``streams.pacing``).
    """

    PARTIAL_CONFIDENCE = 0.5
    """Below it a partial is shown but settles nothing: a model that guesses falls back on its prompt, which
    is full of the very phrases that rules look for."""

    def __init__(self, info: CallInfo, detector: CallDetector, paced: bool) -> None:
        self.detector = detector
        self._state = _State(info=info, pacing=None if paced else Pacing())

    @property
    def info(self) -> CallInfo:
        return self._state.info

    @property
    def owed(self) -> int:
        """Finals and word times that the model still owes."""
        return sum(map(len, self._state.waiting.values())) + len(self._state.searches)

    def owes(self, utterance_id: str) -> bool:
        """Whether the final of an utterance is owed and has not come."""
        waiting = any(utterance_id in line for line in self._state.waiting.values())
        return waiting and utterance_id not in self._state.ready

    def waiting(self) -> list[str]:
        """Utterances whose final is owed and has not come."""
        return [u for line in self._state.waiting.values() for u in line if u not in self._state.ready]

    def blocking(self) -> list[str]:
        """Those of them that others, whose final has come, wait for."""
        state = self._state
        return [
            line[0]
            for line in state.waiting.values()
            if line and line[0] not in state.ready and any(u in state.ready for u in line)
        ]

    def renew(self, detector: CallDetector) -> None:
        """Other detectors take the call from here."""
        self.detector = detector
        detector.on_event(CallStarted(call=self.info))

    def cut_ms(self, channel: Channel) -> int:
        """Where the last utterance of a channel ended; -1 before the first."""
        return self._state.cut_ms.get(channel, -1)

    def is_suspected(self, utterance_id: str) -> bool:
        """Whether a partial of an utterance still being said has raised something."""
        return utterance_id in self._state.suspected

    # ── what is heard ─────────────────────────────────────────────────────────────────────────────

    def begin(self) -> list[Finding]:
        return self.detector.on_event(CallStarted(call=self._state.info))

    def noticed(self, event: CallEvent, heard_ms: int) -> list[Finding]:
        """What the detector says of something heard. ``heard_ms``: how far the call was heard then."""
        if isinstance(event, CallUpdated):
            self._state.info = event.call
        pacing = self._state.pacing
        if pacing is None:
            return self.detector.on_event(event)
        pacing.hold(heard_ms, event)
        return self._serve(pacing.due())

    def cut(self, voice: Voice, heard_ms: int) -> list[Finding]:
        """An utterance has ended, its final is owed; ``voice``: how it sounds."""
        state = self._state
        state.waiting.setdefault(voice.channel, []).append(voice.utterance_id)
        state.cut_ms[voice.channel] = voice.end_ms
        state.suspected.discard(voice.utterance_id)
        if state.pacing is not None:
            state.pacing.cut(voice.utterance_id, heard_ms)
        return self.noticed(voice, heard_ms)

    def wake(self, now_ms: int) -> list[Finding]:
        """Serve every timer that is due at media time ``now_ms``."""
        pacing = self._state.pacing
        if pacing is None:
            return self._wake(now_ms)
        pacing.hold(now_ms, None)
        return self._serve(pacing.due())

    def end(self, ended: CallEnded, watermark_ms: int) -> list[Finding]:
        """Nothing more will be heard and no words will come: serve what is due, tell the end."""
        pacing = self._state.pacing
        before = self._serve(pacing.rest()) if pacing is not None else []
        return [*before, *self._wake(watermark_ms), *self.detector.on_event(ended)]

    def _serve(self, entries: Iterable[Entry]) -> list[Finding]:
        return [
            finding
            for heard_ms, event in entries
            for finding in (self._wake(heard_ms) if event is None else self.detector.on_event(event))
        ]

    def _wake(self, now_ms: int) -> list[Finding]:
        now_ms = max(now_ms, self._state.woken_ms)
        self._state.woken_ms = now_ms
        out: list[Finding] = []
        # A detector that asks for the same moment again and again must not hold the loop.
        for _ in range(100):
            due = self.detector.wake_at()
            if due is None or due > now_ms:
                break
            out += self.detector.on_wake(now_ms)
        return out

    # ── what the model answers ────────────────────────────────────────────────────────────────────

    def partial(self, transcript: Transcript, read: int) -> list[Finding] | None:
        """Take a partial transcript; ``None``: its utterance has been cut meanwhile.

        ``read``: characters from its start that were read up to a breath.
        """
        state = self._state
        if transcript.start_ms < state.cut_ms.get(transcript.role, -1):
            return None
        before = state.hypotheses.get(transcript.utterance_id, "")
        state.hypotheses[transcript.utterance_id] = transcript.text
        certain = read
        confidence = transcript.confidence or 0.0
        if confidence < self.PARTIAL_CONFIDENCE:
            certain = 0
        elif certain < len(transcript.text):
            certain += settled(before[certain:], transcript.text[certain:], confidence)
        # Also where nothing is settled: what the text may hold decides when it is read again.
        findings = self.detector.on_event(replace(transcript, settled=certain))
        if any(isinstance(finding, Detection) and not finding.shadow for finding in findings):
            state.suspected.add(transcript.utterance_id)
        return findings

    def transcribed(self, transcript: Transcript) -> Iterator[tuple[Transcript, list[Finding]]]:
        """Take one final transcript; give those that may now leave, each with what it raised.

        A final that is not owed (it came before) gives nothing.
        """
        state = self._state
        line = state.waiting.get(transcript.role, [])
        if transcript.utterance_id not in line:
            return
        state.ready[transcript.utterance_id] = transcript
        while line and line[0] in state.ready:
            ready = state.ready.pop(line.pop(0))
            state.hypotheses.pop(ready.utterance_id, None)
            before = self._serve(state.pacing.read(ready.utterance_id)) if state.pacing is not None else []
            yield ready, [*before, *self.detector.on_event(ready)]

    def search(self, transcript: Transcript, findings: Iterable[Finding]) -> bool:
        """Whether the words of a final are to be looked for: something was found in it by its words.

        ``located`` then takes the answer, which is owed from now on.
        """
        moving = [
            found
            for found in findings
            if isinstance(found, Detection)
            and found.evidence.spans
            and found.utterance_id in (None, transcript.utterance_id)
            and not found.withdrawn
            and not found.shadow
        ]
        if moving:
            self._state.searches[transcript.utterance_id] = (transcript, moving)
        return bool(moving)

    def located(self, utterance_id: str, words: tuple[Word, ...]) -> list[Detection]:
        """The same detections where their words were said; none where no words were found, or none sought."""
        transcript, moving = self._state.searches.pop(utterance_id, (None, []))
        if transcript is None or not words:
            return []
        return [_moved(detection, replace(transcript, words=words)) for detection in moving]

    # ── kept and taken up again ───────────────────────────────────────────────────────────────────

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode((self._state, self.detector.snapshot()))

    def restore(self, snapshot: bytes) -> None:
        """Raises ``ValueError`` when the detector's part comes from other rules; the rest is restored."""
        self._state, kept = msgspec.msgpack.decode(snapshot, type=tuple[_State, bytes])
        self.detector.restore(kept)


def _moved(detection: Detection, transcript: Transcript) -> Detection:
    """The detection at the times of its words."""
    spans = detection.evidence.spans
    start, end = transcript.time_of(min(a for a, _ in spans)), transcript.time_of(max(b for _, b in spans))
    return replace(detection, media_start_ms=start, media_end_ms=max(start, end))
