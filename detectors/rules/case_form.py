"""The dialogues that stand in a pack as tests: from YAML to ``TestCase``."""

from __future__ import annotations

from typing import get_args

from detectors.rules.form import Form
from detectors.rules.model import TestCase, TestTurn
from streams.events import Channel


def cases(fields: dict[str, Form], rule_id: str, role: str) -> tuple[TestCase, ...]:
    """What stands under ``hits``, ``misses`` and ``tests`` of a rule or a script."""
    speaker: Channel = "customer" if role == "customer" else "agent"
    found: list[TestCase] = []
    for kind in ("hits", "misses"):
        for item, text in fields[kind].texts("a sentence") if kind in fields else ():
            line = item.node.start_mark.line + 1
            turns = (TestTurn(speaker, text),)
            hits, misses = (rule_id, None) if kind == "hits" else (None, rule_id)
            found.append(TestCase(f"{kind}: {text}", line, turns, hits=hits, misses=misses))
    for form in fields["tests"].mappings("tests") if "tests" in fields else ():
        case = _case(form)
        if case is not None:
            found.append(case)
    return tuple(found)


def _case(form: Form) -> TestCase | None:
    fields = form.fields("a test", ("name", "turns", "expect", "ends"), ("turns", "expect"))
    if fields is None or "turns" not in fields or "expect" not in fields:
        return None
    line = form.node.start_mark.line + 1
    turns = [turn for item in fields["turns"].mappings("turns") if (turn := _turn(item)) is not None]
    expect = [text for _, text in fields["expect"].texts("a rule id")]
    name = fields["name"].text("name") if "name" in fields else None
    ends = fields["ends"].number("ends", 0, 86_400) if "ends" in fields else None
    return TestCase(
        name=name or (turns[0].text if turns else f"line {line}"),
        line=line,
        turns=tuple(turns),
        expect=tuple(expect),
        ends_ms=None if ends is None else round(ends * 1000),
    )


def _turn(form: Form) -> TestTurn | None:
    fields = form.fields("a turn", ("agent", "customer", "unknown", "start", "end"))
    if fields is None:
        return None
    roles = [role for role in get_args(Channel) if role in fields]
    if len(roles) != 1:
        form.problem(f"expected one speaker (agent, customer, unknown), came {' and '.join(roles) or 'none'}")
        return None
    text = fields[roles[0]].text("what is said")
    times: list[int | None] = []
    for name in ("start", "end"):
        seconds = fields[name].number(name, 0, 86_400) if name in fields else None
        times.append(None if seconds is None else round(seconds * 1000))
    if text is None:
        return None
    return TestTurn(roles[0], text, times[0], times[1])
