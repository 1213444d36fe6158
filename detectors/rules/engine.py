"""Runs the rules of a pack over one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from detectors.rules.checklist import Checklist
from detectors.rules.model import Found, Moment, Pack, Rule, Scene, Turn, Watch, instant
from detectors.rules.script_run import ScriptRun
from streams.events import (
    CallEvent,
    CallInfo,
    CallStarted,
    CallUpdated,
    Detection,
    Emotion,
    Evidence,
    Finding,
    Step,
    Transcript,
)

_KEPT_TURNS: Final = 24
_JOINT_MS: Final = 1500
"""Two utterances of one speaker so close together may be one sentence cut by an endpoint."""
_SEAMLESS_MS: Final = 700
"""So close that a full stop at the cut is the model's habit, not the speaker's."""
_TAIL: Final = 16
"""Characters of the previous utterance that are looked at again."""


class _Past(Struct, frozen=True, array_like=True):
    transcript: Transcript
    tail: str


class _State(Struct, array_like=True):
    turns: list[_Past] = field(default_factory=list)
    fired: dict[str, list[int]] = field(default_factory=dict)
    """By rule: media times of what it raised lately, for the cooldown and to raise nothing twice."""
    provisional: dict[str, list[Detection]] = field(default_factory=dict)
    """By utterance: what its partial transcripts raised."""
    watches: dict[int, bytes] = field(default_factory=dict)
    """By the watch's number, its state as MessagePack; only in a snapshot."""
    suspected: list[str] = field(default_factory=list)
    """Utterances whose last partial transcript holds something that it has not settled yet."""
    call: CallInfo | None = None
    """What is known of the call, which may have changed since its start; only in a snapshot."""
    steps: tuple[Step, ...] = ()
    """The checklist as it was told last."""
    script: bytes = b""
    """Where the call stands in its script; only in a snapshot."""


Serve = Callable[[Watch, Any, Scene], tuple[Any, Moment | None]]
"""What is asked of every watch: ``(watch, state, scene)`` gives its new state and what it tells."""


