"""Scripts on the stream: what is done, due, left out, out of order, and at which media time that is told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.panel import Panel
from detectors.rules import Pack, parse_pack
from streams.events import (
    CallEnded,
    CallEvent,
    CallInfo,
    CallStarted,
    CallUpdated,
    Channel,
    Detection,
    Finding,
    Progress,
    SpeechStarted,
    SpeechStopped,
    Transcript,
)

CALL = CallInfo(call_id="c", queue="service")


def pack(*nodes: str, more: str = "", others: str = "") -> Pack:
    """Nodes as they stand within braces; the agent's, unless they begin with ``role:``."""
    written = (node if node.startswith("role:") else f"role: agent, {node}" for node in nodes)
    lines = "\n".join(f"      - {{name: {{zh: 步, en: Step}}, {node}}}" for node in written)
    return parse_pack(
        'id: t\nversion: "1"\nrules: []\nscripts:\n  - id: s\n    name: {zh: 流程, en: Flow}\n'
        f"{more}    nodes:\n{lines}\n{others}",
        "t.yaml",
    )


GREETING = "id: greeting, when: {phrase: [您好]}, by: 10, after: first_speech"


class Phone:
    """A call under a pack: says things, lets time pass, keeps what was found."""

    def __init__(self, rules: Pack, call: CallInfo = CALL) -> None:
        self.panel = Panel(call, rules)
        self.found: list[Finding] = []
        self.give(CallStarted(call=call))

    def give(self, event: CallEvent) -> Phone:
        self.found += self.panel.on_event(event)
        return self

    def starts(self, at: int, role: Channel = "agent") -> Phone:
        return self.give(SpeechStarted(call_id="c", channel=role, media_ms=at))

    def stops(self, at: int, role: Channel = "agent") -> Phone:
        return self.give(SpeechStopped(call_id="c", channel=role, media_ms=at))

    def text(self, text: str, start: int, end: int, role: Channel = "agent") -> Phone:
        spoken = Transcript(
            call_id="c",
            utterance_id=f"c:{role}:{start}",
            role=role,
            start_ms=start,
            end_ms=end,
            text=text,
            final=True,
        )
        return self.give(spoken)

    def says(self, text: str, start: int, end: int, role: Channel = "agent") -> Phone:
        return self.starts(start, role).stops(end, role).text(text, start, end, role)

    def passes(self, until: int) -> Phone:
        while (wake := self.panel.wake_at()) is not None and wake <= until:
            self.found += self.panel.on_wake(wake)
        return self

    def ends(self, at: int) -> Phone:
        return self.passes(at).give(CallEnded(call_id="c", media_ms=at))

    @property
    def deviations(self) -> list[tuple[str, bool]]:
        return [(d.rule_id, d.withdrawn) for d in self.found if isinstance(d, Detection)]

    @property
    def states(self) -> dict[str, str]:
        last = [p for p in self.found if isinstance(p, Progress)][-1]
        return {step.id: step.state for step in last.steps}

    @property
    def score(self) -> float | None:
        return [p for p in self.found if isinstance(p, Progress)][-1].score


# ── deadlines ─────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_said_in_time_is_raised_at_its_deadline_and_anchored_where_its_time_began() -> None:
    phone = Phone(pack(GREETING))
    assert phone.states == {"greeting": "waiting"}
    phone.says("喂", 2_000, 3_000)
    assert phone.states == {"greeting": "due"}
    (step,) = next(p for p in reversed(phone.found) if isinstance(p, Progress)).steps
    assert step.due_ms == 12_000
    assert phone.panel.wake_at() == 12_500
    assert phone.passes(12_499).deviations == []
    phone.passes(12_500)
    (found,) = [d for d in phone.found if isinstance(d, Detection)]
    assert found.rule_id == "script.greeting"
    assert (found.anchor_ms, found.media_start_ms, found.media_end_ms) == (2_000, 12_000, 12_000)
    assert found.evidence.how == "script"
    assert (phone.states, phone.score) == ({"greeting": "missed"}, 0.0)
    assert phone.panel.wake_at() is None


def test_what_is_said_in_time_raises_nothing_and_scores_full() -> None:
    phone = Phone(pack(GREETING)).says("您好，请讲", 2_000, 4_000).ends(60_000)
    assert phone.deviations == []
    assert (phone.states, phone.score) == ({"greeting": "done"}, 100.0)


def test_what_is_said_after_the_deadline_is_too_late_and_scores_half() -> None:
    phone = Phone(pack(GREETING)).says("喂", 2_000, 3_000).passes(15_000).says("您好", 16_000, 17_000)
    assert phone.deviations == [("script.greeting", False)]
    assert (phone.states, phone.score) == ({"greeting": "too_late"}, 50.0)


