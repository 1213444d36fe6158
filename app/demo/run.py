"""``duting demo``: the real server, scripted calls over the real WebSocket, a supervisor who listens."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import websockets

from app.demo import truth
from app.errors import DutingError
from app.phones import twilio
from app.phones.call import PhoneBusy, PhoneCall, Played
from app.phones.kinds import Play
from streams.events import Alert, Published

METADATA = (
    {
        "agent": "8001",
        "queue": "理财专线",
        "customer": "尾号 3321",
        "customer_level": "金卡",
        "product": "安享一号",
    },
    {
        "agent": "8012",
        "queue": "投诉受理",
        "customer": "尾号 0917",
        "customer_level": "普通",
        "direction": "inbound",
    },
    {
        "agent": "8023",
        "queue": "借记卡服务",
        "customer": "尾号 5540",
        "customer_level": "VIP",
        "branch": "城西支行",
    },
)


class DemoFailed(DutingError):
    """The server did not come up, or what was expected did not happen."""


@dataclass(frozen=True)
class Account:
    username: str
    password: str
    name: str
    role: str


def accounts() -> tuple[Account, ...]:
    """The demo's people; passwords are made anew for each data folder.

    The agent is that of every third call; of two administrators one approves what the other drafts.
    """
    people = (
        ("supervisor", "王主管", "supervisor"),
        ("inspector", "李质检", "inspector"),
        ("8001", "张座席", "agent"),
        ("admin", "陈管理", "administrator"),
        ("admin2", "赵管理", "administrator"),
    )
    return tuple(Account(user, secrets.token_urlsafe(9), name, role) for user, name, role in people)


class Server:
    """``duting serve`` as a process of its own, as in production; stopped when the block is left."""

    START_TIMEOUT_S = 90.0

    def __init__(
        self,
        environment: Mapping[str, str],
        log: Path,
        program: Sequence[str] = ("app", "serve", "--announce"),
    ) -> None:
        """``program``: the module that serves, and its arguments."""
        self._program = program
        self._environment = {**os.environ, **environment}
        self._log = log
        self.address = ""

    def __enter__(self) -> Server:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as out:
            self.process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", *self._program],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=out,
                text=True,
            )
        return self

    def wait(self) -> None:
        """Return once it serves; raises ``DemoFailed`` with the end of its log."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + self.START_TIMEOUT_S
        line = self.process.stdout.readline().strip()
        if not line.startswith("http://"):
            raise DemoFailed("the server did not start:\n" + self._tail())
        self.address = line
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{line}/healthz", timeout=2):  # noqa: S310 - our own address
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        raise DemoFailed("the server does not answer:\n" + self._tail())

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def log_in(address: str, account: Account) -> str:
    """Log in as a browser would; return the session cookie."""
    request = urllib.request.Request(  # noqa: S310 - our own address
        f"{address}/api/session",
        data=json.dumps({"username": account.username, "password": account.password}).encode(),
        headers={"content-type": "application/json", "origin": address},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return str(answer.headers["set-cookie"]).split(";")[0]


@dataclass
class Supervisor:
    """Listens on the event socket as the dashboard does, and notes when what arrived."""

    address: str
    cookie: str
    alerts: dict[str, list[tuple[float, Alert]]] = field(default_factory=dict)
    finals: dict[str, list[tuple[float, Published]]] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    """Alerts that were raised while somebody spoke and taken back when the sentence had ended."""
    latest: dict[str, Alert] = field(default_factory=dict)
    """By id, those that were told anew: at the very words, once their time was known."""
    ended: set[str] = field(default_factory=set)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with every event."""
    on_event: Callable[[Published], None] | None = None
    connected: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self, clock: Callable[[], float]) -> None:
        url = self.address.replace("http", "ws", 1) + "/api/events"
        headers = {"cookie": self.cookie, "origin": self.address}
        async with websockets.connect(url, additional_headers=headers, max_queue=1024) as socket:
            async for text in socket:
                now = clock()
                kind = json.loads(text)["type"]
                if kind in ("hello", "heartbeat"):
                    self.connected.set()
                    continue
                if kind == "resync":
                    raise DemoFailed("the supervisor's socket fell behind and lost events")
                self._note(msgspec.json.decode(text, type=Published), now)

    def _note(self, event: Published, now: float) -> None:
        call_id = event.call_id or ""
        if event.type == "alert.raised" and isinstance(event.alert, Alert):
            self.alerts.setdefault(call_id, []).append((now, event.alert))
        elif event.type == "alert.updated" and isinstance(event.alert, Alert):
            taken_back = event.alert.state == "withdrawn"
            (self.withdrawn.add if taken_back else self.withdrawn.discard)(event.alert.id)
            self.latest[event.alert.id] = event.alert
        elif event.type == "utterance.final":
            self.finals.setdefault(call_id, []).append((now, event))
        elif event.type == "call.ended":
            self.ended.add(call_id)
        if self.on_event is not None:
            self.on_event(event)
        self.heard.set()


@dataclass
class Outcome:
    """One run over all calls."""

    calls: list[truth.ScriptedCall]
    played: dict[str, Played]
    """By call name."""
    supervisor: Supervisor
    ids: dict[str, str]
    """Call name → call id."""

    def shown(self) -> dict[str, list[Alert]]:
        """Every alert that a supervisor saw, by call name."""
        return {name: [a for _, a in self.supervisor.alerts.get(i, [])] for name, i in self.ids.items()}

    def alerts(self) -> dict[str, Sequence[Alert]]:
        """Those that were not taken back."""
        return {
            name: [a for a in alerts if a.id not in self.supervisor.withdrawn]
            for name, alerts in self.shown().items()
        }

    def lasting(self) -> dict[str, Sequence[Alert]]:
        """The same, as they are kept: at the very words, where their time became known."""
        latest = self.supervisor.latest
        return {name: [latest.get(a.id, a) for a in alerts] for name, alerts in self.alerts().items()}

    def totals_ms(self) -> list[float]:
        """``latency_ms.total`` of every alert, as the server measured it."""
        found = (a.latency_ms.total for alerts in self.alerts().values() for a in alerts)
        return sorted(t for t in found if t is not None)

    def heard_s(self, score: truth.Score) -> list[float]:
        """Seconds from the end of the phrase, as scripted, to the alert on the supervisor's socket."""
        out = []
        for want, alert in score.hit:
            arrived = next(t for t, a in self.supervisor.alerts[self.ids[want.call]] if a.id == alert.id)
            out.append(arrived - self.played[want.call].started_s - want.phrase_end)
        return sorted(out)


async def play_all(
    address: str,
    token: str,
    account: Account,
    calls: list[truth.ScriptedCall],
    at_once: int,
    on_event: Callable[[Published], None] | None = None,
    on_done: Callable[[str], None] | None = None,
    play: Play = twilio.play,
    ingest: str | None = None,
) -> Outcome:
    """Play every call once, ``at_once`` at a time, and wait until all have ended.

    ``play``: the telephones, Twilio's if left out; ``ingest``: the address that they call.
    """
    clock = time.monotonic
    cookie = await asyncio.to_thread(log_in, address, account)
    supervisor = Supervisor(address, cookie, on_event=on_event)
    run = uuid.uuid4().hex[:6]
    ids = {call.name: f"{call.name}-{run}" for call in calls}
    outcome = Outcome(calls, {}, supervisor, ids)
    listening = asyncio.create_task(supervisor.listen(clock))
    waiting = list(enumerate(calls))

    async def line(stagger_s: float) -> None:
        await asyncio.sleep(stagger_s)
        while waiting:
            number, call = waiting.pop(0)
            dialled = PhoneCall(ids[call.name], call.audio, token, METADATA[number % len(METADATA)])
            url = ingest or address.replace("http", "ws", 1)
            outcome.played[call.name] = await _patiently(partial(play, url, dialled, clock))
            if on_done is not None:
                on_done(call.name)

    try:
        await asyncio.wait_for(supervisor.connected.wait(), 10)
        lines = asyncio.gather(*(line(1.7 * i) for i in range(at_once)))
        first: set[asyncio.Future[Any]] = {lines, listening}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            lines.cancel()
            listening.result()
            raise DemoFailed("the supervisor's socket was closed by the server")
        lines.result()
        await asyncio.wait_for(_all_ended(supervisor, set(ids.values())), 60)
    finally:
        listening.cancel()
    return outcome


async def _patiently(call: Callable[[], Awaitable[Played]]) -> Played:
    """Place a call; when the server has no room for it, again after a few seconds."""
    for _ in range(20):
        try:
            return await call()
        except PhoneBusy:
            pass
        except websockets.ConnectionClosedError as closed:
            if closed.rcvd is None or closed.rcvd.code != 1013:
                raise DemoFailed(f"the server ended the call: {closed}") from None
        await asyncio.sleep(3)
    raise DemoFailed("the server had no room for a call for a minute: is the machine busy?")


async def _all_ended(supervisor: Supervisor, ids: set[str]) -> None:
    while not ids <= supervisor.ended:
        supervisor.heard.clear()
        await supervisor.heard.wait()
