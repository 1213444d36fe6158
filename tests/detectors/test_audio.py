"""``audio`` and ``swapped``: what is wrong with a call's sound, told to those who run the service."""

from __future__ import annotations

import pytest

from detectors.rules import DEFAULT_PACK, load_pack
from streams.events import CallInfo, Channel, Trouble, TroubleKind
from streams.raising import raised
from tests.detectors.live import Told, ended, found, heard, pack, said, when, wrote
from tests.detectors.stream import problems


def trouble(
    kind: TroubleKind, at: int, since: int, channel: Channel = "agent", present: bool = True
) -> list[Told]:
    one = Trouble(
        call_id="c", channel=channel, kind=kind, present=present, media_ms=at, since_ms=since, measured="7 s"
    )
    return [Told(at, one)]


NOISE = pack("{audio: noise}", "any", ", cooldown: 60")


def test_a_trouble_of_the_kind_is_told_with_what_was_measured() -> None:
    (one,) = found(NOISE, trouble("noise", 9000, 2000, "customer"))
    assert (one.media_start_ms, one.media_end_ms, one.anchor_ms) == (2000, 9000, 2000)
    assert (one.role, one.evidence.text, one.evidence.how) == ("customer", "7 s", "signal")


def test_other_kinds_and_its_end_are_not() -> None:
    assert found(NOISE, trouble("dead", 9000, 2000), trouble("noise", 12_000, 10_000, present=False)) == []


def test_several_kinds_may_be_asked_for() -> None:
    both = pack("{audio: [noise, dead]}", "any")
    told = found(both, trouble("dead", 9000, 2000), trouble("noise", 12_000, 10_000))
    assert [one.anchor_ms for one in told] == [2000, 10_000]


def test_one_that_comes_and_goes_is_told_once_within_the_cooldown() -> None:
    on_and_off = [trouble("noise", at, at - 5000) for at in range(10_000, 60_000, 7000)]
    assert len(found(NOISE, *on_and_off)) == 1


def test_a_silent_call_is_nobodys_doing() -> None:
    (one,) = found(pack("{audio: silent}", "any"), trouble("silent", 9000, 1000, "unknown"))
    assert (one.role, one.evidence.how) == ("unknown", "timer")


def test_it_may_be_about_one_side() -> None:
    agents = pack("{audio: dead, role: agent}", "any")
    assert found(agents, trouble("dead", 9000, 2000, "customer")) == []
    assert len(found(agents, trouble("dead", 9000, 2000, "agent"))) == 1


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("{audio: hiss}", "expected audio as one of silent, dead, clipping, noise, came 'hiss'"),
        ("{audio: []}", "expected one or more of silent, dead, clipping, noise in audio, came none"),
        ("{swapped: {seconds: 30}}", "expected 'of' in swapped, came none"),
        ("{swapped: {of: {phrase: [您好]}, seconds: 1}}", "expected seconds as a number from 5 to 300"),
        (
            "{swapped: {of: {silence: {seconds: 3}}, seconds: 30}}",
            "expected a condition on what is said in swapped, came one that takes time",
        ),
    ],
)
def test_what_is_wrong_with_them_is_said(condition: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(condition))


# ── swapped ───────────────────────────────────────────────────────────────────────────────────────

SWAPPED = pack("{swapped: {of: {phrase: [为您服务]}, seconds: 30}}", "any")
GREETING = "您好很高兴为您服务"


def test_the_agents_greeting_on_the_customers_channel_is_told_when_the_beginning_is_over() -> None:
    call = said(GREETING, 1000, 4000, "customer"), said("我查账", 5000, 7000, "agent")
    (one,) = found(SWAPPED, *call, until=60_000)
    assert (one.role, one.anchor_ms, one.evidence.matched) == ("customer", 1000, ("为您服务",))
    assert when(SWAPPED, *call, until=60_000) == [31_500]


def test_where_it_belongs_nothing_is_told() -> None:
    call = said(GREETING, 1000, 4000, "agent"), said("我查账", 5000, 7000, "customer")
    assert found(SWAPPED, *call, until=60_000) == []


@pytest.mark.parametrize("late", [500, 9000, 30_000])
def test_an_echo_is_no_swap_whichever_transcript_comes_first(late: int) -> None:
    call = (
        said(GREETING, 1000, 4000, "customer", late=1500),
        said(GREETING, 1200, 4200, "agent", late=late),
    )
    assert found(SWAPPED, *call, until=60_000) == []