def test_a_deadline_waits_for_what_is_still_being_transcribed() -> None:
    phone = Phone(pack(GREETING)).says("喂", 2_000, 3_000)
    phone.starts(10_000).stops(12_000).passes(20_000)
    assert phone.deviations == []
    assert phone.text("您好，这里是银行", 10_000, 12_000).deviations == []
    assert phone.states == {"greeting": "done"}
    assert phone.ends(60_000).deviations == []


def test_a_deadline_waits_for_what_is_still_being_said_but_not_for_what_began_behind_it() -> None:
    phone = Phone(pack(GREETING)).says("喂", 2_000, 3_000).starts(11_000).passes(14_000)
    assert phone.deviations == []
    phone.stops(15_000).text("请问", 11_000, 15_000)
    assert phone.deviations == [("script.greeting", False)]
    other = Phone(pack(GREETING)).says("喂", 2_000, 3_000).starts(12_001).passes(12_500)
    assert other.deviations == [("script.greeting", False)]


def test_a_deadline_waits_no_longer_than_fifteen_seconds_and_takes_back_what_was_said_in_time() -> None:
    phone = Phone(pack(GREETING)).says("喂", 2_000, 3_000).starts(10_000).stops(11_500)
    assert phone.passes(26_999).deviations == []
    assert phone.passes(27_000).deviations == [("script.greeting", False)]
    phone.text("您好", 10_000, 11_500)
    assert phone.deviations == [("script.greeting", False), ("script.greeting", True)]
    raised, withdrawn = [d for d in phone.found if isinstance(d, Detection)]
    assert raised.anchor_ms == withdrawn.anchor_ms
    assert (phone.states, phone.score) == ({"greeting": "done"}, 100.0)


def test_what_was_raised_stands_when_the_start_of_speech_is_told_too_late() -> None:
    phone = Phone(pack(GREETING)).says("喂", 2_000, 3_000).passes(12_500)
    phone.starts(11_900).stops(14_000)
    assert phone.deviations == [("script.greeting", False)]
    phone.text("请讲", 11_900, 14_000)
    assert phone.deviations == [("script.greeting", False)]


def test_a_cough_is_no_first_speech() -> None:
    phone = Phone(pack(GREETING)).starts(1_000).stops(1_300).text("", 1_000, 1_300)
    phone.passes(30_000).says("您好", 30_000, 31_000)
    assert phone.deviations == []


def test_the_other_side_does_not_count_and_a_mixed_channel_does() -> None:
    assert Phone(pack(GREETING)).says("您好", 1_000, 2_000, "customer").states == {"greeting": "waiting"}
    assert Phone(pack(GREETING)).says("您好", 1_000, 2_000, "unknown").states == {"greeting": "done"}


def test_a_call_that_ends_before_the_deadline_has_missed_nothing() -> None:
    phone = Phone(pack(GREETING)).says("喂", 1_000, 2_000).ends(9_000)
    assert phone.deviations == []
    assert (phone.states, phone.score) == ({"greeting": "skipped"}, None)


def test_a_call_without_a_word_deviates_in_nothing() -> None:
    rules = pack(GREETING, "id: closing, when: {phrase: [再见]}, at: end")
    assert Phone(rules).ends(60_000).deviations == []


def test_time_runs_from_a_condition_from_a_node_or_from_the_start() -> None:
    risk = "id: risk, when: {phrase: [有风险]}, by: 60, after: {phrase: [这款产品]}"
    assert Phone(pack(risk)).says("您好", 1_000, 2_000).ends(300_000).deviations == []
    phone = Phone(pack(risk)).says("推荐这款产品", 10_000, 12_000)
    assert phone.panel.wake_at() == 72_500
    assert phone.passes(73_000).deviations == [("script.risk", False)]
    assert phone.found[-2].anchor_ms == 10_000  # type: ignore[union-attr]
    assert Phone(pack(risk)).says("这款产品有风险", 10_000, 12_000).ends(300_000).deviations == []
    notice = "id: notice, when: {phrase: [录音]}, by: 5, after: greeting"
    phone = Phone(pack(GREETING, notice)).says("您好", 1_000, 2_000)
    assert phone.passes(8_000).deviations == [("script.notice", False)]
    early = "id: early, when: {phrase: [录音]}, by: 5, after: call_start"
    assert Phone(pack(early)).passes(5_500).deviations == [("script.early", False)]


