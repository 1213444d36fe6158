"""One run: the real server process, the load in its own process, a supervisor who listens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil
import sqlalchemy
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.orm import Session

from app import settings as settings_
from app.demo import run, truth
from app.store import Store
from app.store.tables import AlertRow, CallRow
from benchmarks.load import LoadReport
from benchmarks.measured import Measured, Sample, Socket
from streams.events import Alert, Health, Published, Text

SAMPLE_EVERY_S = 1.0
DRAIN_TIMEOUT_S = 120.0
"""For everything that the model still owes when the load has ended."""
PRIORITY = -10
"""Of load and supervisor, which in life are other machines: where we may, they go before the server."""
GAUGES = {
    "duting_calls": "calls",
    "duting_degradation_step": "step",
    "duting_appends_waiting": "appends",
}
"""Besides ``duting_jobs_waiting``, which becomes ``jobs_<kind>``."""


@dataclass(frozen=True)
class Load:
    """What is asked of the load process."""

    calls: int
    seconds: float
    seed: int = 1
    spread_s: float = 10.0
    """The lines start one after the other over so long."""
    once: bool = False
    """Every scripted call once, ``calls`` at a time, instead of ``seconds``."""
    protocol: str = "twilio"
    """Of ``benchmarks.wires``."""
    stay: int = 0
    stay_s: float = 0.0
    """So many lines go on for so long after ``seconds``."""


class ServerProbe:
    """CPU, memory and gauges of the server process."""

    def __init__(self, pid: int, address: str) -> None:
        self._process = psutil.Process(pid)
        self._address = address
        self.samples: list[Sample] = []

    def counters(self) -> dict[str, float]:
        """Every counter and histogram sum of ``/metrics`` with at most one label: ``NAME:VALUE`` with it."""
        return {
            ":".join((name, *labels.values())): value
            for name, labels, value in self._metrics()
            if len(labels) < 2
        }

    def take(self) -> None:
        """One sample; a metrics page that does not come leaves its gauges out."""
        now = time.monotonic()
        cpu, rss = 0.0, 0
        for process in (self._process, *self._process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                cpu += times.user + times.system
                rss += process.memory_info().rss
        gauges = {}
        with contextlib.suppress(OSError):
            for name, labels, value in self._metrics():
                if name == "duting_jobs_waiting":
                    gauges[f"jobs_{labels['kind']}"] = value
                elif name in GAUGES:
                    gauges[GAUGES[name]] = value
        self.samples.append(Sample(now, cpu, rss / 2**20, gauges))

    async def watch(self) -> None:
        while True:
            await asyncio.to_thread(self.take)
            await asyncio.sleep(SAMPLE_EVERY_S)

    def _metrics(self) -> Iterator[tuple[str, dict[str, str], float]]:
        with urllib.request.urlopen(f"{self._address}/metrics", timeout=5) as answer:
            page = answer.read().decode()
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value


@dataclass(frozen=True)
class Rig:
    """A server that runs, with an account and its token."""

    address: str
    token: str
    account: run.Account
    database: str
    pid: int
    folder: Path
    """Where it keeps what it has."""


@contextlib.contextmanager
def server(
    environment: dict[str, str] | None = None,
    log: Path | None = None,
    scripted: bool = False,
    program: Sequence[str] | None = None,
) -> Iterator[Rig]:
    """Start ``duting serve`` on a free port of 127.0.0.1 with an empty data folder; stop it at the end.

    ``environment``: further settings (``DUTING_…``). ``log``: where its log goes, instead of the folder that
    is removed. ``scripted``: words of a script instead of the model's (``benchmarks.scripted``). ``program``:
    another module that serves, and its arguments.
    """
    with tempfile.TemporaryDirectory(prefix="duting-bench-") as folder:
        settings = settings_.load(data_dir=Path(folder)).model_copy(
            update={"database_url": None, "redis_url": None, "kafka_url": None}
        )
        account = run.accounts()[0]
        store = Store.open(settings.database)
        store.users.ensure(account.username, account.password, account.name, account.role)
        store.close()
        given = {
            "DUTING_DATA_DIR": folder,
            "DUTING_DATABASE_URL": "",
            "DUTING_REDIS_URL": "",
            "DUTING_KAFKA_URL": "",
            "DUTING_HOST": "127.0.0.1",
            "DUTING_PORT": "0",
            "DUTING_INGEST_TOKEN": settings.token(),
            "DUTING_LOG_LEVEL": "warning",
            **(environment or {}),
        }
        usual = ("benchmarks.scripted", "serve") if scripted else ("app", "serve", "--announce")
        with run.Server(given, log or Path(folder) / "server.log", program or usual) as process:
            process.wait()
            yield Rig(
                process.address,
                settings.token(),
                account,
                settings.database,
                process.process.pid,
                Path(folder),
            )


async def measure(rig: Rig, load: Load, calls_dir: Path = truth.CALLS, settle_s: float = 0.0) -> Measured:
    """Play ``load`` into the server and take everything down. ``settle_s``: watch on for so long after it.

    Raises ``DemoFailed`` when the supervisor's socket or the load process ends before its time.
    """
    cookie = await asyncio.to_thread(run.log_in, rig.address, rig.account)
    with ahead():
        return await _measure(rig, load, calls_dir, settle_s, cookie)


async def _measure(rig: Rig, load: Load, calls_dir: Path, settle_s: float, cookie: str) -> Measured:
    socket = Socket()
    # The clock of the event that is being noted; ``Supervisor`` tells the event only.
    clock = _Clock()
    supervisor = run.Supervisor(rig.address, cookie, on_event=lambda event: _note(socket, event, clock.last))
    probe = ServerProbe(rig.pid, rig.address)
    before_cpu = time.process_time()
    listening = asyncio.create_task(supervisor.listen(clock))
    watching = asyncio.create_task(probe.watch())
    try:
        await asyncio.wait_for(supervisor.connected.wait(), 10)
        before = await asyncio.to_thread(probe.counters)
        report = await _with(listening, _play(rig, load, calls_dir))
        ids = {call.call_id for call in report.calls if call.outcome != "refused"}
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_with(listening, _ended(supervisor, ids)), DRAIN_TIMEOUT_S)
        await asyncio.sleep(settle_s)
        after = await asyncio.to_thread(probe.counters)
    finally:
        for task in (listening, watching):
            task.cancel()
    stored, gaps = await asyncio.to_thread(_stored, rig.database)
    return Measured(
        report=report,
        socket=socket,
        samples=probe.samples,
        counters={name: value - before.get(name, 0.0) for name, value in after.items()},
        stored_alerts={alert: call for alert, call in stored.items() if call in ids},
        gap_ms={call: gap for call, gap in gaps.items() if call in ids},
        supervisor_cpu_s=time.process_time() - before_cpu,
    )


@contextlib.contextmanager
def ahead() -> Iterator[None]:
    """This thread, and what it starts meanwhile, before others; needs the right to do so, else nothing."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


