"""Calls for a cluster: telephones and browsers that come back over another gateway; what one process says.

A telephone here keeps its last seconds, as a recorder does, and says them again when it comes back.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import websockets

from app.phones.twilio import CHUNK, RATE, tracks
from streams.audio import MULAW, ChannelAudio, encode_mulaw
from streams.events import Alert, AudioFrame, CallInfo, Gap, OutletEvent, Published
from streams.local import LocalRunner

KEPT_S = 16.0
"""What a telephone says again when it comes back: the longest utterance and a little more."""
AGAIN = 8.0
"""Times the pace of speech at which it does."""
COME_BACK_S = 60.0

Tracks = dict[str, np.ndarray]
CHANNELS = {"inbound": "customer", "outbound": "agent"}


@dataclass
class Telephone:
    """One call: plays ``audio`` in real time to one gateway after the other, until it is over."""

    call_id: str
    audio: Tracks
    gateways: Sequence[Callable[[], str]]
    """Their addresses now, ``http://…``; begun with the first, the next one when it is cut off."""
    token: str
    clock: Callable[[], float] = time.monotonic
    started_s: float = 0.0
    """Clock at media time 0."""
    came_back: list[float] = field(default_factory=list)
    """Seconds of the call at which it was cut off."""
    refused: int = 0
    at: int = 0
    """Samples said."""

    async def call(self) -> None:
        """Raises ``TimeoutError`` when no gateway takes it for ``COME_BACK_S``."""
        length = max(len(samples) for samples in self.audio.values())
        turn, cut_s = 0, None
        self.started_s = self.clock()
        while self.at < length:
            address = self.gateways[turn % len(self.gateways)]().replace("http", "ws", 1)
            try:
                async with websockets.connect(f"{address}/ingest/twilio", open_timeout=5) as socket:
                    await self._begin(socket)
                    if cut_s is not None:
                        self.at = max(0, self.at - int(KEPT_S * RATE) // CHUNK * CHUNK)
                    cut_s = None
                    await self._say(socket, length)
                    await socket.send(json.dumps({"event": "stop", "streamSid": self.call_id}))
                    with suppress(websockets.ConnectionClosed):
                        await asyncio.wait_for(socket.wait_closed(), 30)
                    return
            except websockets.ConnectionClosedOK:
                return  # somebody has hung up
            except (OSError, websockets.WebSocketException, TimeoutError) as error:
                closed = getattr(error, "rcvd", None)
                self.refused += closed is not None and closed.code == 1013
                now = self.clock()
                if cut_s is None:
                    cut_s = now
                    self.came_back.append(round(now - self.started_s, 2))
                if now - cut_s > COME_BACK_S:
                    raise TimeoutError(f"{self.call_id}: no gateway takes it") from None
                turn += 1
                await asyncio.sleep(0.25)

    async def _begin(self, socket: websockets.ClientConnection) -> None:
        form = {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1}
        start = {
            "streamSid": self.call_id,
            "callSid": self.call_id,
            "tracks": list(self.audio),
            "customParameters": {"agent": "8001", "queue": "理财专线", "token": self.token},
            "mediaFormat": form,
        }
        await socket.send(json.dumps({"event": "connected", "protocol": "Call"}))
        await socket.send(json.dumps({"event": "start", "start": start, "streamSid": self.call_id}))

    async def _say(self, socket: websockets.ClientConnection, length: int) -> None:
        """Say chunk after chunk; what is overdue at ``AGAIN`` times the pace of speech."""
        last = self.clock()
        for position in range(self.at, length, CHUNK):
            due = self.started_s + (position + CHUNK) / RATE
            soonest = last + CHUNK / RATE / AGAIN
            now = self.clock()
            await asyncio.sleep(max(0.0, max(due, soonest) - now))
            last = max(due, soonest) if now - last < 1 else now
            for track, samples in self.audio.items():
                piece = samples[position : position + CHUNK]
                if len(piece):
                    media = {
                        "track": track,
                        "chunk": str(position // CHUNK + 1),
                        "timestamp": str(position * 1000 // RATE),
                        "payload": base64.b64encode(encode_mulaw(piece)).decode(),
                    }
                    message = {"event": "media", "media": media, "streamSid": self.call_id}
                    await socket.send(json.dumps(message))
            self.at = position + CHUNK


@dataclass
class Browser:
    """A supervisor's page: resumes by its cursor, at the next gateway when it is cut off."""

    gateways: Sequence[Callable[[], str]]
    cookie: str
    clock: Callable[[], float] = time.monotonic
    cursor: int | None = None
    stored: list[Published] = field(default_factory=list)
    """Events that have a cursor of their own, in the order in which they came."""
    raised: dict[str, list[tuple[float, Alert]]] = field(default_factory=dict)
    """By alert: each time that it was shown as new."""
    state: dict[str, Alert] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    """Call → reason."""
    twice: list[int] = field(default_factory=list)
    """Cursors that came again."""
    missed: list[tuple[int, int]] = field(default_factory=list)
    resyncs: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    arrivals: list[float] = field(default_factory=list)

    async def listen(self) -> None:
        turn = 0
        while True:
            address = self.gateways[turn % len(self.gateways)]()
            url = address.replace("http", "ws", 1) + "/api/events"
            if self.cursor is not None:
                url += f"?cursor={self.cursor}"
            headers = {"cookie": self.cookie, "origin": address}
            try:
                async with websockets.connect(
                    url, additional_headers=headers, max_queue=2048, open_timeout=5
                ) as socket:
                    async for text in socket:
                        self._note(str(text))
            except (OSError, websockets.WebSocketException, TimeoutError):
                turn += 1
            await asyncio.sleep(0.2)

    def _note(self, text: str) -> None:
        now = self.clock()
        plain = json.loads(text)
        kind = plain["type"]
        if kind == "hello":
            self.connected.set()
            if self.cursor is None:
                self.cursor = plain.get("cursor")
            return
        if kind == "heartbeat":
            return
        if kind == "resync":
            self.resyncs += 1
            return
        event = msgspec.json.decode(text, type=Published)
        if kind not in ("utterance.partial", "health") and not plain.get("speaking"):
            if self.cursor is not None and event.cursor <= self.cursor:
                self.twice.append(event.cursor)
            elif self.cursor is not None and event.cursor != self.cursor + 1:
                self.missed.append((self.cursor, event.cursor))
            self.cursor = max(self.cursor or 0, event.cursor)
            self.stored.append(event)
        if isinstance(event.alert, Alert):
            self.state[event.alert.id] = event.alert
            if event.type == "alert.raised":
                self.raised.setdefault(event.alert.id, []).append((now, event.alert))
        if event.type == "call.ended":
            self.ended[event.call_id or ""] = str(event.reason)
        self.arrivals.append(now)
        self.heard.set()

    async def all_ended(self, ids: set[str]) -> None:
        while not ids <= self.ended.keys():
            self.heard.clear()
            await self.heard.wait()

    def standing(self) -> dict[str, Alert]:
        """Alerts that were not taken back, by id."""
        return {name: alert for name, alert in self.state.items() if alert.state != "withdrawn"}


def load(path: Path, seconds: float | None = None) -> Tracks:
    """A stereo call, or its first seconds."""
    most = None if seconds is None else int(seconds * RATE)
    return {track: samples[:most] for track, samples in tracks(path).items()}


def frames(call_id: str, audio: Tracks) -> list[AudioFrame | Gap]:
    """What an ingest edge makes of the call, both channels side by side."""
    lines = {
        track: ChannelAudio(call_id, CHANNELS[track], RATE, MULAW)  # type: ignore[arg-type]
        for track in audio
    }
    out: list[AudioFrame | Gap] = []
    for position in range(0, max(map(len, audio.values())), CHUNK * 5):
        for track, samples in audio.items():
            piece = samples[position : position + CHUNK * 5]
            if len(piece):
                number, at = position // (CHUNK * 5), position * 1000 // RATE
                lines[track].put(number, at, encode_mulaw(piece))
                out += lines[track].take()
    return [*out, *(item for line in lines.values() for item in line.flush())]


def sound(call_id: str, audio: Tracks) -> dict[str, np.ndarray]:
    """What the listeners hear of a call, int16 at 16 kHz, by channel."""
    parts: dict[str, list[np.ndarray]] = {channel: [] for channel in CHANNELS.values()}
    for item in frames(call_id, audio):
        if isinstance(item, AudioFrame):
            parts[item.channel].append(np.frombuffer(item.pcm, np.int16))
    return {channel: np.concatenate(pieces) for channel, pieces in parts.items()}


async def alone(runner: LocalRunner, calls: dict[str, Tracks]) -> None:
    """The same calls through one process, as fast as they go."""
    await runner.start()
    for call_id, audio in calls.items():
        info = CallInfo(call_id=call_id, protocol="twilio", agent="8001", queue="理财专线")
        runner.open(info, paced=False)
        for item in frames(call_id, audio):
            runner.hear(item)
            await runner.ready()
        await runner.close(call_id, "hangup")
    await runner.stop()


def standing(events: Sequence[OutletEvent]) -> dict[str, Alert]:
    """Of all that one process told: alerts as they are at the end, by id."""
    last = {event.id: event for event in events if isinstance(event, Alert)}
    return {name: alert for name, alert in last.items() if alert.state != "withdrawn"}
