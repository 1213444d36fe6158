"""Every route and every socket of the application refuses whoever has no business there.

The table below is the whole of it: a route that is not in it fails the test, so that whoever adds one has to
say who may use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute, iter_route_contexts
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from app.ingest.assembly import Assembly
from app.ingest.keys import Keys
from app.ingest.protocols import ROUTES
from app.ingest.session import Lines
from app.rights import ROLES, SCOPES, Action, may
from app.settings import Settings
from app.store import Person
from tests.app.ingest.runner import Runner
from tests.app.store_support import House, alert, house, started

PUBLIC = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/api/openapi.json"),
    ("HEAD", "/api/openapi.json"),
    # Logging in and out; what they let happen has tests of its own.
    ("POST", "/api/session"),
    ("DELETE", "/api/session"),
    ("GET", "/api/session/ways"),
    ("GET", "/api/session/oidc"),
    ("GET", "/api/session/oidc/callback"),
    # Say which formats are understood.
    ("OPTIONS", "/api/calls/{call_id}/listen"),
    ("OPTIONS", "/api/listening/{session_id}"),
    ("OPTIONS", "/ingest/whip/{call_id}/{kind}"),
    ("OPTIONS", "/ingest/whip/sessions/{session_id}"),
    # Answered with 405 and nothing else.
    *((method, "/ingest/whip/sessions/{session_id}") for method in ("GET", "HEAD", "POST", "PUT")),
    *((method, "/ingest/whip/{call_id}/{kind}") for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE")),
}

ANYBODY = "anybody who is logged in"

DOORS: dict[tuple[str, str], Action | str] = {
    ("GET", "/api/session"): ANYBODY,
    ("GET", "/api/floor"): "call.read",
    ("GET", "/api/floor/figures"): "call.read",
    ("GET", "/api/calls"): "call.read",
    ("GET", "/api/calls/{call_id}"): "call.read",
    ("GET", "/api/calls/{call_id}/audio"): "call.audio",
    ("GET", "/api/calls/{call_id}/peaks"): "call.audio",
    ("POST", "/api/calls/{call_id}/utterances/{utterance_id}/reveal"): "call.reveal",
    ("POST", "/api/calls/{call_id}/notes"): "call.note",
    ("POST", "/api/calls/{call_id}/takeover"): "call.takeover",
    ("GET", "/api/calls/{call_id}/alerts/{alert_id}/evidence"): "call.export",
    ("POST", "/api/calls/{call_id}/listen"): "call.listen",
    ("PATCH", "/api/listening/{session_id}"): "call.listen",
    ("DELETE", "/api/listening/{session_id}"): "call.listen",
    ("POST", "/api/alerts/{alert_id}/owner"): "alert.handle",
    ("POST", "/api/alerts/{alert_id}/acknowledge"): "alert.judge",
    ("POST", "/api/alerts/{alert_id}/resolve"): "alert.judge",
    ("POST", "/api/alerts/{alert_id}/false-alarm"): "alert.judge",
    ("POST", "/api/alerts/{alert_id}/reopen"): "alert.judge",
    ("POST", "/api/alerts/{alert_id}/assign"): "alert.judge",
    ("POST", "/api/alerts/{alert_id}/comment"): "alert.judge",
    ("GET", "/api/alerts/{alert_id}/history"): "alert.judge",
    ("GET", "/api/alerts"): "alert.judge",
    ("GET", "/api/alerts/assignees"): "alert.handle",
    ("POST", "/api/alerts/{alert_id}/appeal"): "desk.use",
    ("POST", "/api/alerts/{alert_id}/accept-appeal"): "alert.judge",
    ("POST", "/api/alerts/{alert_id}/reject-appeal"): "alert.judge",
    ("GET", "/api/desk"): "desk.use",
    ("GET", "/api/desk/calls/{call_id}"): "desk.use",
    ("POST", "/api/calls/{call_id}/hints/{hint_id}/answer"): "desk.use",
    ("GET", "/api/calls/{call_id}/whispers"): "call.read",
    ("POST", "/api/calls/{call_id}/whispers"): "call.whisper",
    ("POST", "/api/calls/{call_id}/whispers/{whisper_id}/seen"): "desk.use",
    ("GET", "/api/rules/usefulness"): "alert.judge",
    ("GET", "/api/rules"): "rules.read",
    ("GET", "/api/rules/precision"): "alert.judge",
    ("GET", "/api/rules/schema"): "rules.read",
    ("POST", "/api/rules/reload"): "rules.load",
    ("POST", "/api/rules/test"): "rules.read",
    ("GET", "/api/rules/{rule_id}"): "rules.read",
    ("GET", "/api/rules/{rule_id}/shadow"): "rules.read",
    ("GET", "/api/rules/packs/{pack_id}"): "rules.read",
    ("GET", "/api/rules/publications"): "rules.read",
    ("GET", "/api/rules/publications/{publication_id}"): "rules.read",
    ("GET", "/api/rules/publications/{publication_id}/diff"): "rules.read",
    ("POST", "/api/rules/publications/{publication_id}/rollback"): "rules.draft",
    ("GET", "/api/rules/drafts"): "rules.draft",
    ("POST", "/api/rules/drafts"): "rules.draft",
    ("GET", "/api/rules/drafts/{draft_id}"): "rules.draft",
    ("PUT", "/api/rules/drafts/{draft_id}"): "rules.draft",
    ("GET", "/api/rules/drafts/{draft_id}/diff"): "rules.draft",
    ("POST", "/api/rules/drafts/{draft_id}/check"): "rules.draft",
    ("POST", "/api/rules/drafts/{draft_id}/submit"): "rules.draft",
    ("POST", "/api/rules/drafts/{draft_id}/return"): "rules.draft",
    ("POST", "/api/rules/drafts/{draft_id}/discard"): "rules.draft",
    ("POST", "/api/rules/drafts/{draft_id}/approve"): "rules.publish",
    ("GET", "/api/rules/drafts/{draft_id}/backtests"): "rules.draft",
    ("POST", "/api/rules/drafts/{draft_id}/backtests"): "rules.draft",
    ("GET", "/api/rules/backtests/{trial_id}"): "rules.draft",
    ("POST", "/api/rules/backtests/{trial_id}/cancel"): "rules.draft",
    ("GET", "/api/schema/events"): "call.read",
    ("GET", "/api/presence"): "presence.read",
    ("POST", "/api/calls/{call_id}/events"): "call.tell",
    ("GET", "/api/people"): "people.manage",
    ("POST", "/api/people"): "people.manage",
    ("PATCH", "/api/people/{username}"): "people.manage",
    ("POST", "/api/people/{username}/password"): "people.manage",
    ("GET", "/api/tokens"): "tokens.manage",
    ("POST", "/api/tokens"): "tokens.manage",
    ("DELETE", "/api/tokens/{name}"): "tokens.manage",
    ("GET", "/api/audit"): "audit.read",
    ("POST", "/api/audit/verify"): "audit.read",
    ("GET", "/metrics"): "metrics.read",
}
SOCKETS: dict[str, Action] = {"/api/events": "call.read"}
INGEST_DOORS = {
    ("POST", "/ingest/whip/{call_id}/{kind}"),
    ("PATCH", "/ingest/whip/sessions/{session_id}"),
    ("DELETE", "/ingest/whip/sessions/{session_id}"),
    ("POST", "/ingest/audiosocket/calls"),
}
"""Open to whoever shows an ingest token: that of the settings, or one with that scope."""
INGEST_SOCKETS = {
    "/ingest/asterisk",
    "/ingest/asterisk/{call_id}/{channel}",
    "/ingest/audiohook",
    "/ingest/fork/{call_id}",
    "/ingest/jambonz",
    "/ingest/twilio",
}
"""The same. Most take the token with their first message, as each protocol has it:
``tests/app/phones/test_telephones.py`` shows of each that without it no call begins."""

MACHINES = {"call.tell"}
"""Done only by programs: a person's session does not let in, and no role is asked for."""


