"""A script: what should be said in a call, when, and in which order. A graph of nodes, read once.

A node is *in force* from the call's start, or from the moment at which a branch leads to it. It is done
once, when its words are said; so a way that leads back to a node could never go on, and a pack with one is
refused. Everything here is immutable and shared by all calls; ``script_run`` runs it over one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from msgspec import Struct

from detectors.rules.model import Condition, Pack, Rule, Scene, TestCase, instant
from streams.events import CallInfo

Anchor = Literal["entry", "call_start", "first_speech", "node", "condition"]
"""From when a node's seconds count: ``entry`` is the moment at which it came in force."""

PREFIX: Final = "script."


class Branch(Struct, frozen=True, kw_only=True):
    """Where the call goes on after a node."""

    to: str
    cue: Rule | None = None
    """``None``: where it goes when none of the others comes true."""
    priority: int = 0
    """The smallest is tried first."""


class Node(Struct, frozen=True, kw_only=True):
    id: str
    rule: Rule
    """Its words, role, name, severity and hint; its id is ``script.`` and the node's."""
    required: bool = True
    by_ms: int | None = None
    """Milliseconds of media time in which it has to be said, from ``after`` on."""
    after: Anchor = "entry"
    after_node: str | None = None
    after_cue: Rule | None = None
    ahead_ms: int | None = None
    """Look-ahead: for so long it is waited for once it is in force."""
    ahead_turns: int | None = None
    """Look-ahead: in so many turns of its role."""
    before_node: str | None = None
    before_cue: Rule | None = None
    """What must not come while the node is not done."""
    at_end: bool = False
    weight: float = 1.0
    """Its share of the score."""
    branches: tuple[Branch, ...] = ()
    """By priority; the one without a cue is the last."""

    def cues(self) -> Iterator[Rule]:
        """Everything that is listened for on its behalf."""
        yield self.rule
        for cue in (self.after_cue, self.before_cue, *(branch.cue for branch in self.branches)):
            if cue is not None:
                yield cue

    @property
    def default(self) -> Branch | None:
        return next((branch for branch in self.branches if branch.cue is None), None)


class Script(Struct, frozen=True, kw_only=True):
    id: str
    name: Mapping[str, str]
    nodes: tuple[Node, ...]
    """In the order of the file, which is that of the checklist."""
    entries: frozenset[str]
    """Nodes that are in force from the start."""
    order: tuple[str, ...]
    """All ids, each behind those that lead to it."""
    queues: tuple[str, ...] = ()
    when: Condition | None = None
    """On what is known of the call."""
    tests: tuple[TestCase, ...] = ()

    @property
    def is_default(self) -> bool:
        return not self.queues and self.when is None

    def node(self, node_id: str) -> Node:
        return next(node for node in self.nodes if node.id == node_id)

    def before(self, node_id: str) -> list[Node]:
        """Nodes that lead to it directly."""
        return [node for node in self.nodes if any(branch.to == node_id for branch in node.branches)]


def script_of(call: CallInfo, pack: Pack) -> Script | None:
    """The first whose queue and condition fit the call; else the first that asks for neither."""
    for script in pack.scripts:
        if not script.is_default and _fits(script, call, pack):
            return script
    return next((script for script in pack.scripts if script.is_default), None)


def _fits(script: Script, call: CallInfo, pack: Pack) -> bool:
    if script.queues and call.queue not in script.queues:
        return False
    if script.when is None:
        return True
    scene = Scene((), script.nodes[0].rule, pack.patterns, call, 0)
    return script.when.find(scene, instant(call.call_id, 0)) is not None