class _Clock:
    """``time.monotonic`` that remembers what it said last."""

    def __init__(self) -> None:
        self.last = 0.0

    def __call__(self) -> float:
        self.last = time.monotonic()
        return self.last


def _note(socket: Socket, event: Published, now: float) -> None:
    call_id = event.call_id or ""
    if event.type == "alert.raised" and isinstance(event.alert, Alert):
        socket.alerts.setdefault(call_id, []).append((now, event.alert))
    elif event.type == "alert.updated" and isinstance(event.alert, Alert):
        taken_back = event.alert.state == "withdrawn"
        (socket.withdrawn.add if taken_back else socket.withdrawn.discard)(event.alert.id)
    elif event.type == "utterance.final" and isinstance(event.utterance, Text):
        socket.finals.setdefault(call_id, []).append((now, event.utterance))
    elif event.type == "health" and isinstance(event.health, Health):
        socket.steps.append((now, event.health.step, event.health.name))


async def _ended(supervisor: run.Supervisor, ids: set[str]) -> None:
    while not ids <= supervisor.ended:
        supervisor.heard.clear()
        await supervisor.heard.wait()


async def _with(listening: asyncio.Task[None], work: object) -> object:
    """The result of ``work``; fails as soon as the supervisor's socket does."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    try:
        await asyncio.wait({task, listening}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        listening.result()
        raise run.DemoFailed("the supervisor's socket was closed by the server")
    finally:
        task.cancel()


async def _play(rig: Rig, load: Load, calls_dir: Path) -> LoadReport:
    with tempfile.TemporaryDirectory(prefix="duting-load-") as folder:
        out = Path(folder) / "report.json"
        address = rig.address.replace("http", "ws", 1)
        arguments = ["--address", address, "--out", str(out), "--calls-dir", str(calls_dir)]
        for name, value in (
            ("calls", load.calls),
            ("seconds", load.seconds),
            ("seed", load.seed),
            ("spread", load.spread_s),
            ("stay", load.stay),
            ("stay-seconds", load.stay_s),
            ("protocol", load.protocol),
        ):
            arguments += [f"--{name}", str(value)]
        if load.once:
            arguments.append("--once")
        async with _process(arguments) as process:
            assert process.stdin is not None
            # By standard input: a command line is for everybody to read.
            process.stdin.write(rig.token.encode() + b"\n")
            await process.stdin.drain()
            if await process.wait() != 0:
                raise run.DemoFailed("the load process failed; its message stands above")
        return msgspec.json.decode(out.read_bytes(), type=LoadReport)


@contextlib.asynccontextmanager
async def _process(arguments: list[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.load",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _stored(database: str) -> tuple[dict[str, str], dict[str, int]]:
    """Alert id → call id, and call id → milliseconds of gaps, as the store holds them."""
    engine = sqlalchemy.create_engine(database)
    try:
        with Session(engine) as session:
            alerts = session.execute(sqlalchemy.select(AlertRow.alert_id, AlertRow.call_id)).all()
            gaps = session.execute(sqlalchemy.select(CallRow.call_id, CallRow.gap_ms)).all()
        return {alert: call for alert, call in alerts}, {call: gap for call, gap in gaps}
    finally:
        engine.dispose()
