"""The telephones of a benchmark: one process that plays N paced calls at once.

``python -m benchmarks.load --address ws://HOST:PORT --calls N --seconds S --out FILE`` (the ingest token
comes on standard input; ``--protocol``: one of ``benchmarks.wires``). Each of N lines plays a seeded order of
scripted calls back to back, every call with connections of its own, until S seconds are over; what no longer
fits is hung up behind a turn.

It runs on the same cores as the server, so it must cost little: every message is encoded and masked before
the first call, calls start on a grid of 5 ms and one task serves all of them, one ``write`` per connection
and 20 ms. It says what it cost and how late it was at worst: a run in which a telephone was more than
``VALID_LAG_S`` late measures the telephone and is not valid.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from app.demo import truth
from app.demo.run import METADATA
from app.errors import DutingError
from benchmarks.material import TWILIO, Material, fitting, material
from benchmarks.wires import CHUNK_S, WIRES, Call, Leg, Wire

GRID_S = 0.005
SLOTS = round(CHUNK_S / GRID_S)
VALID_LAG_S = 0.1
LATE_S = 0.002
"""Delays from here on are written down, so that a phrase's end is when it was really sent."""
PAUSE_S = 0.5
"""Between two calls of a line."""
AGAIN_S = 5.0
"""A line whose call was refused tries its next one so much later."""
UNREAD_BYTES = 1 << 20
"""A server that leaves so much unread (twenty seconds of a call) has stopped listening to it."""
ANSWER_TIMEOUT_S = 10.0
GRACE_S = 0.3
"""A refusal may come as an answer to the start message: the line listens for so long before it speaks."""


class Played(msgspec.Struct, frozen=True):
    """One stream."""

    call_id: str
    name: str
    """Of the scripted call."""
    line: int
    started_s: float
    """Clock at media time 0."""
    seconds: float
    """Of the call that were sent."""
    outcome: str
    """``hangup``: all was sent; ``refused``: no room for it; ``broken``: cut off by the server."""
    code: int | None = None
    """WebSocket close code, when the server ended it."""
    message: str = ""
    """What the server said then."""


