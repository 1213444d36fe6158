"""The WebSocket around a parser: what it adds to a call at the edge, with the real parser of Twilio."""

from __future__ import annotations

import base64
import json
import re

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from app.ingest import twilio
from app.ingest.assembly import Assembly
from app.ingest.session import Lines
from app.settings import Settings
from tests.app.ingest.runner import Runner

TOKEN = "token"


@pytest.fixture
def runner():
    return Runner()


@pytest.fixture
def phone(runner, tmp_path):
    """Opens sockets to an application that has nothing but this route."""
    app = FastAPI()
    settings = Settings(_env_file=None, data_dir=tmp_path, max_calls=1)
    lines = Lines(settings, Assembly(runner), TOKEN)
    app.include_router(twilio.route(lines))
    app.state.lines = lines
    with TestClient(app) as client:
        yield lambda **given: client.websocket_connect("/ingest/twilio", **given)


def start(call_id="CA1", **parameters):
    body = {"callSid": call_id, "customParameters": parameters}
    return json.dumps({"event": "start", "start": body})


def test_a_call_carries_the_wall_clock_of_its_start(phone, runner):
    with phone() as socket:
        socket.send_text(start(token=TOKEN, started_at="never"))
        socket.send_text(json.dumps({"event": "stop"}))
        assert socket.receive()["code"] == 1000
    [call] = runner.opened
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", call.started_at)
    assert call.attributes == {"started_at": "never"}
    assert runner.closed == [("CA1", "hangup", None)]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": "Basic " + base64.b64encode(b"duting:" + TOKEN.encode()).decode()},
    ],
    ids=["bearer", "basic"],
)
def test_the_token_may_come_in_a_header(phone, runner, headers):
    with phone(headers=headers) as socket:
        socket.send_text(start())
        socket.send_text(json.dumps({"event": "stop"}))
        assert socket.receive()["code"] == 1000
    assert len(runner.opened) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic %%%"},
        {"Authorization": b"Basic \xd5"},
        {"Authorization": "Bearer"},
    ],
    ids=["none", "wrong", "no base64", "no ASCII", "empty"],
)
def test_without_the_token_no_call_begins(phone, runner, headers):
    with phone(headers=headers) as socket:
        socket.send_text(start())
        told = json.loads(socket.receive_text())
        assert "DUTING_INGEST_TOKEN" in told["message"]
        assert socket.receive()["code"] == 4401
    assert runner.opened == []


def test_beyond_the_most_connections_one_that_has_not_begun_gives_way(phone, runner, monkeypatch):
    monkeypatch.setattr(Lines, "most_connections", 1)
    with phone() as idle, phone() as socket:
        assert "has not begun a call" in json.loads(idle.receive_text())["message"]
        assert idle.receive()["code"] == 1013
        socket.send_text(start(token=TOKEN))
        socket.send_text(json.dumps({"event": "stop"}))
        assert socket.receive()["code"] == 1000
    assert len(runner.opened) == 1


def test_where_all_have_begun_a_call_another_is_not_accepted(phone, runner, monkeypatch):
    monkeypatch.setattr(Lines, "most_connections", 1)
    with phone() as socket:
        socket.send_text(start(token=TOKEN))
        assert runner.begun.wait(10)
        with pytest.raises(WebSocketDisconnect) as refused, phone():
            pass
        assert refused.value.code == 1013
        socket.send_text(json.dumps({"event": "stop"}))
        assert socket.receive()["code"] == 1000


def test_a_peer_that_goes_without_a_word_leaves_its_call_to_whoever_comes_back(phone, runner):
    with phone() as socket:
        socket.send_text(start(token=TOKEN))
        socket.send_text(json.dumps({"event": "dance"}))
    with phone() as socket:
        socket.send_text(start(token=TOKEN, agent="8002"))
        socket.send_text(json.dumps({"event": "stop"}))
        assert socket.receive()["code"] == 1000
    assert len(runner.opened) == 1
    assert [call.agent for call in runner.updated] == ["8002"]
    assert runner.closed == [("CA1", "hangup", None)]
