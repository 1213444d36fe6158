"""How far a call has come in its script: the state, and what follows from it. Immutable, no side effects.

What is wrong with a node is not noted down but worked out from what is known (``Standing.fault``); so a
transcript that comes late may clear it again, and the order in which the transcripts of the two channels
arrive does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from detectors.rules.model import Role
from detectors.rules.script import Node, Script
from detectors.rules.speaking import Speech
from streams.events import Channel, Detection, Step, StepState

GRACE_MS: Final = 500
"""The start of speech is told up to so much media time after it."""
PATIENCE_MS: Final = 15_000
"""For so long past a deadline it is waited for what is still being said or transcribed."""
_WORTH: Final = {"done": 1.0, "too_late": 0.5, "out_of_order": 0.5, "missed": 0.0}
"""In the score."""


class Sighting(Struct, frozen=True, array_like=True):
    """Where something that a script listens for came true."""

    start_ms: int
    end_ms: int
    anchor_ms: int
    """Start of the utterance; it does not move when the same sound is read again."""
    text: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    expected: tuple[str, ...] = ()
    utterance_id: str | None = None
    role: Channel = "unknown"


class NodeState(Struct, frozen=True, array_like=True):
    entered_ms: int | None = None
    """Since when it is in force."""
    anchor_ms: int = 0
    """Of what brought it in force."""
    said: Sighting | None = None
    armed: Sighting | None = None
    """Where its ``after`` came true, if that is a condition."""
    violated: Sighting | None = None
    """What came, and must not have come before it."""
    skipped: tuple[str, ...] = ()
    """Required nodes that had not been done when it was said."""
    heard: int = 0
    """Turns of its role since it came in force."""
    passed_ms: int | None = None
    """When its look-ahead in turns was over."""
    decided: bool = False
    """Whether a branch has been taken."""
    raised: Detection | None = None


class ScriptState(Struct, frozen=True, array_like=True):
    script: str | None = None
    nodes: dict[str, NodeState] = {}
    watches: dict[int, bytes] = {}
    """By number, the watches' states as MessagePack; only in a snapshot."""
    speech: Speech = Speech()
    began_ms: int = 0
    """When the script was taken up: a call may change its queue."""
    now_ms: int = 0
    ended_ms: int | None = None
    hung_up: bool = False
    """The call ended as calls do, so that what belongs to its end may be missed."""
    told: tuple[Step, ...] | None = None
    """The checklist as it was told last."""


class Fault(Struct, frozen=True):
    """What is wrong with a node."""

    anchor_ms: int
    at: Sighting
    """What was said at the wrong time, or the time in which nothing was said."""
    order: bool = False
    """Said before its turn; all other faults are about what was not said in time."""

    def counts(self, node: Node) -> bool:
        """What is optional may be left out; it may not be said out of order."""
        return self.order or node.required


class Limit(Struct, frozen=True):
    """From when a node's time runs, and until when."""

    anchor_ms: int
    since_ms: int
    until_ms: int


