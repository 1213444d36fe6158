"""PostgreSQL, Redis and Kafka themselves: killed and started again they have what they kept."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.consumer import AIOKafkaConsumer

from tests.scripts.conftest import SCRIPTS

OPTIONS = {"redis": ("--persist",)}


class Program:
    """One program of scripts/ with a folder."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder

    def __call__(self, verb: str, *options: str, **environment: str) -> str:
        """Standard output. Skips where the server's package is not installed; ``.ci/run`` installs it."""
        if verb == "start":
            options = (*options, *OPTIONS.get(self.name, ()))
        done = subprocess.run(
            [sys.executable, str(SCRIPTS / self.name), verb, "--dir", str(self.folder), *options],
            capture_output=True,
            text=True,
            # The first start of Kafka fetches it.
            timeout=600,
            env={**os.environ, **environment},
            check=False,
        )
        if "apt-get install" in done.stderr and not environment:
            pytest.skip(done.stderr.strip())
        assert done.returncode == 0 or environment, done.stderr
        return done.stdout.strip() or done.stderr.strip()


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not in pytest's own, which PostgreSQL's user may not enter.
    path = Path(tempfile.mkdtemp(prefix="duting-server-"))
    yield path / "server"
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(params=["redis", "postgres", "kafka"])
def program(request: pytest.FixtureRequest, folder: Path) -> Iterator[Program]:
    folder.parent.chmod(0o755)
    made = Program(request.param, folder)
    yield made
    if folder.exists():
        made("kill")


def keep(url: str) -> None:
    """Writes one thing more."""
    if url.startswith("redis:"):
        with redis.Redis.from_url(url, socket_timeout=10) as client:
            client.incr("kept")
            # What is on disk survives; by itself Redis writes once a second.
            client.config_set("appendfsync", "always")
            client.incr("kept")
    elif url.startswith("postgresql:"):
        with psycopg.connect(url, connect_timeout=10) as database:
            database.execute("CREATE TABLE IF NOT EXISTS kept (what text)")
            database.execute("INSERT INTO kept VALUES ('这'), ('那')")
    else:
        asyncio.run(_keep_in_kafka(url.removeprefix("kafka://")))


async def _keep_in_kafka(broker: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        if "kept" not in await admin.list_topics():
            await admin.create_topics([NewTopic("kept", 1, 1)])
    finally:
        await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all")
    await producer.start()
    try:
        for what in (b"this", b"that"):
            await producer.send_and_wait("kept", what)
    finally:
        await producer.stop()


def kept(url: str) -> int:
    """How much was written."""
    if url.startswith("redis:"):
        with redis.Redis.from_url(url, socket_timeout=10) as client:
            return int(client.get("kept") or 0)
    if url.startswith("postgresql:"):
        with psycopg.connect(url, connect_timeout=10) as database:
            return database.execute("SELECT count(*) FROM kept").fetchone()[0]
    return asyncio.run(_kept_in_kafka(url.removeprefix("kafka://")))


async def _kept_in_kafka(broker: str) -> int:
    consumer = AIOKafkaConsumer(bootstrap_servers=broker)
    await consumer.start()
    try:
        partition = TopicPartition("kept", 0)
        consumer.assign([partition])
        return (await consumer.end_offsets([partition]))[partition]
    finally:
        await consumer.stop()


def test_a_server_has_what_it_kept_after_a_crash_and_after_a_stop(program: Program) -> None:
    url = program("start", "--port", "0")
    assert program("status") == url
    keep(url)
    program("kill")
    # At once: what a container's init has not reaped yet is in nobody's way.
    assert program("start") == url
    assert kept(url) == 2
    keep(url)
    program("stop")
    assert program("start") == url
    assert kept(url) == 4


def test_a_server_is_reached_from_this_machine_alone(program: Program) -> None:
    url = program("start", "--port", "0")
    port = int(url.split("/")[2].rpartition(":")[2])
    listening = {
        line.split()[1].split(":")[0]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[1].split(":")[1], 16) == port
    }
    # 127.0.0.1, as IPv4 or, from Java, inside IPv6.
    assert listening <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert listening


def test_jars_that_are_not_the_ones_listed_are_not_run(folder: Path, tmp_path: Path) -> None:
    kafka = Program("kafka", folder)
    kafka("start", "--port", "0")
    kafka("stop")
    found = re.search(r"kafka_2\.13</artifactId>\s*<version>(.*?)<", (SCRIPTS / "kafka.pom.xml").read_text())
    assert found is not None
    cache = Path(os.environ.get("DUTING_CACHE") or Path.home() / ".cache" / "duting")
    jars = cache / f"kafka-{found[1]}"
    copy = tmp_path / jars.name
    shutil.copytree(jars, copy)
    (victim, *_) = sorted(copy.glob("*.jar"))
    victim.write_bytes(victim.read_bytes() + b"!")
    (copy / "stranger.jar").write_bytes(b"")
    said = kafka("start", DUTING_CACHE=str(tmp_path))
    assert victim.name in said
    assert "stranger.jar" in said
    assert "Nothing was run" in said