class Route(NamedTuple):
    method: str
    path: str

    @property
    def address(self) -> str:
        named = {"call_id": "c1", "alert_id": "a1", "session_id": "none", "username": "agent", "name": "none"}
        named |= {"kind": "agent", "rule_id": "redline.guarantee", "pack_id": "little"}
        named |= {"draft_id": "1", "trial_id": "1", "publication_id": "1", "utterance_id": "c1:agent:0"}
        named |= {"hint_id": "none", "whisper_id": "none"}
        return self.path.format(**named)


def routes(app: FastAPI) -> Iterator[Route | str]:
    """All there are, as the framework knows them; sockets by their path alone."""
    for found in iter_route_contexts(app.routes):
        route = found.route
        if isinstance(route, APIWebSocketRoute):
            yield route.path
        else:
            assert isinstance(route, APIRoute) or hasattr(route, "methods"), f"unknown kind of route: {route}"
            for method in sorted(route.methods or ()):
                yield Route(method, route.path)


HEADERS = {"X-Duting": "1"}


def ask(client: TestClient, route: Route, body: Any = None, **headers: str) -> Any:
    return client.request(route.method, route.address, headers=HEADERS | headers, json=body)


def socket_code(client: TestClient, path: str, **headers: str) -> int:
    """0: it greets."""
    try:
        with client.websocket_connect(path, headers=headers) as socket:
            assert socket.receive_json()["type"] == "hello"
            return 0
    except WebSocketDisconnect as closed:
        return closed.code