def test_the_role_of_a_condition_may_be_another_one() -> None:
    node = "id: calm, when: {phrase: [理解您]}, by: 10, after: {phrase: [投诉], role: customer}"
    assert Phone(pack(node)).says("要投诉吗", 1_000, 2_000).passes(60_000).deviations == []
    assert Phone(pack(node)).says("我要投诉", 1_000, 2_000, "customer").passes(60_000).deviations == [
        ("script.calm", False)
    ]


def test_the_end_of_the_call_is_a_deadline_of_its_own() -> None:
    rules = pack("id: closing, when: {phrase: [再见]}, at: end")
    assert Phone(rules).says("您好", 1_000, 2_000).ends(60_000).deviations == [("script.closing", False)]
    assert Phone(rules).says("再见", 1_000, 2_000).ends(60_000).deviations == []
    phone = Phone(rules).says("您好", 1_000, 2_000)
    phone.give(CallEnded(call_id="c", media_ms=9_000, reason="interrupted"))
    assert phone.deviations == []
    assert phone.text("再见", 8_000, 9_000).states == {"closing": "done"}


def test_what_is_optional_raises_nothing() -> None:
    phone = Phone(pack(f"{GREETING}, required: false")).says("喂", 1_000, 2_000).ends(60_000)
    assert (phone.deviations, phone.states, phone.score) == ([], {"greeting": "skipped"}, None)


def test_look_ahead_counts_turns_of_the_role_or_seconds() -> None:
    turns = "id: greeting, when: {phrase: [您好]}, look_ahead: {turns: 2}"
    phone = Phone(pack(turns)).says("喂", 1_000, 2_000).says("你好", 3_000, 4_000, "customer")
    assert phone.deviations == []
    assert phone.says("请讲", 5_000, 6_000).deviations == [("script.greeting", False)]
    assert Phone(pack(turns)).says("喂", 1_000, 2_000).says("您好", 3_000, 4_000).deviations == []
    seconds = "id: greeting, when: {phrase: [您好]}, look_ahead: {seconds: 20}"
    assert Phone(pack(seconds)).passes(20_500).deviations == [("script.greeting", False)]


# ── order ─────────────────────────────────────────────────────────────────────────────────────────

IDENTITY = "id: identity, when: {phrase: [身份证]}, before: {phrase: [余额是]}"


def test_what_must_not_come_before_a_node_raises_at_once() -> None:
    phone = Phone(pack(IDENTITY)).says("您的余额是三万", 5_000, 8_000)
    (found,) = [d for d in phone.found if isinstance(d, Detection)]
    assert (found.rule_id, found.utterance_id, found.anchor_ms) == ("script.identity", "c:agent:5000", 5_000)
    assert found.evidence.matched == ("余额是",)
    assert phone.states == {"identity": "missed"}
    phone.says("请报身份证", 9_000, 10_000).says("您的余额是三万", 12_000, 14_000).ends(60_000)
    assert phone.deviations == [("script.identity", False)]
    assert phone.states == {"identity": "too_late"}


def test_what_was_done_before_satisfies_also_within_one_utterance() -> None:
    assert Phone(pack(IDENTITY)).says("请报身份证", 1_000, 2_000).says("您的余额是三万", 5_000, 8_000).ends(
        9_000
    ).deviations == []  # fmt: skip
    assert Phone(pack(IDENTITY)).says("身份证核对了，您的余额是三万", 1_000, 8_000).deviations == []
    assert Phone(pack(IDENTITY)).says("您的余额是三万，身份证报一下", 1_000, 8_000).deviations != []
    assert Phone(pack(IDENTITY)).says("喂", 1_000, 8_000).ends(60_000).deviations == []


def test_a_cooldown_lets_the_same_be_raised_again() -> None:
    phone = Phone(pack(f"{IDENTITY}, cooldown: 30"))
    for start in (5_000, 20_000, 40_000):
        phone.says("您的余额是三万", start, start + 2_000)
    assert [d.anchor_ms for d in phone.found if isinstance(d, Detection)] == [5_000, 40_000]


FLOW = (
    "id: a, when: {phrase: [第一步]}, next: b",
    "id: b, when: {phrase: [第二步]}, by: 20, next: [c]",
    "id: c, when: {phrase: [第三步]}",
)


def test_a_branch_brings_the_next_node_in_force() -> None:
    phone = Phone(pack(*FLOW)).passes(60_000).says("第一步", 61_000, 62_000)
    assert phone.states == {"a": "done", "b": "due", "c": "waiting"}
    assert phone.passes(90_000).deviations == [("script.b", False)]
    phone.says("第三步", 91_000, 92_000).ends(100_000)
    assert phone.deviations == [("script.b", False)]
    assert phone.states == {"a": "done", "b": "missed", "c": "done"}
    assert phone.score == 66.7


