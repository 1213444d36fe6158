"""Accounts and tokens as administrators look after them; whoever is shut out is out at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.websockets import WebSocketDisconnect
from typer.testing import CliRunner

from app.api.vigil import AWAY_S, TRY_AGAIN, Vigil
from app.cli import app
from app.errors import StoreError
from app.live import LocalLive
from app.store import AccountError, Person
from app.store.tokens import TokenError
from tests.app.store_support import PASSWORD, House, house, open_store, started


@pytest.fixture
def at(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as house_:
        yield house_


def send(at: House, method: str, path: str, body: Any = None, **headers: str) -> Any:
    return at.client.request(method, path, json=body, headers={"X-Duting": "1"} | headers)


def answer(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


NEW = {"username": "wang", "name": "王", "role": "supervisor", "password": PASSWORD, "teams": ["B", "A"]}

# ── accounts ──────────────────────────────────────────────────────────────────────────────────────


def test_an_account_is_made_changed_and_shut_and_all_of_it_is_written_down(at: House) -> None:
    at.log_in("administrator")
    made = send(at, "POST", "/api/people", NEW)
    assert made.status_code == 201
    assert (made.json()["teams"], made.json()["disabled_at"]) == (["A", "B"], None)
    assert "password" not in made.text
    assert send(at, "PATCH", "/api/people/wang", {"teams": ["C"]}).json()["teams"] == ["C"]
    assert send(at, "PATCH", "/api/people/wang", {"role": "inspector"}).json()["role"] == "inspector"
    assert send(at, "POST", "/api/people/wang/password", {"password": "another word 7"}).status_code == 204
    assert send(at, "PATCH", "/api/people/wang", {"disabled": True}).json()["disabled_at"] is not None
    assert at.store.users.check("wang", "another word 7") is None
    assert send(at, "PATCH", "/api/people/wang", {"disabled": False}).json()["disabled_at"] is None
    assert at.store.users.check("wang", "another word 7") is not None
    entries = [
        (entry.username, entry.action, entry.detail) for entry in reversed(at.store.audit.about("wang"))
    ]
    assert entries == [
        ("administrator", "user.added", "supervisor A B"),
        ("administrator", "user.teams", "C"),
        ("administrator", "user.role", "inspector"),
        ("administrator", "user.password", None),
        ("administrator", "user.disabled", None),
        ("administrator", "user.enabled", None),
    ]
    listed = {one["username"]: one["role"] for one in at.client.get("/api/people").json()["people"]}
    assert (listed["wang"], len(listed)) == ("inspector", 5)


@pytest.mark.parametrize(
    "change",
    [
        {"username": "agent"},
        {"username": "a b"},
        {"role": "boss"},
        {"password": "short"},
        {"name": "\n"},
        {"teams": [" A"]},
        {"teams": ["x" * 65]},
        {"teams": [""]},
        {"role": "agent", "teams": ["A", "B"]},
        {"role": "agent", "teams": ["*"]},
    ],
)
def test_an_account_that_makes_no_sense_is_refused_and_says_why(at: House, change: dict[str, Any]) -> None:
    at.log_in("administrator")
    response = send(at, "POST", "/api/people", NEW | change)
    assert answer(response) == (422, "account_refused")
    assert len(response.json()["error"]["detail"]) > 20
    assert response.json()["error"]["detail"].isascii()


def test_nobody_is_left_without_an_administrator_nor_shuts_out_themself(at: House) -> None:
    at.log_in("administrator")
    for change in ({"role": "agent"}, {"disabled": True}):
        assert answer(send(at, "PATCH", "/api/people/administrator", change)) == (409, "not_yourself")
    at.store.users.add("second", PASSWORD, "Second", "administrator")
    assert send(at, "PATCH", "/api/people/second", {"disabled": True}).status_code == 200
    with pytest.raises(AccountError, match="only administrator left"):
        at.store.users.set_disabled("administrator", True)
    with pytest.raises(AccountError, match="only administrator left"):
        at.store.users.set_role("administrator", "inspector")


def test_an_account_that_is_not_there_is_said_so(at: House) -> None:
    at.log_in("administrator")
    assert answer(send(at, "PATCH", "/api/people/none", {"disabled": True})) == (404, "unknown_account")
    assert answer(send(at, "POST", "/api/people/none/password", {"password": PASSWORD})) == (
        404,
        "unknown_account",
    )


def test_a_program_makes_no_administrators_and_touches_none(at: House) -> None:
    token, _ = at.store.tokens.add("hr", ["admin"], ["*"], timedelta(days=1), "test")
    as_program = {"Authorization": f"Bearer {token}"}
    assert send(at, "POST", "/api/people", NEW, **as_program).status_code == 201
    (entry,) = at.store.audit.about("wang")
    assert entry.username == "token:hr"
    for method, path, body in (
        ("POST", "/api/people", NEW | {"username": "x", "role": "administrator"}),
        ("PATCH", "/api/people/wang", {"role": "administrator"}),
        ("PATCH", "/api/people/administrator", {"disabled": True}),
        ("POST", "/api/people/administrator/password", {"password": PASSWORD}),
    ):
        assert answer(send(at, method, path, body, **as_program)) == (403, "role_not_allowed")


# ── sessions end ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "change", [{"disabled": True}, {"role": "inspector"}, {"teams": ["B"]}, "password", "log out", "token"]
)
def test_whoever_loses_a_right_is_off_the_open_socket(at: House, change: Any) -> None:
    at.client.app.state.vigil._every_s = 0.01  # type: ignore[attr-defined]
    token = at.log_in("supervisor").cookies["duting_session"]
    headers = {"Cookie": f"duting_session={token}"}
    if change == "token":
        secret, _ = at.store.tokens.add("bi", ["read"], ["*"], timedelta(days=1), "test")
        headers = {"Authorization": f"Bearer {secret}"}
    at.client.cookies.clear()
    with at.client.websocket_connect("/api/events", headers=headers) as socket:
        assert socket.receive_json()["type"] == "hello"
        match change:
            case "password":
                at.store.users.set_password("supervisor", "another word 7")
            case "log out":
                at.client.delete("/api/session", headers=headers | {"X-Duting": "1"})
            case "token":
                at.store.tokens.revoke("bi")
            case _:
                at.log_in("administrator")
                assert send(at, "PATCH", "/api/people/supervisor", change).status_code == 200
        with pytest.raises(WebSocketDisconnect) as caught:
            socket.receive_json()
        assert caught.value.code == 4401
    assert at.client.get("/api/session", headers=headers).status_code == 401


def test_whoever_keeps_all_rights_stays(at: House) -> None:
    at.client.app.state.vigil._every_s = 0.01  # type: ignore[attr-defined]
    at.log_in("supervisor")
    with at.client.websocket_connect("/api/events") as socket:
        assert socket.receive_json()["type"] == "hello"
        vigil = at.client.app.state.vigil  # type: ignore[attr-defined]
        at.client.portal.call(vigil.look)  # type: ignore[union-attr]
        at.store.users.ensure("supervisor", PASSWORD, "Another name", "supervisor")
        at.append(started())
        told = (socket.receive_json() for _ in range(1000))
        assert next(frame for frame in told if frame["type"] != "heartbeat")["call_id"] == "c1"
    assert at.client.get("/api/session").json()["user"]["name"] == "Another name"


async def test_while_the_store_is_away_people_stay_but_not_for_long(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'test.db'}")
    person = store.users.add("li", PASSWORD, "李", "supervisor")
    token = store.sessions.open("li", timedelta(hours=1))
    now = 0.0
    vigil = Vigil(store, LocalLive(), every_s=1000, clock=lambda: now)
    watch = await vigil.admit("session", token, person)
    over = asyncio.create_task(watch.over())

    def away(_: object) -> Any:
        raise StoreError("away")

    store.sessions.persons = away  # type: ignore[method-assign]
    now = AWAY_S - 1
    await vigil.look()
    await asyncio.sleep(0)
    assert not over.done()
    now = AWAY_S
    await vigil.look()
    assert await over == TRY_AGAIN
    watch.leave()
    assert vigil.watches == set()
    assert vigil._task is not None
    vigil._task.cancel()
    store.close()


# ── tokens ────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_is_shown_once_kept_as_a_hash_and_lets_in_until_it_is_revoked(at: House) -> None:
    at.log_in("administrator")
    made = send(at, "POST", "/api/tokens", {"name": "bi", "scopes": ["read"], "days": 30})
    secret = made.json()["secret"]
    assert made.status_code == 201
    assert secret.startswith("duting_")
    listed = at.client.get("/api/tokens")
    assert secret not in listed.text
    (token,) = listed.json()["tokens"]
    assert secret.startswith(token["begins"])
    assert (token["scopes"], token["teams"], token["created_by"]) == (["read"], ["*"], "administrator")
    with at.store.reading() as session:
        rows = session.connection().exec_driver_sql("SELECT * FROM tokens").all()
    assert secret not in str(rows)
    at.client.cookies.clear()
    bearer = {"Authorization": f"Bearer {secret}"}
    assert at.client.get("/api/floor", headers=bearer).status_code == 200
    at.log_in("administrator")
    for _ in range(2):
        assert send(at, "DELETE", "/api/tokens/bi").status_code == 204
    assert answer(at.client.get("/api/floor", headers=bearer)) == (401, "token_refused")
    assert answer(send(at, "DELETE", "/api/tokens/none")) == (404, "unknown_token")
    assert [entry.action for entry in at.store.audit.about("bi")] == [
        "token.revoked",
        "token.revoked",
        "token.added",
    ]


def test_a_token_reads_only_the_calls_of_its_teams_and_that_is_written_down(at: House) -> None:
    at.append(started("a", team="A"), started("b", team="B"))
    token, _ = at.store.tokens.add("bi", ["read"], ["A"], timedelta(days=1), "test")
    bearer = {"Authorization": f"Bearer {token}"}
    assert [call["call_id"] for call in at.client.get("/api/calls", headers=bearer).json()["calls"]] == ["a"]
    assert at.client.get("/api/calls/a", headers=bearer).status_code == 200
    assert at.client.get("/api/calls/b", headers=bearer).status_code == 404
    (entry,) = at.store.audit.about("a")
    assert (entry.username, entry.action) == ("token:bi", "call.read")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a b"},
        {"scopes": ["everything"]},
        {"scopes": ["read", "root"]},
        {"teams": [""]},
    ],
)
def test_a_token_that_makes_no_sense_is_refused(at: House, change: dict[str, Any]) -> None:
    at.log_in("administrator")
    body = {"name": "bi", "scopes": ["read"], "days": 30} | change
    assert answer(send(at, "POST", "/api/tokens", body)) == (422, "token_not_made")


@pytest.mark.parametrize("change", [{"days": 0}, {"days": 99999}, {"scopes": []}, {"more": 1}, {"name": ""}])
def test_a_token_out_of_bounds_is_refused(at: House, change: dict[str, Any]) -> None:
    at.log_in("administrator")
    body = {"name": "bi", "scopes": ["read"], "days": 30} | change
    assert answer(send(at, "POST", "/api/tokens", body)) == (422, "invalid")


def test_a_name_is_given_to_one_token_only_also_after_it_was_revoked(
    tmp_path: Path, database_url: str
) -> None:
    store = open_store(database_url)
    store.tokens.add("bi", ["read"], ["*"], timedelta(days=1), "test")
    store.tokens.revoke("bi")
    with pytest.raises(TokenError, match="choose another name"):
        store.tokens.add("bi", ["read"], ["*"], timedelta(days=1), "test")
    store.close()


# ── the commands ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def duting(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("DUTING_DATABASE_URL", database_url)
    monkeypatch.setenv("DUTING_DATA_DIR", str(tmp_path / "var"))

    def run(*words: str, given: str | None = None) -> str:
        done = CliRunner().invoke(app, words, input=given)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


def test_accounts_from_the_command_line(duting: Any, database_url: str) -> None:
    password = f"{PASSWORD}\n"
    added = duting("users", "add", "li", "--team", "B", "--team", "A", "--password-stdin", given=password)
    assert added == "added supervisor li, teams A B\n"
    assert duting("users", "add", "boss", "--password-stdin", given=password) == (
        "added supervisor boss, teams *\n"
    )
    assert duting("users", "set-teams", "li", "C") == "li has teams C\n"
    assert duting("users", "set-role", "li", "inspector") == "li is inspector\n"
    assert duting("users", "disable", "li") == "disabled li\n"
    assert duting("users", "list") == "boss\tsupervisor\topen\t*\tboss\nli\tinspector\tdisabled\t-\tli\n"
    assert duting("users", "enable", "li") == "enabled li\n"
    assert duting("users", "password", "li", "--password-stdin", given="another word 7\n") == (
        "changed the password of li\n"
    )
    store = open_store(database_url)
    assert store.users.check("li", "another word 7") == Person(username="li", name="li", role="inspector")
    actions = [entry.action for entry in reversed(store.audit.about("li"))]
    assert actions == [
        "user.added",
        "user.teams",
        "user.role",
        "user.disabled",
        "user.enabled",
        "user.password",
    ]
    assert store.audit.verify().broken is None
    store.close()
    with pytest.raises(AccountError, match="there is no account 'none'"):
        duting("users", "disable", "none")


def test_tokens_from_the_command_line(duting: Any, database_url: str) -> None:
    secret = duting("tokens", "add", "pbx", "--scope", "ingest", "--scope", "telephony").splitlines()[-1]
    store = open_store(database_url)
    person = store.tokens.person(secret)
    assert person is not None
    assert person.scopes == ("ingest", "telephony")
    name, begins, state, scopes, teams, _ = duting("tokens", "list").rstrip("\n").split("\t")
    assert (name, state, scopes, teams) == ("pbx", "good", "ingest telephony", "*")
    assert secret.startswith(begins.rstrip("…"))
    assert duting("tokens", "revoke", "pbx") == "revoked pbx\n"
    assert store.tokens.person(secret) is None
    assert "revoked" in duting("tokens", "list")
    store.close()