TOKEN = "the ingest token"


@pytest.fixture
def keys() -> Keys:
    return Keys(dict)


@pytest.fixture
def at(tmp_path: Path, keys: Keys) -> Iterator[House]:
    settings = Settings(_env_file=None, data_dir=tmp_path)  # type: ignore[call-arg]
    lines = Lines(settings, Assembly(Runner()), TOKEN, None, keys)
    lines.audiosocket_port = 9092
    with house(tmp_path, routes=[route(lines) for route in ROUTES]) as house_:
        house_.append(started(team="A", agent="agent"), alert())
        yield house_


@pytest.fixture
def doors(at: House) -> list[Route]:
    """Those that are not public."""
    return [
        route
        for route in routes(at.client.app)  # type: ignore[arg-type]
        if isinstance(route, Route) and route not in PUBLIC | INGEST_DOORS
    ]


@pytest.fixture
def make_token(at: House) -> Callable[..., str]:
    numbers = iter(range(1000))

    def make(*scopes: str, days: float = 1, teams: tuple[str, ...] = ("*",)) -> str:
        lifetime = timedelta(days=days)
        return at.store.tokens.add(f"t{next(numbers)}", scopes, teams, lifetime, "test")[0]

    return make


def test_every_route_and_socket_is_in_the_table(at: House) -> None:
    known = set(routes(at.client.app))  # type: ignore[arg-type]
    assert {route for route in known if isinstance(route, Route)} == set(DOORS) | PUBLIC | INGEST_DOORS
    assert {route for route in known if isinstance(route, str)} == set(SOCKETS) | INGEST_SOCKETS