def test_several_nodes_may_be_done_in_one_utterance_in_their_order() -> None:
    phone = Phone(pack(*FLOW)).says("第一步，第二步，第三步", 1_000, 5_000).ends(9_000)
    assert (phone.deviations, set(phone.states.values())) == ([], {"done"})


def test_a_node_said_out_of_order_is_raised_at_once() -> None:
    phone = Phone(pack(*FLOW)).says("第二步", 1_000, 2_000)
    (found,) = [d for d in phone.found if isinstance(d, Detection)]
    assert (found.rule_id, found.utterance_id) == ("script.b", "c:agent:1000")
    assert phone.states == {"a": "waiting", "b": "out_of_order", "c": "waiting"}
    phone.says("第一步", 3_000, 4_000).says("第三步", 5_000, 6_000).ends(9_000)
    assert phone.deviations == [("script.b", False)]
    assert phone.states == {"a": "done", "b": "out_of_order", "c": "done"}


def test_an_optional_node_may_be_left_out_on_the_way() -> None:
    flow = (f"{FLOW[0]}, required: false", *FLOW[1:])
    phone = Phone(pack(*flow)).says("第二步", 1_000, 2_000).says("第三步", 3_000, 4_000).ends(9_000)
    assert phone.deviations == []
    assert phone.states == {"a": "skipped", "b": "done", "c": "done"}


CHOICE = (
    "id: ask, when: {phrase: [要买吗]}, "
    "next: [{to: sell, when: {phrase: [我要买], role: customer}}, {to: bye}]",
    "id: sell, when: {phrase: [风险揭示]}",
    "id: bye, when: {phrase: [再见]}",
)


def test_the_branch_whose_condition_holds_is_taken_and_the_other_is_not_asked_for() -> None:
    asked = Phone(pack(*CHOICE)).says("您要买吗", 1_000, 2_000)
    asked.says("我要买", 3_000, 4_000, "customer").ends(60_000)
    assert asked.deviations == [("script.sell", False)]
    other = Phone(pack(*CHOICE)).says("您要买吗", 1_000, 2_000).says("算了吧", 3_000, 4_000, "customer")
    other.says("再见", 5_000, 6_000).ends(60_000)
    assert other.deviations == []
    assert other.states == {"ask": "done", "sell": "skipped", "bye": "done"}


def test_a_branch_with_the_smaller_number_is_tried_first() -> None:
    nodes = (
        "id: ask, when: {phrase: [要买吗]}, "
        "next: [{to: x, when: {phrase: [买], role: customer}, priority: 2}, "
        "{to: y, when: {phrase: [我要买], role: customer}, priority: 1}]",
        "id: x, when: {phrase: [甲乙丙]}",
        "id: y, when: {phrase: [丁戊己]}",
    )
    phone = Phone(pack(*nodes)).says("您要买吗", 1_000, 2_000).says("我要买", 3_000, 4_000, "customer")
    assert phone.ends(60_000).deviations == [("script.y", False)]


def test_the_transcripts_of_two_channels_may_come_in_either_order() -> None:
    rules = pack(
        "role: customer, id: agree, when: {phrase: [我同意]}, next: sign",
        "id: sign, when: {phrase: [为您办理]}",
    )
    phone = Phone(rules).starts(1_000, "customer").stops(2_000, "customer").starts(2_500).stops(4_000)
    phone.text("为您办理", 2_500, 4_000)
    assert phone.deviations == []
    phone.text("我同意", 1_000, 2_000, "customer").ends(60_000)
    assert (phone.deviations, set(phone.states.values())) == ([], {"done"})
    other = Phone(rules).starts(1_000, "customer").stops(2_000, "customer").says("为您办理", 2_500, 4_000)
    other.text("我不想", 1_000, 2_000, "customer")
    assert other.deviations == [("script.sign", False)]


# ── which script ──────────────────────────────────────────────────────────────────────────────────

SECOND = """  - id: wealth
    name: {zh: 理财, en: Wealth}
    queues: [wealth]
    nodes:
      - {id: risk, name: {zh: 险, en: R}, role: agent, when: {phrase: [有风险]}, by: 5, after: call_start}
      - {id: greeting, name: {zh: 步, en: Step}, role: agent, when: {phrase: [您好]}, by: 9}
"""


def scripts_of(phone: Phone) -> list[str]:
    return [p.script for p in phone.found if isinstance(p, Progress)]


