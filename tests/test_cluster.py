"""A whole cluster, every part real but the words: the same alerts as one process, whatever is killed.

Kafka, Redis and PostgreSQL are started by ``scripts/``; gateways and workers are processes of their own. Only
the recogniser's words follow a script, so that one process and the cluster read the same.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from app.demo import run
from app.store import Store
from app.store.times import now, written
from benchmarks.cluster import killer, material, one_process, play
from benchmarks.cluster_rig import ROOT, cluster
from streams import wire
from streams.kafka import DEAD_LETTERS, BrokerError, Sender, prepare_topics
from streams.states import CallStates

NEEDED = ("java", "mvn", "redis-server")


@pytest.fixture(scope="module")
def rig():
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} on PATH: a cluster needs Kafka and Redis; see .ci/run")
    with tempfile.TemporaryDirectory(prefix="duting-cluster-") as name, cluster(Path(name)) as rig:
        Path(name).chmod(0o755)  # PostgreSQL runs as a user of its own
        rig.start()
        yield rig


def assert_the_same(report, times=True):
    """``times``: also to the millisecond; a recogniser that catches up does not look for the words' times."""
    summary = report.summary()
    assert summary["lost"] == []
    assert summary["more"] == []
    assert not times or summary["differ"] == []
    assert summary["twice"] == []
    assert summary["cursors_twice"] == summary["cursors_missed"] == summary["resyncs"] == 0
    assert len(report.expected) >= report.calls, "calls that raise nothing show nothing"


@pytest.mark.cluster
def test_calls_through_the_cluster_give_the_same_alerts_as_one_process(rig):
    """Also while a third worker joins, and messages come that nobody can read."""
    calls = material(6, 30.0)
    expected = one_process(calls)

    async def disturb(rig, watch):
        await asyncio.sleep(6)
        await poison(rig)
        await asyncio.to_thread(rig.add, "detect")
        await asyncio.to_thread(rig.wait_ready, 150)

    report = asyncio.run(play(rig, calls, expected, disturb))
    assert_the_same(report)
    letters = asyncio.run(dead_letters(rig, 4))
    assert sorted(dict(headers)["topic"].decode() for headers, _ in letters) == [
        "alerts",
        "signals",
        "speech",
        "transcripts",
    ]
    assert not list(ROOT.glob("duting-*-data")), "nothing is written where a worker was started"
    why = " ".join(dict(headers)["why"].decode() for headers, _ in letters)
    assert "schema version" in why
    assert "秘密" not in why


UNREADABLE = {
    "speech": wire.MAGIC + bytes((99,)) + b"\x80",
    "signals": b"{}",
    "transcripts": wire.MAGIC + b"\x01" + "秘密".encode(),
    "alerts": wire.MAGIC + bytes((99,)),
}


async def poison(rig):
    producer = AIOKafkaProducer(bootstrap_servers=rig.urls["kafka"].removeprefix("kafka://"))
    await producer.start()
    try:
        for topic, value in UNREADABLE.items():
            await producer.send_and_wait(topic, value, key=b"nobody")
    finally:
        await producer.stop()


