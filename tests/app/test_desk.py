"""The agent's desk over HTTP: one's own calls and nobody else's; hints, whispers, appeals."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from app.settings import Settings
from app.store.times import now, written
from streams.desk import WHISPER_LENGTH, Whisper
from streams.events import Hint
from tests.app.store_support import (
    PASSWORD,
    House,
    alert,
    emotion,
    ended,
    house,
    old_database,
    open_store,
    progress,
    said,
    started,
)

HEADERS = {"X-Duting": "1"}


@pytest.fixture
def at(tmp_path: Path, database_url: str) -> Iterator[House]:
    with house(tmp_path, url=database_url) as house_:
        house_.store.users.add("other", "correct horse 9", "Other", "agent", ["A"])
        house_.append(started(agent="agent", team="A"), hint(1), alert(1), alert(2), progress(state="missed"))
        yield house_


def hint(number: int, call_id: str = "c1", rule: str = "r") -> Hint:
    return Hint(
        id=f"h{number}",
        call_id=call_id,
        rule_id=rule,
        text={"zh": "请核实"},
        media_ms=number,
        severity="warning",
    )


def session(at: House, person: str) -> dict[str, str]:
    """Without a password: that takes its time, and has tests of its own."""
    return {"Cookie": f"duting_session={at.store.sessions.open(person, timedelta(minutes=5))}"}


def post(at: House, person: str, path: str, **body: Any) -> tuple[int, Any]:
    response = at.client.post(path, json=body, headers=HEADERS | session(at, person))
    answer = response.json()
    return response.status_code, answer if response.status_code < 300 else answer["error"]["code"]


def get(at: House, person: str, path: str) -> tuple[int, Any]:
    response = at.client.get(path, headers=session(at, person))
    return response.status_code, response.json()


def told(at: House, cursor: int) -> list[str]:
    return [row.published.type for row in at.store.log.read(cursor, 10_000, 100)]


def audited(at: House, subject: str) -> list[str]:
    return [entry.action for entry in reversed(at.store.audit.about(subject))]


# ── what the desk shows ───────────────────────────────────────────────────────────────────────────


def test_the_desk_shows_the_call_that_the_agent_is_in(at: House) -> None:
    at.append(emotion(role="agent"), emotion(900), said(0, "您好，ABC 1"), said(900, "好的", role="customer"))
    status, desk = get(at, "agent", "/api/desk")
    live = desk["live"]
    assert (status, live["call"]["call_id"], desk["cursor"]) == (200, "c1", at.outlet.head)
    assert live["hints"] == [
        {
            "hint": {
                "type": "Hint",
                "id": "h1",
                "call_id": "c1",
                "rule_id": "r",
                "text": {"zh": "请核实"},
                "media_ms": 1,
                "severity": "warning",
            },
            "answer": None,
        }
    ]
    assert [one["role"] for one in live["emotions"]] == ["agent"]
    assert [(one["start_ms"], one["characters"]) for one in live["said"]] == [(0, 6)]
    assert live["progress"][0]["script"] == "s"
    assert (desk["others"], desk["last"]) == (0, [])


def test_of_several_calls_the_last_one_is_shown_and_after_it_the_one_before(at: House) -> None:
    at.append(started("c2", agent="agent"))
    desk = get(at, "agent", "/api/desk")[1]
    assert (desk["live"]["call"]["call_id"], desk["others"]) == ("c2", 1)
    at.append(ended("c2"))
    desk = get(at, "agent", "/api/desk")[1]
    assert (desk["live"]["call"]["call_id"], desk["others"]) == ("c1", 0)
    assert [(one["call_id"], one["alerts"]) for one in desk["last"]] == [("c2", 0)]


def test_nothing_of_another_agents_call_is_shown(at: House) -> None:
    assert get(at, "other", "/api/desk")[1] | {"cursor": 0} == {
        "cursor": 0,
        "live": None,
        "others": 0,
        "last": [],
    }
    for path in ("/api/desk/calls/c1", "/api/calls/c1/whispers"):
        assert get(at, "other", path)[0] == 404
    assert post(at, "other", "/api/calls/c1/hints/h1/answer", answer="useful") == (404, "unknown_call")
    assert post(at, "other", "/api/alerts/a1/appeal", reason="x") == (404, "unknown_alert")
    assert audited(at, "c1") == []


# ── hints ─────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_is_told_kept_counted_and_written_down(at: House) -> None:
    cursor = at.outlet.head
    at.append(hint(2), hint(3))
    for number, answer in ((1, "useful"), (2, "not_useful"), (3, "dismissed")):
        status, body = post(at, "agent", f"/api/calls/c1/hints/h{number}/answer", answer=answer)
        assert (status, body["answer"], body["rule_id"]) == (200, answer, "r")
    assert told(at, cursor)[-3:] == ["hint.answered"] * 3
    [row] = get(at, "supervisor", "/api/rules/usefulness")[1]["rules"]
    assert row == {
        "rule_id": "r",
        "shown": 3,
        "useful": 1,
        "not_useful": 1,
        "dismissed": 1,
        "usefulness": 0.5,
    }
    assert audited(at, "c1") == ["hint.answered"] * 3
    hints = get(at, "agent", "/api/desk")[1]["live"]["hints"]
    assert [one["answer"] for one in hints] == ["useful", "not_useful", "dismissed"]


def test_what_was_dismissed_may_still_be_judged_and_a_judgement_stands(at: House) -> None:
    path = "/api/calls/c1/hints/h1/answer"
    assert post(at, "agent", path, answer="dismissed")[0] == 200
    assert post(at, "agent", path, answer="useful")[0] == 200
    cursor = at.outlet.head
    assert post(at, "agent", path, answer="useful")[0] == 200  # asking twice is as asking once
    assert post(at, "agent", path, answer="not_useful") == (409, "hint_answered")
    assert at.outlet.head == cursor
    assert audited(at, "c1") == ["hint.answered"] * 2


def test_a_hint_of_another_call_is_no_hint_of_this_one(at: House) -> None:
    at.append(started("c2", agent="agent"), hint(7, "c2"))
    assert post(at, "agent", "/api/calls/c1/hints/h7/answer", answer="useful") == (404, "unknown_hint")
    assert post(at, "agent", "/api/calls/c1/hints/h1/answer", answer="great") == (422, "invalid")


# ── whispers ──────────────────────────────────────────────────────────────────────────────────────


def test_a_whisper_is_told_masked_and_kept_and_so_is_that_it_was_seen(at: House) -> None:
    cursor = at.outlet.head
    status, sent = post(at, "supervisor", "/api/calls/c1/whispers", text=" 手机 13912345678 <b>x</b> ")
    assert (status, sent["text"]) == (201, "手机 *******5678 <b>x</b>")
    assert (sent["by"], sent["to"]) == ("supervisor", "agent")
    assert (sent["seen_at"], sent["confirmed_at"]) == (None, None)
    path = f"/api/calls/c1/whispers/{sent['id']}/seen"
    seen = post(at, "agent", path)[1]
    assert seen["seen_at"] is not None
    assert post(at, "agent", path)[1] == seen
    confirmed = post(at, "agent", path, confirmed=True)[1]
    assert (confirmed["seen_at"], confirmed["confirmed_at"] is not None) == (seen["seen_at"], True)
    assert told(at, cursor) == ["whisper.sent", "whisper.seen", "whisper.seen"]
    assert get(at, "supervisor", "/api/calls/c1/whispers")[1] == {"whispers": [confirmed]}
    assert get(at, "agent", "/api/desk")[1]["live"]["whispers"] == [confirmed]
    assert audited(at, "c1") == ["whisper.sent", "whisper.seen", "whisper.confirmed"]
    assert not any("13912345678" in row.json for row in at.store.log.read(0, 10_000, 10_000))


def test_only_supervisors_who_see_the_call_whisper_and_only_while_it_runs(at: House) -> None:
    path = "/api/calls/c1/whispers"
    for person in ("agent", "inspector"):
        assert post(at, person, path, text="x") == (403, "role_not_allowed")
    at.store.users.set_teams("supervisor", ["B"])
    assert post(at, "supervisor", path, text="x") == (404, "unknown_call")
    at.store.users.set_teams("supervisor", ["A"])
    for text, code in ((" ", "comment_empty"), ("字" * (WHISPER_LENGTH + 1), "whisper_too_long")):
        assert post(at, "supervisor", path, text=text) == (422, code)
    assert post(at, "supervisor", path, text="𠮷" * WHISPER_LENGTH)[0] == 201
    at.append(ended())
    assert post(at, "supervisor", path, text="x") == (409, "call_ended")


def test_who_would_not_be_read_is_told_so_and_what_to_do(at: House) -> None:
    cursor = at.outlet.head
    for agent, code in (
        (None, "agent_unknown"),
        ("8001", "agent_without_desk"),
        ("inspector", "agent_without_desk"),
    ):
        at.append(started("c2", agent=agent, team="A"))
        assert post(at, "supervisor", "/api/calls/c2/whispers", text="x") == (409, code)
    at.store.users.set_disabled("other", True)
    at.append(started("c2", agent="other", team="A"))
    assert post(at, "supervisor", "/api/calls/c2/whispers", text="x") == (409, "agent_without_desk")
    at.store.users.set_disabled("other", False)
    assert post(at, "supervisor", "/api/calls/c2/whispers", text="x")[0] == 201
    assert told(at, cursor).count("whisper.sent") == 1
    # An agent who goes between the question and the answer.
    at.append(started("c3", team="A"), Whisper(id="w", call_id="c3", text="x", by="li", media_ms=0))
    assert at.store.desk.whispers("c3") == []


def test_whispers_to_one_call_are_bounded(at: House) -> None:
    at.log_in("supervisor")
    ask = lambda: at.client.post("/api/calls/c1/whispers", json={"text": "x"}, headers=HEADERS)  # noqa: E731
    answers = [ask() for _ in range(21)]
    assert [answer.status_code for answer in answers] == [201] * 20 + [429]
    assert int(answers[-1].headers["Retry-After"]) > 0


def test_a_whisper_is_for_the_agent_whose_call_it_was(at: House) -> None:
    sent = post(at, "supervisor", "/api/calls/c1/whispers", text="x")[1]
    at.append(started(agent="other", team="A"))  # transferred
    path = f"/api/calls/c1/whispers/{sent['id']}/seen"
    assert post(at, "other", path) == (404, "unknown_whisper")
    assert post(at, "agent", path) == (404, "unknown_call")
    assert get(at, "other", "/api/desk")[1]["live"]["whispers"] == []


# ── appeals ───────────────────────────────────────────────────────────────────────────────────────


def test_an_appeal_is_a_step_of_the_alerts_life_and_so_is_its_answer(at: House) -> None:
    assert post(at, "agent", "/api/alerts/a1/appeal", reason="早了") == (403, "appeal_after_the_call")
    at.append(ended())
    status, appealed = post(at, "agent", "/api/alerts/a1/appeal", reason="客户手机 13912345678 问的")
    assert (status, appealed["appeal"], appealed["state"]) == (200, "open", "open")
    assert post(at, "agent", "/api/alerts/a1/appeal", reason="再来") == (409, "appealed_already")
    assert post(at, "supervisor", "/api/alerts/a1/reject-appeal", reason=" ") == (422, "reason_needed")
    status, rejected = post(at, "inspector", "/api/alerts/a1/reject-appeal", reason="原话如此")
    assert (status, rejected["appeal"], rejected["state"]) == (200, "rejected", "open")
    assert post(at, "supervisor", "/api/alerts/a1/accept-appeal") == (409, "alert_changed")
    assert post(at, "agent", "/api/alerts/a1/appeal", reason="再来") == (409, "appealed_already")
    changes = get(at, "supervisor", "/api/alerts/a1/history")[1]["changes"]
    assert [(one["action"], one["by"], one["text"]) for one in changes] == [
        ("appeal", "agent", "客户手机 *******5678 问的"),
        ("reject_appeal", "inspector", "原话如此"),
    ]
    review = get(at, "agent", "/api/desk/calls/c1")[1]
    assert [one["appeals"] for one in review["alerts"]] == [changes, []]
    assert audited(at, "a1")[:2] == ["alert.appealed", "alert.appeal_rejected"]
    assert audited(at, "c1") == ["call.reviewed"]


def test_an_accepted_appeal_makes_a_false_alarm_that_counts_against_the_rule(at: House) -> None:
    at.append(ended())
    assert post(at, "supervisor", "/api/alerts/a1/accept-appeal") == (409, "no_open_appeal")
    post(at, "agent", "/api/alerts/a1/appeal", reason="不是我说的")
    accepted = post(at, "supervisor", "/api/alerts/a1/accept-appeal")[1]
    assert (accepted["appeal"], accepted["state"]) == ("accepted", "false_alarm")
    assert accepted["owner"] == "supervisor"
    [precision] = get(at, "supervisor", "/api/rules/precision")[1]["rules"]
    assert (precision["false_alarms"], precision["precision"]) == (1, 0.0)


def test_who_finds_a_false_alarm_has_accepted_the_appeal(at: House) -> None:
    at.append(ended())
    post(at, "agent", "/api/alerts/a1/appeal", reason="不是我说的")
    judged = post(at, "supervisor", "/api/alerts/a1/false-alarm")[1]
    assert (judged["state"], judged["appeal"]) == ("false_alarm", "accepted")
    post(at, "supervisor", "/api/alerts/a2/false-alarm")
    assert post(at, "agent", "/api/alerts/a2/appeal", reason="x") == (409, "appealed_already")


def test_what_the_rules_say_later_does_not_touch_an_appeal(at: House) -> None:
    at.append(ended())
    post(at, "agent", "/api/alerts/a1/appeal", reason="x")
    at.append(replace(alert(1), media_end_ms=1900))
    assert at.store.calls.alert("a1")[0].body.count('"appeal":"open"') == 1  # type: ignore[index]


@pytest.mark.parametrize("hours", [0.0, 1e-9])
def test_an_appeal_comes_in_time_or_not_at_all(
    tmp_path: Path, database_url: str, hours: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUTING_APPEAL_HOURS", str(hours))
    with house(tmp_path, url=database_url) as at:
        at.append(started(agent="agent"), alert(), ended())
        assert post(at, "agent", "/api/alerts/a1/appeal", reason="x") == (409, "appeal_over")
        until = get(at, "agent", "/api/desk/calls/c1")[1]["appeal_until"]
        assert (until is None) if hours == 0 else (until <= written(now()))


# ── frames and their cookies ──────────────────────────────────────────────────────────────────────


def test_only_the_desk_may_be_framed_and_only_by_the_origins_that_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = "https://phone.bank.example"
    for frames in ("", f"{phone} https://*.crm.example:8443"):
        monkeypatch.setenv("DUTING_DESK_FRAMES", frames)
        with house(tmp_path) as at:
            for path in ("/desk", "/", "/login", "/desk/x", "/api/session"):
                headers = at.client.get(path).headers
                policy = headers["Content-Security-Policy"].rpartition("; ")[2]
                open_ = path == "/desk" and frames != ""
                allowed = f"'self' {frames}" if open_ else "'none'"
                assert policy == f"frame-ancestors {allowed}"
                assert headers.get("X-Frame-Options") == (None if open_ else "DENY")


@pytest.mark.parametrize("wrong", ["phone.example", "https://a.example/x", "*", "https://a'", "https://a;b"])
def test_what_is_no_origin_is_refused_at_the_start(wrong: str) -> None:
    with pytest.raises(ValueError, match="DUTING_DESK_FRAMES"):
        Settings(_env_file=None, desk_frames=wrong)  # type: ignore[call-arg]


def test_in_a_frame_only_agents_log_in_and_with_a_cookie_of_that_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUTING_DESK_FRAMES", "https://phone.bank.example")
    with house(tmp_path) as at:

        def framed(person: str) -> Any:
            body = {"username": person, "password": PASSWORD, "framed": True}
            return at.client.post("/api/session", json=body, headers=HEADERS)

        refused = framed("supervisor")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "desk_only")
        cookie = framed("agent").headers["Set-Cookie"]
        assert cookie.startswith("duting_desk=")
        assert {"HttpOnly", "SameSite=none", "Secure", "Partitioned"} <= set(cookie.split("; "))
        secret = {"Cookie": cookie.partition(";")[0]}
        assert at.client.get("/api/desk", headers=secret).status_code == 200
        # Another site's page cannot use it, and whoever is an agent no more does not come in with it.
        evil = secret | {"Origin": "https://phone.bank.example", "Sec-Fetch-Site": "cross-site"}
        assert at.client.post("/api/calls/c1/hints/h1/answer", json={}, headers=evil).status_code == 403
        at.store.users.set_role("agent", "supervisor")
        at.client.cookies.clear()
        assert at.client.get("/api/session", headers=secret).status_code == 401


def test_without_frames_there_is_no_cookie_for_them(tmp_path: Path) -> None:
    with house(tmp_path) as at:
        body = {"username": "agent", "password": PASSWORD, "framed": True}
        cookie = at.client.post("/api/session", json=body, headers=HEADERS).headers["Set-Cookie"]
        assert cookie.startswith("duting_session=")
        secret = cookie.partition(";")[0].replace("duting_session", "duting_desk")
        at.client.cookies.clear()
        assert at.client.get("/api/session", headers={"Cookie": secret}).status_code == 401


def test_hints_from_before_are_there_after_the_migration(database_url: str) -> None:
    old_database(
        database_url,
        "0010",
        "INSERT INTO calls (call_id, cursor, state, agent, info, started_at, media_ms, gap_ms) VALUES "
        "('c1', 1, 'live', 'agent', '{\"call_id\":\"c1\"}', '2026-03-01T08:00:00.000Z', 0, 0)",
        "INSERT INTO hints (hint_id, call_id, cursor, body) VALUES ('h1', 'c1', 2, "
        '\'{"type":"Hint","id":"h1","call_id":"c1","rule_id":"r","text":{"zh":"x"},"media_ms":1}\')',
    )
    store = open_store(database_url)
    live = store.desk.of("agent").live
    assert live is not None
    assert [(one.hint.id, one.hint.severity) for one in live.hints] == [("h1", "info")]
    assert store.desk.usefulness() == []
    store.close()
