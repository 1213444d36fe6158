from __future__ import annotations

import pytest

from streams.events import Detection
from tests.detectors.stream import heard, known, pack, problems, said


def with_attribute(test: str, **fields: object) -> list[Detection]:
    """What a rule raises that wants 保本 and the attribute, in a call of which that much is known."""
    rules = pack(f"{{all: [{{phrase: [保本]}}, {{attribute: {{{test}}}}}]}}")
    return heard(rules, known(**fields), said("我们保本"))


def test_a_rule_holds_where_the_call_is_of_the_queue_it_names() -> None:
    (found,) = with_attribute("name: queue, is: 理财", queue="理财")
    assert (found.media_start_ms, found.media_end_ms) == (1200, 1400), "where the phrase stands"
    assert with_attribute("name: queue, is: 理财", queue="信用卡") == []


def test_an_attribute_counts_from_the_moment_at_which_it_changes() -> None:
    rules = pack("{all: [{phrase: [保本]}, {attribute: {name: queue, is: 理财}}]}")
    (found,) = heard(
        rules,
        known(queue="信用卡"),
        said("保本", start=1000),
        known(5000, queue="理财"),
        said("保本", start=9000),
    )
    assert found.media_start_ms == 9000


@pytest.mark.parametrize(
    ("test", "holds"),
    [
        ("name: queue, is: ' ＶＩＰ '", True),
        ("name: queue, in: [普通, vip]", True),
        ("name: queue, in: [普通]", False),
        ("name: queue, is_not: vip", False),
        ("name: queue, not_in: [普通, 理财]", True),
        ("name: queue, matches: '^V.P$'", True),
        ("name: queue, matches: '^I'", False),
        ("name: queue, exists: true", True),
        ("name: queue, exists: false", False),
        ("name: queue, at_least: 1", False),
        ("name: age, at_least: 65", True),
        ("name: age, at_least: 65.5", False),
        ("name: age, at_most: 65", True),
        ("name: direction, is: outbound", True),
        ("name: protocol, is: replay", True),
        ("name: agent, exists: true", False),
        ("name: product, is: R5", False),
        ("name: product, in: [R5]", False),
        ("name: product, is_not: R5", True),
        ("name: product, not_in: [R5]", True),
        ("name: product, matches: .", False),
        ("name: product, at_most: 5", False),
        ("name: product, exists: false", True),
        ("name: note, exists: true", False),
    ],
)
def test_each_comparison_means_what_it_says(test: str, holds: bool) -> None:
    found = with_attribute(
        test, queue="vip" if "matches" not in test else "VIP", direction="outbound",
        attributes={"age": "６５", "note": "  "},
    )  # fmt: skip
    assert bool(found) == holds


def test_what_was_said_before_does_not_come_true_again_by_what_is_known() -> None:
    rules = pack("{all: [{phrase: [保本]}, {attribute: {name: queue, is: 理财}}], within: {turns: 3}}")
    found = heard(
        rules, known(queue="理财"), said("保本"), said("您好", start=5000), said("再见", start=9000)
    )
    assert [d.anchor_ms for d in found] == [1000]


@pytest.mark.parametrize(
    ("options", "said_so"),
    [
        ("{name: queue}", "t.yaml:4:90: expected one of is, in, is_not, not_in, matches, at_least"),
        ("{name: queue, is: a, in: [b]}", "expected one of is, in, is_not, not_in, matches, at_least, "),
        ("{is: a}", "expected 'name' in attribute, came none"),
        ("{name: queue, is: [a]}", "expected is as text, came a list"),
        ("{name: queue, in: []}", "expected at least one value in in, came none"),
        ("{name: queue, exists: perhaps}", "expected exists as true or false, came 'perhaps'"),
        ("{name: age, at_least: old}", "expected at_least as a number"),
        ("{name: queue, matches: '('}", "expected a regular expression (RE2 syntax) in matches"),
        ("{name: direction, is: inbond}", "did you mean 'inbound'?"),
        ("{name: queue, equals: a}", "expected one of at_least, at_most, exists"),
    ],
)
def test_a_broken_attribute_is_refused_with_a_reason(options: str, said_so: str) -> None:
    assert any(said_so in problem for problem in problems(f"{{attribute: {options}}}"))
