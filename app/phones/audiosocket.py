"""Asterisk's AudioSocket, as ``AudioSocket()`` of a dialplan would send a call: TCP, one connection a side.

Before, it books a UUID for each with ``CURL()``; the answer names the port that the connections go to.
"""

from __future__ import annotations

import asyncio
import json
import struct
import urllib.error
import urllib.request
from urllib.parse import urlsplit
from uuid import UUID

from app.phones.call import Clock, Pace, PhoneCall, PhoneFailed, Played, sides
from streams.events import Channel

RATE = 8_000
HANGUP, IDENTITY, SLIN = 0x00, 0x01, 0x10
"""Types of messages: the end, the UUID, audio at 8 kHz."""
MOST_UNSENT = 64 * 1024
"""Bytes. Asterisk does not wait for a server that does not read."""


async def play(address: str, call: PhoneCall, clock: Clock) -> Played:
    """Play ``call`` to the server at ``http://…``, where it is booked; returns when it is over."""
    audio = await asyncio.to_thread(sides, call.path, RATE)
    host = urlsplit(address).hostname or ""
    lines: dict[Channel, asyncio.StreamWriter] = {}
    told: list[asyncio.Task[bytes]] = []
    try:
        for channel in audio:
            uuid, port = await asyncio.to_thread(book, address, call, channel)
            reader, lines[channel] = await asyncio.open_connection(host, port)
            told.append(asyncio.create_task(reader.read(3)))
            lines[channel].write(message(IDENTITY, uuid.bytes))
        pace = Pace(len(audio["agent"]), RATE, clock)
        async for piece in pace:
            for channel, samples in audio.items():
                lines[channel].write(message(SLIN, samples[piece].astype("<i2").tobytes()))
                if lines[channel].transport.get_write_buffer_size() > MOST_UNSENT:
                    raise PhoneFailed("the server does not read")
            for ended in (one for one in told if one.done()):
                raise PhoneFailed(f"the server {how(ended)}; its log says why")
        # Asterisk says nothing at the end: it closes.
        for writer in lines.values():
            writer.close()
            await writer.wait_closed()
    finally:
        for one in told:
            one.cancel()
        await asyncio.gather(*told, return_exceptions=True)
        for writer in lines.values():
            writer.close()
    return pace.played(call.call_id)


def how(ended: asyncio.Task[bytes]) -> str:
    """What the end of a connection was. A server that closes while audio is under way resets it, and its last
    message may go down with that."""
    if isinstance(ended.exception(), ConnectionError):
        return "closed the connection"
    return "hung up" if ended.result()[:1] == bytes((HANGUP,)) else "closed the connection"


def message(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BH", kind, len(payload)) + payload


def book(address: str, call: PhoneCall, channel: Channel) -> tuple[UUID, int]:
    """A UUID for one channel, and the port of the AudioSockets; raises ``PhoneFailed``."""
    body = {"call_id": call.call_id, "channel": channel, "metadata": dict(call.metadata)}
    request = urllib.request.Request(  # noqa: S310 - the operator's own address
        f"{address}/ingest/audiosocket/calls",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json", "authorization": f"Bearer {call.token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
            given = json.load(reply)
    except urllib.error.HTTPError as error:
        raise PhoneFailed(f"the booking was refused: HTTP {error.code}, {_detail(error)}") from None
    return UUID(given["uuid"]), int(given["port"])


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["detail"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)
