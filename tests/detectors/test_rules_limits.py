"""What a pack may hold at its limits, and what comes of it: defined, and never a hang."""

from __future__ import annotations

import pytest

from detectors.panel import Panel
from detectors.rules import Pack, PackError, load_pack, parse_pack
from detectors.rules.loader import DEFAULT_PACK
from streams.events import CallEnded, CallInfo, CallStarted
from tests.detectors.stream import heard, matched, pack, problems, said

EMPTY = "id: empty\nversion: '1'\nrules: []\n"


def test_an_empty_pack_watches_a_whole_call_and_finds_nothing() -> None:
    rules = parse_pack(EMPTY, "empty.yaml")
    assert rules.hot_words() == ()
    events = (CallStarted(call=CallInfo(call_id="c")), said("我们保本保息"), said("", start=9000))
    assert heard(rules, *events, CallEnded(call_id="c", media_ms=60_000)) == []
    assert Panel(CallInfo(call_id="c"), rules).wake_at() is None


@pytest.mark.parametrize(
    "when",
    [
        "&x {all: [*x]}",
        "&x {any: [{phrase: [保本]}, *x]}",
        "&x {not: *x}",
        "&x {sequence: {steps: [*x, *x], seconds: 10}}",
        "&x {count: {of: *x, at_least: 2, seconds: 10}}",
        "&x {absent: {of: *x, by: 10}}",
        "&x {phrase: [保本], anchor: {of: *x, where: after}}",
    ],
)
def test_a_condition_that_contains_itself_is_refused_with_its_place(when: str) -> None:
    found = problems(when)
    assert any(message.startswith("t.yaml:") for message in found)
    assert any("levels" in message or "values" in message for message in found)


def test_a_condition_that_two_rules_share_by_an_alias_is_none_that_contains_itself() -> None:
    text = (
        "id: t\nversion: '1'\nrules:\n"
        "  - {id: t.one, name: {zh: 一, en: One}, severity: info, role: any, when: &x {phrase: [保本保息]}}\n"
        "  - {id: t.two, name: {zh: 二, en: Two}, severity: info, role: agent, when: {any: [*x]}}\n"
    )
    assert [d.rule_id for d in heard(parse_pack(text, "t.yaml"), said("保本保息"))] == ["t.one", "t.two"]


def test_a_rule_unless_itself_never_fires() -> None:
    assert heard(pack("{phrase: [保本保息]}", more=", unless: {phrase: [保本保息]}"), said("保本保息")) == []


def test_a_dialogue_may_expect_the_rule_at_which_it_stands_but_none_that_is_unknown() -> None:
    assert pack("{phrase: [保本保息]}", more=", tests: [{turns: [{agent: 保本保息}], expect: [t.rule]}]")
    with pytest.raises(PackError, match=r"expected a rule of this pack in expect, came 't\.other'"):
        pack("{phrase: [保本保息]}", more=", tests: [{turns: [{agent: 保本保息}], expect: [t.other]}]")


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(a|aa)+b", "(.*)*b", "a.{0,500}a.{0,500}b"])
def test_a_pattern_made_to_be_slow_reads_a_long_turn_in_time(pattern: str) -> None:
    # Backtracking would take 2 to the power of thousands; the test's own time is what it asserts.
    assert heard(pack(f"{{regex: '{pattern}'}}"), said("a" * 5_000)) == []


@pytest.mark.parametrize("pattern", ["((a{1,100}){1,100}){1,100}b", "(x{1000}){1000}", "a{1001}"])
def test_a_pattern_that_would_take_the_memory_is_refused_with_its_place(pattern: str) -> None:
    (message,) = problems(f"{{regex: '{pattern}'}}")
    assert message.startswith("t.yaml:4:")
    assert "expected a regular expression (RE2 syntax)" in message


def test_patterns_that_together_take_too_much_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detectors.rules.model.PATTERN_MEMORY", 1 << 20)
    patterns = ", ".join(f"'{chr(0x4E00 + n)}.{{0,200}}{chr(0x5E00 + n)}'" for n in range(20))
    (message,) = problems(f"{{regex: [{patterns}]}}")
    assert "expected patterns that fit into" in message


def test_a_phrase_of_one_character_is_found_as_written_and_not_by_sound() -> None:
    rules = pack("{phrase: [赌]}")
    (found,) = heard(rules, said("您去赌场了吗"))
    assert matched(found) == ("赌",)
    assert heard(rules, said("这条路堵了")) == []
    assert any("two syllables or more" in m for m in problems("{phrase: {any: [赌], match: pinyin}}"))


@pytest.mark.parametrize("phrase", ["😀", "👨‍👩‍👧", "‍", "。。。", "🇨🇳"])
def test_a_phrase_that_nobody_can_say_is_refused(phrase: str) -> None:
    assert any("expected a phrase that can be heard" in m for m in problems(f"{{phrase: ['{phrase}']}}"))


def test_emoji_around_and_inside_what_is_said_shift_no_range() -> None:
    (found,) = heard(pack("{phrase: [保本保息]}"), said("👍🏽我们保本保息🎉没有风险"))
    assert matched(found) == ("保本保息",)
    (found,) = heard(pack("{phrase: [保本保息😀]}"), said("👨‍👩‍👧保本保息"))
    assert matched(found) == ("保本保息",)


@pytest.mark.parametrize("text", ["", " ", "\u0000", "嗯", "。", "😀", "a" * 20_000, "保" * 5_000])
def test_any_text_of_any_length_is_judged(text: str) -> None:
    assert isinstance(heard(DEFAULT, said(text, end=9000)), list)


DEFAULT: Pack = load_pack(DEFAULT_PACK)


def test_five_thousand_phrases_are_all_found() -> None:
    phrases = [f"第{n}号产品稳赚" for n in range(5_000)]
    rules = pack(f"{{phrase: {{any: [{', '.join(phrases)}], match: exact}}}}")
    (found,) = heard(rules, said("您看第4321号产品稳赚"))
    assert found.evidence.expected == ("第4321号产品稳赚",)
