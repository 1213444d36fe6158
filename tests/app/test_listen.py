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


async def asked(server, method, path, body=None, cookie=None, kind="application/sdp"):
    def ask():
        headers = {"Content-Type": kind, "Origin": server.address}
        if cookie is not None:
            headers["Cookie"] = cookie
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


async def test_a_supervisor_hears_the_call_and_it_is_written_down(server, call):
    cookie, browser = await logged_in(server, "anna"), Browser()
    status, headers, sdp = await asked(server, "POST", "/api/calls/c/listen", await browser.offer(), cookie)
    assert status == 201, sdp
    await browser.answered(sdp)
    async with asyncio.timeout(10):
        await browser.heard.wait()
    entries = [(one.username, one.action) for one in server.service.store.audit.about("c")]
    assert ("anna", "call.listened") in entries
    assert (await asked(server, "DELETE", headers["Location"], cookie=cookie))[0] == 200
    await browser.connection.close()


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


async def test_an_offer_that_does_not_receive_is_refused(server, call):
    cookie = await logged_in(server, "anna")
    status, _, text = await asked(server, "POST", "/api/calls/c/listen", b"v=0\r\n", cookie)
    assert status == 415, text
