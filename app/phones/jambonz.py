"""jambonz ``listen``, as jambonz sends a call: one WebSocket, stereo; and mod_audio_fork on both legs."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from urllib.parse import quote, urlencode

import numpy as np
import websockets

from app.phones.call import Clock, Pace, PhoneCall, Played, basic, sides
from streams.events import Channel

RATE = 8_000
LEGS: tuple[Channel, Channel] = ("customer", "agent")
"""The customer has called: theirs is the leg that is forked, left."""


async def play(address: str, call: PhoneCall, clock: Clock) -> Played:
    """Play ``call`` to the server at ``ws://…`` (``/ingest/jambonz`` is added); returns when it is over."""
    audio = await asyncio.to_thread(sides, call.path, RATE)
    both = np.stack([audio[channel] for channel in LEGS], axis=1).astype("<i2")
    told = {
        "sampleRate": RATE,
        "mixType": "stereo",
        "callSid": call.call_id,
        "direction": "inbound",
        "from": "anonymous",
        "to": "95588",
        "callId": f"{call.call_id}@sbc.invalid",
        "sipStatus": 200,
        "sipReason": "OK",
        "callStatus": "in-progress",
        "accountSid": "0f7a4b1c-demo",
        "applicationSid": "3c5e9d2a-demo",
        "fsSipAddress": "10.0.0.2:5060",
        **call.metadata,
    }
    async with _connect(f"{address}/ingest/jambonz", "audio.jambonz.org", call.token) as socket:
        await socket.send(json.dumps(told))
        pace = Pace(len(both), RATE, clock)
        async for piece in pace:
            await socket.send(both[piece].tobytes())
        await socket.close()
    return pace.played(call.call_id)


async def play_forks(address: str, call: PhoneCall, clock: Clock) -> Played:
    """The same with a mono fork on each leg, as ``uuid_audio_fork`` of FreeSWITCH starts them."""
    audio = await asyncio.to_thread(sides, call.path, RATE)
    async with AsyncExitStack() as stack:
        forks = {}
        for side in LEGS:
            query = urlencode({"side": side, "mix": "mono", "rate": RATE})
            url = f"{address}/ingest/fork/{quote(call.call_id)}?{query}"
            forks[side] = await stack.enter_async_context(_connect(url, "audio.drachtio.org", call.token))
            if call.metadata:
                await forks[side].send(json.dumps(dict(call.metadata)))
        pace = Pace(len(audio["agent"]), RATE, clock)
        async for piece in pace:
            for side, socket in forks.items():
                await socket.send(audio[side][piece].astype("<i2").tobytes())
        for socket in forks.values():
            await socket.close()
    return pace.played(call.call_id)


def _connect(url: str, subprotocol: str, token: str) -> websockets.connect:
    return websockets.connect(
        url,
        subprotocols=[websockets.Subprotocol(subprotocol)],
        additional_headers=basic(token),
        compression=None,
        max_queue=4,
    )