class Standing:
    """A script and how far a call has come in it; answers questions."""

    def __init__(self, script: Script, state: ScriptState) -> None:
        self.script, self.state = script, state
        self._limits: dict[str, Limit | None] = {}
        self._faults: dict[str, Fault | None] = {}
        """What was asked before: several ask the same, and nothing changes."""

    def own(self, node_id: str) -> NodeState:
        return self.state.nodes[node_id]

    # ── time ──────────────────────────────────────────────────────────────────────────────────────

    def limit(self, node: Node) -> Limit | None:
        """The node's time; ``None`` while it does not run."""
        if node.id not in self._limits:
            self._limits[node.id] = self._limit(node)
        return self._limits[node.id]

    def _limit(self, node: Node) -> Limit | None:
        own = self.own(node.id)
        limits: list[Limit] = []
        since = self._since(node)
        if node.by_ms is not None and since is not None:
            limits.append(Limit(since[1], since[0], since[0] + node.by_ms))
        if node.ahead_ms is not None and own.entered_ms is not None:
            limits.append(Limit(own.anchor_ms, own.entered_ms, own.entered_ms + node.ahead_ms))
        limit = min(limits, key=lambda limit: limit.until_ms, default=None)
        # A call that ends before has left the time to say it; nothing is missed behind its end.
        ended = self.state.ended_ms
        return None if limit is None or (ended is not None and limit.until_ms > ended) else limit

    def _since(self, node: Node) -> tuple[int, int] | None:
        """From when ``by`` counts, and what that is anchored at."""
        own, state = self.own(node.id), self.state
        if node.after == "call_start":
            return state.began_ms, state.began_ms
        if node.after == "first_speech":
            first = state.speech.first_of(node.rule.role)
            return None if first is None else (first, first)
        if node.after == "entry":
            return None if own.entered_ms is None else (own.entered_ms, own.anchor_ms)
        begun = own.armed if node.after_node is None else self.own(node.after_node).said
        return None if begun is None else (begun.end_ms, begun.anchor_ms)

    def is_clear(self, role: Role, limit_ms: int, grace_ms: int = 0) -> bool:
        """Whether nothing that this side began to say before ``limit_ms`` can still turn up."""
        state = self.state
        if state.ended_ms is not None:
            return True
        if state.now_ms < limit_ms + grace_ms:
            return False
        return state.now_ms >= limit_ms + PATIENCE_MS or not state.speech.is_owed(role, limit_ms)

    def due(self, node: Node) -> int | None:
        """When the node has to be looked at again if nothing happens until then."""
        own, now = self.own(node.id), self.state.now_ms
        if own.raised is not None or self.fault(node) is not None:
            return None
        times: list[int] = []
        limit = self.limit(node)
        if limit is not None and (own.said is None or own.said.start_ms > limit.until_ms):
            times += [limit.until_ms + GRACE_MS, limit.until_ms + PATIENCE_MS]
        if own.violated is not None:
            times.append(own.violated.start_ms + PATIENCE_MS)
        if own.skipped and own.said is not None:
            times.append(own.said.start_ms + PATIENCE_MS)
        return min((at for at in times if at > now), default=None)

    # ── faults ────────────────────────────────────────────────────────────────────────────────────

    def fault(self, node: Node) -> Fault | None:
        """What is wrong with a node by all that is known now. An optional one may have a fault too."""
        if node.id not in self._faults:
            self._faults[node.id] = self._fault(node)
        return self._faults[node.id]

    def _fault(self, node: Node) -> Fault | None:
        own, role = self.own(node.id), node.rule.role
        said_ms = own.said.start_ms if own.said is not None else None

        def unsaid_by(limit_ms: int, grace_ms: int = 0) -> bool:
            late = said_ms is None or said_ms > limit_ms
            # What has been raised is taken back for what was said, not for what might be.
            return late and (own.raised is not None or self.is_clear(role, limit_ms, grace_ms))

        if own.said is not None and self._is_out_of_order(own.said, own):
            return Fault(own.said.anchor_ms, own.said, order=True)
        if own.violated is not None and unsaid_by(own.violated.start_ms):
            return Fault(own.violated.anchor_ms, own.violated)
        limit = self.limit(node)
        if limit is not None and unsaid_by(limit.until_ms, GRACE_MS):
            return Fault(limit.anchor_ms, _waited(limit.since_ms, limit.until_ms))
        entered, passed = own.entered_ms or 0, own.passed_ms
        if passed is not None and (said_ms is None or said_ms > passed):
            return Fault(own.anchor_ms, _waited(entered, passed))
        if said_ms is None and self._is_missed_at_end(node, own):
            return Fault(own.anchor_ms, _waited(entered, self.state.ended_ms or 0))
        return None

    def is_over(self, node: Node) -> bool:
        """Whether its time has gone by without it."""
        return self.own(node.id).said is None and self.fault(node) is not None

    def _is_out_of_order(self, said: Sighting, own: NodeState) -> bool:
        for name in own.skipped:
            other = self.own(name).said
            late = other is None or other.start_ms > said.start_ms
            role = self.script.node(name).rule.role
            if late and (own.raised is not None or self.is_clear(role, said.start_ms)):
                return True
        return False

    def _is_missed_at_end(self, node: Node, own: NodeState) -> bool:
        """Whether the call went by without what has no other deadline than its end."""
        state = self.state
        if state.ended_ms is None or not state.hung_up or own.entered_ms is None:
            return False
        # Who never said a word has closed no call: nobody was there.
        if state.speech.first_of(node.rule.role) is None:
            return False
        if node.at_end:
            return True
        timed = node.by_ms is not None or node.ahead_ms is not None or node.ahead_turns is not None
        before = node.before_node is not None or node.before_cue is not None
        return not timed and not before and self._since(node) is not None

    # ── ways ──────────────────────────────────────────────────────────────────────────────────────

    def way_to(self, node: Node) -> tuple[str, ...] | None:
        """Required nodes left out on the best way from where the call is to ``node``; ``None``: no way."""
        best: tuple[str, ...] | None = None
        for previous in self.script.before(node.id):
            own = self.own(previous.id)
            way: tuple[str, ...] | None
            left = (previous.id,) if previous.required else ()
            if own.entered_ms is None:
                further = self.way_to(previous)
                way = None if further is None else (*further, *left)
            elif own.decided:
                continue  # the call went elsewhere
            else:
                way = () if own.said is not None or self.is_over(previous) else left
            if way is not None and (best is None or len(way) < len(best)):
                best = way
        return best

    # ── the checklist ─────────────────────────────────────────────────────────────────────────────

    def steps(self) -> tuple[Step, ...]:
        return tuple(self._step(node) for node in self.script.nodes)

    def _step(self, node: Node) -> Step:
        own, fault, limit = self.own(node.id), self.fault(node), self.limit(node)
        state: StepState
        if own.said is not None:
            wrong = fault if fault is not None and fault.counts(node) else None
            state = "done" if wrong is None else "out_of_order" if wrong.order else "too_late"
        elif fault is not None:
            state = "missed" if node.required else "skipped"
        elif self.state.ended_ms is not None:
            state = "skipped"
        else:
            state = "due" if limit is not None else "waiting"
        return Step(
            id=node.id,
            name=dict(node.rule.name),
            state=state,
            required=node.required,
            due_ms=limit.until_ms if limit is not None else None,
            done_ms=own.said.end_ms if own.said is not None else None,
            hint=dict(node.rule.hint) if node.rule.hint else None,
        )

    def score(self, steps: Sequence[Step]) -> float | None:
        """0 to 100: the share of the weight that was done, of what was to be done so far."""
        judged = [
            (node.weight, _WORTH[step.state])
            for node, step in zip(self.script.nodes, steps, strict=True)
            if (node.required or step.state == "out_of_order") and step.state in _WORTH
        ]
        whole = sum(weight for weight, _ in judged)
        return round(100 * sum(weight * share for weight, share in judged) / whole, 1) if whole else None


def _waited(since_ms: int, until_ms: int) -> Sighting:
    """What was waited for in vain, from when to when: it lies where the waiting was over."""
    until_ms = max(since_ms, until_ms)
    waited = f"{(until_ms - since_ms) / 1000:.0f} s"
    return Sighting(until_ms, until_ms, since_ms, f"{waited} 内未说 / not said within {waited}")