def test_telephony_comes_in_with_an_ingest_token_and_with_nothing_else(
    at: House, keys: Keys, make_token: Callable[..., str]
) -> None:
    session = at.store.sessions.open("administrator", timedelta(hours=1))
    right, other, revoked, late = (
        make_token("ingest"),
        make_token("read", "telephony"),
        make_token("ingest"),
        make_token("ingest", days=1e-9),
    )
    at.store.tokens.revoke("t2")
    keys._load = lambda: at.store.tokens.hashes("ingest")
    at.client.portal.call(keys.look)  # type: ignore[union-attr]
    # One of them takes the token out of its body, too.
    body, cookie = {"call_id": "c1", "channel": "agent"}, f"duting_session={session}"
    for method, path in sorted(INGEST_DOORS):
        for token in ("", "wrong", other, revoked, late):
            headers = {"Authorization": f"Bearer {token}"}
            assert ask(at.client, Route(method, path), body, **headers).status_code == 401, (path, token)
        assert ask(at.client, Route(method, path), body, Cookie=cookie).status_code == 401
        for token in (TOKEN, right):
            headers = {"Authorization": f"Bearer {token}"}
            assert ask(at.client, Route(method, path), body, **headers).status_code not in (401, 403), path
    # AudioHook is let in at the handshake.
    assert socket_code(at.client, "/ingest/audiohook") == 4401
    assert socket_code(at.client, "/ingest/audiohook", **{"X-API-KEY": other}) == 4401
    with at.client.websocket_connect("/ingest/audiohook", headers={"X-API-KEY": right}):
        pass


def test_without_login_every_door_is_shut(at: House, doors: list[Route]) -> None:
    for route in doors:
        assert ask(at.client, route).status_code == 401, route
    for path in SOCKETS:
        assert socket_code(at.client, path) == 4401


@pytest.mark.parametrize(
    "kind", ["never given", "logged out", "expired", "disabled", "other role", "other teams"]
)
def test_a_session_that_is_no_more_opens_no_door(at: House, doors: list[Route], kind: str) -> None:
    token = "never-given"
    if kind != "never given":
        lifetime = timedelta(seconds=-1 if kind == "expired" else 60)
        at.store.users.add("second", "correct horse 9", "Second", "administrator", ["*"])
        token = at.store.sessions.open("administrator", lifetime)
    match kind:
        case "logged out":
            at.store.sessions.revoke(token)
        case "disabled":
            at.store.users.set_disabled("administrator", True)
        case "other role":
            at.store.users.set_role("administrator", "agent")
        case "other teams":
            at.store.users.set_teams("administrator", ["B"])
    cookie = {"Cookie": f"duting_session={token}"}
    for route in doors:
        assert ask(at.client, route, **cookie).status_code == 401, route
    for path in SOCKETS:
        assert socket_code(at.client, path, **cookie) == 4401


@pytest.mark.parametrize("kind", ["never given", "revoked", "expired", "another kind"])
def test_a_token_that_is_no_more_opens_no_door(
    at: House, doors: list[Route], make_token: Callable[..., str], kind: str
) -> None:
    token = make_token(*SCOPES, days=1e-9 if kind == "expired" else 1)
    match kind:
        case "never given":
            token = token[:-1] + ("A" if token[-1] != "A" else "B")
        case "revoked":
            at.store.tokens.revoke("t0")
        case "another kind":  # a session is no token
            token = at.store.sessions.open("administrator", timedelta(hours=1))
    # A session that comes along does not help: who shows a token is meant by it.
    cookie = at.store.sessions.open("administrator", timedelta(hours=1))
    headers = {"Authorization": f"Bearer {token}"}
    for route in doors:
        assert ask(at.client, route, **headers).status_code == 401, route
        both = ask(at.client, route, **headers, Cookie=f"duting_session={cookie}")
        assert both.status_code == 401, route
    for path in SOCKETS:
        assert socket_code(at.client, path, **headers) == 4401


@pytest.mark.parametrize("role", sorted(ROLES))
def test_the_wrong_role_is_refused_and_the_right_one_is_not(at: House, doors: list[Route], role: str) -> None:
    person = Person(username=role, name=role, role=role)
    for route in doors:
        token = at.store.sessions.open(role, timedelta(hours=1))
        status = ask(at.client, route, Cookie=f"duting_session={token}").status_code
        needed = DOORS[route]
        if needed in MACHINES:
            assert status == 401, route
        elif needed == ANYBODY or may(person, needed):  # type: ignore[arg-type]
            assert status not in (401, 403), route
        else:
            assert status == 403, route
    for path, action in SOCKETS.items():
        token = at.store.sessions.open(role, timedelta(hours=1))
        code = socket_code(at.client, path, Cookie=f"duting_session={token}")
        assert code == (0 if may(person, action) else 4403)


