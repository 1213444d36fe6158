"""Genesys AudioHook, as Genesys Cloud would send a call: one WebSocket, both channels interleaved."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import websockets

from app.ingest.signature import SIGNED, sign
from app.phones.call import Clock, Pace, PhoneCall, PhoneFailed, Played, sides
from streams.audio import encode_mulaw

RATE = 8_000
PATH = "/ingest/audiohook"
TOGETHER = 5
"""Chunks of 20 ms in one message."""
PING_S = 5.0
ANSWER_S = 5.0
"""Genesys waits so long for ``opened`` and for ``closed``."""
MEDIA = [
    {"type": "audio", "format": "PCMU", "channels": channels, "rate": RATE}
    for channels in (["external", "internal"], ["external"], ["internal"])
]


class Session:
    """The client's half of a session: numbers what it sends, reads what comes."""

    def __init__(
        self, socket: websockets.ClientConnection, session_id: str, on_event: Callable[[Any], None]
    ) -> None:
        self._socket, self._id, self._on_event = socket, session_id, on_event
        self._seq = self._serverseq = 0
        self.position = 0
        """Samples sent."""
        self.opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def say(self, kind: str, parameters: Any) -> None:
        self._seq += 1
        message = {
            "version": "2",
            "id": self._id,
            "type": kind,
            "seq": self._seq,
            "serverseq": self._serverseq,
            "position": f"PT{self.position / RATE:.3f}S",
            "parameters": parameters,
        }
        await self._socket.send(json.dumps(message))

    async def read(self) -> None:
        """Until the server is done; raises ``PhoneFailed`` where it disconnects."""
        async for text in self._socket:
            message = json.loads(text)
            self._serverseq = message["seq"]
            match message["type"]:
                case "opened":
                    self.opened.set_result(message["parameters"])
                case "closed":
                    self.closed.set_result(None)
                case "event":
                    for entity in message["parameters"]["entities"]:
                        self._on_event(entity)
                case "disconnect":
                    told = message["parameters"]
                    raise PhoneFailed(f"the server ended the call: {told['reason']}, {told.get('info', '')}")

    async def ping(self) -> None:
        while True:
            await asyncio.sleep(PING_S)
            await self.say("ping", {"rtt": "PT0.01S"})


def headers(call: PhoneCall, session_id: str, host: str, secret: bytes | None) -> dict[str, str]:
    """Of the handshake, signed where there is a secret."""
    out = {
        "Audiohook-Organization-Id": str(uuid.uuid5(uuid.NAMESPACE_DNS, "duting.example")),
        "Audiohook-Session-Id": session_id,
        "Audiohook-Correlation-Id": str(uuid.uuid4()),
        "X-API-KEY": call.token,
    }
    if secret is not None:
        values = {name.lower(): value for name, value in out.items()}
        values |= {"@request-target": PATH, "@authority": host}
        names, now = " ".join(f'"{name}"' for name in SIGNED), int(time.time())
        parameters = (
            f'({names});keyid="{call.token}";nonce="{secrets.token_urlsafe(24)}";alg="hmac-sha256"'
            f";created={now};expires={now + 10}"
        )
        out["Signature-Input"] = f"sig1={parameters}"
        out["Signature"] = f"sig1=:{sign(parameters, SIGNED, values, secret)}:"
    return out


async def play(
    address: str,
    call: PhoneCall,
    clock: Clock,
    *,
    secret: bytes | None = None,
    on_event: Callable[[Any], None] = lambda entity: None,
) -> Played:
    """Play ``call`` to the server at ``ws://…``; ``on_event`` is given what comes back for the agent."""
    audio = await asyncio.to_thread(sides, call.path, RATE)
    session_id = str(uuid.uuid4())
    given = headers(call, session_id, address.partition("://")[2], secret)
    async with websockets.connect(f"{address}{PATH}", additional_headers=given) as socket:
        session = Session(socket, session_id, on_event)
        reading = asyncio.create_task(session.read())
        pinging = asyncio.create_task(session.ping())
        try:
            await session.say(
                "open",
                {
                    "organizationId": given["Audiohook-Organization-Id"],
                    "conversationId": call.call_id,
                    "participant": {
                        "id": str(uuid.uuid4()),
                        "ani": "+8613800000000",
                        "aniName": "",
                        "dnis": "+95588",
                    },
                    "media": MEDIA,
                    "language": "zh-CN",
                    "customConfig": dict(call.metadata),
                },
            )
            await _answered(session.opened, reading)
            pace = Pace(len(audio["agent"]), RATE, clock)
            together: list[np.ndarray] = []
            last = len(audio["agent"])
            async for piece in pace:
                together.append(np.stack([audio["customer"][piece], audio["agent"][piece]], axis=1))
                if len(together) < TOGETHER and piece.stop < last:
                    continue
                samples = np.concatenate(together)
                together = []
                if reading.done():
                    reading.result()
                await socket.send(encode_mulaw(samples.reshape(-1)))
                session.position += len(samples)
            await session.say("close", {"reason": "end"})
            await _answered(session.closed, reading)
        finally:
            for task in (reading, pinging):
                task.cancel()
            await asyncio.gather(reading, pinging, return_exceptions=True)
    return pace.played(call.call_id)


async def _answered(answer: asyncio.Future[Any], reading: asyncio.Task[None]) -> None:
    """Wait for an answer; what ended the reading is why none comes."""
    await asyncio.wait((answer, reading), timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
    if answer.done():
        return
    if reading.done():
        reading.result()
        raise PhoneFailed("the server closed the connection without an answer")
    raise PhoneFailed(f"the server did not answer within {ANSWER_S:.0f} s")
