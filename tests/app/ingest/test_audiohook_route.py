"""AudioHook over the real socket: who is let in, and what comes back for the agent."""

from __future__ import annotations

import asyncio
import base64

import pytest
import websockets

from app.phones import audiohook
from app.phones.call import PhoneCall, PhoneFailed
from streams.events import Hint
from tests.app.ingest.served import TOKEN, Quick, served

SECRET = b"a client secret"


def call(short_call, call_id="hooked", token=TOKEN, **metadata):
    return PhoneCall(call_id, short_call, token, metadata)


async def until(condition):
    """The loop goes round until it holds."""
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 - what it waits for has no event of its own
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("token", "secret"),
    [("wrong", None), (TOKEN, b"another"), (TOKEN, None)],
    ids=["key", "secret", "unsigned"],
)
async def test_whoever_does_not_know_key_and_secret_is_not_let_in(tmp_path, short_call, token, secret):
    async with served(tmp_path, audiohook_secret=base64.b64encode(SECRET).decode()) as server:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await audiohook.play(server.sockets, call(short_call, token=token), Quick(), secret=secret)
        assert refused.value.response.status_code == 403
        assert server.told == []


async def test_a_signed_call_comes_in_and_hints_go_back_to_its_agent(tmp_path, short_call):
    entities = []
    async with served(tmp_path, audiohook_secret=base64.b64encode(SECRET).decode()) as server:
        playing = asyncio.create_task(
            audiohook.play(server.sockets, call(short_call), Quick(), secret=SECRET, on_event=entities.append)
        )
        await until(lambda: "hooked" in server.service.lines.assembly)
        hint = Hint(id="h1", call_id="hooked", rule_id="r1", text={"zh": "请先核实身份"}, media_ms=10)
        other = Hint(id="h2", call_id="another", rule_id="r1", text={"zh": "别人的"}, media_ms=10)
        await server.service.outlet.append([hint, other])
        await until(lambda: entities)
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
    # The call itself may be told more; of the other one nothing comes here.
    answers = [one["data"]["suggestions"][0]["answer"] for one in entities]
    assert answers.count("请先核实身份") == 1
    assert "别人的" not in answers


async def test_a_call_for_which_there_is_no_room_is_told_with_a_disconnect(tmp_path, short_call):
    async with served(tmp_path, max_calls=1) as server:
        first = asyncio.create_task(audiohook.play(server.sockets, call(short_call), Quick()))
        await until(lambda: "hooked" in server.service.lines.assembly)
        with pytest.raises(PhoneFailed, match="no room"):
            await audiohook.play(server.sockets, call(short_call, "second"), Quick())
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
