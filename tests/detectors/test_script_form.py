"""Scripts that cannot be used are refused whole, with the place of what is wrong."""

from __future__ import annotations

import pytest

from detectors.rules import PackError, parse_pack

HEAD = (
    'id: t\nversion: "1"\nrules:\n'
    "  - {id: t.rule, name: {zh: 规, en: R}, severity: info, role: agent, when: {phrase: [甲乙丙]}}\n"
)


def script(*nodes: str, more: str = "") -> str:
    lines = "".join(
        f"      - {{role: agent, when: {{phrase: [您好]}}, name: {{zh: 步, en: S}}, {node}}}\n"
        for node in nodes
    )
    return f"{HEAD}scripts:\n  - id: s\n    name: {{zh: 流程, en: Flow}}\n{more}    nodes:\n{lines}"


def problems(text: str) -> list[str]:
    with pytest.raises(PackError) as refused:
        parse_pack(text, "t.yaml")
    return [str(problem) for problem in refused.value.problems]


def test_an_unknown_node_is_named_with_its_place_and_the_nearest_name() -> None:
    (said,) = problems(script("id: a, next: greting", "id: greeting"))
    assert said.startswith("t.yaml:9:")
    assert "expected a node of this script in next, came 'greting'; did you mean 'greeting'?" in said


@pytest.mark.parametrize("where", ["next: a", "next: [{to: a}]", "after: a, by: 5", "before: a"])
def test_a_node_that_refers_to_itself_is_refused(where: str) -> None:
    (said, *_) = problems(script(f"id: a, {where}"))
    assert "expected another node" in said


@pytest.mark.parametrize(
    "nodes",
    [
        ("id: a, next: b", "id: b, next: c", "id: c, next: a"),
        ("id: a, after: b", "id: b, after: a"),
        ("id: a, next: b", "id: b, before: a"),
    ],
)
def test_a_circle_is_refused(nodes: tuple[str, ...]) -> None:
    (said,) = problems(script(*nodes))
    assert "came a circle: " in said
    assert " → " in said


def test_a_node_that_no_way_leads_to_is_refused() -> None:
    (said,) = problems(script("id: a, next: b", "id: b", "id: c", more="    start: [a]\n"))
    assert said.startswith("t.yaml:12:")
    assert "expected a way from start to the node 'c', came none" in said


def test_a_branch_that_can_never_be_taken_is_refused() -> None:
    (said,) = problems(script("id: a, next: [b, c]", "id: b", "id: c"))
    assert "which has no condition and is always taken" in said


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("id: Bad", "expected an id such as recording_notice"),
        ("id: call_start", "expected an id such as recording_notice"),
        ("id: a, by: 0", "expected by as a number from 1 to 7200"),
        ("id: a, by: soon", "expected by as a number"),
        ("id: a, at: start", "expected at as one of end"),
        ("id: a, at: end, by: 5", "expected by or at: end in a node, came both"),
        ("id: a, look_ahead: {}", "expected turns or seconds in look_ahead"),
        ("id: a, look_ahead: 5", "expected look_ahead as a mapping"),
        ("id: a, severity: bad", "expected severity as one of"),
        ("id: a, after: {phrse: [甲]}", "did you mean 'phrase'?"),
        ("id: a, next: {when: {phrase: [甲乙丙]}}", "expected 'to' in a branch"),
        ("id: a, nxt: b", "did you mean 'next'?"),
        ("required: true", "expected 'id' in a node, came none"),
        ("id: a, required: perhaps", "expected required as true or false"),
    ],
)
def test_each_field_says_what_was_expected(node: str, expected: str) -> None:
    assert any(expected in said for said in problems(script(node)))


def test_two_nodes_of_one_id_are_refused_within_a_script() -> None:
    (said,) = problems(script("id: a", "id: a"))
    assert "expected an id of its own, came 'a', which line 9 has" in said


def test_a_node_of_two_scripts_looks_the_same_to_people() -> None:
    other = "  - id: s2\n    name: {zh: 二, en: Two}\n    queues: [x]\n    nodes:\n      - "
    twin = "{id: a, role: agent, when: {phrase: [大家好]}, name: {zh: 步, en: S}"
    assert len(parse_pack(f"{script('id: a')}{other}{twin}}}\n", "t.yaml").scripts) == 2
    (said,) = problems(f"{script('id: a')}{other}{twin}, severity: critical}}\n")
    assert "expected the node 'a' with the name, severity, actions and hint that it has" in said


def test_a_script_without_nodes_and_one_that_chooses_by_time_are_refused() -> None:
    assert any("expected at least one node" in said for said in problems(script() + "      []\n"))
    timed = script("id: a", more="    when: {silence: {seconds: 5}}\n")
    assert any("on what is known of the call" in said for said in problems(timed))


def test_a_node_and_a_rule_have_no_id_in_common() -> None:
    text = script("id: greeting").replace("t.rule", "script.greeting")
    assert any("expected an id of its own, came 'script.greeting'" in said for said in problems(text))


def test_what_a_test_expects_may_be_a_node_of_a_script() -> None:
    tests = "    tests:\n      - {turns: [{agent: 您好}], expect: [script.a]}\n"
    pack = parse_pack(script("id: a", more=tests), "t.yaml")
    assert pack.scripts[0].tests[0].expect == ("script.a",)
    (said,) = problems(script("id: a", more=tests.replace("script.a", "script.b")))
    assert "expected a rule of this pack in expect, came 'script.b'; did you mean 'script.a'?" in said
