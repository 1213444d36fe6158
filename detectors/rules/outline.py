"""Where things stand in a pack's text: its id, and the lines of each rule and of each node of a script."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

import yaml

from detectors.rules.form import PackError, compose
from detectors.rules.script import PREFIX

_DECLARED: Final = re.compile(r"^id:[ \t]*[\"']?([A-Za-z0-9._-]+)[\"']?[ \t]*(?:#.*)?$", re.MULTILINE)


class Lines(NamedTuple):
    """Counted from 1, both included."""

    first: int
    last: int


def declared_id(text: str) -> str | None:
    """As ``pack_id``, at a glance: of a text that nobody has checked, which may be anything."""
    match = _DECLARED.search(text)
    return match.group(1) if match is not None else None


@lru_cache(maxsize=64)
def pack_id(text: str) -> str | None:
    """What the pack calls itself; ``None`` where that cannot be told."""
    try:
        root = compose("", text).node
    except PackError:
        return None
    return _scalar(_value(root, "id"))


@lru_cache(maxsize=16)
def outline(text: str) -> dict[str, Lines]:
    """By rule id; nodes of scripts by what they raise. Raises ``PackError`` where it is no YAML."""
    root = compose("", text).node
    lines = text.split("\n")
    found: dict[str, Lines] = {}
    rules = _items(_value(root, "rules"))
    nodes = [node for script in _items(_value(root, "scripts")) for node in _items(_value(script, "nodes"))]
    for prefix, item in (*(("", rule) for rule in rules), *((PREFIX, node) for node in nodes)):
        name = _scalar(_value(item, "id"))
        if name is not None:
            found.setdefault(prefix + name, _lines(item, lines))
    return found


def _lines(node: yaml.Node, lines: list[str]) -> Lines:
    first = node.start_mark.line + 1
    # In block style a node ends where the next thing begins.
    end = node.end_mark.line + (1 if getattr(node, "flow_style", None) else 0)
    end = min(max(first, end), max(first, len(lines)))
    # What follows a rule up to the next one is not its own: blank lines, the comment above its neighbour.
    while end > first and (not (line := lines[end - 1].strip()) or line.startswith("#")):
        end -= 1
    return Lines(first, end)


def _value(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if _scalar(key) == name), None)


def _items(node: yaml.Node | None) -> list[yaml.Node]:
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _scalar(node: yaml.Node | None) -> str | None:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else None
