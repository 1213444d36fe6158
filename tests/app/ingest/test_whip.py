"""WHIP with a real client of WebRTC against the whole service, and every answer that the standard names."""

from __future__ import annotations

import asyncio
import contextlib
import re
import urllib.error
import urllib.request

import pytest
import pytest_asyncio
from aioice import ice
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from hypothesis import given
from hypothesis import strategies as st

from app.ingest import whip as ingest
from app.ingest.session import Lines
from app.ingest.whip import FRAGMENT, SDP
from app.phones import whip
from app.phones.call import PhoneBusy, PhoneCall
from tests.app.ingest.served import TOKEN, served

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest_asyncio.fixture
async def server(tmp_path):
    async with served(tmp_path) as running:
        yield running


async def asked(method, url, body=None, **headers):
    """Status, headers and text of an answer."""

    def ask():
        given = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
        request = urllib.request.Request(url, data=body, method=method, headers=given)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    return await asyncio.to_thread(ask)


async def offer(*kinds, direction="sendonly"):
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        for kind in kinds:
            connection.addTransceiver(kind, direction=direction)
        await connection.setLocalDescription(await connection.createOffer())
        return connection.localDescription.sdp.encode()
    finally:
        await connection.close()


async def begun(server, call_id="c", kind="agent", track="audio"):
    url = f"{server.address}/ingest/whip/{call_id}/{kind}"
    return await asked("POST", url, await offer(track), Content_Type=SDP, **BEARER)


async def test_an_offer_is_answered_with_an_address_a_tag_and_our_candidates(server):
    status, headers, answer = await begun(server)
    assert status == 201
    assert headers["Content-Type"].startswith(SDP)
    assert headers["Location"].startswith("/ingest/whip/sessions/")
    assert headers["ETag"].startswith('"')
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "Location" in headers["Access-Control-Expose-Headers"]
    assert "a=recvonly" in answer
    assert "a=candidate:" in answer
    assert "c" in server.service.lines.assembly


async def test_a_session_that_is_deleted_has_hung_up(server):
    _, headers, _ = await begun(server)
    url = server.address + headers["Location"]
    assert (await asked("DELETE", url, Authorization=None))[0] == 401
    assert (await asked("DELETE", url, **BEARER))[0] == 200
    assert (await server.ended("c"))[-1].reason == "hangup"
    assert (await asked("DELETE", url, **BEARER))[0] == 404


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Authorization": None}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Content_Type": "text/plain"}, 415),
        ({"body": b"nonsense"}, 400),
        ({"body": b"v=0\r\n"}, 406),
        ({"body": b"\xff\xfe"}, 400),
        ({"body": b"v=0\r\n" * 20_000}, 413),
        ({"kinds": ("video",)}, 406),
        ({"kinds": ("audio", "video")}, 406),
        ({"direction": "recvonly"}, 406),
        ({"path": "c/somebody"}, 404),
        ({"path": "a%20b/agent"}, 400),
        ({"path": "c/agent?direction=up"}, 400),
        ({"path": "c/screen"}, 406),
        ({"method": "PUT"}, 405),
        ({"method": "GET"}, 405),
    ],
)
async def test_what_cannot_be_is_answered_as_the_standard_says(server, change, status):
    body = change.get("body") or await offer(
        *change.get("kinds", ("audio",)), direction=change.get("direction", "sendonly")
    )
    headers = {"Content_Type": SDP, **BEARER}
    headers |= {name: value for name, value in change.items() if name in ("Authorization", "Content_Type")}
    url = f"{server.address}/ingest/whip/{change.get('path', 'c/agent')}"
    told, answer, text = await asked(change.get("method", "POST"), url, body, **headers)
    assert told == status, text
    assert answer["Access-Control-Allow-Origin"] == "*"
    if status == 401:
        assert answer["WWW-Authenticate"] == "Bearer"
    assert "c" not in server.service.lines.assembly


async def test_an_offer_that_names_very_many_addresses_is_refused(server):
    lines = b"".join(
        b"a=candidate:1 1 udp 2113937151 192.0.2.1 %d typ host\r\n" % port for port in range(2_000, 2_060)
    )
    body = await offer("audio") + lines
    status, _, text = await asked(
        "POST", f"{server.address}/ingest/whip/c/agent", body, Content_Type=SDP, **BEARER
    )
    assert (status, "candidates" in text) == (400, True)


