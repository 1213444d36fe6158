"""A telephone for the demo: plays a recording in real time as Twilio Media Streams would send it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import websockets

from streams.audio import encode_mulaw

RATE = 8_000
CHUNK = RATE // 50
"""Samples in 20 ms."""


def tracks(path: Path) -> dict[str, np.ndarray]:
    """``inbound`` (customer) and ``outbound`` (agent) of a stereo call, int16 at 8 kHz."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s16p", layout="stereo", rate=RATE)
        planes = [f.to_ndarray() for frame in container.decode(audio=0) for f in resampler.resample(frame)]
        planes += [f.to_ndarray() for f in resampler.resample(None)]
    both = np.concatenate(planes, axis=1)
    return {"outbound": both[0], "inbound": both[1]}


@dataclass(frozen=True)
class Played:
    call_id: str
    started_s: float
    """Clock at media time 0."""
    worst_lag_s: float
    """How late the phone itself was at worst: a measurement is only as good as this."""


async def play(
    address: str,
    call_id: str,
    path: Path,
    parameters: Mapping[str, str],
    clock: Callable[[], float],
) -> Played:
    """Play ``path`` to ``ws://…/ingest/twilio`` at the speed of speech; returns when the call is over.

    Each 20 ms chunk is sent when its last sample would have been spoken.
    """
    # Decoding a call takes as long as a dozen chunks: other calls on this loop must not wait for it.
    audio = await asyncio.to_thread(tracks, path)
    length = max(len(samples) for samples in audio.values())
    async with websockets.connect(address, max_queue=4) as socket:
        await socket.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        await socket.send(
            json.dumps(
                {
                    "event": "start",
                    "sequenceNumber": "1",
                    "streamSid": f"MZ{call_id}",
                    "start": {
                        "streamSid": f"MZ{call_id}",
                        "accountSid": "ACdemo",
                        "callSid": call_id,
                        "tracks": ["inbound", "outbound"],
                        "customParameters": dict(parameters),
                        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1},
                    },
                }
            )
        )
        started, worst, sequence = clock(), 0.0, 1
        for number, position in enumerate(range(0, length, CHUNK)):
            due = started + (position + CHUNK) / RATE
            await asyncio.sleep(max(0.0, due - clock()))
            worst = max(worst, clock() - due)
            for track, samples in audio.items():
                piece = samples[position : position + CHUNK]
                if not len(piece):
                    continue
                sequence += 1
                await socket.send(
                    json.dumps(
                        {
                            "event": "media",
                            "sequenceNumber": str(sequence),
                            "streamSid": f"MZ{call_id}",
                            "media": {
                                "track": track,
                                "chunk": str(number + 1),
                                "timestamp": str(position * 1000 // RATE),
                                "payload": base64.b64encode(encode_mulaw(piece)).decode(),
                            },
                        }
                    )
                )
        await socket.send(
            json.dumps({"event": "stop", "sequenceNumber": str(sequence + 1), "streamSid": f"MZ{call_id}"})
        )
        await socket.wait_closed()
    return Played(call_id, started, worst)
