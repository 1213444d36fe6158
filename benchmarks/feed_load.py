"""``python -m benchmarks.feed_load``: many dashboards' sockets in one process, and when what came on them.

Two hundred sockets with fifty alerts a second bring ten thousand frames a second: a client library would cost
more than the server. So this reads frames itself (RFC 6455: those of a server are not masked), and looks in
them only for the number of the alert and the moment at which it was handed to the outlet, both in its id.

Standard input: the session's cookie. ``ready`` on standard output once all sockets were greeted; it ends and
writes its report when standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import re
import socket
import sys
import time
from array import array
from pathlib import Path

import msgspec
from msgspec import Struct

ALERT = re.compile(rb'"type":"alert\.raised".{0,400}?"id":"bench-(\d{7})-(\d{20})"', re.DOTALL)


SLOW_WINDOW = 16_384
"""Receive buffer of a slow socket, bytes: what it has not taken is to wait at the server, not here."""
SIP_BYTES, SIP_EVERY_S = 32_768, 1.0
"""A slow socket takes so much, so often: less than a busy floor, enough to be there still."""


class FeedReport(Struct, frozen=True, kw_only=True):
    delays_s: list[list[float]]
    """By socket: from the outlet to the socket, for each alert, in the order of arrival."""
    numbers: list[list[int]]
    """By socket: which alerts these were."""
    resyncs: int
    closed: int
    """Sockets that were closed before the end."""
    slow_resyncs: int
    """Of those that read slowly: how many were told to load the floor again."""
    slow_closed: int
    bytes: int
    cpu_s: float
    worst_lag_s: float
    """The latest that this process came to a timer of its own: what it added to the delays."""


class Dashboard(asyncio.Protocol):
    """One socket that only listens."""

    def __init__(self, host: str, cookie: str, origin: str) -> None:
        self._request = (
            f"GET /api/events HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nCookie: {cookie}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n\r\n"
        ).encode()
        self._rest = b""
        self._open = False
        self.greeted = asyncio.Event()
        self.closed = self.ending = False
        self.delays, self.numbers = array("d"), array("l")
        self.resyncs = self.bytes = 0
        self.thirst: int | None = None
        """Of a slow one: bytes that it still takes in this sip."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = not self.ending

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.bytes += len(data)
        if self.thirst is not None:
            self.thirst -= len(data)
            if self.thirst <= 0:
                self.transport.pause_reading()
        data = self._rest + data if self._rest else data
        at = 0
        if not self._open:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._rest = data
                return
            if b" 101 " not in data[:20]:
                raise SystemExit(f"the server answered {data[:60]!r}")
            self._open, at = True, end + 4
        size = len(data)
        while size - at >= 2:
            length, body = data[at + 1], at + 2
            if length == 126:
                length, body = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                length, body = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            end = body + length
            if end > size or body > size:
                break
            self._take(data[at] & 0x0F, data[body:end], now)
            at = end
        self._rest = data[at:]

    def _take(self, kind: int, payload: bytes, now: int) -> None:
        if kind == 9:  # a ping: the server ends sockets that do not answer
            self.transport.write(bytes((0x8A, 0x80 | len(payload), 0, 0, 0, 0)) + payload)
        elif kind == 1:
            found = ALERT.search(payload)
            if found is not None:
                self.numbers.append(int(found[1]))
                self.delays.append((now - int(found[2])) / 1e9)
            elif b'"hello"' in payload[:20]:
                self.greeted.set()
            elif payload == b'{"type":"resync"}':
                self.resyncs += 1


async def listen(address: str, sockets: int, slow: int, cookie: str) -> FeedReport:
    loop = asyncio.get_running_loop()
    host = address.removeprefix("http://")
    name, _, port = host.partition(":")

    async def connect(window: int | None = None) -> Dashboard:
        there = socket.socket()
        if window is not None:
            there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        there.setblocking(False)
        await loop.sock_connect(there, (name, int(port)))
        _, dashboard = await loop.create_connection(lambda: Dashboard(host, cookie, address), sock=there)
        await asyncio.wait_for(dashboard.greeted.wait(), 30)
        return dashboard

    dashboards = [await connect() for _ in range(sockets)]
    slow_ones = [await connect(SLOW_WINDOW) for _ in range(slow)]
    for dashboard in slow_ones:
        dashboard.thirst = 0
        dashboard.transport.pause_reading()
    print("ready", flush=True)
    lag = [0.0]

    async def watch() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            lag[0] = max(lag[0], time.monotonic() - before - 0.01)

    async def sip() -> None:
        """The slow ones read a little now and then, as a page does whose machine is overwhelmed."""
        while True:
            await asyncio.sleep(SIP_EVERY_S)
            for dashboard in slow_ones:
                if not dashboard.transport.is_closing():
                    dashboard.thirst = SIP_BYTES
                    dashboard.transport.resume_reading()

    cpu = time.process_time()
    tasks = [asyncio.create_task(watch()), asyncio.create_task(sip())]
    await asyncio.to_thread(sys.stdin.read)
    cpu = time.process_time() - cpu
    for task in tasks:
        task.cancel()
    for dashboard in slow_ones:
        dashboard.thirst = None
        if not dashboard.transport.is_closing():
            dashboard.transport.resume_reading()
    if slow_ones:
        await asyncio.sleep(3)
    for dashboard in (*dashboards, *slow_ones):
        dashboard.ending = True
        dashboard.transport.abort()
    return FeedReport(
        delays_s=[list(each.delays) for each in dashboards],
        numbers=[list(each.numbers) for each in dashboards],
        resyncs=sum(each.resyncs for each in dashboards),
        closed=sum(each.closed for each in dashboards),
        slow_resyncs=sum(each.resyncs > 0 for each in slow_ones),
        slow_closed=sum(each.closed for each in slow_ones),
        bytes=sum(each.bytes for each in dashboards),
        cpu_s=cpu,
        worst_lag_s=round(lag[0], 4),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--address", required=True)
    parser.add_argument("--sockets", type=int, required=True)
    parser.add_argument("--slow", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    cookie = sys.stdin.readline().strip()
    report = asyncio.run(listen(given.address, given.sockets, given.slow, cookie))
    given.out.write_bytes(msgspec.json.encode(report))


if __name__ == "__main__":
    main()
