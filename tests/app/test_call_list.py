"""The list of calls: looked through by agent, queue, alerts and time; on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.store.tables import CallRow
from app.store.times import written
from tests.app.store_support import House, alert, ended, house, started

DAY = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def at(tmp_path: Path, database_url: str) -> Iterator[House]:
    """Four calls, one begun each day from the first of March on; the last is running."""
    with house(tmp_path, url=database_url) as opened:
        for number, (agent, queue) in enumerate(
            [("8001", "理财"), ("8002", "理财"), ("8001", "贷款"), ("8003", None)], 1
        ):
            opened.append(started(f"c{number}", agent=agent, queue=queue))
            if number < 4:
                opened.append(ended(f"c{number}"))
        opened.append(alert(1, "c1"), alert(2, "c2", severity="warning"), alert(3, "c3"))
        with opened.store.writing() as session:
            for number in range(1, 5):
                begun = written(DAY + timedelta(days=number - 1))
                session.execute(
                    update(CallRow).where(CallRow.call_id == f"c{number}").values(started_at=begun)
                )
        opened.log_in()
        yield opened


def listed(at: House, **query: Any) -> list[str]:
    response = at.client.get("/api/calls", params=query)
    assert response.status_code == 200, response.text
    return [call["call_id"] for call in response.json()["calls"]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["c4", "c3", "c2", "c1"]),
        ({"agent": "8001"}, ["c3", "c1"]),
        ({"queue": "理财"}, ["c2", "c1"]),
        ({"agent": "8001", "queue": "理财"}, ["c1"]),
        ({"agent": "800"}, []),
        ({"severity": "critical"}, ["c3", "c1"]),
        ({"severity": "info"}, []),
        ({"state": "live"}, ["c4"]),
        ({"state": "ended", "agent": "8003"}, []),
        ({"since": "2026-03-02T00:00:00Z"}, ["c4", "c3", "c2"]),
        ({"until": "2026-03-02T00:00:00Z"}, ["c1"]),
        # The same moments as Beijing writes them.
        ({"since": "2026-03-02T08:00:00+08:00", "until": "2026-03-03T08:00:00+08:00"}, ["c2"]),
        ({"since": "2026-03-03T00:00:00Z", "until": "2026-03-02T00:00:00Z"}, []),
    ],
)
def test_calls_are_found_by_whatever_is_asked_together(
    at: House, query: dict[str, str], found: list[str]
) -> None:
    assert listed(at, **query) == found


def test_an_alert_that_was_taken_back_finds_no_call(at: House) -> None:
    answer = at.client.post("/api/alerts/a1/false-alarm", json={}, headers={"X-Duting": "1"})
    assert answer.status_code == 200, answer.text
    assert listed(at, severity="critical") == ["c3"]


def test_what_is_found_comes_page_after_page(at: House) -> None:
    first = at.client.get("/api/calls", params={"agent": "8001", "limit": 1}).json()
    assert [call["call_id"] for call in first["calls"]] == ["c3"]
    assert listed(at, agent="8001", limit=1, before=first["next"]) == ["c1"]


@pytest.mark.parametrize(
    "query",
    [
        {"since": "yesterday"},
        {"since": "2026-03-01T00:00:00"},
        {"since": "0001-01-01T00:00:00+14:00"},
        {"until": "9999-12-31T23:59:59-14:00"},
        {"severity": "bad"},
        {"agent": "8" * 201},
    ],
)
def test_a_question_that_makes_no_sense_is_refused(at: House, query: dict[str, str]) -> None:
    assert at.client.get("/api/calls", params=query).status_code == 422


def test_texts_that_no_row_holds_find_nothing(at: House) -> None:
    assert listed(at, agent="\x00", queue="' OR 1=1 --") == []
