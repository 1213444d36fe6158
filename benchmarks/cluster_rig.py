"""A whole cluster on this machine: Kafka, Redis, PostgreSQL, gateways, workers; each may be killed."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.demo import run
from app.store import Store

ROOT = Path(__file__).parents[1]
START_S = 120.0
SERVERS = ("kafka", "redis", "postgres")


class ClusterFailed(Exception):
    """A process did not come up, or did not do what it has to; the end of its log is in the message."""


@dataclass
class Member:
    """A process of ours."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    address: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Raises ``ClusterFailed`` when it says no address in time."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        ends, told = time.monotonic() + START_S, b""
        while b"\n" not in told:
            told += self.process.stdout.read() or b""
            if self.process.poll() is not None or time.monotonic() > ends:
                raise ClusterFailed(f"{self.name} did not start:\n{self.end_of_log()}")
            time.sleep(0.02)
        self.address = told.decode().strip()

    def end_of_log(self) -> str:
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def kill(self) -> None:
        """As a machine that loses its power."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def terminate(self, timeout_s: float = 60.0) -> int | None:
        """As a deployment does it; returns the exit status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class ClusterRig:
    """Starts the three servers once; ``start`` the members; ``stop`` ends everything that it started.

    Args:
        folder: for data and logs.
        scripted: words from a script instead of the model.
        partitions: of each topic.
    """

    def __init__(
        self,
        folder: Path,
        *,
        scripted: bool = True,
        partitions: int = 6,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self._scripted = folder, scripted
        self.members: dict[str, Member] = {}
        self.token = secrets.token_urlsafe(16)
        self.account = run.accounts()[0]
        self.urls: dict[str, str] = {}
        self._more = {"DUTING_KAFKA_PARTITIONS": str(partitions), **(environment or {})}

    # ── servers ───────────────────────────────────────────────────────────────────────────────────

    def script(self, server: str, verb: str, *more: str) -> str:
        done = subprocess.run(
            [str(ROOT / "scripts" / server), verb, "--dir", str(self.folder / server), *more],
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode != 0:
            raise ClusterFailed(f"scripts/{server} {verb} failed:\n{done.stderr[-3000:]}")
        return done.stdout.strip()

    def start_servers(self) -> None:
        for server in SERVERS:
            self.urls[server] = self.script(server, "start", "--port", "0")
        store = Store.open(self.urls["postgres"])
        a = self.account
        store.users.ensure(a.username, a.password, a.name, a.role)
        store.close()

    # ── members ───────────────────────────────────────────────────────────────────────────────────

    def environment(self) -> dict[str, str]:
        return {
            "DUTING_KAFKA_URL": self.urls.get("kafka", ""),
            "DUTING_REDIS_URL": self.urls.get("redis", ""),
            "DUTING_DATABASE_URL": self.urls.get("postgres", ""),
            "DUTING_DATA_DIR": str(self.folder / "data"),
            "DUTING_HOST": "127.0.0.1",
            "DUTING_INGEST_TOKEN": self.token,
            "DUTING_LOG_LEVEL": "info",
            "DUTING_MODELS_DIR": str(ROOT / "models"),
            "PYTHONUNBUFFERED": "1",
            **self._more,
        }

    def add(self, kind: str) -> Member:
        """Start one more ``gateway``, ``asr`` or ``detect``; returns once it says its address."""
        number = sum(name.startswith(kind) for name in self.members) + 1
        name = f"{kind}-{number}"
        duting = [sys.executable, "-m", "app"]
        environment = self.environment()
        if kind == "gateway":
            environment["DUTING_DATA_DIR"] = str(self.folder / name)
            # Its own port, so that a telephone finds it again after a restart.
            command = [*duting, "serve", "--announce", "--port", str(_free_port())]
        elif kind == "asr" and self._scripted:
            command = [sys.executable, "-m", "benchmarks.scripted"]
            environment["DUTING_WORKER_PORT"] = "0"
        else:
            command = [*duting, "worker", kind, "--announce", "--port", "0"]
        member = Member(name, command, environment, self.folder / f"{name}.log")
        self.members[name] = member
        member.start()
        return member

    def start(self, gateways: int = 2, asr: int = 1, detect: int = 2) -> None:
        """Servers and members; returns when all of them are ready."""
        self.start_servers()
        for kind, number in (("asr", asr), ("detect", detect), ("gateway", gateways)):
            for _ in range(number):
                self.add(kind)
        self.wait_ready()

    def wait_ready(self, timeout_s: float = START_S) -> None:
        ends = time.monotonic() + timeout_s
        while waiting := [m for m in self.members.values() if not m.is_ready()]:
            if time.monotonic() > ends:
                told = "\n".join(f"{m.name}:\n{m.end_of_log()[-1500:]}" for m in waiting)
                raise ClusterFailed(f"not ready after {timeout_s:.0f} s:\n{told}")
            time.sleep(0.1)

    @property
    def gateways(self) -> list[Member]:
        return [m for m in self.members.values() if m.name.startswith("gateway")]

    def stop(self) -> None:
        for member in self.members.values():
            if member.process is not None and member.process.poll() is None:
                member.process.terminate()
        for member in self.members.values():
            member.terminate(30)
        for server in SERVERS:
            if server in self.urls:
                with contextlib.suppress(ClusterFailed):
                    self.script(server, "stop")


def alone_rig(folder: Path, scripted: bool) -> ClusterRig:
    """One process that does everything, in the place of a cluster."""
    rig = ClusterRig(folder, scripted=scripted)
    database = f"sqlite:///{folder / 'duting.db'}"
    store = Store.open(database)
    a = rig.account
    store.users.ensure(a.username, a.password, a.name, a.role)
    store.close()
    environment = {
        **rig.environment(),
        "DUTING_KAFKA_URL": "",
        "DUTING_REDIS_URL": "",
        "DUTING_DATABASE_URL": database,
        "DUTING_PORT": "0",
    }
    command = [sys.executable, "-m", *(("benchmarks.scripted", "serve") if scripted else ("app", "serve"))]
    member = Member("gateway-1", [*command, "--announce"], environment, folder / "serve.log")
    rig.members[member.name] = member
    member.start()
    return rig


@contextlib.contextmanager
def cluster(folder: Path, **given: object) -> Iterator[ClusterRig]:
    """A rig whose processes all end with the block; its servers and members are still to be started."""
    rig = ClusterRig(folder, **given)  # type: ignore[arg-type]
    try:
        yield rig
    finally:
        rig.stop()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
