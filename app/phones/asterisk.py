"""Asterisk's chan_websocket, as ``Dial(WebSocket/…)`` would send a call: a WebSocket for each side."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from urllib.parse import urlencode

import websockets

from app.phones.call import Clock, Pace, PhoneCall, Played, basic, sides
from streams.audio import encode_mulaw

RATE = 8_000


async def play(address: str, call: PhoneCall, clock: Clock) -> Played:
    """Play ``call`` to the server at ``ws://…`` (``/ingest/asterisk`` is added); returns when it is over."""
    audio = await asyncio.to_thread(sides, call.path, RATE)
    async with AsyncExitStack() as stack:
        lines = {}
        for number, channel in enumerate(audio):
            # What v(…) of the dial string adds to the address of websocket_client.conf.
            query = urlencode({"call_id": call.call_id, "channel": channel, **call.metadata})
            socket = await stack.enter_async_context(
                websockets.connect(
                    f"{address}/ingest/asterisk?{query}",
                    subprotocols=[websockets.Subprotocol("media")],
                    additional_headers=basic(call.token),
                    compression=None,
                    max_queue=4,
                )
            )
            await socket.send(
                f"MEDIA_START connection_id:duting channel:WebSocket/duting/0x7f5a{number:08x} "
                f"channel_id:1716984212.{number} format:ulaw optimal_frame_size:160 ptime:20"
            )
            lines[channel] = socket
        pace = Pace(len(audio["agent"]), RATE, clock)
        async for piece in pace:
            for channel, samples in audio.items():
                await lines[channel].send(encode_mulaw(samples[piece]))
        for socket in lines.values():
            await socket.close()
    return pace.played(call.call_id)