@given(
    st.text(max_size=200).map("v=0\r\n".__add__)
    | st.lists(
        st.sampled_from(
            [
                "m=audio 9 UDP/TLS/RTP/SAVPF 111",
                "m=video 9 UDP/TLS/RTP/SAVPF 96",
                "m=",
                "a=sendonly",
                "a=rtpmap:111 opus/48000/2",
                "a=mid:0",
                "a=candidate:",
                "a=fingerprint:sha-256 00",
                "a=setup:actpass",
                "a=ssrc:1",
                "a=fmtp:",
                "a=group:BUNDLE 0",
            ]
        ),
        max_size=12,
    ).map(lambda lines: "\r\n".join(["v=0", *lines, ""])),
    st.sampled_from(["agent", "screen"]),
)
def test_whatever_is_offered_it_is_read_or_refused(text, kind):
    with contextlib.suppress(ingest.Refused):
        [media] = ingest.checked(text, kind).media
        assert media.kind == ("video" if kind == "screen" else "audio")


async def test_candidates_may_come_later_for_the_session_that_they_belong_to(server):
    _, headers, _ = await begun(server)
    url, tag = server.address + headers["Location"], headers["ETag"]
    late = b"a=mid:0\r\na=candidate:1 1 udp 2113937151 127.0.0.1 50000 typ host\r\n"
    for match, kind, body, status in (
        (tag, FRAGMENT, late, 204),
        (None, FRAGMENT, late, 428),
        ('"another"', FRAGMENT, late, 412),
        ("*", FRAGMENT, late, 422),
        (tag, FRAGMENT, b"a=ice-ufrag:new\r\n" + late, 422),
        (tag, SDP, late, 415),
        (tag, FRAGMENT, b"nonsense", 400),
        (tag, FRAGMENT, late.replace(b"typ host", b"typ host raddr 192.0.2.1 rport x"), 400),
    ):
        told, _, text = await asked("PATCH", url, body, Content_Type=kind, If_Match=match, **BEARER)
        assert told == status, text
    assert (await asked("PATCH", url + "x", late, Content_Type=FRAGMENT, If_Match=tag, **BEARER))[0] == 404


async def test_a_browser_may_ask_what_is_allowed(server):
    status, headers, _ = await asked("OPTIONS", f"{server.address}/ingest/whip/c/agent")
    assert (status, headers["Accept-Post"]) == (204, SDP)
    assert "PATCH" in headers["Access-Control-Allow-Methods"]


async def test_a_channel_that_is_brought_already_is_refused_with_try_again(server):
    assert (await begun(server))[0] == 201
    status, headers, text = await begun(server)
    assert (status, headers["Retry-After"]) == (503, "5")
    assert "in progress already" in text


async def test_a_screen_is_taken_and_is_no_call(server):
    assert (await begun(server, kind="screen", track="video"))[0] == 201
    assert server.told == []


class Softphone:
    """Publishes silence over WHIP."""

    def __init__(self, server, kind="agent"):
        self._server, self._url = server, f"{server.address}/ingest/whip/c/{kind}"
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.states = {}

        @self.connection.on("connectionstatechange")
        def changed():
            self._state(self.connection.connectionState).set()

    def _state(self, name):
        return self.states.setdefault(name, asyncio.Event())

    async def begin(self, change=lambda sdp: sdp):
        self.connection.addTrack(AudioStreamTrack())
        await self.connection.setLocalDescription(await self.connection.createOffer())
        sent = change(self.connection.localDescription.sdp)
        status, headers, answer = await asked("POST", self._url, sent.encode(), Content_Type=SDP, **BEARER)
        assert status == 201, answer
        self.session = self._server.address + headers["Location"]
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        async with asyncio.timeout(10):
            await self._state("connected").wait()

    async def deleted(self):
        return (await asked("DELETE", self.session, **BEARER))[0]


@pytest_asyncio.fixture
async def softphone(server):
    phone = Softphone(server)
    yield phone
    await phone.connection.close()