async def dead_letters(rig, number):
    consumer = AIOKafkaConsumer(
        DEAD_LETTERS,
        bootstrap_servers=rig.urls["kafka"].removeprefix("kafka://"),
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        async with asyncio.timeout(20):
            return [(m.headers, m.value) for m in [await consumer.getone() for _ in range(number)]]
    finally:
        await consumer.stop()


@pytest.mark.cluster
def test_whatever_is_killed_no_alert_is_lost_and_none_is_shown_twice(rig, capsys):
    calls = material(12, 75.0)
    expected = one_process(calls)
    kinds = ("asr", "detect", "redis", "kafka", "gateway")
    report = asyncio.run(play(rig, calls, expected, killer(kinds, 8.0, 13.0)))
    with capsys.disabled():
        for killed in report.killed:
            print(f"\n{killed['kind']}: {killed['longest_silence_s']} s until alerts came again", end="")
    assert [killed["kind"] for killed in report.killed] == list(kinds)
    assert report.summary()["cut_off"], "the telephones at the gateway that was killed came back"
    assert_the_same(report, times=False)
    assert_escalated_once(rig, report)


def assert_escalated_once(rig, report):
    """Of several gateways one escalates an alert, tells it, and writes it down; one that was killed too."""
    seconds = 10
    store = Store.open(rig.urls["postgres"])
    try:
        for _ in range(10 * seconds):  # an alert may have come due just now
            if not store.alerts.due(written(now()), 1):
                break
            time.sleep(0.1)
        oldest, newest = store.log.bounds()
        events = [each.published for each in store.log.read(oldest - 1, newest, newest)]
        told = Counter(each.alert.id for each in events if each.change and each.change.action == "escalate")
        mine = {alert_id: number for alert_id, number in told.items() if alert_id in report.seen}
        assert mine, "the calls were too short: nothing escalated"
        assert set(told.values()) == {1}
        waiting = {
            each.alert.id
            for each in events
            if each.type == "alert.raised" and each.alert.severity == "critical"
        }
        assert waiting & mine.keys()
        for alert_id in mine:
            assert [each.action for each in store.audit.about(alert_id)] == ["alert.escalated"]
            assert [each.action for each in store.alerts.history(alert_id, 10)] == ["escalate"]
    finally:
        store.close()


@pytest.mark.cluster
def test_a_new_gateway_shows_what_is_going_on_within_two_seconds(rig):
    calls = material(3, 20.0)

    async def disturb(rig, watch):
        await asyncio.sleep(8)
        member = await asyncio.to_thread(rig.add, "gateway")
        cookie = await asyncio.to_thread(run.log_in, member.address, rig.account)
        began = time.monotonic()
        request = urllib.request.Request(f"{member.address}/api/floor", headers={"cookie": cookie})
        with await asyncio.to_thread(urllib.request.urlopen, request, timeout=5) as answer:
            floor = json.load(answer)
        watch.killed.append({"floor": floor, "seconds": time.monotonic() - began})

    report = asyncio.run(play(rig, calls, {}, disturb))
    [shown] = report.killed
    assert set(calls) <= {call["call_id"] for call in shown["floor"]["calls"]}
    assert shown["seconds"] < 2


def tell(address, token, call_id, events):
    """What a gateway answers a telephony system."""
    request = urllib.request.Request(
        f"{address}/api/calls/{call_id}/events",
        data=json.dumps(events).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.status, json.load(answer)


@pytest.mark.cluster
def test_what_a_telephony_system_tells_any_gateway_comes_to_the_call_once(rig):
    calls = material(2, 20.0)
    answers = []

    async def disturb(rig, watch):
        await asyncio.sleep(6)
        for wait, event in ((2, "hold"), (2, "resume"), (5, "hangup")):
            for call_id in calls:
                # To both gateways: one of them hears the call, and one does not.
                for member in rig.gateways[:2]:
                    told = [{"type": event, "id": event} | ({"by": "agent"} if event == "hangup" else {})]
                    answer = await asyncio.to_thread(tell, member.address, rig.token, call_id, told)
                    answers.append((event, *answer))
            await asyncio.sleep(wait)

    report = asyncio.run(play(rig, calls, {}, disturb))
    assert {status for _, status, _ in answers} == {202}
    assert sum(body["taken"] for event, _, body in answers if event != "hangup") == 4
    assert not report.expected
    cookie = run.log_in(rig.gateways[1].address, rig.account)
    for call_id in calls:
        request = urllib.request.Request(
            f"{rig.gateways[1].address}/api/calls/{call_id}", headers={"cookie": cookie}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            found = json.load(answer)
        [hold] = [mark for mark in found["markers"] if mark["rule_id"] == "call.hold"]
        assert 1_500 < hold["media_end_ms"] - hold["media_start_ms"] < 4_000
        assert (found["call"]["reason"], found["call"]["by"]) == ("hangup", "agent")
        assert found["call"]["duration_ms"] < 18_000


@pytest.mark.cluster
def test_workers_that_are_asked_to_stop_leave_in_good_order(rig):
    """First one that detects, then one that recognises; others of the kind have come before."""
    calls = material(3, 25.0)
    expected = one_process(calls)

    async def disturb(rig, watch):
        for kind in ("detect", "asr"):
            await asyncio.to_thread(rig.add, kind)
        await asyncio.to_thread(rig.wait_ready, 150)
        for kind in ("detect", "asr"):
            await asyncio.sleep(5)
            leaving = next(m for m in rig.members.values() if m.name.startswith(kind))
            status = await asyncio.to_thread(leaving.terminate)
            watch.killed.append({"kind": kind, "status": status})
            del rig.members[leaving.name]

    report = asyncio.run(play(rig, calls, expected, disturb))
    assert report.killed == [{"kind": "detect", "status": 0}, {"kind": "asr", "status": 0}]
    assert_the_same(report)


@pytest.mark.cluster
def test_a_broker_that_is_not_there_is_named_with_what_to_do(rig, tmp_path):
    environment = {**os.environ, **rig.environment(), "DUTING_KAFKA_URL": "kafka://127.0.0.1:9"}
    for command in (["serve", "--port", "0"], ["worker", "detect", "--port", "0"]):
        done = subprocess.run(
            [sys.executable, "-m", "app", *command],
            env={**environment, "DUTING_DATA_DIR": str(tmp_path)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 1
        assert "cannot reach Kafka at 127.0.0.1:9" in done.stderr
        assert "DUTING_KAFKA_URL" in done.stderr


@pytest.mark.cluster
def test_calls_that_were_written_down_are_read_again_by_whoever_gets_their_partition(rig):
    brokers = [rig.urls["kafka"].removeprefix("kafka://")]

    async def write_and_read():
        sender = Sender(brokers, "test")
        await sender.start()
        first, second = CallStates(brokers, sender), CallStates(brokers, sender)
        try:
            await first.load({0, 1})
            written = [(0, "test-a", b"1"), (0, "test-a", b"2"), (1, "test-b", b"3"), (5, "test-c", b"4")]
            await first.write(written)
            await second.load({0})
            found = [second.get(name) for name in ("test-a", "test-b", "test-c")]
            await first.write([(0, "test-a", None), (1, "test-b", None)])
            await second.load({0, 1, 5})
            return found, [second.get(name) for name in ("test-a", "test-b", "test-c")]
        finally:
            await sender.stop()

    found, gone = asyncio.run(write_and_read())
    assert found == [b"2", None, None], "the newest, of its own partitions"
    assert gone == [None, None, None], "ended, or written by nobody who had the partition"


@pytest.mark.cluster
def test_topics_that_do_not_fit_together_are_refused(rig, tmp_path):
    """Somebody has made one of them with fewer partitions."""
    from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

    async def widen(names, count):
        brokers = rig.urls["kafka"].removeprefix("kafka://")
        admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
        await admin.start()
        try:
            await admin.create_partitions({name: NewPartitions(count) for name in names})
        finally:
            await admin.close()

    async def prepare():
        return await prepare_topics([rig.urls["kafka"].removeprefix("kafka://")], 6, 1)

    assert asyncio.run(prepare()) == 6
    asyncio.run(widen(["signals"], 7))
    with pytest.raises(BrokerError, match=r"same number of partitions.*signals 7"):
        asyncio.run(prepare())


def test_a_worker_without_a_cluster_says_what_it_needs():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DUTING_")}
    done = subprocess.run(
        [sys.executable, "-m", "app", "worker", "asr"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "DUTING_KAFKA_URL" in done.stderr
    assert "duting serve" in done.stderr
