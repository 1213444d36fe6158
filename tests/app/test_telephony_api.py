"""The route by which telephony systems tell of their calls: who may, what is answered, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.ingest.assembly import Assembly
from app.live import LocalLive
from app.telephony import Switchboard
from streams.events import CallEnded
from tests.app.ingest.runner import Runner
from tests.app.ingest.test_assembly import Phone, opened
from tests.app.store_support import House, house, started


class Exchange:
    """An application and a call that it hears."""

    def __init__(self, at: House, runner: Runner, assembly: Assembly) -> None:
        self.at, self.runner, self.assembly = at, runner, assembly
        self.token = at.settings.token()

    def dial(self, call_id: str = "c1") -> None:
        phone = Phone(self.runner)
        self.assembly.join(opened(call_id=call_id), phone)
        phone.say(5_000)

    def tell(self, body: Any, call_id: str = "c1", **headers: str) -> Any:
        self.at.client.cookies.clear()  # a machine has no session
        headers = {"Authorization": f"Bearer {self.token}", **headers}
        return self.at.client.post(f"/api/calls/{call_id}/events", json=body, headers=headers)


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    runner, live = Runner(), LocalLive()
    assembly = Assembly(runner, clock=runner.clock)

    async def stored(call_id: str) -> str | None:
        return at.store.calls.state(call_id)

    board = Switchboard(assembly, live, stored)
    with house(tmp_path, live=live, switchboard=board) as at:
        yield Exchange(at, runner, assembly)


def code(response: Any) -> str:
    return str(response.json()["error"]["code"])


def test_an_event_is_taken_and_told_to_the_call(exchange: Exchange) -> None:
    exchange.dial()
    response = exchange.tell({"type": "hold"})
    assert (response.status_code, response.json()) == (202, {"taken": 1, "repeated": 0})
    response = exchange.tell([{"type": "key", "id": "1"}, {"type": "key", "id": "1"}, {"type": "resume"}])
    assert (response.status_code, response.json()) == (202, {"taken": 2, "repeated": 1})
    assert [type(event).__name__ for event in exchange.runner.signalled] == ["Hold", "KeyPressed", "Hold"]


@pytest.mark.parametrize("given", ["Bearer wrong", "Bearer ", "Basic dTpw", "bearer  "])
def test_a_wrong_token_is_refused(exchange: Exchange, given: str) -> None:
    exchange.dial()
    response = exchange.tell({"type": "hold"}, Authorization=given)
    assert response.status_code in (401, 403)
    assert exchange.runner.signalled == []


def test_without_a_token_it_is_as_for_anybody(exchange: Exchange) -> None:
    exchange.dial()
    path, body = "/api/calls/c1/events", {"type": "hold"}
    assert code(exchange.at.client.post(path, json=body)) == "bad_origin"
    assert code(exchange.at.client.post(path, json=body, headers={"X-Duting": "1"})) == "token_required"
    exchange.at.log_in("administrator")
    assert code(exchange.at.client.post(path, json=body, headers={"X-Duting": "1"})) == "token_required"
    assert exchange.runner.signalled == []


@pytest.mark.parametrize("path", ["/api/session", "/api/rules/reload", "/api/alerts/a1/owner"])
def test_a_token_opens_nothing_else(exchange: Exchange, path: str) -> None:
    headers = {"Authorization": f"Bearer {exchange.token}"}
    response = exchange.at.client.post(path, json={"owner": "me", "expected": None}, headers=headers)
    assert response.status_code in (401, 422)


def test_who_has_a_session_must_come_from_this_site_whatever_token_he_shows(exchange: Exchange) -> None:
    exchange.at.log_in("administrator")
    headers = {"Authorization": "Bearer anything", "Origin": "http://evil.example"}
    response = exchange.at.client.delete("/api/session", headers=headers)
    assert code(response) == "bad_origin"


def test_a_call_that_nobody_knows(exchange: Exchange) -> None:
    response = exchange.tell({"type": "hold"}, "never")
    assert (response.status_code, code(response)) == (404, "unknown_call")
    assert exchange.tell({"type": "hold"}, "x" * 200).status_code == 404


def test_a_call_that_is_over(exchange: Exchange) -> None:
    exchange.at.append(started(), CallEnded(call_id="c1", media_ms=9_000))
    response = exchange.tell({"type": "hold"})
    assert (response.status_code, code(response)) == (409, "call_ended")
    assert code(exchange.tell([{"type": "hangup"}, {"type": "hold"}])) == "call_ended"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"type": "hold", "by": "agent"}, "unknown field `by`"),
        ({"type": "dance"}, "Invalid value 'dance'"),
        ([], "expected 1 to 50 events, got 0"),
        ([{"type": "hold"}] * 51, "expected 1 to 50 events, got 51"),
    ],
)
def test_what_is_wrong_with_it_is_said(exchange: Exchange, body: Any, detail: str) -> None:
    exchange.dial()
    response = exchange.tell(body)
    assert (response.status_code, code(response)) == (422, "invalid")
    assert detail in response.json()["error"]["detail"]
    assert exchange.runner.signalled == []


def test_too_many_are_turned_away_for_a_while_and_other_calls_are_not(exchange: Exchange) -> None:
    exchange.dial()
    exchange.dial("c2")
    answers = [exchange.tell({"type": "key"}) for _ in range(101)]
    assert {answer.status_code for answer in answers[:100]} == {202}
    assert (answers[100].status_code, code(answers[100])) == (429, "too_many_events")
    assert 1 <= int(answers[100].headers["Retry-After"]) <= 10
    assert exchange.tell({"type": "key"}, "c2").status_code == 202


def test_who_hung_up_is_kept_and_told_also_when_the_audio_was_over_before(exchange: Exchange) -> None:
    at = exchange.at
    at.append(started(), CallEnded(call_id="c1", media_ms=9_000, reason="disconnected"))
    assert exchange.tell({"type": "hangup", "by": "customer"}).status_code == 202
    at.log_in()
    call = at.client.get("/api/calls/c1").json()["call"]
    assert (call["reason"], call["by"], call["duration_ms"]) == ("hangup", "customer", 9_000)
    head = at.outlet.head
    assert exchange.tell({"type": "hangup", "by": "agent"}).status_code == 202
    assert exchange.tell({"type": "hangup"}).status_code == 202
    at.log_in()
    assert at.client.get("/api/calls/c1").json()["call"]["by"] == "customer", "what was told first stays"
    assert at.outlet.head == head
    with at.client.websocket_connect(f"/api/events?cursor={head - 1}") as socket:
        assert socket.receive_json()["type"] == "hello"
        told = socket.receive_json()
    assert (told["type"], told["reason"], told["by"]) == ("call.ended", "hangup", "customer")


def test_a_call_whose_telephony_says_nothing_has_nobody_who_hung_up(exchange: Exchange) -> None:
    at = exchange.at
    at.append(started(), CallEnded(call_id="c1", media_ms=9_000))
    at.log_in()
    assert at.client.get("/api/calls/c1").json()["call"]["by"] is None


def test_what_is_sent_and_answered_is_described(exchange: Exchange) -> None:
    document = exchange.at.client.get("/api/openapi.json").json()
    described = document["paths"]["/api/calls/{call_id}/events"]["post"]
    names = set(document["components"]["schemas"])
    assert {"HoldEvent", "KeyEvent", "HangupEvent", "UpdateEvent"} <= names
    assert described["requestBody"]["content"]["application/json"]["schema"]
    answer = described["responses"]["202"]["content"]["application/json"]["schema"]
    assert answer["$ref"].rpartition("/")[2] in names


def test_where_no_telephony_is_there_is_no_call(tmp_path: Path) -> None:
    with house(tmp_path) as at:
        headers = {"Authorization": f"Bearer {at.settings.token()}"}
        response = at.client.post("/api/calls/c1/events", json={"type": "hold"}, headers=headers)
        assert response.status_code == 404
