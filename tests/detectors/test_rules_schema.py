"""The JSON Schema of packs says what the loader says, as far as a schema can."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
import yaml

from detectors.rules import DEFAULT_PACK, PackError, parse_pack
from detectors.rules.described import operators
from detectors.rules.loader import AROUND, LEAVES
from detectors.rules.schema import schema


class Plain(yaml.SafeLoader):
    """Reads YAML as editors do (1.2): no dates, and off is no boolean."""


Plain.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in found if not tag.endswith(("timestamp", "bool", "int", "float"))
    ]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Plain.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("(true|false)$"), list("tf"))
Plain.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"-?\d+$"), list("-0123456789"))
Plain.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"-?\d+\.\d+$"), list("-0123456789"))

SCHEMA = schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
HEAD = "id: little\nversion: '1'\nrules:\n"
RULE = "  - {{id: t.rule, name: {{zh: 规, en: R}}, severity: warning, role: agent, {}}}\n"
NAMES = [*LEAVES, *AROUND, "all", "any", "not"]


def pack(when: str) -> str:
    return HEAD + RULE.format(f"when: {when}")


def valid(text: str) -> bool:
    return bool(VALIDATOR.is_valid(yaml.load(text, Plain)))


def problems(text: str) -> list[str]:
    try:
        parse_pack(text, "little.yaml")
    except PackError as error:
        return [problem.message for problem in error.problems]
    return []


def known_keys(text: str) -> set[str]:
    """What the loader offers in place of the key ``zzz``."""
    (offered,) = [m for p in problems(text) if (m := re.match("expected one of (.*) in .*, came 'zzz'", p))]
    return set(offered.group(1).split(", "))


def mappings(shape: dict[str, Any]) -> dict[str, Any]:
    """The properties of the mapping that an operator takes."""
    shapes = [shape, *shape.get("anyOf", ())]
    return next((s["properties"] for s in shapes if "properties" in s), {})


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_default_pack_is_valid() -> None:
    errors = list(VALIDATOR.iter_errors(yaml.load(DEFAULT_PACK.read_text("utf-8"), Plain)))
    assert [(list(error.absolute_path), error.message) for error in errors[:3]] == []


def test_every_operator_and_combinator_is_described() -> None:
    assert set(operators()) == set(NAMES)
    for name, shape in operators().items():
        assert re.search("[一-鿿].*[a-z]", shape["description"]), f"{name}: in both languages"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("all", "any", "not")])
def test_an_operator_has_the_parameters_that_the_loader_knows(name: str) -> None:
    if not mappings(operators()[name]):
        pytest.skip("takes no mapping")
    known = known_keys(pack(f"{{{name}: {{zzz: 1}}}}"))
    assert set(mappings(operators()[name])) == known


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("all", "any", "not")])
def test_numbers_have_the_bounds_that_the_loader_knows(name: str) -> None:
    for key, shape in mappings(operators()[name]).items():
        if shape.get("type") != "number":
            continue
        for given in ("99999999999999999999", "-99999999999999999999"):
            found = [
                (float(m.group(1)), float(m.group(2)))
                for p in problems(pack(f"{{{name}: {{{key}: {given}}}}}"))
                if (m := re.search(rf"expected {key}\b.* as a number from (\S+) to (\S+), came", p))
            ]
            # Where other parameters are missing too, the loader may not come to look at this one.
            assert set(found) <= {(shape["minimum"], shape["maximum"])}, f"{name}.{key}"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("zzz: 1\n" + HEAD + RULE.format("when: {phrase: [保本]}"), ()),
        (HEAD + RULE.format("when: {phrase: [保本]}, zzz: 1"), ("rule",)),
        (pack("{phrase: [保本], zzz: 1}"), ("condition",)),
        (pack("{all: [{phrase: [保本]}], within: {zzz: 1}}"), ("condition", "within")),
        (pack("{phrase: [保本], anchor: {zzz: 1}}"), ("condition", "anchor")),
        (HEAD + RULE.format("when: {phrase: [保本]}, effective: {zzz: 1}"), ("rule", "effective")),
        (HEAD + RULE.format("when: {phrase: [保本]}, tests: [{zzz: 1}]"), ("dialogue",)),
        (HEAD + RULE.format("when: {phrase: [保本]}, tests: [{turns: [{zzz: 1}], expect: []}]"), ("turn",)),
        (
            HEAD + RULE.format("when: {phrase: [保本]}, tests: [{turns: [], expect: [], call: {zzz: 1}}]"),
            ("call",),
        ),
        (HEAD.replace("rules:", "rules: []") + "scripts: [{zzz: 1}]", ("script",)),
        (HEAD.replace("rules:", "rules: []") + "scripts: [{nodes: [{zzz: 1}]}]", ("node",)),
    ],
)
def test_a_mapping_has_the_keys_that_the_loader_knows(text: str, path: tuple[str, ...]) -> None:
    shape: dict[str, Any] = SCHEMA
    for step in path:
        shape = shape["$defs"][step] if step in shape.get("$defs", ()) else shape["properties"][step]
        shape = {**shape, "$defs": SCHEMA["$defs"]}
    assert set(shape["properties"]) == known_keys(text)


@pytest.mark.parametrize(
    "when",
    [
        "{frase: [保本]}",
        "{phrase: [保本], regex: 保本}",
        "{}",
        "{role: agent}",
        "保本",
        "{phrase: []}",
        "{phrase: {any: [保本], all: [保息]}}",
        "{phrase: {at_least: 2}}",
        "{silence: {}}",
        "{silence: {seconds: 0}}",
        "{silence: {seconds: many}}",
        "{silence: {seconds: 5, between: [robot]}}",
        "{not: {phrase: [保本]}, within: {}}",
        "{all: [{frase: [保本]}]}",
    ],
)
def test_what_is_wrong_is_refused_by_schema_and_loader_alike(when: str) -> None:
    assert problems(pack(when))
    assert not valid(pack(when))


@pytest.mark.parametrize(
    "when",
    [
        "{phrase: 保本}",
        "{phrase: [12378, 保本]}",
        "{phrase: {of: [保本, 保息], at_least: 2, match: pinyin}}",
        "{regex: {pattern: 保.本, not_pattern: 不保本}}",
        "{all: [{phrase: [保本]}, {not: {phrase: [风险], role: customer}}], within: {turns: 2}}",
        "{silence: {seconds: 5, between: [agent]}}",
    ],
)
def test_what_is_right_is_accepted_by_both(when: str) -> None:
    assert problems(pack(when)) == []
    assert valid(pack(when))


@pytest.mark.parametrize(
    "rule",
    [
        "when: {phrase: [保本]}, severity: grave",
        "when: {phrase: [保本]}, mode: trial",
        "when: {phrase: [保本]}, effective: {from: tomorrow}",
        "when: {phrase: [保本]}, hint: {zh: 好}",
        "when: {phrase: [保本]}, tests: [{turns: [{agent: 好, customer: 好}], expect: []}]",
        "unless: {phrase: [保本]}",
    ],
)
def test_a_rule_that_is_wrong_is_refused_by_both(rule: str) -> None:
    assert problems(HEAD + RULE.format(rule))
    assert not valid(HEAD + RULE.format(rule))
