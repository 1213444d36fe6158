"""A softphone or browser that publishes over WHIP: two sessions of WebRTC, one for each channel, Opus."""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import random
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urljoin

import av
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from app.phones.call import Clock, Pace, PhoneBusy, PhoneCall, PhoneFailed, Played, sides
from streams.audio import Samples
from streams.events import Channel

RATE = 48_000
CONNECT_S = 10.0
ANSWER_S = 15.0


@dataclass(frozen=True)
class Network:
    """What happens to packets on their way; the same each time for a ``seed``."""

    loss: float = 0.0
    """Share of packets that never come, 0 to 1."""
    jitter_s: float = 0.0
    """Each packet is late by up to so much, so that some overtake others."""
    seed: int = 1


class Sound(MediaStreamTrack):
    """A track that says what it is given, when it is given."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        # Whoever fills it goes at the pace of speech, and so does the sender that empties it.
        self._frames: asyncio.Queue[av.AudioFrame | None] = asyncio.Queue(50)
        self._at = 0

    async def say(self, samples: Samples) -> None:
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._at, fractions.Fraction(1, RATE)
        self._at += len(samples)
        await self._frames.put(frame)

    async def end(self) -> None:
        await self._frames.put(None)

    async def recv(self) -> av.AudioFrame:
        frame = await self._frames.get()
        if frame is None:
            raise MediaStreamError
        return frame


class Line:
    """One channel's session."""

    def __init__(self, channel: Channel, network: Network) -> None:
        self.sound, self._channel, self._network = Sound(), channel, network
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._connected = asyncio.Event()
        self._address = ""

    async def begin(self, address: str, call: PhoneCall) -> None:
        connection = self._connection
        sender = connection.addTrack(self.sound)
        connection.getTransceivers()[0].direction = "sendonly"

        @connection.on("connectionstatechange")
        def changed() -> None:
            if connection.connectionState in ("connected", "failed", "closed"):
                self._connected.set()

        await connection.setLocalDescription(await connection.createOffer())
        query = urlencode(call.metadata)
        url = f"{address}/ingest/whip/{quote(call.call_id)}/{self._channel}{'?' + query if query else ''}"
        location, answer = await asyncio.to_thread(
            asked, "POST", url, call.token, connection.localDescription.sdp.encode()
        )
        self._address = urljoin(url, location)
        await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._connected.wait()
        except TimeoutError:
            raise PhoneFailed(f"no connection to {address} within {CONNECT_S:.0f} s") from None
        if connection.connectionState != "connected":
            raise PhoneFailed(f"the connection to {address} failed")
        self._disturb(sender.transport)

    def _disturb(self, transport) -> None:  # type: ignore[no-untyped-def]
        """Let packets be lost and late, as the network would."""
        network, send = self._network, transport._send_rtp
        if not network.loss and not network.jitter_s:
            return
        chance = random.Random(f"{network.seed}:{self._channel}")  # noqa: S311 - the same each time
        late: set[asyncio.Task[None]] = set()

        async def later(data: bytes, seconds: float) -> None:
            await asyncio.sleep(seconds)
            with contextlib.suppress(ConnectionError):  # it has been closed meanwhile
                await send(data)

        async def disturbed(data: bytes) -> None:
            if chance.random() < network.loss:
                return
            task = asyncio.create_task(later(data, chance.random() * network.jitter_s))
            late.add(task)
            task.add_done_callback(late.discard)

        transport._send_rtp = disturbed

    async def end(self, token: str) -> None:
        await asyncio.to_thread(asked, "DELETE", self._address, token, b"")

    async def aclose(self) -> None:
        await self._connection.close()


def asked(method: str, url: str, token: str, body: bytes) -> tuple[str, str]:
    """One request; returns the answer's ``Location`` and body. Raises ``PhoneFailed``."""
    request = urllib.request.Request(  # noqa: S310 - the operator's own address
        url,
        data=body or None,
        method=method,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"},
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as reply:  # noqa: S310
            return reply.headers.get("Location", ""), reply.read().decode()
    except urllib.error.HTTPError as error:
        failed = PhoneBusy if error.code == 503 else PhoneFailed
        raise failed(f"the server refused: HTTP {error.code}, {error.read().decode()[:200]}") from None


async def play(address: str, call: PhoneCall, clock: Clock, network: Network = Network()) -> Played:
    """Play ``call`` to the server at ``http://…``; returns when it is over."""
    audio = await asyncio.to_thread(sides, call.path, RATE)
    lines = {channel: Line(channel, network) for channel in audio}
    try:
        for line in lines.values():
            await line.begin(address, call)
        pace = Pace(len(audio["agent"]), RATE, clock)
        async for piece in pace:
            for channel, line in lines.items():
                await line.sound.say(audio[channel][piece])
        # What is on its way is still to come in.
        await asyncio.sleep(0.3 + network.jitter_s)
        for line in lines.values():
            await line.end(call.token)
    finally:
        for line in lines.values():
            await line.aclose()
    return pace.played(call.call_id)