async def left(server, call_id="c"):
    """The call has no connection any more, and is held for whoever comes back."""
    assembly, gone = server.service.lines.assembly, asyncio.Event()
    leave = assembly.leave

    async def leaving(*given):
        await leave(*given)
        gone.set()

    assembly.leave = leaving
    if assembly._calls[call_id].is_connected:
        async with asyncio.timeout(10):
            await gone.wait()
    assert not assembly._calls[call_id].is_connected
    assert not any(one.type == "call.ended" for one in server.told)


def hidden(sdp):
    """As browsers send it: their addresses are names, and there are no others."""
    out = re.sub(r"(a=candidate:\S+ \d \S+ \d+) \S+", r"\1 5b3f0c1e-77aa.local", sdp)
    assert ".local" in out
    assert "a=end-of-candidates" in out
    return out


async def test_a_browser_that_hides_its_address_is_found_by_what_it_sends(softphone):
    await softphone.begin(hidden)


async def test_a_page_that_is_left_may_come_back(server, softphone):
    await softphone.begin()
    await softphone.connection.close()
    await left(server)
    assert await softphone.deleted() == 404
    again = Softphone(server)
    await again.begin()
    assert server.service.lines.assembly._calls["c"].is_connected
    await again.connection.close()


async def test_a_network_that_fails_without_a_word_is_noticed(server, softphone, monkeypatch):
    monkeypatch.setattr(ice, "CONSENT_INTERVAL", 0.05)
    monkeypatch.setattr(ice, "CONSENT_FAILURES", 2)
    await softphone.begin()
    [transceiver] = softphone.connection.getTransceivers()
    for protocol in transceiver.sender.transport.transport._connection._protocols:
        protocol.transport.sendto = lambda *_: None
    await left(server)


async def test_a_session_that_does_not_connect_is_closed(server, monkeypatch):
    monkeypatch.setattr(ingest, "CONNECT_S", 0.05)
    _, headers, _ = await begun(server)
    await left(server)
    assert (await asked("DELETE", server.address + headers["Location"], **BEARER))[0] == 404


async def test_a_softphone_without_opus_is_told_what_is_expected(server):
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transceiver = connection.addTransceiver("audio", direction="sendonly")
    codecs = RTCRtpSender.getCapabilities("audio").codecs
    transceiver.setCodecPreferences([one for one in codecs if one.mimeType == "audio/PCMU"])
    await connection.setLocalDescription(await connection.createOffer())
    sdp = connection.localDescription.sdp.encode()
    await connection.close()
    status, _, text = await asked(
        "POST", f"{server.address}/ingest/whip/c/agent", sdp, Content_Type=SDP, **BEARER
    )
    assert status == 406
    assert "Opus" in text
    assert "c" not in server.service.lines.assembly


async def test_an_offer_of_several_codecs_is_answered_with_opus_alone(server):
    _, _, answer = await begun(server)
    assert re.findall(r"a=rtpmap:\d+ (\S+)", answer) == ["opus/48000/2"]


async def test_where_there_are_too_many_another_is_refused(server, monkeypatch):
    monkeypatch.setattr(Lines, "most_connections", 1)
    assert (await begun(server))[0] == 201
    status, headers, _ = await begun(server, kind="customer")
    assert (status, headers["Retry-After"]) == (503, "5")


async def test_a_telephone_that_finds_no_room_may_call_again(server, short_call, monkeypatch):
    monkeypatch.setattr(Lines, "most_connections", 0)
    with pytest.raises(PhoneBusy, match="no room"):
        await whip.play(server.address, PhoneCall("c", short_call, TOKEN), asyncio.get_running_loop().time)


async def test_packets_that_are_lost_and_late_leave_the_call_where_it_was(server, short_call):
    network = whip.Network(loss=0.05, jitter_s=0.1)
    playing = asyncio.create_task(
        whip.play(server.address, PhoneCall("c", short_call, TOKEN), asyncio.get_running_loop().time, network)
    )
    # The agent's first turn is enough: it ends at 3.9 s.
    async with asyncio.timeout(15):
        while not (finals := [one for one in server.told if one.type == "utterance.final"]):
            server.more.clear()
            await server.more.wait()
    playing.cancel()
    await asyncio.gather(playing, return_exceptions=True)
    assert finals[0].utterance.role == "agent"
    assert abs(finals[0].utterance.end_ms - 3_940) < 400
