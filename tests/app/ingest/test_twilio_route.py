"""The WebSocket around the stream: what it adds to a call at the edge."""

from __future__ import annotations

import json
import re

from fastapi import FastAPI
from starlette.testclient import TestClient

from app.ingest import twilio


class Runner:
    """Notes the calls it is given."""

    def __init__(self):
        self.opened = []

    def clock(self):
        return 0.0

    def open(self, call, paced, source):
        self.opened.append(call)

    def listen(self, call_id=None):
        pass

    def hear(self, item):
        pass

    async def close(self, call_id, reason):
        pass


def test_a_call_carries_the_wall_clock_of_its_start():
    runner, app = Runner(), FastAPI()
    app.include_router(twilio.route(runner, "token"))
    body = {"callSid": "CA1", "customParameters": {"token": "token", "started_at": "never"}}
    with TestClient(app).websocket_connect("/ingest/twilio") as socket:
        socket.send_text(json.dumps({"event": "start", "start": body}))
        socket.send_text(json.dumps({"event": "stop"}))
        assert socket.receive()["type"] == "websocket.close"
    [call] = runner.opened
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", call.started_at)
    assert call.attributes == {"started_at": "never"}
