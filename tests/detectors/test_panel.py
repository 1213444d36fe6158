from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.dialogues import run_tests
from detectors.panel import Panel
from detectors.rules import DEFAULT_PACK, Pack, load_pack, parse_pack
from streams.events import (
    CallEnded,
    CallEvent,
    CallInfo,
    CallStarted,
    Channel,
    Detection,
    SpeechStarted,
    SpeechStopped,
    Transcript,
)

CALL = CallInfo(call_id="c")


@pytest.fixture(scope="module")
def bank() -> Pack:
    return load_pack(DEFAULT_PACK)


BANK = load_pack(DEFAULT_PACK)


def quiet(options: str = "seconds: 15") -> Panel:
    rules = parse_pack(
        'id: t\nversion: "1"\nrules:\n  - {id: dynamics.dead_air, name: {zh: 静, en: S}, severity: warning, '
        f"role: any, when: {{silence: {{{options}}}}}}}\n",
        "t.yaml",
    )
    return Panel(CALL, rules)


def starts(at: int, channel: Channel = "agent") -> SpeechStarted:
    return SpeechStarted(call_id="c", channel=channel, media_ms=at)


def stops(at: int, channel: Channel = "agent") -> SpeechStopped:
    return SpeechStopped(call_id="c", channel=channel, media_ms=at)


def test_silence_fires_while_nobody_speaks_and_names_the_true_times() -> None:
    panel = quiet()
    panel.on_event(CallStarted(call=CALL))
    panel.on_event(starts(1000))
    assert panel.wake_at() is None
    panel.on_event(stops(2000))
    assert panel.wake_at() == 17_500
    assert panel.on_wake(17_499) == []
    (found,) = panel.on_wake(17_500)
    assert (found.media_start_ms, found.media_end_ms, found.anchor_ms) == (2000, 17_000, 2000)
    assert panel.wake_at() is None
    assert panel.on_wake(60_000) == []


def test_silence_does_not_fire_when_speech_began_a_millisecond_before() -> None:
    panel = quiet()
    panel.on_event(starts(1000))
    panel.on_event(stops(2000))
    assert panel.on_event(starts(16_999, "customer")) == []
    assert panel.wake_at() is None
    assert panel.on_wake(30_000) == []


def test_speech_that_began_too_late_ends_a_silence_that_has_lasted_long_enough() -> None:
    panel = quiet()
    panel.on_event(starts(1000))
    panel.on_event(stops(2000))
    (found,) = panel.on_event(starts(17_000, "customer"))
    assert found.anchor_ms == 2000


def test_it_is_no_silence_while_the_other_side_speaks() -> None:
    panel = quiet()
    for event in (starts(1000), starts(1500, "customer"), stops(2000)):
        panel.on_event(event)
    assert panel.wake_at() is None
    panel.on_event(stops(30_000, "customer"))
    assert panel.wake_at() == 45_500


def test_silence_of_one_side_counts_when_only_that_side_is_watched() -> None:
    panel = quiet("seconds: 15, between: [agent]")
    for event in (starts(1000), stops(2000), starts(3000, "customer")):
        panel.on_event(event)
    assert panel.wake_at() == 17_500
    (found,) = panel.on_wake(17_500)
    assert found.role == "agent"


def test_a_call_without_a_word_is_dead_air_only_from_the_start() -> None:
    assert quiet().wake_at() is None
    panel = quiet("seconds: 15, from_start: true")
    assert panel.wake_at() == 15_500
    (found,) = panel.on_event(CallEnded(call_id="c", media_ms=15_000))
    assert (found.anchor_ms, found.media_end_ms) == (0, 15_000)
    assert panel.wake_at() is None


def test_each_silence_fires_once_more() -> None:
    panel = quiet()
    found: list[Detection] = []
    for at in (0, 30_000, 60_000):
        found += panel.on_event(starts(at)) + panel.on_event(stops(at + 1000))
    assert [d.anchor_ms for d in found] == [1000, 31_000]


@pytest.mark.parametrize("result", run_tests(BANK), ids=lambda r: f"{r.rule_id}:{r.line}")
def test_the_default_pack_passes_its_own_dialogues(result: object) -> None:
    assert result.passed, result  # type: ignore[attr-defined]


