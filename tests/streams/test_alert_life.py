"""What may become of an alert: every step from every state, and what no sequence of steps can do."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import structs

from streams import alert_life
from streams.alert_life import NotPossible, found_again, step
from streams.events import Alert, AlertAction, AlertChange, AlertState, Decided, Evidence, Seen

AT = "2026-03-01T08:30:00.000Z"
LATER = "2026-03-01T08:30:30.000Z"
STATES: tuple[AlertState, ...] = get_args(AlertState)
ACTIONS: tuple[AlertAction, ...] = get_args(AlertAction)
PEOPLE = ("li", "wang", "zhao")


def alert(**changes: Any) -> Alert:
    content: dict[str, Any] = {
        "id": "a1",
        "call_id": "c1",
        "rule_id": "redline.guarantee",
        "rule_version": "1",
        "name": {"zh": "承诺保本"},
        "severity": "critical",
        "role": "agent",
        "media_start_ms": 1000,
        "media_end_ms": 1500,
        "evidence": Evidence(text="保本"),
        "escalates_at": LATER,
    }
    return Alert(**(content | changes))


def wish(action: AlertAction, by: str | None = "li", **changes: Any) -> Decided:
    content: dict[str, Any] = {"id": "w1", "call_id": "c1", "alert_id": "a1", "media_ms": 1500}
    return Decided(**(content | {"action": action, "by": by} | changes))


def go(alert: Alert, action: AlertAction, by: str | None = "li", **changes: Any) -> Alert:
    return step(alert, wish(action, by, **changes), AT, "new deadline")[0]


# ── step by step ──────────────────────────────────────────────────────────────────────────────────


def test_an_open_alert_is_acknowledged_then_resolved() -> None:
    taken = go(alert(), "acknowledge")
    assert (taken.state, taken.owner, taken.escalates_at) == ("acknowledged", "li", None)
    resolved = go(taken, "resolve", "wang")
    assert (resolved.state, resolved.owner) == ("resolved", "li")


def test_every_step_says_who_when_and_from_what() -> None:
    _, change = step(alert(), wish("false_alarm", "wang", text="客户在引用广告"), AT, None)
    assert change == AlertChange(
        id="w1",
        action="false_alarm",
        by="wang",
        at=AT,
        from_state="open",
        to_state="false_alarm",
        from_owner=None,
        to_owner="wang",
        text="客户在引用广告",
    )


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("action", ACTIONS)
def test_what_the_table_does_not_allow_is_refused_with_what_was_expected_and_what_came(
    action: AlertAction, state: AlertState
) -> None:
    appeal = "open" if action in ("accept_appeal", "reject_appeal") else None
    before = alert(state=state, owner="wang", escalates_at=LATER if state == "open" else None, appeal=appeal)
    asked = wish(action, owner="zhao", deadline=LATER)
    if state in alert_life.FROM[action]:
        after, change = step(before, asked, AT, None)
        assert (change.from_state, change.to_state) == (state, after.state)
        return
    with pytest.raises(NotPossible) as refused:
        step(before, asked, AT, None)
    assert refused.value.expected == alert_life.FROM[action]
    assert refused.value.came is before
    assert state in str(refused.value)


@pytest.mark.parametrize("state", alert_life.FROM["appeal"])
def test_an_appeal_changes_no_state_and_is_made_once(state: AlertState) -> None:
    before = alert(state=state, owner="wang", escalates_at=LATER if state == "open" else None)
    appealed = go(before, "appeal", "8001", text="不是我说的")
    assert appealed == structs.replace(before, appeal="open")
    with pytest.raises(NotPossible):
        go(appealed, "appeal", "8001")
    rejected = go(appealed, "reject_appeal", text="原话如此")
    assert rejected == structs.replace(before, appeal="rejected")
    for action in ("appeal", "accept_appeal", "reject_appeal"):
        with pytest.raises(NotPossible):
            go(rejected, action)


def test_an_accepted_appeal_and_a_false_alarm_are_the_same() -> None:
    appealed = go(alert(), "appeal", "8001")
    accepted = go(appealed, "accept_appeal")
    assert (accepted.state, accepted.owner, accepted.appeal) == ("false_alarm", "li", "accepted")
    assert go(appealed, "false_alarm") == accepted
    assert go(appealed, "resolve").appeal == "open"


def test_without_an_appeal_there_is_nothing_to_answer() -> None:
    for action in ("accept_appeal", "reject_appeal"):
        with pytest.raises(NotPossible):
            go(alert(), action)


def test_an_alert_that_nobody_took_escalates_once_and_can_still_be_taken() -> None:
    escalated = go(alert(), "escalate", None, deadline=LATER)
    assert (escalated.state, escalated.escalates_at) == ("escalated", None)
    with pytest.raises(NotPossible):
        go(escalated, "escalate", None, deadline=LATER)
    assert go(escalated, "acknowledge").state == "acknowledged"


def test_a_deadline_that_was_moved_does_not_escalate() -> None:
    with pytest.raises(NotPossible):
        go(alert(escalates_at="2026-03-01T09:00:00.000Z"), "escalate", None, deadline=LATER)
    with pytest.raises(NotPossible):
        go(alert(escalates_at=None), "escalate", None)


def test_who_is_given_an_alert_has_the_whole_time_to_answer() -> None:
    given = go(go(alert(), "acknowledge"), "assign", owner="wang")
    assert (given.state, given.owner, given.escalates_at) == ("open", "wang", "new deadline")
    assert go(given, "acknowledge", "wang").owner == "wang"


def test_giving_an_alert_to_oneself_is_taking_it() -> None:
    mine = go(alert(), "assign", "li", owner="li")
    assert (mine.state, mine.owner, mine.escalates_at) == ("acknowledged", "li", None)


def test_an_alert_that_is_let_go_waits_again() -> None:
    released = go(go(alert(), "take", owner="li"), "release")
    assert (released.state, released.owner, released.escalates_at) == ("open", None, "new deadline")


def test_a_judged_alert_that_is_reopened_is_nobodys_and_waits() -> None:
    reopened = go(go(alert(), "false_alarm"), "reopen", "wang")
    assert (reopened.state, reopened.owner, reopened.escalates_at) == ("open", None, "new deadline")


def test_a_comment_changes_nothing_but_the_count() -> None:
    before = alert(state="resolved", owner="wang", escalates_at=None)
    assert go(before, "comment", text="已回访") == structs.replace(before, comments=1)


def test_a_step_that_was_decided_on_another_sight_is_refused() -> None:
    taken = go(alert(), "acknowledge", "wang")
    with pytest.raises(NotPossible) as refused:
        go(taken, "resolve", "li", seen=Seen(state="open", owner=None))
    assert refused.value.expected == ("open",)
    assert go(taken, "resolve", "li", seen=Seen(state="acknowledged", owner="wang")).state == "resolved"


# ── what the rules say afterwards ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", ["acknowledged", "resolved", "false_alarm"])
def test_what_people_decided_stands_whatever_the_rules_find_later(state: AlertState) -> None:
    known = alert(state=state, owner="li", comments=2, escalates_at=None)
    for found in (alert(escalates_at=None), alert(state="withdrawn", escalates_at=None)):
        after = found_again(known, found, "new deadline")
        assert (after.state, after.owner, after.comments, after.escalates_at) == (state, "li", 2, None)


def test_a_deadline_that_passed_is_nobodys_decision() -> None:
    known = alert(state="escalated", escalates_at=None)
    assert found_again(known, alert(escalates_at=None), "d").state == "escalated"
    assert found_again(known, alert(state="withdrawn", escalates_at=None), "d").state == "withdrawn"


def test_an_alert_found_again_keeps_its_deadline_and_one_raised_again_gets_another() -> None:
    found = alert(escalates_at=None)
    assert found_again(alert(), found, "d").escalates_at == LATER
    withdrawn = found_again(alert(), alert(state="withdrawn", escalates_at=None), "d")
    assert withdrawn.escalates_at is None
    assert found_again(withdrawn, found, "d").escalates_at == "d"


# ── any sequence ──────────────────────────────────────────────────────────────────────────────────


class Life(RuleBasedStateMachine):
    """Several people, the clock and the rules at one alert."""

    @initialize()
    def begin(self) -> None:
        self.alert = alert()
        self.changes: list[AlertChange] = []
        self.serial = 0
        self.comments = 0

    @rule(
        action=st.sampled_from(ACTIONS),
        by=st.sampled_from(PEOPLE),
        owner=st.sampled_from(PEOPLE),
        seen=st.one_of(
            st.none(), st.builds(Seen, state=st.sampled_from(STATES), owner=st.sampled_from((None, *PEOPLE)))
        ),
        late=st.booleans(),
    )
    def ask(self, action: AlertAction, by: str, owner: str, seen: Seen | None, late: bool) -> None:
        self.serial += 1
        before = self.alert
        deadline = before.escalates_at if late else f"deadline {self.serial - 1}"
        asked = wish(action, by, id=str(self.serial), owner=owner, seen=seen, deadline=deadline)
        try:
            self.alert, change = step(before, asked, AT, f"deadline {self.serial}")
        except NotPossible:
            return  # and it is as it was
        assert before.state in alert_life.FROM[action]
        if seen is not None:
            assert (seen.state, seen.owner) == (before.state, before.owner)
        self.comments += action == "comment"
        self.changes.append(change)

    @rule(withdrawn=st.booleans())
    def find(self, withdrawn: bool) -> None:
        before = self.alert
        found = alert(state="withdrawn" if withdrawn else "open", escalates_at=None)
        self.alert = found_again(before, found, "deadline of the rules")
        if before.state in ("acknowledged", *alert_life.JUDGED):
            assert self.alert.state == before.state
        assert self.alert.owner == before.owner
        again = found_again(self.alert, found, "deadline of the rules")
        assert again == self.alert

    @invariant()
    def a_clock_runs_exactly_while_it_is_open(self) -> None:
        assert (self.alert.escalates_at is not None) == (self.alert.state == "open")

    @invariant()
    def what_is_acknowledged_is_somebodys(self) -> None:
        if self.alert.state == "acknowledged" and (not self.changes or self.changes[-1].action != "release"):
            assert self.alert.owner is not None

    @invariant()
    def the_history_hangs_together(self) -> None:
        for change in self.changes:
            assert change.from_state in alert_life.FROM[change.action]
            if change.action == "comment":
                assert (change.from_state, change.from_owner) == (change.to_state, change.to_owner)
        assert self.alert.comments == self.comments
        assert sum(change.action == "appeal" for change in self.changes) == (self.alert.appeal is not None)

    @invariant()
    def what_it_is_about_never_changes(self) -> None:
        kept = structs.replace(alert(), escalates_at=None)
        bare = structs.replace(
            self.alert, state="open", owner=None, escalates_at=None, comments=0, appeal=None
        )
        assert bare == kept


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestLife = Life.TestCase
