from __future__ import annotations

import pytest

from app.demo import truth
from benchmarks.phrases import sentences
from benchmarks.rules import finals, pack_text
from detectors.panel import Panel
from detectors.rules.clues import Index
from detectors.rules.loader import DEFAULT_PACK, load_pack, parse_pack
from detectors.rules.model import Pack, Turn
from streams.events import CallInfo, CallStarted, Finding

RULE = "  - {{id: a.{name}, name: {{zh: 名, en: n}}, severity: info, role: any, when: {when}}}\n"
HEAD = 'id: t\nversion: "1"\nrules:\n'


def judged(when: str, *said: str) -> list[bool]:
    """For each utterance, whether the rule is judged at all."""
    pack = parse_pack(HEAD + RULE.format(name="rule", when=when), "t.yaml")
    turns = [Turn(final, "", pack.lexicon, pack.patterns) for final in finals(said)]
    return [bool(pack.index.rules(turn, ())) for turn in turns]


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("{phrase: [保本保息, 稳赚不赔]}", [True, False]),
        ("{phrase: {all: [保本保息, 稳赚不赔]}}", [True, False]),
        ("{regex: 保本.息}", [True, False]),
        ("{near: {a: [保本保息], b: [理财, 基金], distance: 8}}", [True, False]),
        ("{all: [{phrase: [保本保息]}, {attribute: {name: queue, is: 理财}}]}", [True, False]),
        ("{any: [{phrase: [保本保息]}, {regex: 稳赚}]}", [True, False]),
        ("{role: agent, phrase: [保本保息]}", [True, False]),
        ("{all: [{phrase: [保本保息]}, {silence: {seconds: 9}}]}", [False, False]),
        # What nobody can say beforehand is judged every time.
        ("{any: [{phrase: [保本保息]}, {attribute: {name: queue, is: 理财}}]}", [True, True]),
        ("{not: {phrase: [保本保息]}}", [True, True]),
        ("{any: [{phrase: [保本保息]}], within: {turns: 3}}", [True, True]),
        # A part of it at least must be said now.
        ("{all: [{phrase: [保本保息]}, {phrase: [基金]}], within: {turns: 3}}", [True, False]),
    ],
)
def test_a_rule_is_judged_only_where_its_clues_occur(when: str, expected: list[bool]) -> None:
    assert judged(when, "这个保本保息", "今天天气很好") == expected


class Everything(Index):
    """Leaves no rule out."""

    def rules(self, turn, told):  # type: ignore[no-untyped-def]
        return self._rules


def findings(pack: Pack, texts: list[str]) -> list[Finding]:
    info = CallInfo(call_id="bench", channels=("agent", "customer"))
    panel = Panel(info, pack)
    out = panel.on_event(CallStarted(call=info))
    for final in finals(texts):
        wake = panel.wake_at()
        if wake is not None and wake <= final.media_ms:
            out += panel.on_wake(wake)
        out += panel.on_event(final)
    return out


@pytest.mark.parametrize("call", truth.load(truth.CALLS), ids=lambda call: call.name)
def test_leaving_rules_out_changes_nothing_on_the_demo_calls(call: truth.ScriptedCall) -> None:
    texts = [turn.text for turn in call.turns]
    pack = load_pack(DEFAULT_PACK)
    quick = findings(pack, texts)
    pack.__dict__["index"] = Everything(pack.rules)
    assert quick == findings(pack, texts)


def test_leaving_rules_out_changes_nothing_in_a_pack_of_many() -> None:
    texts = sentences(40)
    pack = parse_pack(pack_text(1000), "made.yaml")
    quick = findings(pack, texts)
    assert quick
    pack.__dict__["index"] = Everything(pack.rules)
    assert quick == findings(pack, texts)


def test_rules_are_judged_in_the_order_of_the_pack() -> None:
    rules = "".join(
        RULE.format(name=f"r{n}", when=when)
        for n, when in enumerate(("{regex: 保本}", "{not: {phrase: [你好]}}", "{phrase: [保本保息]}"))
    )
    pack = parse_pack(HEAD + rules, "t.yaml")
    (final,) = finals(["这个保本保息"])
    turn = Turn(final, "", pack.lexicon, pack.patterns)
    assert [rule.id for rule in pack.index.rules(turn, ())] == ["a.r0", "a.r1", "a.r2"]
