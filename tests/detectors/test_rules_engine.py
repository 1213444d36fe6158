from __future__ import annotations

import msgspec

from detectors.panel import Panel
from detectors.rules import Pack, parse_pack
from streams.events import CallInfo, Channel, Detection, Transcript

CALL = CallInfo(call_id="c")


def pack(when: str, role: str = "agent", more: str = "") -> Pack:
    return parse_pack(
        f'id: t\nversion: "1"\nrules:\n  - {{id: t.rule, name: {{zh: 规, en: R}}, severity: warning, '
        f"role: {role}, when: {when}{more}}}\n",
        "t.yaml",
    )


def said(text: str, role: Channel = "agent", start: int = 1000, end: int = 3000, final: bool = True,
         confidence: float | None = None) -> Transcript:  # fmt: skip
    return Transcript(
        call_id="c", utterance_id=f"c:{role}:{start}", role=role, start_ms=start, end_ms=end, text=text,
        final=final, confidence=confidence,
    )  # fmt: skip


def heard(rules: Pack, *transcripts: Transcript) -> list[Detection]:
    panel = Panel(CALL, rules)
    return [d for t in transcripts for d in panel.on_event(t)]


def test_evidence_says_what_was_heard_where_and_what_was_meant() -> None:
    (found,) = heard(pack("{phrase: [保本保息]}"), said("这个，薄奔保锡的", confidence=0.8))
    assert found.evidence.matched == ("薄奔保锡",)
    assert found.evidence.spans == ((3, 7),)
    assert found.evidence.expected == ("保本保息",)
    assert found.evidence.how == "pinyin"
    assert found.evidence.confidence is not None
    assert found.evidence.confidence < 0.8
    assert (found.anchor_ms, found.media_start_ms, found.media_end_ms) == (1000, 1750, 2750)


def test_a_doubtful_transcript_is_matched_by_character_only() -> None:
    rules = pack("{phrase: [保本保息]}", more=", min_confidence: 0.5")
    assert heard(rules, said("薄奔保锡", confidence=0.4)) == []
    assert len(heard(rules, said("薄奔保锡", confidence=0.5))) == 1
    assert len(heard(rules, said("保本保息", confidence=0.4))) == 1


def test_a_rule_judges_only_its_role_but_a_mixed_channel_is_judged_by_all() -> None:
    rules = pack("{phrase: [保本保息]}")
    assert heard(rules, said("保本保息", role="customer")) == []
    assert len(heard(rules, said("保本保息", role="unknown"))) == 1
    assert heard(rules, said("保本保息吗", role="unknown")) == []


def test_two_syllables_match_by_character_unless_sound_is_asked_for() -> None:
    assert heard(pack("{phrase: [逾期]}"), said("我预期")) == []
    asked = pack("{phrase: {any: [逾期], match: pinyin, guard: [预祺]}}")
    assert len(heard(asked, said("我预期"))) == 1
    assert heard(asked, said("我预祺")) == []


def test_a_phrase_with_a_gap_keeps_its_order() -> None:
    rules = pack("{phrase: [验证码…告诉我]}")
    assert len(heard(rules, said("验证码您收到了告诉我"))) == 1
    assert heard(rules, said("告诉我您的验证码")) == []


def test_a_phrase_cut_by_an_endpoint_is_found_in_the_second_half() -> None:
    rules = pack("{phrase: [稳赚不赔]}")
    (found,) = heard(rules, said("这个是稳赚。", end=3000), said("不赔的", start=3500, end=4500))
    assert found.anchor_ms == 3500
    assert found.evidence.spans == ((0, 2),)
    assert heard(rules, said("这个是稳赚。", end=3000), said("不赔的", start=4501, end=5500)) == []


def test_what_the_first_half_said_is_not_raised_again_by_the_second() -> None:
    rules = pack("{phrase: [稳赚不赔]}")
    assert len(heard(rules, said("稳赚不赔", end=3000), said("真的", start=3400, end=4000))) == 1


def test_a_negation_in_the_first_half_reaches_the_second() -> None:
    assert (
        heard(pack("{phrase: [保本保息]}"), said("我们不承诺。"), said("保本保息", start=3200, end=4500))
        == []
    )


def test_one_detection_for_a_rule_and_an_utterance_and_a_cooldown_between_utterances() -> None:
    rules = pack("{any: [{phrase: [保本保息, 稳赚不赔]}, {regex: 保本}]}", more=", cooldown: 10")
    found = heard(
        rules,
        said("保本保息稳赚不赔"),
        said("保本保息", start=9000, end=10_000),
        said("保本保息", start=11_000, end=12_000),
    )
    assert [d.anchor_ms for d in found] == [1000, 11_000]


def test_a_window_joins_turns_of_both_sides() -> None:
    rules = pack(
        "{all: [{phrase: [再考虑一下]}, {phrase: {any: [不需要], negation: false}, role: customer}], "
        "within: {turns: 2}}"
    )
    refusal = said("我不需要", role="customer")
    assert len(heard(rules, refusal, said("您再考虑一下", start=5000, end=6000))) == 1
    assert heard(rules, said("您再考虑一下", start=5000, end=6000)) == []
    others = [said("好的", start=t, end=t + 500) for t in (7000, 10_000)]
    assert heard(rules, refusal, *others, said("您再考虑一下", start=13_000, end=14_000)) == []


