"""WHEP with a real client of WebRTC: a supervisor hears a call that runs, others do not."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import pytest_asyncio
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from app.api import listen
from app.ingest.trickle import FRAGMENT
from app.phones import twilio
from app.phones.call import PhoneCall
from tests.app.ingest.served import TOKEN, served

PASSWORD = "correct-horse-battery"


@pytest_asyncio.fixture
async def server(tmp_path):
    async with served(tmp_path) as running:
        store = running.service.store
        for username, role in (("anna", "supervisor"), ("bert", "agent")):
            store.users.ensure(username, PASSWORD, username, role)
        yield running


async def asked(server, method, path, body=None, cookie=None, kind="application/sdp", match=None):
    def ask():
        headers = {"Content-Type": kind, "Origin": server.address}
        if cookie is not None:
            headers["Cookie"] = cookie
        if match is not None:
            headers["If-Match"] = match
        request = urllib.request.Request(server.address + path, data=body, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    return await asyncio.to_thread(ask)


async def logged_in(server, username):
    body = json.dumps({"username": username, "password": PASSWORD}).encode()
    _, headers, _ = await asked(server, "POST", "/api/session", body, kind="application/json")
    return headers["Set-Cookie"].split(";")[0]


class Browser:
    """Receives one audio track."""

    def __init__(self):
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.connection.addTransceiver("audio", direction="recvonly")
        self.loudest = 0
        self.heard = asyncio.Event()

        @self.connection.on("track")
        def track(one):
            self._reading = asyncio.create_task(self._read(one))

    async def _read(self, track):
        while True:
            frame = await track.recv()
            self.loudest = max(self.loudest, int(np.abs(frame.to_ndarray().astype(int)).max()))
            if self.loudest > 500:
                self.heard.set()

    async def offer(self):
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp.encode()

    async def answered(self, sdp):
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))


@pytest_asyncio.fixture
async def call(server, short_call):
    """A call that runs."""
    playing = asyncio.create_task(
        twilio.play(server.sockets, PhoneCall("c", short_call, TOKEN), time.monotonic)
    )
    async with asyncio.timeout(10):
        while not any(one.type == "call.started" for one in server.told):
            server.more.clear()
            await server.more.wait()
    yield "c"
    playing.cancel()
    await asyncio.gather(playing, return_exceptions=True)


async def listening(server, cookie, browser, query=""):
    """Status, headers and text of the answer."""
    return await asked(server, "POST", f"/api/calls/c/listen{query}", await browser.offer(), cookie)


@pytest.mark.parametrize("query", ["", "?channel=agent"])
async def test_a_supervisor_hears_the_call_and_it_is_written_down(server, call, query):
    cookie, browser = await logged_in(server, "anna"), Browser()
    status, headers, sdp = await listening(server, cookie, browser, query)
    assert status == 201, sdp
    assert headers["Content-Type"].startswith(listen.SDP)
    await browser.answered(sdp)
    async with asyncio.timeout(10):
        await browser.heard.wait()
    entries = [(one.username, one.action) for one in server.service.store.audit.about("c")]
    assert ("anna", "call.listened") in entries
    assert (await asked(server, "DELETE", headers["Location"], cookie=cookie))[0] == 200
    await over(server)
    assert (await asked(server, "DELETE", headers["Location"], cookie=cookie))[0] == 404
    await browser.connection.close()


async def over(server):
    """Nobody listens any more."""
    async with asyncio.timeout(10):
        await asyncio.gather(*server.service.rooms._running)
    assert server.service.rooms.sessions == {}
    assert server.service.rooms.listening._ears == {}


async def test_whoever_listens_is_let_go_when_the_call_is_over(server, call):
    cookie, browser = await logged_in(server, "anna"), Browser()
    _, _, sdp = await listening(server, cookie, browser)
    await browser.answered(sdp)
    async with asyncio.timeout(10):
        await browser.heard.wait()
    await server.service.lines.assembly.hang_up("c")
    await over(server)
    assert (await listening(server, cookie, Browser()))[0] == 409
    await browser.connection.close()


async def test_whoever_logs_out_hears_no_more(server, call, monkeypatch):
    monkeypatch.setattr(listen, "CONNECT_S", 3.0)
    monkeypatch.setattr(listen, "CHECK_S", 0.05)
    cookie, browser = await logged_in(server, "anna"), Browser()
    _, _, sdp = await listening(server, cookie, browser)
    await browser.answered(sdp)
    async with asyncio.timeout(10):
        await browser.heard.wait()
    assert (await asked(server, "DELETE", "/api/session", cookie=cookie))[0] in (200, 204)
    await over(server)
    await browser.connection.close()


async def test_a_listener_that_does_not_connect_is_let_go(server, call, monkeypatch):
    monkeypatch.setattr(listen, "CONNECT_S", 0.05)
    cookie, browser = await logged_in(server, "anna"), Browser()
    assert (await listening(server, cookie, browser))[0] == 201
    await over(server)
    await browser.connection.close()


async def test_a_call_that_another_gateway_hears_is_said_to_be_there(server, call):
    server.service.rooms.listening._running.discard("c")
    status, _, text = await listening(server, await logged_in(server, "anna"), Browser())
    assert status == 409
    assert json.loads(text)["error"]["code"] == "heard_elsewhere"


async def test_candidates_may_come_later_from_who_listens_and_from_nobody_else(server, call):
    server.service.store.users.ensure("carl", PASSWORD, "carl", "supervisor")
    anna, carl = await logged_in(server, "anna"), await logged_in(server, "carl")
    browser = Browser()
    _, headers, _ = await listening(server, anna, browser)
    path, tag = headers["Location"], headers["ETag"]
    late = b"a=mid:0\r\na=candidate:1 1 udp 2113937151 127.0.0.1 50000 typ host\r\n"
    for cookie, match, kind, body, status in (
        (anna, tag, FRAGMENT, late, 204),
        (anna, None, FRAGMENT, late, 428),
        (anna, '"another"', FRAGMENT, late, 412),
        (anna, "*", FRAGMENT, late, 422),
        (anna, tag, listen.SDP, late, 415),
        (anna, tag, FRAGMENT, b"nonsense", 400),
        (carl, tag, FRAGMENT, late, 404),
        (None, tag, FRAGMENT, late, 401),
    ):
        told, _, text = await asked(server, "PATCH", path, body, cookie, kind, match)
        assert told == status, text
    assert (await asked(server, "DELETE", path, cookie=carl))[0] == 404
    await browser.connection.close()


async def test_what_may_be_sent_is_told(server):
    status, headers, _ = await asked(server, "OPTIONS", "/api/calls/c/listen")
    assert (status, headers["Accept-Post"], headers["Accept-Patch"]) == (204, listen.SDP, FRAGMENT)


@pytest.mark.parametrize(
    ("path", "who", "kind", "status"),
    [
        ("/api/calls/c/listen", None, listen.SDP, 401),
        ("/api/calls/c/listen", "bert", listen.SDP, 403),
        ("/api/calls/unknown/listen", "anna", listen.SDP, 404),
        ("/api/calls/c/listen?channel=neither", "anna", listen.SDP, 422),
        ("/api/calls/c/listen", "anna", "application/json", 415),
    ],
)
async def test_others_are_told_why_they_do_not_hear_it(server, call, path, who, kind, status):
    cookie = await logged_in(server, who) if who else None
    browser = Browser()
    told, _, text = await asked(server, "POST", path, await browser.offer(), cookie, kind)
    await browser.connection.close()
    assert told == status, text


async def test_nobody_listens_more_than_a_few_times_at_once(server, call, monkeypatch):
    monkeypatch.setattr(listen, "MOST_EACH", 0)
    browser = Browser()
    cookie = await logged_in(server, "anna")
    status, _, text = await asked(server, "POST", "/api/calls/c/listen", await browser.offer(), cookie)
    await browser.connection.close()
    assert status == 429, text


@pytest.mark.parametrize(
    ("offer", "status"), [(b"v=0\r\n", 406), (b"v=0\r\n" + b"m=audio\r\n", 400), (b"v" * 70_000, 413)]
)
async def test_an_offer_that_does_not_receive_is_refused(server, call, offer, status):
    cookie = await logged_in(server, "anna")
    told, _, text = await asked(server, "POST", "/api/calls/c/listen", offer, cookie)
    assert told == status, text
    await over(server)
