"""Twilio Media Streams, as Twilio would send a call: one WebSocket, JSON, mu-law at 8 kHz."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import websockets

from app.phones.call import Clock, Pace, PhoneCall, Played, sides
from streams.audio import Samples, encode_mulaw

RATE = 8_000
CHUNK = RATE // 50
"""Samples in 20 ms."""
TRACKS = {"agent": "outbound", "customer": "inbound"}


def tracks(path: Path) -> dict[str, Samples]:
    """``inbound`` (customer) and ``outbound`` (agent) of a stereo call, int16 at 8 kHz."""
    return {TRACKS[channel]: samples for channel, samples in sides(path, RATE).items()}


async def play(address: str, call: PhoneCall, clock: Clock) -> Played:
    """Play ``call`` to the server at ``ws://…`` (``/ingest/twilio`` is added); returns when it is over."""
    audio = await asyncio.to_thread(sides, call.path, RATE)
    stream = f"MZ{call.call_id}"
    async with websockets.connect(f"{address}/ingest/twilio", max_queue=4) as socket:
        await socket.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        start = {
            "streamSid": stream,
            "accountSid": "ACdemo",
            "callSid": call.call_id,
            "tracks": ["inbound", "outbound"],
            "customParameters": {**call.metadata, "token": call.token},
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1},
        }
        await socket.send(
            json.dumps({"event": "start", "sequenceNumber": "1", "streamSid": stream, "start": start})
        )
        sequence, pace = 1, Pace(len(audio["agent"]), RATE, clock)
        async for piece in pace:
            for channel, samples in audio.items():
                sequence += 1
                media = {
                    "track": TRACKS[channel],
                    "chunk": str(piece.start // CHUNK + 1),
                    "timestamp": str(piece.start * 1000 // RATE),
                    "payload": base64.b64encode(encode_mulaw(samples[piece])).decode(),
                }
                await socket.send(
                    json.dumps(
                        {
                            "event": "media",
                            "sequenceNumber": str(sequence),
                            "streamSid": stream,
                            "media": media,
                        }
                    )
                )
        await socket.send(
            json.dumps({"event": "stop", "sequenceNumber": str(sequence + 1), "streamSid": stream})
        )
        await socket.wait_closed()
    return pace.played(call.call_id)