def test_the_queue_decides_and_a_script_without_one_is_for_all_others() -> None:
    rules = pack(GREETING, others=SECOND)
    assert scripts_of(Phone(rules)) == ["s"]
    assert scripts_of(Phone(rules, CallInfo(call_id="c", queue="wealth"))) == ["wealth"]
    assert scripts_of(Phone(pack(GREETING, more="    queues: [vip]\n"))) == []


def test_a_call_that_moves_to_another_queue_takes_along_what_was_done() -> None:
    phone = Phone(pack(GREETING, others=SECOND)).says("您好", 1_000, 2_000).passes(60_000)
    phone.give(CallUpdated(call=CallInfo(call_id="c", queue="wealth"), media_ms=60_000))
    assert phone.states == {"risk": "due", "greeting": "done"}
    assert phone.passes(65_500).deviations == [("script.risk", False)]


def test_a_pack_knows_the_card_of_a_node() -> None:
    card = pack(f"{GREETING}, severity: critical, hint: {{zh: 请问候, en: Greet}}").card("script.greeting")
    assert (card.severity, card.name["en"], card.hint) == (
        "critical",
        "Step",
        {"zh": "请问候", "en": "Greet"},
    )
    assert card.actions == ("alert", "marker", "hint")


# ── snapshots ─────────────────────────────────────────────────────────────────────────────────────

WATCHED = pack(
    GREETING,
    IDENTITY,
    *FLOW,
    *CHOICE,
    "id: quiet, when: {phrase: [久等]}, by: 5, after: {silence: {seconds: 4}}",
    "id: closing, when: {phrase: [再见]}, at: end",
)
SAID = [
    "您好",
    "请报身份证",
    "您的余额是三万",
    "第一步",
    "第二步",
    "第三步",
    "要买吗",
    "我要买",
    "让您久等",
    "",
]


@st.composite
def calls(draw: st.DrawFn) -> list[CallEvent]:
    events: list[tuple[int, CallEvent]] = []
    for role in ("agent", "customer"):
        at = arrived = 0
        for _ in range(draw(st.integers(0, 8))):
            start = at + draw(st.integers(100, 9_000))
            at = start + draw(st.integers(300, 6_000))
            arrived = max(arrived, at + draw(st.integers(200, 20_000)))
            text = draw(st.sampled_from([*SAID, ""]))
            spoken = Transcript(call_id="c", utterance_id=f"c:{role}:{start}", role=role, start_ms=start,
                                end_ms=at, text=text, final=True)  # fmt: skip
            events += [
                (start, SpeechStarted(call_id="c", channel=role, media_ms=start)),
                (at, SpeechStopped(call_id="c", channel=role, media_ms=at)),
                (arrived, spoken),
            ]
    events.sort(key=lambda pair: pair[0])
    end = max((at for at, _ in events), default=0) + draw(st.integers(0, 30_000))
    return [event for _, event in events] + [CallEnded(call_id="c", media_ms=end)]


def play(panel: Panel, events: list[CallEvent], restored: bool = False) -> list[Finding]:
    found: list[Finding] = []
    for event in events:
        for _ in range(100):
            wake = panel.wake_at()
            if wake is None or isinstance(event, Transcript) or wake > event.media_ms:
                break
            found += panel.on_wake(wake)
        found += panel.on_event(event)
        if restored:
            snapshot = panel.snapshot()
            panel = Panel(CALL, WATCHED)
            panel.restore(snapshot)
    return found


@settings(max_examples=40, deadline=None)
@given(calls())
def test_a_snapshot_restored_at_any_event_changes_nothing(events: list[CallEvent]) -> None:
    assert play(Panel(CALL, WATCHED), events, restored=True) == play(Panel(CALL, WATCHED), events)


@settings(max_examples=40, deadline=None)
@given(calls())
def test_every_deviation_left_standing_is_missed_late_or_out_of_order_on_the_checklist(
    events: list[CallEvent],
) -> None:
    found = play(Panel(CALL, WATCHED), events)
    standing: set[str] = set()
    for finding in found:
        if isinstance(finding, Detection):
            (standing.discard if finding.withdrawn else standing.add)(finding.rule_id)
    lists = [f for f in found if isinstance(f, Progress)]
    wrong = {f"script.{s.id}" for s in lists[-1].steps if s.state in ("missed", "too_late", "out_of_order")}
    assert standing == wrong


def test_a_snapshot_of_another_pack_is_refused() -> None:
    snapshot = Panel(CALL, pack(GREETING)).snapshot()
    with pytest.raises(ValueError, match="expected a snapshot under rules"):
        Panel(CALL, pack(IDENTITY)).restore(snapshot)