class LoadReport(msgspec.Struct):
    """What was played. Clocks are ``time.monotonic``, which all processes of a machine share."""

    begun_s: float
    ended_s: float
    cpu_s: float
    worst_lag_s: float
    late: dict[int, float]
    """Ticks of the grid (since ``begun_s``) at which a chunk went out late, and by how much."""
    calls: list[Played]
    turns: dict[str, tuple[truth.Turn, ...]]
    """By scripted call, with the times as played."""
    together: int = 1
    """Chunks that go out in one message."""

    @property
    def valid(self) -> bool:
        return self.worst_lag_s <= VALID_LAG_S

    def sent_s(self, call: Played, media_s: float) -> float:
        """Clock at which the sample at ``media_s`` of a call was sent, with the chunk it stands in."""
        message_s = CHUNK_S * self.together
        chunk = max(1, -int(-media_s // message_s)) * self.together - 1
        due = call.started_s + (chunk + 1) * CHUNK_S
        return due + self.late.get(round((due - self.begun_s) / GRID_S), 0.0)


def orders(names: Sequence[str], seed: int, line: int) -> Iterator[str]:
    """The calls of a line without end: every call once, shuffled, before any comes again."""
    # Lines of one run differ, and the first N lines are the same ones in a run of more.
    chance = random.Random(f"{seed}:{line}")
    while True:
        yield from chance.sample(names, len(names))


class Telephone(asyncio.Protocol):
    """One connection to the server. Once it is open, chunks go straight to ``transport``."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in (self.opened, self.closed):
            if not waiting.done():
                waiting.set_result(None)

    @property
    def listening(self) -> bool:
        """Whether the server still takes what is sent."""
        return not self.transport.is_closing()

    @property
    def code(self) -> int | None:
        """Of the WebSocket's close frame."""
        return None

    @property
    def reason(self) -> str:
        return ""

    def hang_up(self) -> None:
        self.transport.close()


class WebTelephone(Telephone):
    """One WebSocket."""

    def __init__(self, leg: Leg) -> None:
        super().__init__()
        chosen = [Subprotocol(leg.subprotocol)] if leg.subprotocol else None
        self._web = ClientProtocol(parse_uri(leg.url), subprotocols=chosen)
        self._headers = leg.headers
        self.message = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        request = self._web.connect()
        request.headers.update(self._headers)
        self._web.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._web.receive_data(data)
        for event in self._web.events_received():
            if isinstance(event, Response):
                if not self.opened.done():
                    self.opened.set_result(None)
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self.message = bytes(event.data).decode(errors="replace")
        self._flush()

    def eof_received(self) -> None:
        self._web.receive_eof()
        self._flush()

    @property
    def listening(self) -> bool:
        return self._web.state is State.OPEN and not self.transport.is_closing()

    @property
    def code(self) -> int | None:
        closed = self._web.close_rcvd
        return closed.code if closed else None

    @property
    def reason(self) -> str:
        """What the server said at the end: its error message, else the close frame's reason."""
        try:
            told = msgspec.json.decode(self.message)["message"]
        except (msgspec.DecodeError, KeyError, TypeError):
            told = ""
        closed = self._web.close_rcvd
        return str(told or (closed.reason if closed else "") or self._web.handshake_exc or "")

    def hang_up(self) -> None:
        # A server that refused the call late has said goodbye itself.
        if self._web.state is State.OPEN:
            self._web.send_close(1000)
            self._flush()

    def _flush(self) -> None:
        for data in self._web.data_to_send():
            if data:
                self.transport.write(data)
            elif self.transport.can_write_eof():
                self.transport.write_eof()


async def connect(leg: Leg) -> Telephone:
    """An open connection; it may have been refused already."""
    loop, url = asyncio.get_running_loop(), urlsplit(leg.url)
    make = Telephone if url.scheme == "tcp" else lambda: WebTelephone(leg)
    phone: Telephone
    _, phone = await loop.create_connection(make, url.hostname, url.port)
    await phone.opened
    return phone


class Stream:
    """A call in progress: what is next to be sent, and whether it is over."""

    def __init__(self, phones: Sequence[Telephone], legs: Sequence[Sequence[bytes]]) -> None:
        self._legs = list(zip(phones, legs, strict=True))
        self.chunks = len(legs[0])
        self.sent = 0
        self.over = asyncio.Event()

    def send(self) -> None:
        """The next 20 ms; sets ``over`` behind the last one or when the server has hung up."""
        for phone, chunks in self._legs:
            transport = phone.transport
            if not phone.listening or transport.get_write_buffer_size() > UNREAD_BYTES:
                self.over.set()
                return
            if chunk := chunks[self.sent]:
                transport.write(chunk)
        self.sent += 1
        if self.sent == self.chunks:
            self.over.set()


class Exchange:
    """Sends every stream's chunks on time: the one clock of all calls."""

    def __init__(self) -> None:
        self._slots: list[list[Stream]] = [[] for _ in range(SLOTS)]
        self._tick = 0
        self.begun_s = 0.0
        self.worst_lag_s = 0.0
        self.late: dict[int, float] = {}

    def add(self, stream: Stream) -> float:
        """Begin a stream at the next tick; returns the clock at its media time 0."""
        tick = self._tick + 1
        self._slots[tick % SLOTS].append(stream)
        # Its first chunk goes out when its last sample would have been spoken.
        return self.begun_s + tick * GRID_S - CHUNK_S

    async def run(self) -> None:
        clock = time.monotonic
        self.begun_s = clock()
        while True:
            self._tick += 1
            due = self.begun_s + self._tick * GRID_S
            if (wait := due - clock()) > 0:
                await asyncio.sleep(wait)
            elif self._tick % 64 == 0:
                # Catching up must not keep answers from being read.
                await asyncio.sleep(0)
            streams = self._slots[self._tick % SLOTS]
            if not streams:
                continue
            lag = clock() - due
            if lag > LATE_S:
                self.late[self._tick] = round(lag, 4)
                self.worst_lag_s = max(self.worst_lag_s, lag)
            for stream in streams:
                stream.send()
            if any(stream.over.is_set() for stream in streams):
                streams[:] = [stream for stream in streams if not stream.over.is_set()]


class Load:
    """Plays; ``run`` returns when the last call is over.

    Args:
        until_s: for each line, when it stops, in seconds since the beginning.
        starts_s: for each line, when it starts.
        once: every scripted call once, shared out among the lines, whatever ``until_s`` says.
    """

    def __init__(
        self,
        address: str,
        token: str,
        materials: Sequence[Material],
        *,
        starts_s: Sequence[float],
        until_s: Sequence[float],
        seed: int,
        once: bool,
        again_s: float = AGAIN_S,
        wire: Wire = TWILIO,
    ) -> None:
        self._address, self._token, self._wire = address, token, wire
        self._materials = {m.call.name: m for m in materials}
        self._starts_s, self._until_s, self._seed = starts_s, until_s, seed
        self._waiting = deque(sorted(self._materials)) if once else None
        self._again_s = again_s
        self._exchange = Exchange()
        self._run = uuid.uuid4().hex[:6]
        self._placed = 0
        self.calls: list[Played] = []

    async def run(self) -> LoadReport:
        ticking = asyncio.create_task(self._exchange.run())
        await asyncio.sleep(0)
        cpu = time.process_time()
        try:
            await asyncio.gather(*(self._line(number) for number in range(len(self._starts_s))))
        finally:
            ticking.cancel()
        return LoadReport(
            begun_s=self._exchange.begun_s,
            ended_s=time.monotonic(),
            cpu_s=time.process_time() - cpu,
            worst_lag_s=self._exchange.worst_lag_s,
            late=self._exchange.late,
            calls=self.calls,
            turns={name: m.call.turns for name, m in self._materials.items()},
            together=self._wire.together,
        )

    async def _line(self, number: int) -> None:
        await asyncio.sleep(self._starts_s[number])
        order = orders(sorted(self._materials), self._seed, number)
        while True:
            if self._waiting is not None:
                if not self._waiting:
                    return
                name = self._waiting.popleft()
                remaining = float("inf")
            else:
                name = next(order)
                remaining = self._left_s(number) - GRACE_S
            chosen = self._materials[name]
            seconds = fitting(chosen.call, chosen.seconds, remaining)
            if seconds is None:
                return
            played = await self._call(chosen, number, seconds)
            self.calls.append(played)
            if played.outcome == "refused" and self._waiting is not None:
                self._waiting.append(name)
            pause = self._again_s if played.outcome == "refused" else PAUSE_S
            if self._waiting is None and self._left_s(number) < pause:
                return
            await asyncio.sleep(pause)

    def _left_s(self, line: int) -> float:
        return self._exchange.begun_s + self._until_s[line] - time.monotonic()

    async def _call(self, chosen: Material, line: int, seconds: float) -> Played:
        self._placed += 1
        call_id = f"{chosen.call.name}-{self._run}-{self._placed}"
        call = Call(call_id, chosen.call.name, self._token, METADATA[self._placed % len(METADATA)])
        began = time.monotonic()
        phones: list[Telephone] = []

        def ended(outcome: str, sent_s: float, started_s: float) -> Played:
            code = next((phone.code for phone in phones if phone.code is not None), None)
            message = next((phone.reason for phone in phones if phone.reason), "")
            if not phones:
                message = "no connection"
            if outcome == "hangup":
                code, message = None, ""
            return Played(call_id, chosen.call.name, line, started_s, sent_s, outcome, code, message)

        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                legs = await self._wire.place(self._address, call)
                for leg in legs:
                    phone = await connect(leg)
                    phones.append(phone)
                    if phone.listening:
                        phone.transport.write(leg.hello)
        except (OSError, TimeoutError, DutingError):
            await self._hung_up(phones)
            return ended("refused", 0.0, began)
        await asyncio.wait(
            [phone.closed for phone in phones], timeout=GRACE_S, return_when=asyncio.FIRST_COMPLETED
        )
        if not all(phone.listening for phone in phones):
            await self._hung_up(phones)
            return ended("refused", 0.0, began)
        count = max(self._wire.together, round(seconds / CHUNK_S))
        stream = Stream(phones, [chunks[:count] for chunks in chosen.legs])
        started = self._exchange.add(stream)
        await stream.over.wait()
        whole = stream.sent == stream.chunks
        for phone, leg in zip(phones, legs, strict=True):
            if whole and phone.listening:
                phone.transport.write(leg.bye)
            phone.hang_up()
        await self._hung_up(phones)
        # A call that is refused late has sent something; the server's code says what it was.
        late = any(phone.code == 1013 for phone in phones)
        outcome = "hangup" if whole else "refused" if late else "broken"
        return ended(outcome, stream.sent * CHUNK_S, started)

    @staticmethod
    async def _hung_up(phones: Sequence[Telephone]) -> None:
        waiting = [phone.closed for phone in phones]
        if waiting:
            await asyncio.wait(waiting, timeout=ANSWER_TIMEOUT_S)
        for phone in phones:
            if not phone.closed.done():
                phone.transport.abort()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--address", required=True, help="ws://HOST:PORT")
    parser.add_argument("--protocol", choices=WIRES, default="twilio")
    parser.add_argument("--calls", type=int, required=True, help="lines: calls at once")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--calls-dir", type=Path, default=truth.CALLS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--spread", type=float, default=0.0, help="seconds over which the lines start")
    parser.add_argument("--once", action="store_true", help="every scripted call once")
    parser.add_argument("--stay", type=int, default=0, help="so many lines go on for --stay-seconds more")
    parser.add_argument("--stay-seconds", type=float, default=0.0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    token = sys.stdin.readline().strip()
    wire = WIRES[given.protocol]
    materials = [material(call, wire) for call in truth.load(given.calls_dir)]
    # Nothing here makes cycles; a collection over millions of objects would stop all telephones.
    gc.freeze()
    gc.disable()

    async def play() -> LoadReport:
        lines = range(given.calls)
        return await Load(
            given.address,
            token,
            materials,
            starts_s=[given.spread * n / given.calls for n in lines],
            until_s=[given.seconds + (given.stay_seconds if n < given.stay else 0.0) for n in lines],
            seed=given.seed,
            once=given.once,
            wire=wire,
        ).run()

    print("ready", flush=True)
    given.out.write_bytes(msgspec.json.encode(asyncio.run(play())))


if __name__ == "__main__":
    main()