@pytest.mark.parametrize("scope", sorted(SCOPES))
def test_the_wrong_scope_is_refused_and_the_right_one_is_not(
    at: House, doors: list[Route], make_token: Callable[..., str], scope: str
) -> None:
    headers = {"Authorization": f"Bearer {make_token(scope)}"}
    for route in doors:
        status = ask(at.client, route, **headers).status_code
        needed = DOORS[route]
        if needed == ANYBODY or needed in SCOPES[scope]:
            assert status not in (401, 403), route
        else:
            assert status == 403, route
    for path, action in SOCKETS.items():
        assert socket_code(at.client, path, **headers) == (0 if action in SCOPES[scope] else 4403)


def test_a_role_that_nobody_knows_may_nothing(at: House, doors: list[Route]) -> None:
    with at.store.writing() as session:
        session.connection().exec_driver_sql("UPDATE users SET role = 'boss' WHERE username = 'supervisor'")
    token = at.store.sessions.open("supervisor", timedelta(hours=1))
    for route in doors:
        expected = 401 if DOORS[route] in MACHINES else 200 if DOORS[route] == ANYBODY else 403
        assert ask(at.client, route, Cookie=f"duting_session={token}").status_code == expected, route


# ── other sites ───────────────────────────────────────────────────────────────────────────────────

FOREIGN: list[dict[str, str]] = [
    {},
    {"Origin": "http://evil.example"},
    {"Origin": "http://evil.example", "X-Duting": "1"},
    {"Origin": "null", "X-Duting": "1"},
    {"Origin": "http://[", "X-Duting": "1"},
    {"Origin": "http://testserver:81", "X-Duting": "1"},
    {"Origin": "http://testserver", "Sec-Fetch-Site": "same-site"},
    {"Origin": "http://testserver", "Sec-Fetch-Site": "cross-site", "X-Duting": "1"},
    {"X-Duting": "1", "Sec-Fetch-Site": "none"},
    # Programs carry no cookies: who does is a browser, whatever else it says.
    {"Authorization": "Bearer x"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_no_other_site_changes_anything_with_somebodys_cookie(
    at: House, doors: list[Route], headers: dict[str, str]
) -> None:
    token = at.store.sessions.open("administrator", timedelta(hours=1))
    unsafe = [route for route in doors if route.method not in ("GET", "HEAD", "OPTIONS")]
    unsafe += [Route("POST", "/api/session"), Route("DELETE", "/api/session")]
    assert len(unsafe) > 10
    for route in unsafe:
        response = at.client.request(
            route.method, route.address, headers=headers | {"Cookie": f"duting_session={token}"}
        )
        assert (response.status_code, response.json()["error"]["code"]) == (403, "bad_origin"), route
    assert at.store.sessions.person(token) is not None


@pytest.mark.parametrize("headers", [given for given in FOREIGN if "Origin" in given], ids=str)
def test_no_other_site_opens_a_socket_with_somebodys_cookie(at: House, headers: dict[str, str]) -> None:
    token = at.store.sessions.open("administrator", timedelta(hours=1))
    for path in SOCKETS:
        assert socket_code(at.client, path, Cookie=f"duting_session={token}", **headers) == 4403


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Duting": "1"},
        {"Origin": "http://testserver"},
        {"Origin": "http://TESTSERVER", "Sec-Fetch-Site": "same-origin"},
    ],
    ids=str,
)
def test_our_own_page_may(at: House, headers: dict[str, str]) -> None:
    token = at.store.sessions.open("administrator", timedelta(hours=1))
    response = at.client.request(
        "DELETE", "/api/session", headers=headers | {"Cookie": f"duting_session={token}"}
    )
    assert response.status_code == 204
    assert at.store.sessions.person(token) is None
