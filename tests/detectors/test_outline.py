"""Where rules stand in a pack's text."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.rules import DEFAULT_PACK, PackError, load_pack
from detectors.rules.outline import declared_id, outline, pack_id

TEXT = DEFAULT_PACK.read_text("utf-8")


def test_every_rule_of_the_bank_has_its_lines() -> None:
    lines, found = TEXT.split("\n"), outline(TEXT)
    assert {rule.id for rule in load_pack(DEFAULT_PACK).raising} == set(found)
    for rule_id, (first, last) in found.items():
        assert rule_id.removeprefix("script.") in lines[first - 1]
        assert lines[last - 1].strip()
        assert first <= last <= len(lines)


def test_comments_and_blank_lines_before_the_next_rule_are_not_its_own() -> None:
    text = "id: a\nrules:\n  - id: x.y\n    when: 1\n\n  # the next\n  - {id: x.z, when: 2}\n"
    assert outline(text) == {"x.y": (3, 4), "x.z": (7, 7)}


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "id: [a]", "rules: 3", "\0"])
def test_what_is_no_pack_has_no_id_and_no_lines(text: str) -> None:
    assert pack_id(text) is None
    with contextlib.suppress(PackError):
        assert outline(text) == {}


@pytest.mark.parametrize("text", ["[" * 100_000, "- " * 100_000, "{a: " * 100_000, "? " * 100_000])
def test_levels_without_end_are_a_problem_and_no_end_of_the_process(text: str) -> None:
    with pytest.raises(PackError, match="levels"):
        outline(text)


def test_the_id_of_a_text_that_nobody_has_checked_is_read_at_a_glance() -> None:
    assert declared_id(TEXT) == pack_id(TEXT) == "bank.zh"
    assert declared_id('# x\nid: "a.b" # y\n') == "a.b"
    assert declared_id("  id: a\nrules: []") is None


@given(st.text(alphabet=" \n-:{}[]#&*'\"abidrules.", max_size=60))
def test_no_text_makes_it_fall_over(text: str) -> None:
    pack_id(text)
    try:
        found = outline(text)
    except PackError:
        return
    assert all(1 <= first <= last for first, last in found.values())
