"""Whose an alert is: of two who take it at once one has it, and nobody loses it unknowingly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.store import Store
from streams.events import Alert, Taken
from tests.app.store_support import House, alert, house, open_store, started

AT = "2026-03-01T08:30:00.125Z"
PEOPLE = ("li", "wang", "zhao")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = open_store(database_url)
    store.log.append([(started(), AT), (alert(), AT)])
    yield store
    store.close()


def taken(owner: str | None, expected: str | None = None, **changes: Any) -> Taken:
    content: dict[str, Any] = {
        "call_id": "c1",
        "alert_id": "a1",
        "media_ms": 1500,
        "owner": owner,
        "expected": expected,
    }
    return Taken(**(content | changes))


def give(store: Store, *events: Any) -> list[str | None]:
    """Append; the owners that were told."""
    told = [item.published for each in store.log.append([(e, AT) for e in events]) for item in each]
    assert {event.type for event in told} <= {"alert.updated"}
    return [event.alert.owner for event in told if isinstance(event.alert, Alert)]


def owner(store: Store) -> str | None:
    found = store.calls.alert("a1")
    assert found is not None
    assert found[0].owner == msgspec.json.decode(found[0].body, type=Alert).owner
    return found[0].owner


# ── the store ─────────────────────────────────────────────────────────────────────────────────────


def test_an_alert_is_taken_handed_on_and_let_go(store: Store) -> None:
    assert give(store, taken("li")) == ["li"]
    assert give(store, taken("wang", expected="li")) == ["wang"]
    assert give(store, taken(None, expected="wang")) == [None]
    assert owner(store) is None


def test_who_comes_second_gets_nothing_and_changes_nothing(store: Store) -> None:
    assert give(store, taken("li"), taken("wang")) == ["li"]
    assert give(store, taken("wang"), taken(None, expected="wang"), taken("zhao", expected="wang")) == []
    assert owner(store) == "li"


def test_taking_twice_is_as_taking_once(store: Store) -> None:
    assert give(store, taken("li"), taken("li"), taken("li", expected="li")) == ["li"]
    assert give(store, taken("li")) == []


def test_an_alert_that_is_not_there_is_nobodys_and_no_call_begins_by_it(store: Store) -> None:
    assert give(store, taken("li", alert_id="none"), taken("li", call_id="none")) == []
    assert not store.calls.known("none")
    assert owner(store) is None


def test_an_alert_can_be_taken_in_the_transaction_that_raises_it(store: Store) -> None:
    told = store.log.append([(alert(2), AT), (taken("li", alert_id="a2"), AT)])
    assert [item.published.type for each in told for item in each] == ["alert.raised", "alert.updated"]


def test_what_the_rules_find_later_leaves_the_owner(store: Store) -> None:
    give(store, taken("li"))
    store.log.append([(alert(), AT), (alert(state="withdrawn"), AT)])
    assert owner(store) == "li"


def test_the_owner_is_still_there_after_a_restart(database_url: str, store: Store) -> None:
    give(store, taken("li"))
    again = open_store(database_url)
    assert owner(again) == "li"
    again.close()


def test_of_many_who_take_at_once_exactly_one_is_told(database_url: str, store: Store) -> None:
    stores = [open_store(database_url) for _ in range(4)]
    together = threading.Barrier(len(stores))

    def take(number: int) -> list[str | None]:
        together.wait(10)
        return give(stores[number], taken(f"person{number}"))

    with ThreadPoolExecutor(len(stores)) as pool:
        told = [name for names in pool.map(take, range(len(stores))) for name in names]
    assert told == [owner(store)]
    for each in stores:
        each.close()


WISHES = st.tuples(
    st.one_of(st.none(), st.sampled_from(PEOPLE)), st.one_of(st.none(), st.sampled_from(PEOPLE))
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wishes=st.lists(WISHES, max_size=20), together=st.booleans())
def test_the_owner_changes_only_for_those_who_know_whose_it_is(
    wishes: list[tuple[str | None, str | None]], together: bool, store: Store
) -> None:
    now = owner(store)
    expected = []
    for wish, seen in wishes:
        if seen == now != wish:
            now = wish
            expected.append(wish)
    events = [taken(wish, seen) for wish, seen in wishes]
    told = give(store, *events) if together else [name for event in events for name in give(store, event)]
    assert (told, owner(store)) == (expected, now)


# ── the route ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def at(tmp_path: Path, database_url: str) -> Iterator[House]:
    with house(tmp_path, url=database_url) as house_:
        house_.append(started(agent="8001"), alert())
        for name, role in (("li", "supervisor"), ("wang", "supervisor")):
            house_.store.users.add(name, "correct horse 9", name, role)
        yield house_


@pytest.fixture
def ask(at: House) -> Callable[..., Any]:
    """Log in, and say what is wished."""

    def ask(person: str | None, wish: Any, expected: str | None = None, alert_id: str = "a1") -> Any:
        if person is not None:
            assert at.log_in(person).status_code == 200
        return at.client.post(
            f"/api/alerts/{alert_id}/owner",
            json={"owner": wish, "expected": expected},
            headers={"X-Duting": "1"},
        )

    return ask


def answer(response: Any) -> tuple[int, str | None]:
    body = response.json()
    return response.status_code, body["owner"] if response.status_code == 200 else body["error"]["code"]


def test_a_supervisor_takes_an_alert_and_everybody_hears_of_it(at: House, ask: Callable[..., Any]) -> None:
    cursor = at.outlet.head
    response = ask("li", "me")
    assert answer(response) == (200, "li")
    assert (response.json()["id"], response.json()["agent"]) == ("a1", "8001")
    with at.client.websocket_connect(f"/api/events?cursor={cursor}") as socket:
        assert socket.receive_json()["type"] == "hello"
        event = socket.receive_json()
    assert (event["type"], event["alert"]["owner"], event["media_ms"]) == ("alert.updated", "li", 1500)
    [entry] = at.store.audit.about("a1")
    assert (entry.username, entry.action, entry.address) == ("li", "alert.taken", "testclient")


def test_who_asks_second_is_told_whose_it_is(at: House, ask: Callable[..., Any]) -> None:
    ask("li", "me")
    response = ask("wang", "me")
    assert answer(response) == (409, "owner_changed")
    assert response.json()["error"]["owner"] == "li"
    assert response.json()["error"]["message"].keys() == {"zh", "en"}
    assert answer(ask("wang", "me", expected="li")) == (200, "wang")
    assert [entry.username for entry in at.store.audit.about("a1")] == ["wang", "li"]


def test_asking_again_is_no_error_and_written_down_once(at: House, ask: Callable[..., Any]) -> None:
    assert [answer(ask("li", "me")), answer(ask("li", "me"))] == [(200, "li")] * 2
    assert answer(ask("li", None, expected="li")) == (200, None)
    assert answer(ask("li", None, expected="li")) == (200, None)
    assert [entry.action for entry in at.store.audit.about("a1")] == ["alert.released", "alert.taken"]


def test_only_an_administrator_lets_go_of_what_is_anothers(at: House, ask: Callable[..., Any]) -> None:
    ask("li", "me")
    assert answer(ask("wang", None, expected="li")) == (403, "not_yours")
    assert answer(ask("wang", None, expected="wang")) == (409, "owner_changed")
    assert answer(ask("wang", None)) == (409, "owner_changed")
    assert answer(ask("administrator", None, expected="wang")) == (409, "owner_changed")
    assert answer(ask("administrator", None, expected="li")) == (200, None)


@pytest.mark.parametrize("role", ["agent", "inspector"])
def test_other_roles_take_nothing(at: House, ask: Callable[..., Any], role: str) -> None:
    assert answer(ask(role, "me")) == (403, "role_not_allowed")


def test_a_stranger_takes_nothing(ask: Callable[..., Any]) -> None:
    assert answer(ask(None, "me")) == (401, "login_required")


def test_another_site_takes_nothing_in_somebodys_name(at: House) -> None:
    at.log_in("li")
    response = at.client.post(
        "/api/alerts/a1/owner",
        json={"owner": "me", "expected": None},
        headers={"Origin": "http://evil.example"},
    )
    assert answer(response) == (403, "bad_origin")
    assert owner(at.store) is None


@pytest.mark.parametrize("alert_id", ["none", "a1%00", "%00", "..%2fa1"])
def test_an_alert_that_is_not_there_is_said_so(ask: Callable[..., Any], alert_id: str) -> None:
    status, code = answer(ask("li", "me", alert_id=alert_id))
    assert (status, code) in [(404, "unknown_alert"), (404, "not_found"), (405, "method_not_allowed")]


@pytest.mark.parametrize(
    "body",
    [{}, {"owner": "me"}, {"owner": "wang", "expected": None}, {"owner": "me", "expected": "x" * 65}, []],
)
def test_a_wish_that_makes_no_sense_is_refused(at: House, body: Any) -> None:
    at.log_in("li")
    response = at.client.post("/api/alerts/a1/owner", json=body, headers={"X-Duting": "1"})
    assert answer(response) == (422, "invalid")
