"""Telephony events and the watchdog through the real server: real HTTP, real WebSockets, the real model."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import websockets

from app.demo import run
from app.phones.call import Pace, sides
from detectors.rules import DEFAULT_PACK
from streams.audio import encode_mulaw
from tests.running import PERSON, TOKEN, running
from tests.streams.misread import conversation, encode_alaw

pytestmark = pytest.mark.model

RATE, CHUNK = 8_000, 160


RULES = """\
id: of.the.house
version: "1"
rules:
  - {id: house.hung_up, name: {zh: 客户挂断, en: Customer hung up}, severity: info, role: any,
     when: {hangup: {by: customer, within: 60}}}
  - {id: house.held, name: {zh: 保持, en: Held}, severity: info, role: any, when: {hold: {seconds: 2}}}
"""


@pytest.fixture(scope="module")
def server(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("duting")
    (folder / "rules").mkdir()
    shutil.copy(DEFAULT_PACK, folder / "rules")
    (folder / "rules" / "house.yaml").write_text(RULES)
    with running(model_folder.parent, folder, DUTING_RULES=str(folder / "rules")) as started:
        yield started


class Exchange:
    """A telephone and the system around it."""

    def __init__(self, address: str, call_id: str) -> None:
        self.address, self.call_id = address, call_id

    async def play(self, sent: dict[str, bytes], at=None, silent_s: float = 0.0) -> None:
        """Bytes of each track at the pace of speech; ``at``: what to do at a second of it."""
        todo = dict(at or {})
        url = self.address.replace("http", "ws", 1) + "/ingest/twilio"
        async with websockets.connect(url) as socket:
            start = {
                "callSid": self.call_id,
                "tracks": list(sent),
                "customParameters": {"token": TOKEN, "queue": "卡"},
            }
            await socket.send(json.dumps({"event": "start", "start": start}))
            try:
                async for piece in Pace(min(map(len, sent.values())), RATE, time.monotonic):
                    for track, raw in sent.items():
                        media = {
                            "track": track,
                            "chunk": str(piece.start // CHUNK + 1),
                            "timestamp": str(piece.start * 1000 // RATE),
                            "payload": base64.b64encode(raw[piece]).decode(),
                        }
                        await socket.send(json.dumps({"event": "media", "media": media}))
                    for second in [second for second in todo if second <= piece.stop / RATE]:
                        await asyncio.to_thread(todo.pop(second))
                await asyncio.sleep(silent_s)
                await socket.send(json.dumps({"event": "stop"}))
                await socket.wait_closed()
            except websockets.ConnectionClosed:
                pass

    def tell(self, body, token=TOKEN):
        """What the server answers: status and body."""
        request = urllib.request.Request(
            f"{self.address}/api/calls/{self.call_id}/events",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


class Seen:
    def __init__(self, address: str) -> None:
        self._address = address
        self._cookie = run.log_in(address, PERSON)

    def call(self, call_id):
        request = urllib.request.Request(
            f"{self._address}/api/calls/{call_id}", headers={"cookie": self._cookie}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def over(self, call_id):
        """The call, once it has ended."""
        deadline = time.monotonic() + 60
        while (found := self.call(call_id))["call"]["state"] != "ended":
            assert time.monotonic() < deadline, "it does not end"
            time.sleep(0.1)
        return found


def marks(found, prefix="call."):
    return [
        (m["rule_id"], m["role"], m["media_start_ms"], m["media_end_ms"])
        for m in found["markers"]
        if m["rule_id"].startswith(prefix)
    ]


def about(ms, slack=600):
    return pytest.approx(ms, abs=slack)


def test_what_a_telephony_system_tells_is_seen_on_the_call(server, short_call: Path):
    line = Exchange(server.address, "told-1")
    both = sides(short_call, RATE)
    sent = {"outbound": encode_mulaw(both["agent"]), "inbound": encode_mulaw(both["customer"])}
    answers = []

    def tell(body):
        return lambda: answers.append(line.tell(body))

    at = {
        1.0: tell({"type": "update", "fields": {"queue": "理财", "工单": "77"}}),
        2.0: tell([{"type": "key", "id": "k1"}, {"type": "key", "id": "k2"}]),
        2.6: tell([{"type": "key", "id": "k2"}, {"type": "key", "id": "k3"}]),
        6.0: tell({"type": "hold"}),
        9.0: tell({"type": "resume"}),
        10.0: tell({"type": "transfer", "to": "8002", "id": "t1"}),
        10.5: tell({"type": "transfer", "to": "8002", "id": "t1"}),
        12.0: tell({"type": "hangup", "by": "customer", "id": "h1"}),
    }
    asyncio.run(line.play(sent, at))
    found = Seen(server.address).over("told-1")
    assert [answer[0] for answer in answers] == [202] * 8
    assert [answer[1]["repeated"] for answer in answers] == [0, 0, 1, 0, 0, 0, 1, 0]
    assert marks(found) == [
        ("call.key", "customer", about(2_000), about(2_600)),
        ("call.hold", "unknown", about(6_000), about(9_000)),
        ("call.transfer", "unknown", about(10_000), about(10_000)),
    ]
    call = found["call"]
    assert (call["reason"], call["by"], call["queue"]) == ("hangup", "customer", "理财")
    assert call["attributes"]["工单"] == "77"
    assert call["duration_ms"] == about(12_000)
    house = [(a["rule_id"], a["media_end_ms"]) for a in found["alerts"] if a["rule_id"].startswith("house.")]
    assert house == [("house.held", about(8_000)), ("house.hung_up", about(12_000))]
    # It is over now: the hang-up may be told again, and nothing else.
    assert line.tell({"type": "hangup", "by": "customer", "id": "h1"})[0] == 202
    status, body = line.tell({"type": "hold"})
    assert (status, body["error"]["code"]) == (409, "call_ended")
    status, body = line.tell({"type": "hold"}, token="wrong")
    assert (status, body["error"]["code"]) == (401, "token_required")
    status, body = Exchange(server.address, "never").tell({"type": "hold"})
    assert (status, body["error"]["code"]) == (404, "unknown_call")


def test_a_wrong_codec_and_a_line_that_falls_silent_raise_alerts_that_say_what_to_check(server):
    gravel, silent = Exchange(server.address, "gravel"), Exchange(server.address, "silent")
    spoken = conversation()
    customer = spoken[: 20 * RATE] // 8

    async def both():
        await asyncio.gather(
            gravel.play({"outbound": encode_alaw(spoken[: 20 * RATE]), "inbound": encode_mulaw(customer)}),
            silent.play(
                {"outbound": encode_mulaw(spoken[: 2 * RATE]), "inbound": encode_mulaw(customer[: 2 * RATE])},
                silent_s=10.0,
            ),
        )

    asyncio.run(both())
    seen = Seen(server.address)
    alerts = {
        call_id: [a for a in seen.over(call_id)["alerts"] if a["rule_id"].startswith("ops.")]
        for call_id in ("gravel", "silent")
    }
    [noise] = alerts["gravel"]
    assert (noise["rule_id"], noise["role"]) == ("ops.noise", "agent")
    assert noise["evidence"]["text"] == "A-law as mu-law"
    [quiet] = alerts["silent"]
    assert (quiet["rule_id"], quiet["evidence"]["text"]) == ("ops.ingest_silent", "8 s")
    assert quiet["media_start_ms"] == about(2_000)
    for alert in (noise, quiet):
        assert set(alert["advice"]) == {"zh", "en"}


def test_the_log_holds_no_names_and_no_metadata(server):
    assert "told-1" in server._log.read_text()
    assert "8002" not in server._log.read_text()
    assert "理财" not in server._log.read_text()
