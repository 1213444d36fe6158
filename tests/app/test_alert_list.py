"""The list of alerts: those in sight, newest first; which of them have an appeal that waits for an answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from app.store.tables import AlertRow
from streams.events import CallInfo, CallUpdated
from tests.app.store_support import PASSWORD, House, alert, ended, house, old_database, open_store, started

HEADERS = {"X-Duting": "1"}


@pytest.fixture
def at(tmp_path: Path, database_url: str) -> Iterator[House]:
    """Two calls, of teams A and B and their agents, each with two alerts."""
    with house(tmp_path, url=database_url) as opened:
        add = opened.store.users.add
        add("8001", PASSWORD, "8001", "agent", ["A"])
        add("8002", PASSWORD, "8002", "agent", ["B"])
        add("anna", PASSWORD, "anna", "supervisor", ["A"])
        add("root", PASSWORD, "root", "administrator", ["B"])
        for call_id, agent, first in (("a", "8001", 1), ("b", "8002", 3)):
            opened.append(started(call_id, agent=agent), alert(first, call_id), alert(first + 1, call_id))
            opened.append(ended(call_id))
        yield opened


def session(at: House, person: str) -> dict[str, str]:
    return {"Cookie": f"duting_session={at.store.sessions.open(person, timedelta(minutes=5))}"}


def step(at: House, person: str, alert_id: str, what: str, **body: Any) -> None:
    path = f"/api/alerts/{alert_id}/{what}"
    response = at.client.post(path, json=body, headers=HEADERS | session(at, person))
    assert response.status_code == 200, response.text


def listed(at: House, person: str, **query: Any) -> list[str]:
    response = at.client.get("/api/alerts", params=query, headers=session(at, person))
    assert response.status_code == 200, response.text
    return [found["id"] for found in response.json()["alerts"]]


@pytest.mark.parametrize(
    ("who", "seen"),
    [("supervisor", ["a3", "a1"]), ("inspector", ["a3", "a1"]), ("anna", ["a1"]), ("root", ["a3"])],
)
def test_open_appeals_are_listed_to_those_who_see_the_call(at: House, who: str, seen: list[str]) -> None:
    step(at, "8001", "a1", "appeal", reason="不是我说的")
    step(at, "8002", "a3", "appeal", reason="客户问的")
    assert listed(at, who, appeal="open") == seen


def test_an_appeal_is_listed_until_it_is_answered_in_whatever_way(at: House) -> None:
    for agent, alert_id in (("8001", "a1"), ("8001", "a2"), ("8002", "a3"), ("8002", "a4")):
        step(at, agent, alert_id, "appeal", reason="不是我说的")
    step(at, "inspector", "a1", "reject-appeal", reason="原话如此")
    step(at, "inspector", "a2", "accept-appeal")
    step(at, "supervisor", "a3", "false-alarm")
    # It stands, so the agent's word against it waits all the same.
    step(at, "supervisor", "a4", "resolve")
    assert listed(at, "supervisor", appeal="open") == ["a4"]
    assert listed(at, "supervisor", appeal="accepted") == ["a3", "a2"]
    assert listed(at, "supervisor", appeal="rejected") == ["a1"]


def test_what_the_rules_took_back_waits_for_no_answer(at: House) -> None:
    step(at, "8001", "a1", "appeal", reason="不是我说的")
    at.append(replace(alert(1, "a"), state="withdrawn"))
    assert listed(at, "supervisor", appeal="open") == []
    at.append(alert(1, "a"))
    assert listed(at, "supervisor", appeal="open") == ["a1"]


def test_with_a_call_that_passes_to_another_team_its_appeals_do(at: House) -> None:
    step(at, "8001", "a1", "appeal", reason="不是我说的")
    at.append(CallUpdated(call=CallInfo(call_id="a", agent="8001", team="B"), media_ms=5))
    assert (listed(at, "anna", appeal="open"), listed(at, "root", appeal="open")) == ([], ["a1"])


def test_without_a_filter_all_alerts_in_sight_come_page_after_page(at: House) -> None:
    assert listed(at, "supervisor") == ["a4", "a3", "a2", "a1"]
    ask = {"limit": "1"}
    seen = []
    while True:
        page = at.client.get("/api/alerts", params=ask, headers=session(at, "anna")).json()
        seen += [(found["id"], found["agent"]) for found in page["alerts"]]
        if page["next"] is None:
            break
        ask["before"] = page["next"]
    assert seen == [("a2", "8001"), ("a1", "8001")]


def test_the_list_is_for_those_who_judge_alerts(at: House) -> None:
    assert at.client.get("/api/alerts?appeal=open", headers=session(at, "8001")).status_code == 403
    secret = at.store.tokens.add("t", ("read",), ("*",), timedelta(days=1), "test")[0]
    token = {"Authorization": f"Bearer {secret}"}
    assert at.client.get("/api/alerts?appeal=open", headers=token).status_code == 403


@pytest.mark.parametrize("query", ["appeal=none", "appeal=", "limit=0", "limit=201", "before=-1", "before=x"])
def test_a_question_that_makes_no_sense_is_refused(at: House, query: str) -> None:
    assert at.client.get(f"/api/alerts?{query}", headers=session(at, "supervisor")).status_code == 422


def test_appeals_from_before_are_listed_after_the_migration(database_url: str) -> None:
    def row(number: int, appeal: str) -> str:
        body = (
            f'{{"type":"Alert","id":"a{number}","call_id":"c1","rule_id":"r","rule_version":"1","name":{{}},'
        )
        body += '"severity":"info","role":"agent","media_start_ms":0,"media_end_ms":1,'
        body += f'"evidence":{{"text":"\\"appeal\\":\\"open\\""}},"state":"open"{appeal}}}'
        columns = "alert_id, call_id, cursor, at, rule_id, rule_version, severity, state, body"
        values = (
            f"'a{number}', 'c1', {number}, '2026-03-01T08:00:00.000Z', 'r', '1', 'info', 'open', '{body}'"
        )
        return f"INSERT INTO alerts ({columns}) VALUES ({values})"

    old_database(
        database_url,
        "0022",
        "INSERT INTO calls (call_id, cursor, state, info, started_at, media_ms, gap_ms) VALUES "
        "('c1', 1, 'ended', '{\"call_id\":\"c1\"}', '2026-03-01T08:00:00.000Z', 0, 0)",
        row(1, ""),
        row(2, ',"appeal":null'),
        row(3, ',"appeal":"open"'),
        row(4, ',"appeal":"rejected"'),
    )
    with (store := open_store(database_url)).reading() as opened:
        found = opened.execute(select(AlertRow.alert_id, AlertRow.appeal).order_by(AlertRow.cursor)).all()
    assert [tuple(one) for one in found] == [("a1", None), ("a2", None), ("a3", "open"), ("a4", "rejected")]
    store.close()
