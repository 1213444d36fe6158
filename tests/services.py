"""Servers of the outside world for tests: programs in ``scripts/`` start them once, they end with the tests.

Where a server's program is not installed its tests are skipped, and the reason names the package. To add
one: a session fixture with ``yield from running(name)``, and a fixture beside it that gives every test a
part of it to itself.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

SCRIPTS = Path(__file__).parent.parent / "scripts"
START_S = 90


class Server:
    """One server in a folder of its own.

    Not in pytest's: PostgreSQL, which refuses to run as root, then runs as a user who may not enter that.
    """

    def __init__(self, name: str, *options: str) -> None:
        self._script = SCRIPTS / name
        self._options = options
        self._port = ("--port", "0")
        self.folder = Path(tempfile.mkdtemp(prefix=f"duting-{name}-"))
        self.url = ""

    def start(self) -> str:
        """Start it, the second time on the same port; returns its URL. Skips if it is not installed."""
        self.url = self._run("start", *self._port, *self._options).strip()
        self._port = ()
        return self.url

    def stop(self) -> None:
        """Let it end in good order; no error if it does not run."""
        self._run("stop")

    def kill(self) -> None:
        """As in a crash."""
        self._run("kill")

    def remove(self) -> None:
        """Stop it and forget what it kept."""
        try:
            self._run("stop")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, verb: str, *options: str) -> str:
        done = subprocess.run(
            [sys.executable, str(self._script), verb, "--dir", str(self.folder), *options],
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout
        if "apt-get install" in done.stderr:
            pytest.skip(done.stderr.strip())
        pytest.fail(f"scripts/{self._script.name} {verb}: {done.stderr.strip()}")


def running(name: str, *options: str) -> Iterator[Server]:
    """The body of a fixture: a server that runs, until the fixture ends."""
    if not (SCRIPTS / name).exists():
        pytest.skip(f"scripts/{name} is not there")
    server = Server(name, *options)
    try:
        server.start()
        yield server
    finally:
        server.remove()


# ── PostgreSQL ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """The one for all tests that leave it running. It never waits for the disk: nothing in it has to last."""
    for server in running("postgres"):
        with admin(server.url) as connection:
            for name in ("fsync", "full_page_writes", "synchronous_commit"):
                connection.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(name)))
            connection.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def own_postgres() -> Iterator[Server]:
    """One for a single test, which may kill it or change how it is set up."""
    yield from running("postgres")


def admin(url: str) -> psycopg.Connection:
    """Beside the store, to see or to spoil what is there."""
    return psycopg.connect(url, autocommit=True, connect_timeout=10)


_numbers = count(1)


@pytest.fixture
def new_postgres(postgres_server: Server) -> Iterator[Callable[[], str]]:
    """Makes empty databases and returns their URLs; after the test they are dropped."""
    made: list[str] = []
    with admin(postgres_server.url) as server:

        def make() -> str:
            made.append(f"test_{next(_numbers)}")
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(made[-1])))
            return postgres_server.url.rpartition("/")[0] + f"/{made[-1]}"

        yield make
        for name in made:
            # FORCE: what a failed test left open must not keep it.
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def postgres_url(new_postgres: Callable[[], str]) -> str:
    """An empty database."""
    return new_postgres()


# ── both databases ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """As ``new_postgres``; the test runs twice, once with files of SQLite."""
    if request.param == "postgresql":
        return request.getfixturevalue("new_postgres")
    numbers = count(1)
    return lambda: f"sqlite:///{tmp_path / f'test{next(numbers)}.db'}"


@pytest.fixture
def database_url(new_database: Callable[[], str]) -> str:
    """An empty database; the test runs twice, once on each kind."""
    return new_database()