def test_what_is_still_being_read_is_waited_for_and_not_for_ever() -> None:
    call = said(GREETING, 1000, 4000, "customer"), heard(20_000, 24_000, "agent")
    assert when(SWAPPED, *call, until=40_000) == []
    assert when(SWAPPED, *call, [wrote("好的", 20_000, 24_000, late=10_000)], until=60_000) == [34_000]
    assert when(SWAPPED, *call, until=60_000) == [46_000]


def test_only_the_calls_beginning_counts() -> None:
    call = said("喂", 1000, 2000, "agent"), said(GREETING, 40_000, 44_000, "customer")
    assert found(SWAPPED, *call, until=90_000) == []


def test_the_beginning_begins_with_the_first_sound() -> None:
    call = said(GREETING, 61_000, 64_000, "customer"), said("我查账", 65_000, 67_000, "agent")
    assert len(found(SWAPPED, *call, until=120_000)) == 1


def test_a_call_that_ends_before_is_judged_by_what_is_known() -> None:
    call = said(GREETING, 1000, 4000, "customer")
    assert len(found(SWAPPED, call, ended(9000))) == 1
    assert len(found(SWAPPED, said(GREETING, 1000, 4000, "customer", late=6000), ended(9000))) == 1
    assert found(SWAPPED, call, said(GREETING, 5000, 8000, "agent", late=6000), ended(9000)) == []


def test_on_a_mixed_channel_nobody_knows() -> None:
    assert found(SWAPPED, said(GREETING, 1000, 4000, "unknown"), until=60_000) == []


def test_it_is_told_once() -> None:
    again = [said(GREETING, at, at + 3000, "customer") for at in (1000, 6000, 12_000)]
    assert len(found(SWAPPED, *again, until=90_000)) == 1


# ── what people are told ──────────────────────────────────────────────────────────────────────────

OPERATIONAL = (
    "ops.no_transcript", "ops.ingest_silent", "ops.channel_dead", "ops.clipping", "ops.noise",
    "ops.channels_swapped",
)  # fmt: skip


@pytest.mark.parametrize("rule_id", OPERATIONAL)
def test_every_operational_alert_says_what_to_check_in_both_languages(rule_id: str) -> None:
    card = load_pack(DEFAULT_PACK).card(rule_id)
    assert card.advice is not None
    assert "检查" in card.advice["zh"] or "核对" in card.advice["zh"] or "调低" in card.advice["zh"]
    assert len(card.advice["en"]) > 40
    assert "alert" in card.actions
    assert "hint" not in card.actions, "the agent can do nothing about it"


def test_the_alert_carries_the_advice() -> None:
    bank = load_pack(DEFAULT_PACK)
    (one,) = found(bank, trouble("noise", 9000, 2000, "customer"), call=CallInfo(call_id="c"))
    alert, marker = raised(one, bank.card(one.rule_id), latency=None, redact=str)  # type: ignore[arg-type]
    assert alert.advice == bank.card("ops.noise").advice  # type: ignore[union-attr]
    assert marker.alert_id == alert.id  # type: ignore[union-attr]


def test_a_rule_may_carry_advice_and_a_wrong_one_is_refused() -> None:
    advised = pack("{audio: noise}", "any", ", advice: {zh: 检查编码, en: Check the codec}")
    assert advised.card("t.rule").advice == {"zh": "检查编码", "en": "Check the codec"}
    assert NOISE.card("t.rule").advice is None
    with pytest.raises(ValueError, match="expected 'en' in advice, came none"):
        pack("{audio: noise}", "any", ", advice: {zh: 检查编码}")


def test_of_what_is_said_when_no_audio_comes_any_more_nobody_knows_the_end() -> None:
    dumb = pack("{no_text: {speech: 30}}", "any")
    began = heard(1000, 200_000)[:1]
    silent = trouble("silent", 18_000, 10_000, "unknown")
    assert when(dumb, began, until=60_000) == [31_600]
    assert when(dumb, began, silent, until=60_000) == []
    back = trouble("silent", 50_000, 50_000, "unknown", present=False)
    assert when(dumb, began, silent, back, until=100_000) == [71_600], "nine seconds before, the rest after"
