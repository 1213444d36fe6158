"""A script from YAML, with everything that would keep it from ending found beforehand."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Final, cast, get_args

from detectors.rules.case_form import cases
from detectors.rules.form import Form, nearest
from detectors.rules.model import Action, Book, Condition, Role, Rule
from detectors.rules.script import PREFIX, Anchor, Branch, Node, Script
from streams.events import Severity

Read = Callable[[Form, Book], Condition | None]
"""Reads a condition."""

SCRIPT: Final = ("id", "name", "queues", "when", "start", "nodes", "tests")
NODE: Final = (
    "id", "name", "role", "when", "required", "by", "after", "look_ahead", "before", "at", "hint", "severity",
    "cooldown", "actions", "weight", "next", "negation", "warning",
)  # fmt: skip
BRANCH: Final = ("to", "when", "priority")
MOMENTS: Final = ("call_start", "first_speech")
_ID: Final = re.compile(r"[a-z][a-z0-9_]*")
_SCRIPT_ID: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
_LONGEST_S: Final = 7200
_MOST_TURNS: Final = 100


def script(form: Form, book: Book, read: Read) -> Script | None:
    before = len(form.problems)
    fields = form.fields("a script", SCRIPT, ("id", "name", "nodes"))
    if fields is None:
        return None
    script_id = fields["id"].text("id") if "id" in fields else None
    if script_id is not None and not _SCRIPT_ID.fullmatch(script_id):
        fields["id"].problem(f"expected an id such as service.inbound, came {script_id!r}")
    name = fields["name"].languages("name") if "name" in fields else None
    queues = tuple(text for _, text in fields["queues"].texts("a queue")) if "queues" in fields else ()
    watches = len(book.watches)
    when = read(fields["when"], book) if "when" in fields else None
    if len(book.watches) > watches:
        fields["when"].problem(
            "expected a condition on what is known of the call in a script's when, came one that takes time"
        )
    forms = fields["nodes"].mappings("nodes") if "nodes" in fields else []
    if "nodes" in fields and fields["nodes"].is_list and not forms:
        fields["nodes"].problem("expected at least one node, came none")
    places: dict[str, Form] = {}
    nodes: list[Node] = []
    ids = frozenset(_ids(forms))
    for item in forms:
        node = _node(item, book, read, ids)
        if node is None:
            continue
        if node.id in places:
            line = places[node.id].node.start_mark.line + 1
            item.problem(f"expected an id of its own, came {node.id!r}, which line {line} has")
        places.setdefault(node.id, item)
        nodes.append(node)
    tests = cases(fields, "", "agent")
    start = [(item, text) for item, text in fields["start"].texts("a node")] if "start" in fields else None
    for item, text in start or ():
        if text not in ids:
            item.problem(f"expected a node of this script in start, came {text!r}{nearest(text, ids)}")
    if len(form.problems) > before or script_id is None or name is None:
        return None
    led_to = {branch.to for node in nodes for branch in node.branches}
    entries = frozenset(text for _, text in start) if start else ids - led_to
    order = _order(nodes, places)
    if order is None:
        return None
    reached = _reached(nodes, entries, order)
    for node in nodes:
        if node.id not in reached:
            places[node.id].problem(f"expected a way from start to the node {node.id!r}, came none")
    return Script(
        id=script_id,
        name=name,
        nodes=tuple(nodes),
        entries=entries,
        order=order,
        queues=queues,
        when=when,
        tests=tests,
    )


def _ids(forms: list[Form]) -> list[str]:
    """The ids of all nodes, without a complaint: what is wrong with one is said when it is read."""
    found: list[str] = []
    for form in forms:
        for key, value in form.node.value if form.is_mapping else ():
            if key.value == "id" and isinstance(value.value, str):
                found.append(value.value)
    return found


def _order(nodes: list[Node], places: Mapping[str, Form]) -> tuple[str, ...] | None:
    """Every node behind those it depends on; ``None`` when they depend on each other in a circle."""
    needs: dict[str, set[str]] = {node.id: set() for node in nodes}
    for node in nodes:
        for branch in node.branches:
            needs[branch.to].add(node.id)
        if node.after_node is not None:
            needs[node.id].add(node.after_node)
        if node.before_node is not None:
            needs[node.before_node].add(node.id)
    try:
        return tuple(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle: list[str] = error.args[1]
        places[circle[0]].problem(
            f"expected an order in which the nodes can be done, came a circle: {' → '.join(circle)} "
            "(a node is done once, so it would never end)"
        )
        return None


def _reached(nodes: list[Node], entries: frozenset[str], order: tuple[str, ...]) -> set[str]:
    by_id = {node.id: node for node in nodes}
    reached = set(entries)
    for node_id in order:
        if node_id in reached:
            reached.update(branch.to for branch in by_id[node_id].branches)
    return reached


def _node(form: Form, book: Book, read: Read, ids: Collection[str]) -> Node | None:
    problems = len(form.problems)
    fields = form.fields("a node", NODE, ("id", "name", "role", "when"))
    if fields is None:
        return None
    node_id = fields["id"].text("id") if "id" in fields else None
    if node_id is not None and (not _ID.fullmatch(node_id) or node_id in MOMENTS):
        fields["id"].problem(f"expected an id such as recording_notice, came {node_id!r}")
    name = fields["name"].languages("name") if "name" in fields else None
    role = fields["role"].choice("role", get_args(Role)) if "role" in fields else None
    severity = (
        fields["severity"].choice("severity", get_args(Severity)) if "severity" in fields else "warning"
    )
    hint = fields["hint"].languages("hint") if "hint" in fields else None
    cooldown = _number(fields, "cooldown", 0, 86_400)
    weight = _number(fields, "weight", 0, 100)
    by = _number(fields, "by", 1, _LONGEST_S)
    required = fields["required"].flag("required") if "required" in fields else True
    actions = tuple(
        cast(Action, choice)
        for item in (fields["actions"].items("actions") if "actions" in fields else ())
        if (choice := item.choice("an action", get_args(Action))) is not None
    )
    at_end = "at" in fields and fields["at"].choice("at", ("end",)) is not None
    if at_end and by is not None:
        fields["at"].problem("expected by or at: end in a node, came both")
    rule_id, spoken_by = PREFIX + (node_id or ""), cast(Role, role or "agent")

    def listen(inner: Form, negation: bool = True, warning: bool = False) -> Rule | None:
        first = len(book.watches)
        when = read(inner, book)
        if when is None:
            return None
        return Rule(
            id=rule_id,
            name=name or {},
            severity=cast(Severity, severity or "warning"),
            # `role` beside the operator names another speaker; it keeps the others away itself.
            role="any" if _names_role(inner) else spoken_by,
            when=when,
            watches=tuple(book.watches[first:]),
            cooldown_ms=round((cooldown or 0) * 1000),
            actions=actions or (("alert", "marker", "hint") if hint else ("alert", "marker")),
            hint=hint,
            negation=negation,
            warning=warning,
        )

    # What the script wants to hear may well be a denial or a warning: 不保本, 理财有风险.
    negation = fields["negation"].flag("negation") if "negation" in fields else False
    warning = fields["warning"].flag("warning") if "warning" in fields else False
    rule = listen(fields["when"], bool(negation), bool(warning)) if "when" in fields else None
    anchor: Anchor = "entry"
    after_node = after_cue = before_node = before_cue = None
    if "after" in fields:
        anchor, after_node, after_cue = _after(fields["after"], listen, node_id, ids)
    if "before" in fields:
        if fields["before"].is_mapping:
            before_cue = listen(fields["before"])
        else:
            before_node = _reference(fields["before"], "before", node_id, ids)
    ahead_ms, ahead_turns = _look_ahead(fields["look_ahead"]) if "look_ahead" in fields else (None, None)
    branches = _branches(fields["next"], listen, node_id, ids) if "next" in fields else ()
    if len(form.problems) > problems or rule is None or node_id is None:
        return None
    return Node(
        id=node_id,
        rule=rule,
        required=bool(required),
        by_ms=None if by is None else round(by * 1000),
        after=anchor,
        after_node=after_node,
        after_cue=after_cue,
        ahead_ms=ahead_ms,
        ahead_turns=ahead_turns,
        before_node=before_node,
        before_cue=before_cue,
        at_end=at_end,
        weight=1.0 if weight is None else weight,
        branches=branches,
    )


def _names_role(form: Form) -> bool:
    return form.is_mapping and any(key.value == "role" for key, _ in form.node.value)


def _number(fields: Mapping[str, Form], name: str, low: float, high: float) -> float | None:
    return fields[name].number(name, low, high) if name in fields else None


def _reference(form: Form, what: str, own: str | None, ids: Collection[str]) -> str | None:
    text = form.text(what)
    if text is None:
        return None
    if text == own:
        form.problem(f"expected another node in {what}, came {text!r} itself")
    elif text not in ids:
        form.problem(f"expected a node of this script in {what}, came {text!r}{nearest(text, ids)}")
    return text


def _after(
    form: Form, listen: Callable[[Form], Rule | None], own: str | None, ids: Collection[str]
) -> tuple[Anchor, str | None, Rule | None]:
    if form.is_mapping:
        return "condition", None, listen(form)
    if form.node.value in MOMENTS:
        return cast(Anchor, form.node.value), None, None
    return "node", _reference(form, "after", own, {*ids, *MOMENTS}), None


def _look_ahead(form: Form) -> tuple[int | None, int | None]:
    fields = form.fields("look_ahead", ("turns", "seconds"))
    if fields is None:
        return None, None
    if not fields:
        form.problem("expected turns or seconds in look_ahead, came none")
    seconds = _number(fields, "seconds", 1, _LONGEST_S)
    turns = _number(fields, "turns", 1, _MOST_TURNS)
    return None if seconds is None else round(seconds * 1000), None if turns is None else int(turns)


def _branches(
    form: Form, listen: Callable[[Form], Rule | None], own: str | None, ids: Collection[str]
) -> tuple[Branch, ...]:
    """``next``: a node's id, or a list of ids and of ``{to, when, priority}``."""
    found: list[tuple[Form, Branch]] = []
    for item in form.items("next") if not form.is_mapping else [form]:
        if not item.is_mapping:
            to, cue, priority = _reference(item, "next", own, ids), None, None
        else:
            fields = item.fields("a branch", BRANCH, ("to",)) or {}
            to = _reference(fields["to"], "to", own, ids) if "to" in fields else None
            cue = listen(fields["when"]) if "when" in fields else None
            priority = _number(fields, "priority", -1000, 1000)
        if to is not None:
            number = len(found) if priority is None else int(priority)
            found.append((item, Branch(to=to, cue=cue, priority=number)))
    found.sort(key=lambda pair: pair[1].priority)
    for (_, earlier), (item, later) in pairwise(found):
        if earlier.cue is None:
            item.problem(
                f"expected a branch that can be taken, came one to {later.to!r} behind the one to "
                f"{earlier.to!r}, which has no condition and is always taken"
            )
    return tuple(branch for _, branch in found)