class RuleDetector:
    """All rules of a pack on one call; keeps the contract of ``detectors.base.Detector``.

    Final transcripts decide. A partial one may raise early; the final then confirms it by a detection of
    the same anchor with its own evidence, or withdraws it by the same detection with ``withdrawn`` set.
    """

    def __init__(self, call: CallInfo, pack: Pack) -> None:
        self._call = call
        self._pack = pack
        # Shadow rules run, so that they can be measured, and raise nothing.
        self._rules = [rule for rule in pack.rules if rule.mode != "off"]
        self._watching = [rule for rule in self._rules if rule.watches]
        self._watches: dict[int, Any] = {
            watch.number: watch.fresh() for rule in self._watching for watch in rule.watches
        }
        """State of every watch, by its number."""
        self._checklist = Checklist(self._rules)
        self._state = _State()
        self._turns: list[Turn] = []
        self._script = ScriptRun(call, pack)

    def on_event(self, event: CallEvent | Emotion) -> list[Finding]:
        if isinstance(event, Transcript):
            found = [*self._on_transcript(event), *self._progress(event.media_ms)]
            return found + self._script.on_turn(self._turns[-1], self._turns) if event.final else found
        if isinstance(event, CallStarted | CallUpdated):
            self._call = event.call
        told = self._serve(lambda watch, state, scene: watch.on_event(state, event, scene), event.media_ms)
        found = [*self._happened(told, event.media_ms), *self._progress(event.media_ms)]
        return found + self._script.on_event(event, self._turns)

    def wake_at(self) -> int | None:
        times = [
            wake
            for rule in self._watching
            for watch in rule.watches
            if (wake := watch.wake_at(self._watches[watch.number])) is not None
        ]
        script = self._script.wake_at()
        return min(times if script is None else [*times, script], default=None)

    def on_wake(self, now_ms: int) -> list[Finding]:
        def serve(watch: Watch, state: Any, scene: Scene) -> tuple[Any, Moment | None]:
            wake = watch.wake_at(state)
            return (
                watch.on_wake(state, now_ms, scene) if wake is not None and wake <= now_ms else (state, None)
            )

        found = [*self._happened(self._serve(serve, now_ms), now_ms), *self._progress(now_ms)]
        return found + self._script.on_wake(now_ms, self._turns)

    def snapshot(self) -> bytes:
        watches = {number: msgspec.msgpack.encode(state) for number, state in self._watches.items()}
        script = self._script.snapshot()
        return msgspec.msgpack.encode(
            msgspec.structs.replace(self._state, watches=watches, call=self._call, script=script)
        )

    def restore(self, snapshot: bytes) -> None:
        state = msgspec.msgpack.decode(snapshot, type=_State)
        if state.watches.keys() != self._watches.keys():
            raise ValueError(
                f"expected a snapshot of this pack ({len(self._watches)} watches), "
                f"came {len(state.watches)}: "
                "restore a call with the pack it started with"
            )
        self._watches = {
            watch.number: msgspec.msgpack.decode(state.watches[watch.number], type=watch.state_type)
            for rule in self._watching
            for watch in rule.watches
        }
        self._call = state.call or self._call
        self._state = msgspec.structs.replace(state, watches={}, call=None, script=b"")
        self._script.restore(state.script)
        self._turns = [self._ready(past.transcript, past.tail) for past in state.turns]

    # ── watches ───────────────────────────────────────────────────────────────────────────────────

    def _scene(self, rule: Rule, now_ms: int, moments: Mapping[int, Moment] | None = None) -> Scene:
        return Scene(self._turns, rule, self._pack.patterns, self._call, now_ms, moments)

    def _serve(
        self, ask: Serve, now_ms: int, turn: Turn | None = None, keep: bool = True
    ) -> dict[str, dict[int, Moment]]:
        """Ask every watch; what they told, by rule. ``keep``: else their states stay as they were."""
        told: dict[str, dict[int, Moment]] = {}
        for rule in self._watching:
            scene = self._scene(rule, now_ms)
            for watch in rule.watches:
                state, moment = ask(watch, self._watches[watch.number], scene)
                if moment is None and turn is None and scene.moments:
                    # An inner watch has come true: for those around it that is an instant like any turn.
                    state, moment = watch.on_turn(state, scene, instant(self._call.call_id, now_ms))
                if moment is not None:
                    scene.moments[watch.number] = moment
                if keep:
                    self._watches[watch.number] = state
            if scene.moments:
                told[rule.id] = scene.moments
        return told

    def _happened(self, told: Mapping[str, Mapping[int, Moment]], now_ms: int) -> list[Detection]:
        """What the rules make of what their watches told without a word being said."""
        detections: list[Detection] = []
        turn = instant(self._call.call_id, now_ms) if told else None
        for rule in self._watching if turn is not None else ():
            if rule.id not in told or turn is None:
                continue
            detection = self._judged(rule, self._scene(rule, now_ms, told[rule.id]), turn)
            if detection is not None and self._admit(detection):
                detections.append(detection)
        return detections

    def _progress(self, now_ms: int) -> list[Finding]:
        steps = self._checklist.steps(self._watches, self._call, now_ms)
        if steps == self._state.steps:
            return []
        self._state.steps = steps
        return [self._checklist.progress(self._call, now_ms, steps)]

    # ── utterances ────────────────────────────────────────────────────────────────────────────────

    def _ready(self, transcript: Transcript, tail: str) -> Turn:
        return Turn(transcript, tail, self._pack.lexicon, self._pack.patterns)

    def _on_transcript(self, transcript: Transcript) -> list[Detection]:
        tail, joined = self._tail(transcript)
        if not transcript.final:
            found = [d for d in self._hear(transcript, tail) if not self._said_before(d, joined)]
            known = self._state.provisional.setdefault(transcript.utterance_id, [])
            news = [d for d in found if all(d.rule_id != k.rule_id for k in known)]
            fresh = [d for d in self._certain(transcript, tail, joined, news) if self._admit(d)]
            settled = {d.rule_id for d in fresh}
            waiting = any(d.rule_id not in settled and self._is_news(d) for d in news)
            self._suspect(transcript.utterance_id, waiting)
            known.extend(fresh)
            if not known:
                del self._state.provisional[transcript.utterance_id]
            return fresh
        self._suspect(transcript.utterance_id, False)
        turn = self._ready(transcript, tail)
        self._turns = [*self._turns, turn]
        found = self._judge(turn, keep=True)
        found = [d for d in found if not self._said_before(d, joined)]
        self._state.turns.append(_Past(transcript, tail))
        if len(self._turns) > _KEPT_TURNS:
            del self._turns[0], self._state.turns[0]
        raised = self._state.provisional.pop(transcript.utterance_id, [])
        borne_out = {(d.rule_id, d.anchor_ms) for d in found}
        withdrawn = [
            msgspec.structs.replace(d, withdrawn=True)
            for d in raised
            if (d.rule_id, d.anchor_ms) not in borne_out
        ]
        for detection in withdrawn:
            self._state.fired[detection.rule_id].remove(detection.anchor_ms)
        # What a partial raised is said again with the final's evidence: words and times are better now.
        already = {(d.rule_id, d.anchor_ms) for d in raised}
        news = [d for d in found if d not in raised]
        return withdrawn + [d for d in news if (d.rule_id, d.anchor_ms) in already or self._admit(d)]

    def _hear(self, partial: Transcript, tail: str) -> list[Detection]:
        """What a partial transcript would raise; the turns stay as they are."""
        before, turn = self._turns, self._ready(partial, tail)
        self._turns = [*before, turn]
        found = self._judge(turn, keep=False)
        self._turns = before
        return found

    def _certain(
        self, partial: Transcript, tail: str, joined: int | None, found: list[Detection]
    ) -> list[Detection]:
        """Of ``found``, what holds in the settled text by itself; what follows has not taken it back."""
        if partial.settled is None or not found:
            return found
        certain = msgspec.structs.replace(
            partial, text=partial.text[: partial.settled], end_ms=partial.time_of(partial.settled)
        )
        held = {d.rule_id for d in found}
        return [
            d for d in self._hear(certain, tail) if d.rule_id in held and not self._said_before(d, joined)
        ]

    def suspects(self, utterance_id: str) -> bool:
        """Whether its last partial transcript would raise something if all of it were settled."""
        return utterance_id in self._state.suspected

    def _suspect(self, utterance_id: str, waiting: bool) -> None:
        if waiting != self.suspects(utterance_id):
            (self._state.suspected.append if waiting else self._state.suspected.remove)(utterance_id)
            del self._state.suspected[:-_KEPT_TURNS]

    def _said_before(self, detection: Detection, joined: int | None) -> bool:
        """Whether it only continues, across the joint, what the utterance anchored at ``joined`` raised."""
        spans = detection.evidence.spans
        across = bool(spans) and min(a for a, _ in spans) == 0
        return across and joined is not None and joined in self._state.fired.get(detection.rule_id, ())

    def _tail(self, transcript: Transcript) -> tuple[str, int | None]:
        """The end of what the same speaker said right before, and that utterance's anchor."""
        for past in reversed(self._state.turns):
            before = past.transcript
            if before.role != transcript.role:
                continue
            gap = transcript.start_ms - before.end_ms
            if before.start_ms >= transcript.start_ms or gap > _JOINT_MS:
                return "", None
            tail = before.text[-_TAIL:]
            joint = "" if gap <= _SEAMLESS_MS else "，"
            return tail.rstrip("。.,， ") + joint, before.start_ms
        return "", None

    def _judge(self, turn: Turn, keep: bool) -> list[Detection]:
        """What the rules make of an utterance. ``keep``: else the watches forget it again."""
        now_ms = turn.transcript.end_ms
        told = self._serve(
            lambda watch, state, scene: watch.on_turn(state, scene, turn), now_ms, turn=turn, keep=keep
        )
        if not turn.normal.text and not told:
            return []
        detections: list[Detection] = []
        for rule in self._pack.index.rules(turn, told):
            moments = told.get(rule.id)
            # What a watch tells concerns its rule whoever spoke last.
            if moments is None and not rule.concerns(turn.role):
                continue
            # On a mixed channel nobody knows who asks; 保本吗 is the customer's.
            if turn.role == "unknown" and rule.role == "agent" and turn.is_question and moments is None:
                continue
            detection = self._judged(rule, self._scene(rule, now_ms, moments), turn)
            if detection is not None:
                detections.append(detection)
        return detections

    def _judged(self, rule: Rule, scene: Scene, turn: Turn) -> Detection | None:
        if not rule.in_force(self._call, scene.now_ms):
            return None
        found = rule.when.find(scene, turn)
        if found is None or (rule.unless is not None and rule.unless.find(scene, turn) is not None):
            return None
        return self._detection(rule, turn, found)

    def _detection(self, rule: Rule, turn: Turn, found: Found) -> Detection:
        transcript, moment = turn.transcript, found.moment
        spans = found.spans
        utterance_id = transcript.utterance_id if turn.is_speech else None
        if moment is not None:
            start, end, role, text = moment.start_ms, moment.end_ms, moment.role, moment.text
            if moment.anchor_ms is not None:
                anchor, utterance_id = moment.anchor_ms, moment.utterance_id
            else:
                anchor = transcript.start_ms if turn.is_speech else moment.start_ms
            matched = tuple(text[a:b] for a, b in moment.spans)
            spans = moment.spans
        else:
            start = transcript.time_of(spans[0][0]) if spans else transcript.start_ms
            end = transcript.time_of(max(b for _, b in spans)) if spans else transcript.end_ms
            role, text, anchor = transcript.role, transcript.text, transcript.start_ms
            matched = tuple(text[a:b] for a, b in spans)
        return Detection(
            call_id=self._call.call_id,
            rule_id=rule.id,
            role=role,
            media_start_ms=start,
            media_end_ms=max(start, end),
            anchor_ms=anchor,
            utterance_id=utterance_id,
            shadow=rule.mode == "shadow",
            evidence=Evidence(
                text=text,
                matched=matched,
                spans=spans,
                expected=found.expected,
                how=found.how,
                confidence=found.confidence,
            ),
        )

    def _admit(self, detection: Detection) -> bool:
        """Whether the detection is neither a repetition nor within the rule's cooldown; remembers it."""
        if not self._is_news(detection):
            return False
        times = self._state.fired.setdefault(detection.rule_id, [])
        times.append(detection.anchor_ms)
        del times[:-_KEPT_TURNS]
        return True

    def _is_news(self, detection: Detection) -> bool:
        rule = self._pack.index.rule(detection.rule_id)
        anchor = detection.anchor_ms
        times = self._state.fired.get(rule.id, ())
        return not any(anchor == t or abs(anchor - t) < rule.cooldown_ms for t in times)
