"""The routes: who may, what is answered, what every answer carries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import jsonschema
import pytest
from fastapi.routing import APIRoute, APIWebSocketRoute
from pydantic import SecretStr
from starlette.websockets import WebSocketDisconnect

from app.api import recordings
from app.api.attempts import FAILURES, WINDOW_S, Attempts
from app.api.people import Readings
from app.errors import StoreError
from app.live import LocalLive
from app.recorder import file_stem
from streams.events import Health, SpeechStarted
from tests.app.store_support import PACK, House, alert, emotion, ended, house, marker, progress, said, started

READ = [
    "/api/floor",
    "/api/floor/figures",
    "/api/calls",
    "/api/calls/c1",
    "/api/calls/c1/audio",
    "/api/rules",
    "/api/rules/precision",
    "/api/rules/schema",
    "/api/schema/events",
]


@pytest.fixture
def at(tmp_path: Path) -> Iterator[House]:
    pages = tmp_path / "static"
    (pages / "assets").mkdir(parents=True)
    (pages / "index.html").write_text("<title>the dashboard</title>")
    (pages / "assets" / "app-1a2b.js").write_text("go()")
    with house(tmp_path, pages=pages) as house_:
        yield house_


def code(response) -> str:
    error = response.json()["error"]
    assert error["message"].keys() == {"zh", "en"}
    return error["code"]


# ── who may ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("role", ["supervisor", "inspector", "administrator"])
def test_those_who_oversee_may_read(at: House, role: str) -> None:
    at.append(started())
    at.log_in(role)
    for path in set(READ) - {"/api/calls/c1/audio"}:
        assert at.client.get(path).status_code == 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null", "X-Duting": "1"}, 403),
        ({"Origin": "http://testserver.evil.example"}, 403),
        ({"Origin": "http://testserver"}, 204),
        ({"X-Duting": "1"}, 204),
    ],
)
def test_another_site_cannot_act_in_somebodys_name(at: House, headers: dict, expected: int) -> None:
    response = at.client.delete("/api/session", headers=headers)
    assert response.status_code == expected
    if expected == 403:
        assert code(response) == "bad_origin"


def test_another_site_cannot_listen(at: House) -> None:
    at.log_in()
    with (
        pytest.raises(WebSocketDisconnect),
        at.client.websocket_connect("/api/events", headers={"Origin": "http://evil.example"}),
    ):
        pass


# ── logging in ────────────────────────────────────────────────────────────────────────────────────


def test_logging_in_gives_a_cookie_that_scripts_and_other_sites_do_not_get(at: House) -> None:
    response = at.log_in("inspector")
    assert response.json() == {"user": {"username": "inspector", "name": "Inspector", "role": "inspector"}}
    cookie = response.headers["set-cookie"].lower()
    assert cookie.startswith("duting_session=")
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert at.client.get("/api/session").json() == response.json()


def test_logging_out_ends_the_session_on_the_server_too(at: House) -> None:
    token = at.log_in().cookies["duting_session"]
    assert at.client.delete("/api/session", headers={"X-Duting": "1"}).status_code == 204
    assert at.client.get("/api/session", headers={"Cookie": f"duting_session={token}"}).status_code == 401


def test_a_wrong_password_and_an_unknown_account_look_the_same(at: House) -> None:
    wrong, unknown = at.log_in("supervisor", "wrong password"), at.log_in("nobody", "wrong password")
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json()
    assert code(wrong) == "wrong_credentials"


def test_after_five_failures_even_the_right_password_has_to_wait(at: House) -> None:
    for _ in range(FAILURES):
        assert at.log_in("supervisor", "wrong password").status_code == 401
    response = at.log_in()
    assert (response.status_code, code(response)) == (429, "too_many_attempts")
    assert int(response.headers["retry-after"]) > 0
    assert at.log_in("inspector").status_code == 200


async def test_attempts_are_forgotten_after_a_minute_and_by_a_success() -> None:
    now = 0.0
    attempts = Attempts(LocalLive(lambda: now))
    assert [await attempts.begin("li", "a") for _ in range(6)] == [0.0] * 5 + [WINDOW_S]
    assert await attempts.begin("li", "b") == 0.0
    now = WINDOW_S
    assert await attempts.begin("li", "a") == 0.0
    await attempts.succeed("li", "a")
    assert [await attempts.begin("li", "a") for _ in range(5)] == [0.0] * 5


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"username": "x"}', b'{"username": 5, "password": "secret-word"}', b"\xff\xfe"],
)
def test_a_malformed_login_is_refused_without_repeating_it(at: House, body: bytes) -> None:
    response = at.client.post(
        "/api/session", content=body, headers={"X-Duting": "1", "Content-Type": "application/json"}
    )
    assert response.status_code in (400, 422)
    assert code(response) in ("invalid", "bad_request")
    assert "secret-word" not in response.text


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_not_read(at: House, chunked: bool) -> None:
    body = b"x" * 100_000
    content = iter([body[:50_000], body[50_000:]]) if chunked else body
    response = at.client.post("/api/session", content=content, headers={"X-Duting": "1"})
    assert (response.status_code, code(response)) == (413, "too_large")


# ── what is answered ──────────────────────────────────────────────────────────────────────────────


def test_the_floor_shows_live_calls_who_speaks_and_the_newest_alerts(at: House) -> None:
    at.append(
        started("c1", agent="8001", queue="理财", customer_level="钻石"),
        SpeechStarted(call_id="c1", channel="customer", media_ms=0),
        said(0, "能保本吗", role="customer"),
        alert(1),
        alert(2, severity="info"),
        alert(3, severity="info", state="withdrawn"),
        started("c2"),
        ended("c2"),
        Health(step=1, name="fewer_partials", calls=1),
    )
    at.log_in()
    floor = at.client.get("/api/floor").json()
    (call,) = floor["calls"]
    assert (call["call_id"], call["agent"], call["state"], call["duration_ms"]) == (
        "c1",
        "8001",
        "live",
        None,
    )
    assert call["alerts"] == {"critical": 1, "warning": 0, "info": 1}
    assert call["speaking"] == {"agent": False, "customer": True, "unknown": False}
    assert call["last_text"]["text"] == "能保本吗"
    assert [found["id"] for found in floor["alerts"]] == ["a3", "a2", "a1"]
    assert floor["alerts"][0]["customer_level"] == "钻石"
    assert floor["health"]["name"] == "fewer_partials"
    assert floor["cursor"] == 7


def test_the_floor_shows_what_stands_on_each_card(at: House) -> None:
    at.append(
        started("c1"),
        emotion(0, role="customer", level=2.0),
        emotion(5000, role="agent", level=9.0),
        emotion(9000, role="customer", level=6.5),
        progress(3000),
        alert(1),
        alert(2, severity="warning", state="acknowledged"),
        alert(3, severity="warning", state="escalated"),
        started("c2"),
        ended("c2"),
    )
    at.log_in()
    floor = at.client.get("/api/floor").json()
    (call,) = floor["calls"]
    assert [mood["level"] for mood in call["moods"]] == [2.0, 6.5]
    assert call["progress"]["steps"] == len(progress(3000).steps)
    assert call["open"] == floor["open"] == {"critical": 1, "warning": 1, "info": 0}
    assert call["alerts"] == {"critical": 1, "warning": 2, "info": 0}


def test_the_floors_figures_are_none_until_somebody_tells_them(at: House) -> None:
    at.append(started("c1"), alert(1))
    at.log_in()
    figures = at.client.get("/api/floor/figures").json()
    assert figures == at.client.get("/api/floor").json()["figures"]
    assert (figures["acknowledge_ms"], figures["acknowledged"], figures["answered"]) == (None, 0, 0)


def test_a_subscription_from_the_floors_cursor_continues_exactly_there(at: House) -> None:
    at.append(started(), alert(1))
    at.log_in()
    cursor = at.client.get("/api/floor").json()["cursor"]
    at.append(alert(2))
    with at.client.websocket_connect(f"/api/events?cursor={cursor}") as socket:
        assert socket.receive_json() == {"type": "hello", "cursor": 3, "heartbeat_s": 15.0}
        assert socket.receive_json()["alert"]["id"] == "a2"


def test_calls_come_in_pages_last_begun_first(at: House) -> None:
    at.append(*(started(f"c{n}") for n in range(5)), ended("c3"))
    at.log_in()
    first = at.client.get("/api/calls?limit=3").json()
    second = at.client.get(f"/api/calls?limit=3&before={first['next']}").json()
    assert [call["call_id"] for call in first["calls"]] == ["c4", "c3", "c2"]
    assert [call["call_id"] for call in second["calls"]] == ["c1", "c0"]
    assert second["next"] is None
    over = at.client.get("/api/calls?state=ended").json()["calls"]
    assert [(call["call_id"], call["duration_ms"]) for call in over] == [("c3", 9000)]


@pytest.mark.parametrize("query", ["state=odd", "limit=0", "limit=9999", "before=x", "before=-1"])
def test_a_page_that_makes_no_sense_is_refused(at: House, query: str) -> None:
    at.log_in()
    response = at.client.get(f"/api/calls?{query}")
    assert (response.status_code, code(response)) == (422, "invalid")


def test_one_call_shows_what_was_said_in_order_and_reading_it_is_written_down(at: House) -> None:
    at.append(started(), said(2000, "二"), said(0, "一"), said(1000, ""), alert(), marker(), emotion())
    at.append(progress(), progress(9_000, "done"))
    at.log_in("inspector")
    detail = at.client.get("/api/calls/c1").json()
    [checklist] = detail["progress"]
    assert [(step["id"], step["state"]) for step in checklist["steps"]] == [("greeting", "done")]
    assert [(felt["feeling"], felt["level"]) for felt in detail["emotions"]] == [("angry", 7.5)]
    assert [text["text"] for text in detail["utterances"]] == ["一", "二"]
    assert [found["id"] for found in detail["alerts"] + detail["markers"]] == ["a1", "m1"]
    at.client.get("/api/calls/c1")
    (entry,) = at.store.audit.about("c1")
    assert (entry.username, entry.action, entry.address) == ("inspector", "call.read", "testclient")


def test_a_call_that_is_not_there_is_said_so_and_not_written_down(at: House) -> None:
    at.log_in()
    for path in ("/api/calls/none", "/api/calls/none/audio", "/api/calls/..%2f..%2fetc%2fpasswd/audio"):
        response = at.client.get(path)
        assert (response.status_code, code(response)) in [(404, "unknown_call"), (404, "not_found")]
    assert at.store.audit.about("none") == []


def test_the_audio_is_served_in_ranges_and_listening_is_written_down_once(at: House) -> None:
    at.append(started("a/../b:1"), started("c1"))
    at.log_in()
    assert code(at.client.get("/api/calls/c1/audio")) == "no_recording"
    at.settings.recordings.mkdir()
    (at.settings.recordings / f"{file_stem('c1')}.ogg").write_bytes(b"OggS" + bytes(96))
    whole = at.client.get("/api/calls/c1/audio")
    assert (whole.status_code, whole.headers["content-type"], len(whole.content)) == (200, "audio/ogg", 100)
    part = at.client.get("/api/calls/c1/audio", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"OggS")
    assert [entry.action for entry in at.store.audit.about("c1")] == ["call.audio"]
    assert at.client.get("/api/calls/c1").json()["call"]["recording"] is True


def test_audio_that_gets_another_name_while_it_is_asked_for_is_sent_all_the_same(
    at: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.append(started())
    at.log_in()
    at.settings.recordings.mkdir()
    running = at.settings.recordings / f"{file_stem('c1')}.wav"
    running.write_bytes(b"RIFF" + bytes(96))
    record = recordings.record_reading

    def meanwhile(*given: object) -> None:
        record(*given)
        running.unlink()

    monkeypatch.setattr(recordings, "record_reading", meanwhile)
    answer = at.client.get("/api/calls/c1/audio")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/wav")
    assert answer.content == b"RIFF" + bytes(96)


def test_a_reading_that_could_not_be_written_down_is_written_the_next_time(
    at: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.append(started())
    at.log_in()

    def fail(*_: object) -> None:
        raise StoreError("away")

    with monkeypatch.context() as away:
        away.setattr(at.store.audit, "record", fail)
        assert at.client.get("/api/calls/c1").status_code == 503
        assert at.client.get("/api/calls/c1").status_code == 503
    assert at.client.get("/api/calls/c1").status_code == 200
    assert [entry.action for entry in at.store.audit.about("c1")] == ["call.read"]


def test_who_reads_while_it_is_written_down_does_not_rely_on_an_entry_that_then_fails() -> None:
    readings, entries = Readings(), []
    writing, fails = Event(), Event()

    def fail() -> None:
        writing.set()
        fails.wait(10)
        raise StoreError("away")

    def first() -> None:
        with pytest.raises(StoreError):
            readings.once(("li", "call.read", "c1"), fail)

    one = Thread(target=first)
    one.start()
    assert writing.wait(10)
    other = Thread(target=readings.once, args=(("li", "call.read", "c1"), lambda: entries.append(1)))
    other.start()
    fails.set()
    one.join(10)
    other.join(10)
    readings.once(("li", "call.read", "c1"), lambda: entries.append(2))
    assert entries == [1]


def test_what_people_say_is_data_and_never_a_page(at: House) -> None:
    nasty = "<script>alert(1)</script>'; DROP TABLE calls; --"
    at.append(started(agent=nasty, attributes={nasty: nasty}), said(0, nasty))
    at.log_in()
    for path in ("/api/floor", "/api/calls", "/api/calls/c1"):
        response = at.client.get(path)
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-content-type-options"] == "nosniff"
    assert response.json()["utterances"][0]["text"] == nasty
    assert nasty not in at.client.get(f"/api/{nasty}").text


def test_the_rules_in_force_are_told(at: House) -> None:
    at.log_in()
    rules = at.client.get("/api/rules").json()
    assert rules["version"] == PACK.version
    assert rules["rules"][0]["name"]["zh"] == "承诺保本"


def test_every_event_is_valid_against_the_published_schema(at: House) -> None:
    at.append(started(), said(), alert(), marker(), ended())
    at.log_in()
    schema = at.client.get("/api/schema/events").json()
    with at.client.websocket_connect("/api/events?cursor=0") as socket:
        assert socket.receive_json()["type"] == "hello"
        for _ in range(5):
            jsonschema.validate(socket.receive_json(), schema)


def test_the_description_of_the_routes_resolves_and_names_the_answers(at: House) -> None:
    document = at.client.get("/api/openapi.json").json()
    floor = document["paths"]["/api/floor"]["get"]["responses"]["200"]["content"]["application/json"]
    assert floor["schema"]["$ref"].removeprefix("#/components/schemas/") in document["components"]["schemas"]
    for path in ("/docs", "/redoc"):
        assert "swagger" not in at.client.get(path).text


# ── machines ──────────────────────────────────────────────────────────────────────────────────────


def test_health_counts_live_calls_and_needs_no_login(at: House) -> None:
    at.append(started())
    assert at.client.get("/healthz").json() == {"status": "ok", "calls": 1, "rules": PACK.version}


def test_the_metrics_are_for_administrators_and_this_machine(at: House) -> None:
    assert at.client.get("/metrics").status_code == 401
    at.log_in("inspector")
    assert at.client.get("/metrics").status_code == 403
    at.log_in("administrator")
    assert "duting_events_total" in at.client.get("/metrics").text
    assert "duting_alert_latency_seconds" in at.client.get("/metrics").text


@pytest.mark.parametrize(
    ("set_to", "presented", "expected"),
    [
        ("secret", "Bearer secret", 200),
        ("secret", "bearer secret", 200),
        ("secret", "Bearer secre", 401),
        ("secret", "Basic secret", 401),
        ("secret", "secret", 401),
        (None, "Bearer ", 401),
        (None, "Bearer None", 401),
    ],
)
def test_prometheus_on_another_machine_presents_the_metrics_token(
    at: House, set_to: str | None, presented: str, expected: int
) -> None:
    token = SecretStr(set_to) if set_to is not None else None
    state = at.client.app.state
    state.settings = state.settings.model_copy(update={"metrics_token": token})
    assert at.client.get("/metrics", headers={"Authorization": presented}).status_code == expected


# ── trouble ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path", "status", "word"),
    [
        ("GET", "/api/none", 404, "not_found"),
        ("GET", "/api", 404, "not_found"),
        ("GET", "/api/floor/", 404, "not_found"),
        ("POST", "/api/floor", 405, "method_not_allowed"),
        ("POST", "/floor", 405, "method_not_allowed"),
        ("GET", "/assets/none.js", 404, "not_found"),
        ("GET", "/..%2f..%2fpyproject.toml", 404, "not_found"),
    ],
)
def test_every_error_has_the_same_shape(at: House, method: str, path: str, status: int, word: str) -> None:
    response = at.client.request(method, path, headers={"X-Duting": "1"})
    assert (response.status_code, code(response)) == (status, word)


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [(StoreError("gone"), 503, "store_unavailable"), (ValueError("inner secret"), 500, "internal")],
)
def test_trouble_inside_is_told_without_its_details(
    at: House, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, word: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    at.log_in()
    monkeypatch.setattr(at.store.calls, "floor", fail)
    response = at.client.get("/api/floor")
    assert (response.status_code, code(response)) == (status, word)
    assert str(error) not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/api/floor", "/api/none", "/healthz", "/assets/app-1a2b.js"])
def test_every_answer_carries_the_security_headers(at: House, path: str) -> None:
    headers = at.client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert ("no-store" in headers.get("cache-control", "")) == path.startswith("/api/")


# ── pages ─────────────────────────────────────────────────────────────────────────────────────────


def test_every_view_of_the_dashboard_is_its_one_page(at: House) -> None:
    for path in ("/", "/index.html", "/calls/c1", "/login"):
        response = at.client.get(path)
        assert "the dashboard" in response.text
        assert response.headers["cache-control"] == "no-cache"
    assert "immutable" in at.client.get("/assets/app-1a2b.js").headers["cache-control"]


def test_a_dashboard_that_is_not_built_says_how_to_build_it(tmp_path: Path) -> None:
    with house(tmp_path, pages=tmp_path / "none") as at:
        response = at.client.get("/")
        assert response.status_code == 503
        assert "make dashboard" in response.text


def test_no_route_is_hidden_from_the_description(at: House) -> None:
    routes = at.client.app.routes  # type: ignore[attr-defined]
    described = set(at.client.get("/api/openapi.json").json()["paths"])
    paths = {route.path for route in routes if isinstance(route, APIRoute)}
    assert paths <= described
    assert {r.path for r in routes if isinstance(r, APIWebSocketRoute)} <= {"/api/events"}