def test_every_rule_of_the_default_pack_has_two_dialogues_that_hit_and_two_that_do_not() -> None:
    for rule in BANK.rules:
        hits = sum(1 for case in rule.tests if case.hits or rule.id in (case.expect or ()))
        assert hits >= 2, rule.id
        assert len(rule.tests) - hits >= 2, rule.id


def test_the_default_pack_holds_every_red_line_and_signal() -> None:
    wanted = {
        *("redline.guaranteed_return", "redline.exaggerated_return", "redline.deposit_equivalence"),
        *("redline.fake_endorsement", "redline.private_transfer", "redline.ask_credentials"),
        *("redline.borrow_to_invest", "redline.abuse", "redline.leak_customer_data"),
        *("signal.complaint", "signal.regulator", "signal.legal", "signal.media", "signal.repeat_contact"),
        *("signal.escalate", "signal.fraud_victim", "signal.self_harm", "signal.churn", "signal.praise"),
        *("opportunity.loan", "opportunity.wealth", "dynamics.dead_air"),
    }
    assert wanted <= {rule.id for rule in BANK.rules}
    assert all(r.severity == "critical" for r in BANK.rules if r.id.startswith("redline."))


SENTENCES = st.sampled_from(
    [
        "我们是稳赚",
        "不赔的",
        "薄奔保锡",
        "我要投诉",
        "您好",
        "我不承诺",
        "保本保息",
        "转到我个人账户",
        "不需要",
        "再考虑一下",
        "",
    ]
)


@st.composite
def calls(draw: st.DrawFn) -> list[CallEvent]:
    """Turns of both sides with pauses, some of them long; partials before some finals."""
    events: list[CallEvent] = [CallStarted(call=CALL)]
    clock = 0
    for _ in range(draw(st.integers(0, 8))):
        role: Channel = draw(st.sampled_from(["agent", "customer"]))
        start = clock + draw(st.sampled_from([0, 300, 900, 2000, 14_999, 15_000, 20_000]))
        clock = start + draw(st.integers(1, 4000))
        text = draw(SENTENCES)
        events += [starts(start, role), stops(clock, role)]
        for final in (False, True) if draw(st.booleans()) else (True,):
            said = text if final else draw(SENTENCES)
            events.append(
                Transcript(
                    call_id="c",
                    utterance_id=f"c:{role}:{start}",
                    role=role,
                    start_ms=start,
                    end_ms=clock,
                    text=said,
                    final=final,
                )
            )
    events.append(CallEnded(call_id="c", media_ms=clock + draw(st.integers(0, 40_000))))
    return events


def run(events: list[CallEvent], interrupted: int | None = None) -> list[Detection]:
    panel = Panel(CALL, BANK)
    found: list[Detection] = []
    for index, event in enumerate(events):
        if index == interrupted:
            snapshot = panel.snapshot()
            panel = Panel(CALL, BANK)
            panel.restore(snapshot)
        wake = panel.wake_at()
        if wake is not None and not isinstance(event, Transcript) and wake <= event.media_ms:
            found += panel.on_wake(wake)
        found += panel.on_event(event)
    return found


@settings(max_examples=60, deadline=None)
@given(calls(), st.integers(0, 40))
def test_the_same_events_give_the_same_detections_even_after_a_restart(
    events: list[CallEvent], at: int
) -> None:
    once = run(events)
    assert once == run(events)
    assert once == run(events, interrupted=at)
    # A partial raises, its final confirms with better evidence: twice at most, and never the same twice.
    raised = [finding for finding in once if isinstance(finding, Detection)]
    kept = [(d.rule_id, d.anchor_ms, d.withdrawn) for d in raised]
    assert all(kept.count(one) <= 2 for one in kept)
    assert all(raised.count(one) == 1 for one in raised)


def test_a_snapshot_of_another_pack_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a snapshot under rules"):
        quiet().restore(Panel(CALL, parse_pack('id: e\nversion: "1"\nrules: []\n', "e.yaml")).snapshot())
