"""A server for development and tests: a daemon with a folder of its own, found again, stopped, killed.

The programs beside this module (``postgres``, ``redis``, ``kafka``) each describe one server; what they share
is here: the command line, the choice of a port, waiting until connections are accepted, and the file
``service.json`` in which a running server's process is remembered. Linux only: processes are read in /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HOST = "127.0.0.1"
# Below the range from which Linux takes ports for outgoing connections: a server that was killed finds its
# port free when it starts again.
FREE_PORTS = range(15000, 32000)


class ServiceError(Exception):
    """What went wrong with a server and what to do about it, in one message."""


@dataclass(frozen=True)
class Running:
    """What ``service.json`` holds."""

    port: int
    pid: int
    """Leader of a session and process group of its own."""
    born: str
    """Boot and clock tick at which the process began: another process with this number has another."""


class Service(ABC):
    """One kind of server."""

    name: str
    port: int
    """Where its clients look when nobody tells them."""
    stop_signal: signal.Signals = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / f"{self.name}.log"

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Adds options of ``start`` that only this server has."""
        del parser  # most have none

    @abstractmethod
    def url(self, port: int) -> str:
        """What its clients connect to."""

    @abstractmethod
    def prepare(self, options: argparse.Namespace) -> None:
        """Makes what the server needs in its folder. Raises ServiceError if a program is missing."""

    @abstractmethod
    def command(self, port: int, options: argparse.Namespace) -> list[str]:
        """The server in the foreground: program and arguments."""

    @abstractmethod
    def accepts(self, port: int) -> bool:
        """Whether a client would be served now. Returns within two seconds."""

    def popen_options(self) -> dict[str, object]:
        """Further arguments for subprocess.Popen."""
        return {}

    # ── verbs ──────────────────────────────────────────────────────────────────────────────────────

    def start(self, options: argparse.Namespace) -> str:
        """Starts the server unless it runs; returns its URL once connections are accepted.

        Raises ServiceError if it ends or does not answer within ``options.timeout`` seconds, and kills it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._refuse_others()
        with self._alone():
            known = self._known()
            if known is not None and alive(known):
                if options.port not in (None, 0, known.port):
                    tell(self.name, f"already running, on port {known.port} and not {options.port}")
                self._await(known, options.timeout)
                return self.url(known.port)
            self.prepare(options)
            port = self._choose_port(options.port, known)
            offset = self.log.stat().st_size if self.log.exists() else 0
            with self.log.open("ab") as log:
                process = subprocess.Popen(
                    self.command(port, options),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    start_new_session=True,
                    **self.popen_options(),  # type: ignore[call-overload]
                )
            running = Running(port, process.pid, birth(process.pid) or "")
            self._remember(running)
            try:
                self._await(running, options.timeout, process, offset)
            except BaseException:  # Ctrl-C, too: nothing half started stays behind
                kill_tree(running)
                process.wait(timeout=10)
                raise
            return self.url(port)

    def stop(self, timeout: float) -> bool:
        """Asks the server to end and kills it after ``timeout`` seconds. False if it did not run."""
        running = self._known()
        if running is None or not alive(running):
            return False
        os.kill(running.pid, self.stop_signal)
        if not wait_until(lambda: not alive(running), timeout):
            tell(self.name, f"did not end within {timeout:g} s: killing it")
            kill_tree(running)
        return True

    def kill(self) -> bool:
        """SIGKILL for the server and all its children, as in a crash. False if it did not run."""
        running = self._known()
        if running is None or not alive(running):
            return False
        kill_tree(running)
        return True

    def status(self) -> str | None:
        """The URL of the running server, None if it does not run."""
        running = self._known()
        return self.url(running.port) if running is not None and alive(running) else None

    # ── what they stand on ─────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Of two starts in one folder the second waits and then finds the server running."""
        with (self.folder / "service.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _refuse_others(self) -> None:
        """A server takes its whole folder, down to its owner: never one in which something else lies."""
        # Looked at in this order: of another start the lock is there before anything else.
        others = [entry for entry in self.folder.iterdir() if entry.name != "service.lock"]
        if others and not (self.folder / "service.lock").exists():
            raise ServiceError(
                f"{self.folder} holds other things; --dir must be empty, new, or of an earlier start"
            )

    def _known(self) -> Running | None:
        try:
            return Running(**json.loads((self.folder / "service.json").read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ServiceError(
                f"{self.folder / 'service.json'} cannot be read ({error}); delete it"
            ) from None

    def _remember(self, running: Running) -> None:
        new = self.folder / "service.json.new"
        new.write_text(json.dumps(asdict(running)))
        new.replace(self.folder / "service.json")

    def _choose_port(self, asked: int | None, known: Running | None) -> int:
        if not asked and known is not None:
            asked = known.port
        if asked == 0:
            return free_port()
        port = self.port if asked is None else asked
        if not is_free(port):
            raise ServiceError(f"port {port} is taken by another program; choose one with --port (0: any)")
        return port

    def _await(
        self,
        running: Running,
        timeout: float,
        process: subprocess.Popen[bytes] | None = None,
        offset: int = 0,
    ) -> None:
        ended = False

        def settled() -> bool:
            nonlocal ended
            ended = process.poll() is not None if process is not None else not alive(running)
            return ended or self.accepts(running.port)

        if wait_until(settled, timeout) and not ended:
            return
        what = "ended while starting" if ended else f"accepted no connection within {timeout:g} s"
        raise ServiceError(f"{what}. The end of {self.log}:\n{tail(self.log, offset)}")


# ── processes ──────────────────────────────────────────────────────────────────────────────────────────


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # the name, in brackets, may hold blanks and brackets itself
    return text.rpartition(")")[2].split()


def birth(pid: int) -> str | None:
    """What tells this process from a later one with the same number; None if it is gone or a zombie."""
    fields = _stat(pid)
    if fields is None or fields[0] in "ZX":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{fields[19]}"


def alive(running: Running) -> bool:
    """Whether the very process that was started still runs."""
    return birth(running.pid) == running.born


def descendants(pid: int) -> list[int]:
    """Children and their children, each after its parent."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = list(children.get(pid, ()))
    for child in found:  # grows while it is walked
        found.extend(children.get(child, ()))
    return found


def users_of(folder: Path) -> list[int]:
    """Processes that work in this folder, zombies not among them."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # gone meanwhile, a zombie, or another user's
            if entry.name.isdigit() and (entry / "cwd").resolve(strict=True) == folder:
                found.append(int(entry.name))
    return found


def kill_tree(running: Running) -> None:
    """SIGKILL for a server, its process group and its descendants; returns when they are gone.

    The leader goes first, so that it cannot mend what it loses; PostgreSQL's children lead groups of their
    own.
    """
    if not alive(running):
        return
    doomed = [(pid, birth(pid)) for pid in (running.pid, *descendants(running.pid))]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    for pid, born in doomed:
        if born is not None and birth(pid) == born:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if not wait_until(lambda: all(born is None or birth(pid) != born for pid, born in doomed), 10):
        raise ServiceError(f"process {running.pid} or a child of it is still there 10 s after SIGKILL")


# ── ports, waiting, words ──────────────────────────────────────────────────────────────────────────────


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket() as probe:
        # as servers do: connections that have ended do not hold the port
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port that nobody listens on."""
    for _ in range(200):
        port = random.choice(FREE_PORTS)
        if is_free(port):
            return port
    raise ServiceError(
        f"no free port found between {FREE_PORTS.start} and {FREE_PORTS.stop}; name one: --port"
    )


def exchange(port: int, request: bytes, enough: int) -> bytes:
    """Sends a request; returns ``enough`` bytes of the answer or more, or what came: nothing, maybe."""
    answer = b""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(request)
            while len(answer) < enough and (more := connection.recv(4096)):
                answer += more
    except OSError:
        pass
    return answer


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Asks every 50 ms; whether it became true within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def tail(path: Path, offset: int, lines: int = 20) -> str:
    """The last lines of a log, none from before ``offset``."""
    with path.open("rb") as log:
        log.seek(max(offset, path.stat().st_size - 32_000))
        text = log.read().decode(errors="replace")
    return "\n".join("  " + line for line in text.splitlines()[-lines:]) or "  (nothing)"


def program(name: str, package: str, folders: Sequence[Path] = ()) -> str:
    """Where a program is: in the given folders, else on PATH. Raises ServiceError naming Debian's package."""
    for folder in folders:
        if os.access(folder / name, os.X_OK):
            return str(folder / name)
    found = shutil.which(name)
    if found is None:
        raise ServiceError(f"{name} not found on PATH (Debian and Ubuntu: apt-get install {package})")
    return found


def run(command: Sequence[str], timeout: float, **options: object) -> None:
    """Runs a program to its end. Raises ServiceError, with what it said, if it fails or takes too long."""
    try:
        done = subprocess.run(  # type: ignore[call-overload]
            command, timeout=timeout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
        )
    except subprocess.TimeoutExpired:
        raise ServiceError(f"{command[0]} did not end within {timeout:g} s") from None
    if done.returncode:
        said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout.decode(errors="replace")).strip()[-3000:]
        raise ServiceError(f"{command[0]} failed with status {done.returncode}:\n{said}")


def tell(name: str, message: str) -> None:
    """Words for people; stdout is for the URL alone."""
    print(f"{name}: {message}", file=sys.stderr)


def main(kind: type[Service], arguments: Sequence[str] | None = None) -> int:
    """The command line all servers share. Returns the exit status: 0, 1 for an error, 3 for "not running"."""
    parser = argparse.ArgumentParser(prog=kind.name, description=kind.__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    texts = {
        "start": "start it unless it runs, print its URL when it accepts connections",
        "stop": "let it end in good order; kill it if it does not",
        "kill": "SIGKILL at once, as in a crash; what it keeps on disk stays",
        "status": "print its URL if it runs, else exit with status 3",
    }
    for verb, text in texts.items():
        sub = verbs.add_parser(verb, help=text, description=text)
        sub.add_argument("--dir", type=Path, required=True, help="data, log and service.json")
        if verb == "start":
            sub.add_argument(
                "--port",
                type=int,
                help=f"0: any; as last time in this folder, else {kind.port}, if not given",
            )
            kind.add_arguments(sub)
        if verb in ("start", "stop"):
            sub.add_argument("--timeout", type=float, default=60 if verb == "start" else 20, help="seconds")
    options = parser.parse_args(arguments)
    service = kind(options.dir.resolve())
    try:
        if options.verb == "start":
            print(service.start(options), flush=True)
        elif options.verb == "status":
            url = service.status()
            if url is None:
                tell(kind.name, "not running")
                return 3
            print(url)
        elif not (service.stop(options.timeout) if options.verb == "stop" else service.kill()):
            tell(kind.name, "was not running")
    except ServiceError as error:
        tell(kind.name, str(error))
        return 1
    return 0