def test_n_of_needs_n_and_none_forbids() -> None:
    rules = pack("{phrase: {of: [免费, 赠送, 抽奖], at_least: 2, none: [结束]}}")
    assert heard(rules, said("免费领")) == []
    assert len(heard(rules, said("免费赠送"))) == 1
    assert heard(rules, said("免费赠送结束了")) == []


def test_unless_and_mode_keep_a_rule_quiet() -> None:
    assert heard(pack("{phrase: [保本保息]}", more=", unless: {regex: 存款}"), said("存款保本保息")) == []
    (hidden,) = heard(pack("{phrase: [保本保息]}", more=", mode: shadow"), said("保本保息"))
    assert hidden.shadow, "counted, and nobody is told"
    assert heard(pack("{phrase: [保本保息]}", more=", mode: off"), said("保本保息")) == []


def test_a_pattern_sees_numbers_as_digits_and_cannot_hang() -> None:
    assert len(heard(pack("{regex: '百分之百.{0,4}赚'}"), said("百分百能赚"))) == 1
    assert heard(pack("{regex: '(保+)+稳$'}"), said("保" * 5000)) == []


def test_a_partial_raises_once_and_the_final_confirms_it() -> None:
    rules = pack("{phrase: [保本保息]}", more=", cooldown: 5")
    partial, final = said("是保本保息", final=False), said("是保本保息的")
    early, confirmed = heard(rules, partial, partial, final)
    assert not early.withdrawn
    assert early.anchor_ms == confirmed.anchor_ms == 1000
    assert confirmed.evidence.text == "是保本保息的"
    assert heard(rules, partial, said("是保本保息")) == [early], "nothing new is not said again"


def test_a_partial_that_the_final_does_not_bear_out_is_withdrawn() -> None:
    rules = pack("{phrase: [保本保息]}", more=", cooldown: 5")
    raised, withdrawn, again = heard(
        rules, said("是保本保息", final=False), said("不是的"), said("保本保息", start=4000, end=5000)
    )
    assert (raised.withdrawn, withdrawn.withdrawn, again.withdrawn) == (False, True, False)
    assert raised.anchor_ms == withdrawn.anchor_ms


def test_nothing_said_raises_nothing() -> None:
    assert heard(pack("{phrase: [保]}"), said(""), said("😀"), said("。。。"), said("x" * 10_000)) == []


def test_a_partial_raises_only_on_what_is_settled_and_not_against_what_follows() -> None:
    rules = pack("{phrase: [保本保息]}", more=", cooldown: 5, unless: {regex: 骗子}")
    text = "都说保本保息的都是骗子"
    settled = msgspec.structs.replace(said(text, final=False), settled=7)
    assert heard(rules, settled) == [], "the end of the sentence takes it back"
    harmless = msgspec.structs.replace(said("我们保本保息请放心买", final=False), settled=6)
    (early,) = heard(rules, harmless)
    assert early.evidence.text == "我们保本保息"
    unsettled = msgspec.structs.replace(said("我们保本保息请放心买", final=False), settled=5)
    assert heard(rules, unsettled) == []


def test_what_a_partial_holds_but_has_not_settled_is_suspected_until_it_is_raised_or_gone() -> None:
    detector = Panel(CALL, pack("{phrase: [保本保息]}", more=", cooldown: 5"))

    def hear(text: str, settled: int) -> bool:
        partial = msgspec.structs.replace(said(text, final=False), settled=settled)
        detector.on_event(partial)
        return detector.suspects(partial.utterance_id)

    assert not hear("我们这个", 2)
    assert hear("我们这个保本保息", 4)
    fresh = Panel(CALL, pack("{phrase: [保本保息]}", more=", cooldown: 5"))
    fresh.restore(detector.snapshot())
    assert fresh.suspects(said("").utterance_id)
    assert not hear("我们这个报备", 4)
    assert hear("我们这个保本保息", 0)
    assert not hear("我们这个保本保息的啊", 8), "raised"
    assert not hear("我们这个保本保息的啊保本保息", 10), "raised already"
    assert hear("我们这个", 0) is False
    hear("保本保息", 0)
    detector.on_event(said("保本保息"))
    assert not detector.suspects(said("").utterance_id)


def test_a_phrase_that_goes_on_across_the_cut_is_not_raised_a_second_time() -> None:
    rules = pack("{regex: '密码.{0,8}验证'}", more=", cooldown: 1")
    whole = said("请说一下密码我好验证", start=1000, end=4000)
    rest = said("验证一下", start=4300, end=6000)
    assert len(heard(rules, whole, rest)) == 1
    first, second = said("请说一下密码", start=1000, end=4000), said("我好验证", start=4300, end=6000)
    assert len(heard(rules, first, second)) == 1, "neither half raises alone: the joint does"
