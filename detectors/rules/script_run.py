"""Runs a call's script beside the rules: listens for what its nodes say, goes on, tells what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from detectors.rules.model import Found, Moment, Pack, Rule, Scene, Turn, Watch, instant
from detectors.rules.script import Branch, Node, Script, script_of
from detectors.rules.script_state import Fault, NodeState, ScriptState, Sighting, Standing
from streams.events import (
    CallEnded,
    CallEvent,
    CallInfo,
    CallStarted,
    CallUpdated,
    Detection,
    Emotion,
    Evidence,
    Finding,
    Progress,
    SpeechStarted,
    SpeechStopped,
)

Ask = Callable[[Watch, Any, Scene], tuple[Any, Moment | None]]


class ScriptRun:
    """The script of one call. The engine feeds it with its own turns; only final transcripts count.

    All state is one immutable value (and those of the watches in its conditions).
    """

    def __init__(self, call: CallInfo, pack: Pack) -> None:
        self._pack, self._call = pack, call
        self._state = ScriptState()
        self._script: Script | None = None
        self._watches: dict[int, Any] = {}
        self._wake: int | None = None
        """Asked for far more often than anything happens."""
        self._due: int | None = None
        """The part of it that is for the nodes."""
        self._known: Standing | None = None
        self._choose(call, 0)

    def on_event(self, event: CallEvent | Emotion, turns: Sequence[Turn]) -> list[Finding]:
        """Everything but transcripts; ``turns`` are the last ones of the call."""
        if isinstance(event, CallStarted | CallUpdated):
            self._call = event.call
            self._choose(event.call, event.media_ms)
        if self._script is None:
            return []
        self._reach(event.media_ms)
        quiet = not isinstance(event, CallStarted | CallUpdated | CallEnded)
        if isinstance(event, SpeechStarted | SpeechStopped):
            before = self._state.speech
            self._state = replace(self._state, speech=before.edge(event))
            quiet = self._state.speech.firsts() == before.firsts()
        elif isinstance(event, CallEnded):
            self._state = replace(self._state, ended_ms=event.media_ms, hung_up=event.reason == "hangup")
        told = self._ask(lambda watch, own, scene: watch.on_event(own, event, scene), turns)
        if quiet and not told and (self._wake is None or self._state.now_ms < self._wake):
            self._set_alarm(by_watches_only=True)
            return []  # most events: no word said, no time over
        return self._go_on(self._script, told, instant(self._call.call_id, event.media_ms), turns)

    def on_turn(self, turn: Turn, turns: Sequence[Turn]) -> list[Finding]:
        """A final transcript, the last of ``turns``."""
        if self._script is None:
            return []
        self._reach(turn.transcript.end_ms)
        self._state = replace(self._state, speech=self._state.speech.transcribed(turn.transcript))
        told = self._ask(lambda watch, own, scene: watch.on_turn(own, scene, turn), turns, turn)
        return self._go_on(self._script, told, turn, turns)

    def wake_at(self) -> int | None:
        return self._wake

    def on_wake(self, now_ms: int, turns: Sequence[Turn]) -> list[Finding]:
        if self._script is None:
            return []
        self._reach(now_ms)

        def serve(watch: Watch, own: Any, scene: Scene) -> tuple[Any, Moment | None]:
            wake = watch.wake_at(own)
            return watch.on_wake(own, now_ms, scene) if wake is not None and wake <= now_ms else (own, None)

        return self._go_on(self._script, self._ask(serve, turns), instant(self._call.call_id, now_ms), turns)

    def snapshot(self) -> bytes:
        watches = {number: msgspec.msgpack.encode(own) for number, own in self._watches.items()}
        return msgspec.msgpack.encode((self._call, replace(self._state, watches=watches)))

    def restore(self, snapshot: bytes) -> None:
        """Raises ``ValueError`` when the snapshot comes from another pack."""
        self._call, state = msgspec.msgpack.decode(snapshot, type=tuple[CallInfo, ScriptState])
        self._script = next((s for s in self._pack.scripts if s.id == state.script), None)
        known = {node.id for node in self._script.nodes} if self._script is not None else set()
        numbers = {watch.number for watch in self._all_watches()}
        if state.nodes.keys() != known or state.watches.keys() != numbers:
            raise ValueError(
                f"expected a snapshot of this pack, came one in the script {state.script!r} that is not in "
                "it or has other nodes: restore a call with the pack it started with"
            )
        self._watches = {
            watch.number: msgspec.msgpack.decode(state.watches[watch.number], type=watch.state_type)
            for watch in self._all_watches()
        }
        self._state = replace(state, watches={})
        self._set_alarm()

    # ── which script ──────────────────────────────────────────────────────────────────────────────

    def _choose(self, call: CallInfo, now_ms: int) -> None:
        """Take up the call's script. When the call moves to another one, what was done stays done."""
        chosen = script_of(call, self._pack)
        if chosen is self._script:
            return
        before, self._script = self._state, chosen
        self._watches = {watch.number: watch.fresh() for watch in self._all_watches()}
        nodes: dict[str, NodeState] = {}
        for node in chosen.nodes if chosen is not None else ():
            fresh = NodeState(now_ms, now_ms) if node.id in chosen.entries else NodeState()  # type: ignore[union-attr]
            known = before.nodes.get(node.id, fresh)
            nodes[node.id] = known if known.said is not None else fresh
        self._state = replace(
            before,
            script=None if chosen is None else chosen.id,
            nodes=nodes,
            speech=before.speech.anew(),
            began_ms=now_ms,
            told=None,
        )
        self._set_alarm()

    # ── what is heard ─────────────────────────────────────────────────────────────────────────────

    def _cues(self) -> Iterator[Rule]:
        for node in self._script.nodes if self._script is not None else ():
            yield from node.cues()

    def _all_watches(self) -> Iterator[Watch]:
        for cue in self._cues():
            yield from cue.watches

    def _scene(self, cue: Rule, turns: Sequence[Turn], moments: Mapping[int, Moment] | None = None) -> Scene:
        return Scene(turns, cue, self._pack.patterns, self._call, self._state.now_ms, moments)

    def _ask(self, ask: Ask, turns: Sequence[Turn], turn: Turn | None = None) -> dict[int, Moment]:
        """Serve every watch; what they told, by number."""
        told: dict[int, Moment] = {}
        for cue in self._cues():
            scene = self._scene(cue, turns) if cue.watches else None
            for watch in cue.watches if scene is not None else ():
                own, moment = ask(watch, self._watches[watch.number], scene)  # type: ignore[arg-type]
                if moment is None and turn is None and scene is not None and scene.moments:
                    # An inner watch has come true: for those around it that is an instant like any turn.
                    own, moment = watch.on_turn(own, scene, instant(self._call.call_id, self._state.now_ms))
                if moment is not None and scene is not None:
                    scene.moments[watch.number] = told[watch.number] = moment
                self._watches[watch.number] = own
        return told

    # ── going on ──────────────────────────────────────────────────────────────────────────────────

    def _reach(self, now_ms: int) -> None:
        if now_ms > self._state.now_ms and self._state.ended_ms is None:
            self._state = replace(self._state, now_ms=now_ms)

    def _set(self, node_id: str, **changes: Any) -> None:
        own = replace(self._state.nodes[node_id], **changes)
        self._state = replace(self._state, nodes={**self._state.nodes, node_id: own})

    def _go_on(
        self, script: Script, told: Mapping[int, Moment], turn: Turn, turns: Sequence[Turn]
    ) -> list[Finding]:
        def sees(cue: Rule | None) -> Sighting | None:
            """Whether it comes true now: in this turn, or by what a watch has told."""
            moments = {w.number: told[w.number] for w in cue.watches if w.number in told} if cue else {}
            if cue is None or (not moments and not (turn.normal.text and cue.concerns(turn.role))):
                return None
            found = cue.when.find(self._scene(cue, turns, moments), turn)
            return None if found is None else _sighting(found, turn)

        if told or turn.normal.text:
            self._listen(script, turn, sees)
        if turn.is_speech and turn.normal.text:
            self._count(script, turn)
        self._branch(script, turn, sees)
        raised = self._judge(script)
        if raised:
            # What was left out may have opened the way to what comes next.
            self._branch(script, instant(self._call.call_id, self._state.now_ms), lambda cue: None)
        self._set_alarm()
        return [*raised, *self._progress(script)]

    def _listen(self, script: Script, turn: Turn, sees: Callable[[Rule | None], Sighting | None]) -> None:
        """Note what of the script is said, in the order in which it is said."""
        rank = {node_id: number for number, node_id in enumerate(script.order)}
        seen: list[tuple[int, int, Node, Sighting]] = []
        for node in script.nodes:
            own = self._state.nodes[node.id]
            if own.armed is None and (at := sees(node.after_cue)) is not None:
                self._set(node.id, armed=at)
            at = sees(node.rule)
            if at is not None and (own.said is None or at.start_ms < own.said.start_ms):
                seen.append((at.start_ms, rank[node.id], node, at))
        for _, _, node, at in sorted(seen, key=lambda s: s[:2]):
            self._say(script, node, at)
            self._branch(script, turn, sees)
        for node in script.nodes:
            at = sees(node.before_cue)
            if at is not None:
                self._violate(script, node, at)

    def _say(self, script: Script, node: Node, at: Sighting) -> None:
        if self._state.nodes[node.id].entered_ms is None:
            way = self._standing(script).way_to(node)
            if way is None:
                return  # on a branch that this call has not taken
            self._set(node.id, entered_ms=at.start_ms, anchor_ms=at.anchor_ms, skipped=way)
        self._set(node.id, said=at)
        for other in script.nodes:
            if other.before_node == node.id:
                self._violate(script, other, at)

    def _violate(self, script: Script, node: Node, at: Sighting) -> None:
        """Something came that must not come before ``node``."""
        own = self._state.nodes[node.id]
        if own.said is not None and own.said.start_ms <= at.start_ms:
            return
        if own.entered_ms is None and self._standing(script).way_to(node) is None:
            return  # on a branch that this call has not taken
        known, cooldown = own.violated, node.rule.cooldown_ms
        if known is None or at.start_ms < known.start_ms:
            self._set(node.id, violated=at)
        elif own.raised is not None and cooldown and at.start_ms - known.start_ms >= cooldown:
            self._set(node.id, violated=at, raised=None)

    def _count(self, script: Script, turn: Turn) -> None:
        """Look-ahead in turns."""
        start, end = turn.transcript.start_ms, turn.transcript.end_ms
        for node in script.nodes:
            own = self._state.nodes[node.id]
            if node.ahead_turns is None or own.entered_ms is None or own.said is not None:
                continue
            if own.passed_ms is None and node.rule.concerns(turn.role) and start >= own.entered_ms:
                over = own.heard + 1 >= node.ahead_turns
                self._set(node.id, heard=own.heard + 1, passed_ms=end if over else None)

    def _branch(self, script: Script, turn: Turn, sees: Callable[[Rule | None], Sighting | None]) -> None:
        """Go on from every node that is done, or whose time is over."""
        for node_id in script.order:
            node, own = script.node(node_id), self._state.nodes[node_id]
            if own.decided or not node.branches or own.entered_ms is None:
                continue
            over = self._standing(script).is_over(node)
            if own.said is None and not over:
                continue
            taken = self._choice(node, own, over, turn, sees)
            if taken is None:
                continue
            self._set(node_id, decided=True)
            if self._state.nodes[taken.to].entered_ms is None:
                reached = anchor = self._state.now_ms
                if own.said is not None:
                    reached, anchor = own.said.end_ms, own.said.anchor_ms
                if taken.cue is not None and turn.is_speech and turn.transcript.end_ms > reached:
                    reached, anchor = turn.transcript.end_ms, turn.transcript.start_ms
                self._set(taken.to, entered_ms=reached, anchor_ms=anchor)

    def _choice(
        self,
        node: Node,
        own: NodeState,
        over: bool,
        turn: Turn,
        sees: Callable[[Rule | None], Sighting | None],
    ) -> Branch | None:
        """The branch that is taken now: by what it asks for, by what is said of its node, else the default.

        The default waits for an answer where there is something to choose.
        """
        earlier = own.said is not None and turn.is_speech and turn.transcript.end_ms < own.said.start_ms
        if not earlier:
            for branch in node.branches:
                if branch.cue is not None and sees(branch.cue) is not None:
                    return branch
        for branch in node.branches:
            if self._state.nodes[branch.to].said is not None:
                return branch
        answered = (
            own.said is not None
            and turn.is_speech
            and bool(turn.normal.text)
            and (turn.role == "unknown" or turn.role != own.said.role)
            and turn.transcript.start_ms > own.said.anchor_ms
        )
        if len(node.branches) == 1 or over or answered or self._state.ended_ms is not None:
            return node.default
        return None

    # ── what is told ──────────────────────────────────────────────────────────────────────────────

    def _standing(self, script: Script) -> Standing:
        known = self._known
        if known is None or known.state is not self._state or known.script is not script:
            known = self._known = Standing(script, self._state)
        return known

    def _set_alarm(self, by_watches_only: bool = False) -> None:
        """``by_watches_only``: nothing has happened to the nodes."""
        self._wake = None
        if self._script is None or self._state.ended_ms is not None:
            return
        if not by_watches_only:
            standing = self._standing(self._script)
            due = [time for node in self._script.nodes if (time := standing.due(node)) is not None]
            self._due = min(due, default=None)
        times = [self._due, *(watch.wake_at(self._watches[watch.number]) for watch in self._all_watches())]
        self._wake = min((time for time in times if time is not None), default=None)

    def _judge(self, script: Script) -> list[Finding]:
        out: list[Finding] = []
        for node in script.nodes:
            own, fault = self._state.nodes[node.id], self._standing(script).fault(node)
            if fault is not None and fault.counts(node) and own.raised is None:
                detection = self._deviation(node, fault)
                self._set(node.id, raised=detection)
                out.append(detection)
            elif fault is None and own.raised is not None:
                out.append(replace(own.raised, withdrawn=True))
                self._set(node.id, raised=None)
        return out

    def _deviation(self, node: Node, fault: Fault) -> Detection:
        at = fault.at
        return Detection(
            call_id=self._call.call_id,
            rule_id=node.rule.id,
            role=at.role if node.rule.role == "any" else node.rule.role,
            media_start_ms=at.start_ms,
            media_end_ms=max(at.start_ms, at.end_ms),
            anchor_ms=fault.anchor_ms,
            utterance_id=at.utterance_id,
            evidence=Evidence(
                text=at.text,
                matched=tuple(at.text[a:b] for a, b in at.spans),
                spans=at.spans,
                expected=at.expected,
                how="script",
            ),
        )

    def _progress(self, script: Script) -> list[Progress]:
        """The whole checklist, if anything on it has changed."""
        standing = self._standing(script)
        steps = standing.steps()
        if steps == self._state.told:
            return []
        self._state = replace(self._state, told=steps)
        return [
            Progress(
                call_id=self._call.call_id,
                script=script.id,
                name=dict(script.name),
                media_ms=self._state.now_ms,
                steps=steps,
                score=standing.score(steps),
            )
        ]


def _sighting(found: Found, turn: Turn) -> Sighting:
    transcript, moment, spans = turn.transcript, found.moment, found.spans
    if moment is not None and not turn.is_speech:
        return Sighting(
            moment.start_ms, moment.end_ms, moment.start_ms, moment.text, moment.spans, role=moment.role
        )
    return Sighting(
        start_ms=transcript.time_of(spans[0][0]) if spans else transcript.start_ms,
        end_ms=transcript.time_of(max(b for _, b in spans)) if spans else transcript.end_ms,
        anchor_ms=transcript.start_ms,
        text=transcript.text,
        spans=spans,
        expected=found.expected,
        utterance_id=transcript.utterance_id or None,
        role=transcript.role,
    )
