"""Every telephone of this file against the whole service, over real sockets: the same call comes in."""

from __future__ import annotations

import asyncio
import socket
import struct

import av
import numpy as np
import pytest
import pytest_asyncio
import websockets

from app.build import build
from app.errors import SettingsError
from app.listener import listening_socket
from app.phones import audiosocket
from app.phones.call import PhoneCall, PhoneFailed, basic, sides
from app.phones.kinds import KINDS
from app.settings import Settings
from tests.app.ingest.served import TOKEN, Quick, near, served, utterances

OURS = ("audiosocket", "asterisk", "jambonz", "fork")
SPOKEN = [("agent", 200, 3_540), ("customer", 4_099, 6_650)]
"""Of the recording below: who speaks, from when to when, milliseconds."""
META = {"agent": "8001", "queue": "理财", "customer": "****1234", "direction": "inbound", "产品": "安享"}


@pytest.fixture(scope="module")
def recording(short_call, tmp_path_factory):
    """The first two turns of a real call."""
    path = tmp_path_factory.mktemp("calls") / "two-turns.wav"
    both = sides(short_call, 8_000)
    cut = np.stack([both[channel][3_200:60_000] for channel in ("agent", "customer")], axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8_000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(cut.reshape(1, -1), "s16", "stereo")
        frame.sample_rate = 8_000
        container.mux(stream.encode(frame) + stream.encode(None))
    return path


@pytest_asyncio.fixture
async def server(tmp_path):
    async with served(tmp_path, audiosocket_port=0) as running:
        yield running


async def dial(server, kind, call):
    address = server.address if KINDS[kind].scheme == "http" else server.sockets
    return await KINDS[kind].play(address, call, Quick())


@pytest.mark.parametrize("kind", [*OURS, "twilio", "audiohook"])
async def test_a_call_comes_in_with_both_sides_its_metadata_and_its_end(server, recording, kind):
    call = PhoneCall(f"call-{kind}", recording, TOKEN, META)
    assert (await dial(server, kind, call)).call_id == call.call_id
    events = await server.ended(call.call_id)
    [started] = [one.call for one in events if one.type == "call.started"]
    assert (started.agent, started.queue, started.customer) == ("8001", "理财", "****1234")
    assert (started.direction, started.attributes["产品"]) == ("inbound", "安享")
    assert (started.protocol, started.channels) == (kind, ("agent", "customer"))
    assert near(utterances(events), SPOKEN), utterances(events)
    assert events[-1].reason == "hangup"
    # Whatever connection came second told nothing new.
    assert {str(one.call) for one in events if one.type == "call.updated" and one.call} <= {str(started)}


@pytest.mark.parametrize("kind", OURS)
async def test_without_the_token_no_call_begins_and_the_phone_says_why(server, recording, kind):
    call = PhoneCall(f"call-{kind}", recording, "wrong")
    with pytest.raises((websockets.ConnectionClosed, PhoneFailed)) as failed:
        await dial(server, kind, call)
    if isinstance(failed.value, PhoneFailed):
        assert "HTTP 401, the ingest token is missing or wrong" in str(failed.value)
    else:
        assert failed.value.rcvd.code == 4401
        assert "ingest token" in failed.value.rcvd.reason
    assert not [one for one in server.told if one.type == "call.started"]


async def test_a_phone_whose_server_hangs_up_says_so(server, recording):
    call = PhoneCall("c", recording, TOKEN)
    ringing = asyncio.create_task(dial(server, "audiosocket", call))
    async with asyncio.timeout(10):
        while not any(one.type == "call.started" for one in server.told):
            server.more.clear()
            await server.more.wait()
    await server.service.lines.assembly.hang_up("c", "customer")
    # The message that says so goes down where the phone was sending in that moment.
    with pytest.raises(PhoneFailed, match=r"the server (hung up|closed the connection); its log says why"):
        await ringing
    assert (await server.ended("c"))[-1].reason == "hangup"


async def test_a_connection_that_is_reset_is_one_that_the_server_closed():
    async def reset(reader, writer):
        # As the system does where something that was sent is not read any more.
        at_once = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        writer.close()

    async with await asyncio.start_server(reset, "127.0.0.1", 0) as peer, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", peer.sockets[0].getsockname()[1])
        told = asyncio.create_task(reader.read(3))
        await asyncio.wait([told])
        writer.close()
    assert isinstance(told.exception(), ConnectionResetError)
    assert audiosocket.how(told) == "closed the connection"


async def test_where_audiosockets_are_not_served_the_phone_is_told_how_they_are(tmp_path, recording):
    async with served(tmp_path) as server:
        with pytest.raises(PhoneFailed, match="set DUTING_AUDIOSOCKET_PORT"):
            await dial(server, "audiosocket", PhoneCall("c", recording, TOKEN))


def test_a_port_in_use_is_told_before_anything_slow(tmp_path):
    with listening_socket("127.0.0.1", 0, "x") as taken:
        settings = Settings(_env_file=None, data_dir=tmp_path, audiosocket_port=taken.getsockname()[1])
        with pytest.raises(SettingsError, match="DUTING_AUDIOSOCKET_PORT"):
            build(settings, lambda *_: None)


# ── WebSockets ────────────────────────────────────────────────────────────────────────────────────

START = "MEDIA_START connection_id:d channel:WebSocket/d/0x1 format:slin16 optimal_frame_size:640 ptime:20"
ASTERISK = "/ingest/asterisk/c/agent"
FORK = "/ingest/fork/c?side=agent&mix=mono&rate=16000"


@pytest.mark.parametrize(
    ("path", "offered", "answered"),
    [
        (ASTERISK, ["media"], "media"),
        ("/ingest/asterisk", ["mine"], "mine"),
        ("/ingest/jambonz", ["x", "audio.jambonz.org"], "audio.jambonz.org"),
        (FORK, ["audio.drachtio.org"], "audio.drachtio.org"),
        (FORK, [], None),
    ],
)
async def test_one_of_the_subprotocols_that_are_offered_is_answered(server, path, offered, answered):
    names = [websockets.Subprotocol(name) for name in offered] or None
    async with websockets.connect(server.sockets + path, subprotocols=names) as peer:
        assert peer.subprotocol == answered


@pytest.mark.parametrize("path", [ASTERISK, FORK], ids=["asterisk", "fork"])
async def test_closing_with_1000_is_a_hangup_and_anything_else_leaves_time_to_come_back(server, path):
    for code in (1001, 1000):
        async with websockets.connect(server.sockets + path, additional_headers=basic(TOKEN)) as peer:
            if path == ASTERISK:
                await peer.send(START)
            for _ in range(5):
                await peer.send(b"\x00" * 640)
            await peer.close(code)
        if code == 1001:
            async with asyncio.timeout(5):
                while "c" not in server.service.lines.assembly:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
            assert not [one for one in server.told if one.type == "call.ended"]
    events = await server.ended("c")
    assert len([one for one in events if one.type == "call.started"]) == 1
    assert events[-1].reason == "hangup"


async def test_the_token_may_stand_in_the_address(server):
    async with websockets.connect(f"{server.sockets}{ASTERISK}?token={TOKEN}&queue=loans") as peer:
        await peer.send(START)
        await peer.send(b"\x00" * 640)
    events = await server.ended("c")
    assert (events[0].call.queue, events[0].call.attributes) == ("loans", {})
