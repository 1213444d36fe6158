"""The life of an alert over HTTP: who may, what is refused and how, what everybody hears, what is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.api.alert_rights import assignable, may
from app.store import Person
from app.store.tables import AlertChangeRow
from streams.alert_life import COMMENT_LENGTH
from streams.events import AlertAction
from tests.app.store_support import House, alert, ended, house, old_database, open_store, started

STEPS: tuple[str, ...] = ("acknowledge", "resolve", "false-alarm", "reopen", "assign", "comment")
MORE: dict[str, dict[str, Any]] = {"assign": {"to": "wang"}, "comment": {"text": "已联系座席"}}


@pytest.fixture
def at(tmp_path: Path, database_url: str) -> Iterator[House]:
    with house(tmp_path, url=database_url) as house_:
        house_.append(started(agent="8001"), alert(), alert(2))
        for name in ("li", "wang"):
            house_.store.users.add(name, "correct horse 9", name, "supervisor")
        yield house_


@pytest.fixture
def ask(at: House) -> Callable[..., Any]:
    """Log in, and ask for a step."""

    def ask(person: str | None, step: str, alert_id: str = "a1", **body: Any) -> Any:
        if person is not None:
            assert at.log_in(person).status_code == 200
        return at.client.post(
            f"/api/alerts/{alert_id}/{step}", json=MORE.get(step, {}) | body, headers={"X-Duting": "1"}
        )

    return ask


def answer(response: Any) -> tuple[int, str]:
    body = response.json()
    if response.status_code == 200:
        return 200, body["state"]
    assert body["error"]["message"].keys() == {"zh", "en"}
    return response.status_code, body["error"]["code"]


def history(at: House, alert_id: str = "a1") -> list[dict[str, Any]]:
    response = at.client.get(f"/api/alerts/{alert_id}/history")
    assert response.status_code == 200
    return response.json()["changes"]


# ── one after another ─────────────────────────────────────────────────────────────────────────────


def test_a_life_is_told_kept_and_written_down(at: House, ask: Callable[..., Any]) -> None:
    cursor = at.outlet.head
    steps = ["acknowledge", "comment", "assign", "acknowledge", "resolve", "reopen", "false-alarm"]
    people = ["li", "li", "li", "wang", "wang", "li", "li"]
    states = ["acknowledged", "acknowledged", "open", "acknowledged", "resolved", "open", "false_alarm"]
    told = [answer(ask(person, step)) for person, step in zip(people, steps, strict=True)]
    assert told == [(200, state) for state in states]
    with at.client.websocket_connect(f"/api/events?cursor={cursor}") as socket:
        assert socket.receive_json()["type"] == "hello"
        events = [socket.receive_json() for _ in steps]
    assert [event["cursor"] for event in events] == list(range(cursor + 1, cursor + 1 + len(steps)))
    assert {event["type"] for event in events} == {"alert.updated"}
    assert [event["alert"]["state"] for event in events] == states
    changes = history(at)
    assert [event["change"] for event in events] == changes
    assert [change["by"] for change in changes] == people
    assert [change["from_state"] for change in changes] == ["open", *states[:-1]]
    audited = [entry.action for entry in reversed(at.store.audit.about("a1"))]
    assert audited == [
        "alert.acknowledged",
        "alert.commented",
        "alert.assigned",
        "alert.acknowledged",
        "alert.resolved",
        "alert.reopened",
        "alert.false_alarm",
        "alert.history",
    ]


def test_who_comes_second_is_told_who_was_faster_and_what_was_expected(
    at: House, ask: Callable[..., Any]
) -> None:
    ask("li", "acknowledge")
    response = ask("wang", "acknowledge")
    assert answer(response) == (409, "alert_changed")
    error = response.json()["error"]
    assert (error["expected"], error["came"]) == ("open | escalated", "acknowledged")
    assert (error["owner"], error["by"]) == ("li", "li")
    assert error["at"].endswith("Z")
    assert [change["by"] for change in history(at)] == ["li"]


def test_asking_twice_is_as_asking_once(at: House, ask: Callable[..., Any]) -> None:
    for step in ("acknowledge", "resolve"):
        assert [answer(ask("li", step))[0] for _ in range(2)] == [200, 200]
    assert [answer(ask("li", "assign", "a2"))[0] for _ in range(2)] == [200, 200]
    assert len(history(at)) == 2
    assert len(history(at, "a2")) == 1


def test_a_step_decided_on_an_old_sight_is_refused(at: House, ask: Callable[..., Any]) -> None:
    ask("li", "acknowledge")
    response = ask("wang", "resolve", seen={"state": "open", "owner": None})
    assert answer(response) == (409, "alert_changed")
    assert response.json()["error"]["expected"] == "open"
    assert answer(ask("wang", "resolve", seen={"state": "acknowledged", "owner": "li"})) == (200, "resolved")


@pytest.mark.parametrize("step", ["acknowledge", "resolve", "false-alarm", "assign"])
def test_what_is_judged_is_not_judged_again(ask: Callable[..., Any], step: str) -> None:
    ask("li", "resolve")
    assert answer(ask("wang", step)) == (409, "alert_changed")


def test_what_is_not_judged_cannot_be_reopened(ask: Callable[..., Any]) -> None:
    response = ask("li", "reopen")
    assert answer(response) == (409, "alert_changed")
    assert response.json()["error"]["expected"] == "resolved | false_alarm"
    assert response.json()["error"]["by"] is None


def test_of_two_supervisors_on_two_gateways_one_takes_it(
    at: House, tmp_path: Path, database_url: str
) -> None:
    with house(tmp_path, url=database_url) as other:
        for one, person in ((at, "li"), (other, "wang")):
            assert one.log_in(person).status_code == 200
        together = threading.Barrier(2)

        def take(one: House) -> int:
            together.wait(10)
            return one.client.post(
                "/api/alerts/a1/acknowledge", json={}, headers={"X-Duting": "1"}
            ).status_code

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(take, (at, other))) == [200, 409]
        assert len(history(at)) == 1
        assert len([e for e in at.store.audit.about("a1") if e.action == "alert.acknowledged"]) == 1


def test_one_card_is_acknowledged_in_one_go(at: House, ask: Callable[..., Any]) -> None:
    at.append(alert(3), started("c2"), alert(4, "c2"))
    ask("wang", "resolve", "a3")
    cursor = at.outlet.head
    assert answer(ask("li", "acknowledge", also=["a1", "a2", "a3", "a4", "none"])) == (200, "acknowledged")
    states = {number: at.store.calls.alert(f"a{number}")[0].state for number in range(1, 5)}  # type: ignore[index]
    assert states == {1: "acknowledged", 2: "acknowledged", 3: "resolved", 4: "open"}
    assert at.outlet.head == cursor + 2
    assert at.store.audit.about("a2")[0].action == "alert.acknowledged"


# ── comments ──────────────────────────────────────────────────────────────────────────────────────


def test_a_comment_is_kept_as_text_with_private_numbers_masked(at: House, ask: Callable[..., Any]) -> None:
    text = "  <b>客户</b>手机 13912345678 <script>alert(1)</script>\n第二行 "
    assert answer(ask("li", "comment", text=text)) == (200, "open")
    [change] = history(at)
    assert change["text"] == "<b>客户</b>手机 *******5678 <script>alert(1)</script>\n第二行"
    rows = at.store.log.read(0, 10_000, 10_000)
    assert not any("13912345678" in row.json for row in rows)


def test_a_reason_is_kept_with_the_judgement_and_masked(at: House, ask: Callable[..., Any]) -> None:
    ask("li", "false-alarm", reason="客户报的是 13912345678")
    assert history(at)[0]["text"] == "客户报的是 *******5678"
    ask("li", "reopen", reason=None)
    assert history(at)[1]["text"] is None


@pytest.mark.parametrize("length", [COMMENT_LENGTH + 1, 10_000])
@pytest.mark.parametrize(("step", "field"), [("comment", "text"), ("false-alarm", "reason")])
def test_a_text_that_is_too_long_is_refused_with_its_length_and_the_limit(
    at: House, ask: Callable[..., Any], step: str, field: str, length: int
) -> None:
    response = ask("li", step, **{field: "字" * length})
    assert answer(response) == (422, "comment_too_long")
    assert response.json()["error"]["limit"] == "2000"
    assert response.json()["error"]["came"] == str(length)
    assert history(at) == []


def test_the_longest_comment_is_taken_and_an_empty_one_is_not(at: House, ask: Callable[..., Any]) -> None:
    assert answer(ask("li", "comment", text="𠮷" * COMMENT_LENGTH)) == (200, "open")
    assert answer(ask("li", "comment", text=" \n ")) == (422, "comment_empty")
    assert answer(ask("li", "comment", text="a \0 nul")) == (200, "open")
    assert [change["text"][:3] for change in history(at)] == ["𠮷" * 3, "a \ufffd"]


def test_half_of_a_character_does_no_harm(at: House) -> None:
    at.log_in("li")
    response = at.client.post(
        "/api/alerts/a1/comment",
        content=b'{"text": "half \\ud800"}',
        headers={"X-Duting": "1", "Content-Type": "application/json"},
    )
    assert response.status_code < 500
    assert [change["text"] for change in history(at)] in ([], ["half \ufffd"])


# ── who may ───────────────────────────────────────────────────────────────────────────────────────


def person(role: str) -> Person:
    return Person(username=role, name=role, role=role)


@pytest.mark.parametrize("live", [True, False])
def test_who_may_do_what(live: bool) -> None:
    actions: tuple[AlertAction, ...] = (
        "acknowledge",
        "resolve",
        "false_alarm",
        "reopen",
        "assign",
        "comment",
    )
    allowed = {
        role: {action for action in actions if may(person(role), action, live=live)}
        for role in ("agent", "supervisor", "inspector", "administrator", "nonsense")
    }
    assert allowed == {
        "agent": set(),
        "supervisor": set(actions),
        "inspector": set() if live else {"comment", "resolve", "false_alarm"},
        "administrator": set(actions),
        "nonsense": set(),
    }


def test_an_alert_is_given_to_those_who_can_act_on_it() -> None:
    people = [person(role) for role in ("agent", "inspector", "supervisor")]
    assert assignable(people) == [person("supervisor")]


@pytest.mark.parametrize("step", STEPS)
def test_strangers_agents_and_other_sites_change_nothing(
    at: House, ask: Callable[..., Any], step: str
) -> None:
    assert answer(ask(None, step)) == (401, "login_required")
    assert answer(ask("agent", step)) == (403, "role_not_allowed")
    at.log_in("li")
    refused = at.client.post(
        f"/api/alerts/a1/{step}", json=MORE.get(step, {}), headers={"Origin": "http://evil.example"}
    )
    assert answer(refused) == (403, "bad_origin")
    assert history(at) == []


def test_strangers_and_agents_read_no_history_and_no_list_of_people(at: House) -> None:
    paths = ("/api/alerts/a1/history", "/api/alerts/assignees")
    assert [answer(at.client.get(path)) for path in paths] == [(401, "login_required")] * 2
    at.log_in("agent")
    assert [answer(at.client.get(path)) for path in paths] == [(403, "role_not_allowed")] * 2
    at.log_in("inspector")
    assert at.client.get("/api/alerts/assignees").status_code == 403


def test_an_inspector_judges_after_the_call_and_takes_nothing(at: House, ask: Callable[..., Any]) -> None:
    assert answer(ask("inspector", "resolve")) == (403, "after_the_call")
    at.append(ended())
    assert answer(ask("inspector", "comment")) == (200, "open")
    assert answer(ask("inspector", "acknowledge")) == (403, "role_not_allowed")
    assert answer(ask("inspector", "false-alarm")) == (200, "false_alarm")
    assert answer(ask("inspector", "reopen")) == (403, "role_not_allowed")


def test_an_alert_is_not_given_to_nobody_nor_to_who_may_not_have_it(ask: Callable[..., Any]) -> None:
    for to in ("none", "agent", "inspector", ""):
        assert answer(ask("li", "assign", to=to)) == (422, "unknown_person")


def test_an_alert_is_not_given_to_somebody_whose_account_is_shut(at: House, ask: Callable[..., Any]) -> None:
    at.store.users.set_disabled("wang", True)
    assert answer(ask("li", "assign", to="wang")) == (422, "unknown_person")
    people = at.client.get("/api/alerts/assignees").json()["people"]
    assert "wang" not in [each["username"] for each in people]


def test_the_people_to_whom_an_alert_may_be_given(at: House) -> None:
    at.log_in("li")
    people = at.client.get("/api/alerts/assignees").json()["people"]
    assert [each["username"] for each in people] == ["administrator", "li", "supervisor", "wang"]
    assert all(each.keys() == {"username", "name", "role"} for each in people)


@pytest.mark.parametrize("alert_id", ["none", "a1%00", "%00"])
@pytest.mark.parametrize("step", STEPS)
def test_an_alert_that_is_not_there_is_said_so(ask: Callable[..., Any], alert_id: str, step: str) -> None:
    assert answer(ask("li", step, alert_id)) == (404, "unknown_alert")


@pytest.mark.parametrize(
    ("step", "body"),
    [
        ("acknowledge", {"seen": {"state": "nonsense", "owner": None}}),
        ("acknowledge", {"also": ["a1"] * 201}),
        ("acknowledge", {"also": ["x" * 513]}),
        ("acknowledge", {"nonsense": 1}),
        ("resolve", {"reason": 3}),
        ("assign", {"to": None}),
        ("assign", {"to": "x" * 65}),
        ("comment", {"text": None}),
        ("comment", {"text": ["x"]}),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(ask: Callable[..., Any], step: str, body: Any) -> None:
    assert answer(ask("li", step, **body)) == (422, "invalid")


# ── a thousand alerts, old databases, precision ───────────────────────────────────────────────────


def test_a_thousand_alerts_on_one_call_leave_the_others_on_the_floor(at: House) -> None:
    at.append(started("c2"), alert(5001, "c2"))
    for start in range(10, 1010, 250):
        at.append(*(alert(number) for number in range(start, start + 250)))
    at.log_in("li")
    floor = at.client.get("/api/floor").json()
    of_call = [each["call_id"] for each in floor["alerts"]]
    assert (of_call.count("c1"), of_call.count("c2")) == (60, 1)
    assert floor["alerts"][0]["id"] == "a1009"
    assert floor["calls"][0]["alerts"]["critical"] == 1002


def test_precision_is_of_what_was_judged_and_null_where_nothing_was(
    at: House, ask: Callable[..., Any]
) -> None:
    at.append(*(alert(number) for number in (3, 4)), alert(5, state="withdrawn"))
    at.append(
        alert(6, rule_id="signal.complaint", name={"zh": "投诉", "en": "Complaint"}, severity="warning")
    )
    for number, step in ((1, "resolve"), (2, "resolve"), (3, "false-alarm")):
        ask("li", step, f"a{number}")
    rules = at.client.get("/api/rules/precision").json()["rules"]
    assert rules == [
        {
            "rule_id": "redline.guarantee",
            "name": {"zh": "承诺保本", "en": "Guaranteed returns"},
            "severity": "critical",
            "raised": 4,
            "resolved": 2,
            "false_alarms": 1,
            "precision": pytest.approx(2 / 3),
        },
        {
            "rule_id": "signal.complaint",
            "name": {"zh": "投诉", "en": "Complaint"},
            "severity": "warning",
            "raised": 1,
            "resolved": 0,
            "false_alarms": 0,
            "precision": None,
        },
    ]


def test_alerts_of_an_earlier_version_stay_and_never_escalate(database_url: str) -> None:
    body = '{"type":"Alert","id":"a1","call_id":"c1","rule_id":"r","rule_version":"1","name":{},'
    body += '"severity":"critical","role":"agent","media_start_ms":0,"media_end_ms":1,'
    body += '"evidence":{"text":"x"},"state":"open","owner":null}'
    old_database(
        database_url,
        "0005",
        "INSERT INTO calls (call_id, cursor, state, info, started_at, media_ms, gap_ms) VALUES "
        "('c1', 1, 'live', '{\"call_id\":\"c1\"}', '2026-01-01T00:00:00.000Z', 0, 0)",
        "INSERT INTO alerts (alert_id, call_id, cursor, at, rule_id, rule_version, severity, state, body) "
        f"VALUES ('a1', 'c1', 2, '2026-01-01T00:00:00.000Z', 'r', '1', 'critical', 'open', '{body}')",
    )
    store = open_store(database_url)
    assert store.alerts.due("2027-01-01T00:00:00.000Z", 10) == []
    found = store.calls.alert("a1")
    assert found is not None
    assert found[0].state == "open"
    with store.reading() as session:
        assert session.query(AlertChangeRow).count() == 0
    store.close()
