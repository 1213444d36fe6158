"""What every server in scripts/ does, with a server of a few lines that can also behave badly."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

# Listens on a port, with a child of another process group: a server that PostgreSQL resembles.
SERVER = """
import os, signal, socket, subprocess, sys
how, port, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if how == "fails":
    sys.exit("a line of the log that says why")
if how == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
with open(folder + "/child", "w") as file:
    file.write(str(child.pid))
def end(*_):
    child.kill()
    child.wait()
    sys.exit()
if how != "stubborn":
    signal.signal(signal.SIGTERM, end)
if how == "deaf":
    signal.pause()
with socket.create_server(("127.0.0.1", port)) as server:
    while True:
        server.accept()[0].close()
"""


@pytest.fixture
def small(service: ModuleType) -> type:
    class Small(service.Service):
        name = "small"
        port = 9
        how = "well"

        def url(self, port: int) -> str:
            return f"small://{service.HOST}:{port}"

        def prepare(self, options) -> None:
            pass

        def command(self, port: int, options) -> list[str]:
            return [sys.executable, "-c", SERVER, self.how, str(port), str(self.folder)]

        def accepts(self, port: int) -> bool:
            try:
                socket.create_connection((service.HOST, port), timeout=1).close()
            except OSError:
                return False
            return True

    return Small


@pytest.fixture
def call(service: ModuleType, small: type, tmp_path: Path, capsys) -> Iterator[Callable]:
    """Runs the command line; returns exit status, standard output, standard error."""
    folder = tmp_path / "small"

    def run(verb: str, *options: str) -> tuple[int, str, str]:
        status = service.main(small, [verb, "--dir", str(folder), *options])
        out, err = capsys.readouterr()
        return status, out.strip(), err.strip()

    run.folder = folder  # type: ignore[attr-defined]
    yield run
    small(folder).kill()


def child_of(folder: Path) -> int:
    return int((folder / "child").read_text())


def remembered(folder: Path) -> dict:
    return json.loads((folder / "service.json").read_text())


def test_start_prints_the_url_alone_and_again_when_it_runs(call) -> None:
    status, url, words = call("start", "--port", "0")
    assert (status, words) == (0, "")
    assert url.startswith("small://127.0.0.1:")
    first = remembered(call.folder)
    assert call("start", "--port", "0") == (0, url, "")
    assert call("status") == (0, url, "")
    assert remembered(call.folder) == first


def test_another_start_takes_the_same_port(call) -> None:
    _, url, _ = call("start", "--port", "0")
    assert call("kill")[0] == 0
    assert call("start") == (0, url, "")
    assert call("stop")[0] == 0
    assert call("start", "--port", "0") == (0, url, "")


def test_a_server_that_runs_on_another_port_than_asked_for_says_so(call) -> None:
    _, url, _ = call("start", "--port", "0")
    status, again, words = call("start", "--port", "1")
    assert (status, again) == (0, url)
    assert "already running" in words


def test_stop_and_kill_leave_no_process_behind(service, call) -> None:
    for verb in ("stop", "kill"):
        call("start", "--port", "0")
        child = child_of(call.folder)
        assert service.birth(child) is not None
        assert call(verb) == (0, "", "")
        assert service.birth(child) is None
        assert call("status") == (3, "", "small: not running")
        assert call(verb) == (0, "", "small: was not running")


def test_a_server_that_does_not_end_is_killed(service, small, call) -> None:
    small.how = "stubborn"
    call("start", "--port", "0")
    pid, child = remembered(call.folder)["pid"], child_of(call.folder)
    status, _, words = call("stop", "--timeout", "0.2")
    assert status == 0
    assert "killing it" in words
    assert service.birth(pid) is None
    assert service.birth(child) is None


def test_a_server_that_ends_while_starting_shows_the_end_of_its_log(small, call) -> None:
    small.how = "fails"
    status, out, words = call("start", "--port", "0")
    assert (status, out) == (1, "")
    assert "a line of the log that says why" in words
    small.how = "well"
    assert call("start", "--port", "0")[0] == 0


def test_a_server_that_accepts_nobody_is_given_up_and_killed(service, small, call) -> None:
    small.how = "deaf"
    status, out, words = call("start", "--port", "0", "--timeout", "0.5")
    assert (status, out) == (1, "")
    assert "accepted no connection within 0.5 s" in words
    assert service.birth(remembered(call.folder)["pid"]) is None


def test_a_number_that_now_belongs_to_another_process_is_left_alone(service, call) -> None:
    call("start", "--port", "0")
    call("stop")
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        known = remembered(call.folder)
        (call.folder / "service.json").write_text(json.dumps({**known, "pid": stranger.pid}))
        for verb in ("stop", "kill"):
            assert call(verb)[2] == "small: was not running"
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_zombie_does_not_run(service) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert service.birth(child.pid) is None
    child.wait()


def test_a_folder_with_other_things_is_refused_and_left_as_it_was(call) -> None:
    call.folder.mkdir()
    (call.folder / "letter.txt").write_text("dear")
    status, _, words = call("start", "--port", "0")
    assert status == 1
    assert "holds other things" in words
    assert [path.name for path in call.folder.iterdir()] == ["letter.txt"]


def test_a_port_that_is_taken_is_named(service, call) -> None:
    with socket.create_server((service.HOST, 0)) as other:
        port = other.getsockname()[1]
        status, _, words = call("start", "--port", str(port))
    assert status == 1
    assert f"port {port} is taken" in words


def test_two_starts_at_once_make_one_server(service, small, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    program = (
        "import importlib.util, sys\n"
        f"sys.path.insert(0, {str(Path(service.__file__).parent)!r})\n"
        "import service\n"
        "class Small(service.Service):\n"
        "    name, port = 'small', 9\n"
        "    def url(self, port): return str(port)\n"
        "    def prepare(self, options): pass\n"
        f"    def command(self, port, options):\n"
        f"        return [sys.executable, '-c', {SERVER!r}, 'well', str(port), str(self.folder)]\n"
        "    def accepts(self, port): return bool(service.is_free(port) is False)\n"
        "sys.exit(service.main(Small))\n"
    )
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", program, "start", "--dir", str(folder), "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        urls = [start.communicate(timeout=30)[0].strip() for start in starts]
        assert urls[0] == urls[1] != ""
        assert [start.returncode for start in starts] == [0, 0]
    finally:
        small(folder).kill()


def test_a_start_that_takes_the_folder_at_this_moment_is_no_other_thing(
    small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists, lock = Path.exists, tmp_path / "service.lock"

    def and_then_it_is_there(path: Path) -> bool:
        there = exists(path)
        lock.touch()
        return there

    monkeypatch.setattr(Path, "exists", and_then_it_is_there)
    small(tmp_path)._refuse_others()


def test_a_file_that_cannot_be_read_is_named(call) -> None:
    call("start", "--port", "0")
    known = (call.folder / "service.json").read_text()
    (call.folder / "service.json").write_text("{")
    status, _, words = call("status")
    assert status == 1
    assert "service.json cannot be read" in words
    (call.folder / "service.json").write_text(known)


def test_a_program_that_is_missing_names_its_package(service) -> None:
    with pytest.raises(service.ServiceError, match="apt-get install the-package"):
        service.program("there-is-no-such-program", "the-package")


def test_the_server_is_a_daemon_of_a_session_of_its_own(call) -> None:
    call("start", "--port", "0")
    pid = remembered(call.folder)["pid"]
    assert os.getsid(pid) == os.getpgid(pid) == pid
