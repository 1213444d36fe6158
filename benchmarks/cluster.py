"""``python -m benchmarks.cluster --json OUT``: a cluster on this machine, broken on purpose and measured.

Everything is real (Kafka, Redis, PostgreSQL, gateways, workers, telephones, browsers) but the words, which
follow a script unless ``--model`` is given.

``--kill``      each kind of process in turn, in the middle of the calls: what was lost, shown twice, and how
                long it took until alerts came again
``--beside``    the same calls through one process first: what the broker's way adds

Without ``--kill`` it also says what a second of call costs: processor time by kind of process, bytes by
topic. ``benchmarks.plan`` plans with that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from app import settings as settings_
from app.build import model, rules
from app.demo import run, truth
from app.models import RichProgress
from benchmarks.cluster_calls import Browser, Telephone, Tracks, alone, load, standing
from benchmarks.cluster_rig import SERVERS, ClusterRig, Member, alone_rig, cluster
from benchmarks.machine import machine
from benchmarks.scripted import scripted
from detectors.emotion import EmotionDetector
from detectors.panel import Panel
from detectors.privacy import redact
from streams.events import Alert, CallInfo, OutletEvent
from streams.local import LocalRunner
from streams.transcribe import Transcriber

KINDS = ("asr", "detect", "redis", "kafka", "gateway")


@dataclass
class Report:
    """What became of one run of calls."""

    calls: int
    expected: dict[str, Alert] = field(repr=False)
    """What one process says of the same calls, by id; empty where nothing was to be compared."""
    seen: dict[str, Alert] = field(repr=False)
    browsers: list[Browser] = field(repr=False)
    telephones: list[Telephone] = field(repr=False)
    killed: list[dict[str, Any]] = field(default_factory=list)

    @property
    def moved(self) -> dict[str, str]:
        """Alerts of calls that came back over another gateway, by the id that one process gives them.

        Whoever begins to hear in the middle cuts the next utterances a little elsewhere, and an alert's id
        comes of where its utterance begins: the same rule, role and moment is the same alert.
        """
        cut_off = {t.call_id for t in self.telephones if t.came_back}
        free = {name: self.seen[name] for name in self.seen.keys() - self.expected.keys()}
        found = {}
        for name in sorted(self.expected.keys() - self.seen.keys()):
            alert = self.expected[name]
            near = [n for n, other in free.items() if _same(alert, other)] if alert.call_id in cut_off else []
            if near:
                found[name] = near[0]
                del free[near[0]]
        return found

    @property
    def lost(self) -> list[str]:
        return sorted(
            _told(self.expected[name]) for name in self.expected.keys() - self.seen.keys() - self.moved.keys()
        )

    @property
    def more(self) -> list[str]:
        """Also an alert that came under two ids."""
        known = {*self.expected, *self.moved.values()}
        return sorted(_told(self.seen[name]) for name in self.seen.keys() - known)

    @property
    def twice(self) -> list[str]:
        """Shown as new more than once in one browser."""
        return sorted(
            _told(shown[0][1])
            for browser in self.browsers
            for shown in browser.raised.values()
            if len(shown) > 1
        )

    @property
    def differ(self) -> list[str]:
        """The same alert with other times or other evidence."""
        return sorted(
            f"{_told(alert)}: {_essence(alert)} != {_essence(self.seen[name])}"
            for name, alert in self.expected.items()
            if name in self.seen and _essence(alert) != _essence(self.seen[name])
        )

    def summary(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "expected": len(self.expected),
            "alerts": len(self.seen),
            "moved": len(self.moved),
            "lost": self.lost,
            "more": self.more,
            "twice": self.twice,
            "differ": self.differ,
            "cursors_twice": sum(len(b.twice) for b in self.browsers),
            "cursors_missed": sum(len(b.missed) for b in self.browsers),
            "resyncs": sum(b.resyncs for b in self.browsers),
            "cut_off": sum(len(t.came_back) for t in self.telephones),
            "killed": self.killed,
        }


def _told(alert: Alert) -> str:
    return f"{alert.rule_id} at {alert.media_end_ms} ms of {alert.call_id}"


SAME_MS = 1_500


def _same(alert: Alert, other: Alert) -> bool:
    what = (alert.call_id, alert.rule_id, alert.role) == (other.call_id, other.rule_id, other.role)
    return what and abs(alert.media_end_ms - other.media_end_ms) <= SAME_MS


def _essence(alert: Alert) -> tuple[Any, ...]:
    return alert.media_start_ms, alert.media_end_ms, alert.evidence, alert.severity, alert.role


def one_process(calls: dict[str, Tracks], transcriber: Transcriber | None = None) -> dict[str, Alert]:
    """What one process says of these calls, with the scripted words unless a model is given."""
    pack = rules(None)
    told: list[OutletEvent] = []

    async def emit(events: Sequence[OutletEvent]) -> None:
        told.extend(events)

    def panel(call: CallInfo) -> Panel:
        return Panel(call, pack, EmotionDetector(call, None))

    runner = LocalRunner(
        transcriber=transcriber or scripted(),
        detector=panel,
        prompt=lambda call: "",
        redact=redact,
        emit=emit,
        audio=None,
        most_calls=len(calls),
    )
    asyncio.run(alone(runner, calls))
    return standing(told)


Disturb = Callable[[ClusterRig, "Watch"], Awaitable[None]]


@dataclass
class Watch:
    """What a disturbance may look at."""

    browsers: list[Browser]
    telephones: list[Telephone]
    started_s: float
    killed: list[dict[str, Any]] = field(default_factory=list)


async def play(
    rig: ClusterRig,
    calls: dict[str, Tracks],
    expected: dict[str, Alert],
    disturb: Disturb | None = None,
    spread_s: float = 3.0,
) -> Report:
    """Play all calls at once, begun over ``spread_s``, with one browser at each gateway."""
    gateways = [_address(member) for member in rig.gateways]
    cookie = await asyncio.to_thread(run.log_in, rig.gateways[0].address, rig.account)
    turned = [[*gateways[n:], *gateways[:n]] for n in range(len(gateways))]
    browsers = [Browser(order, cookie) for order in turned]
    listening = [asyncio.create_task(browser.listen()) for browser in browsers]
    telephones = [
        Telephone(call_id, audio, turned[n % len(turned)], rig.token)
        for n, (call_id, audio) in enumerate(calls.items())
    ]
    try:
        await asyncio.wait_for(asyncio.gather(*(b.connected.wait() for b in browsers)), 20)
        watch = Watch(browsers, telephones, time.monotonic())

        async def begin(number: int, telephone: Telephone) -> None:
            await asyncio.sleep(spread_s * number / len(telephones))
            await telephone.call()

        tasks = [asyncio.create_task(begin(n, t)) for n, t in enumerate(telephones)]
        disturbing = asyncio.create_task(disturb(rig, watch)) if disturb is not None else None
        await asyncio.gather(*tasks)
        if disturbing is not None:
            await disturbing
        await asyncio.wait_for(asyncio.gather(*(b.all_ended(set(calls)) for b in browsers)), 90)
        await asyncio.sleep(1.0)  # for what might come behind the end
    finally:
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
    mine = {i: a for i, a in browsers[0].standing().items() if a.call_id in calls}
    return Report(len(calls), expected, mine, browsers, telephones, watch.killed)


@dataclass(frozen=True)
class Spent:
    """What each member and topic had used up at one moment."""

    cpu_s: dict[str, float]
    bytes: dict[str, float]
    call_s: float

    def since(self, before: Spent) -> dict[str, Any]:
        """Per second of a two-channel call."""
        seconds = self.call_s - before.call_s
        cpu: dict[str, float] = {}
        for name, used in self.cpu_s.items():
            kind = name.split("-")[0]
            cpu[kind] = cpu.get(kind, 0.0) + used - before.cpu_s.get(name, 0.0)
        return {
            "call_seconds": round(seconds, 1),
            "cpu_s_per_call_s": {kind: round(used / seconds, 5) for kind, used in cpu.items()},
            "bytes_per_call_s": {
                topic: round((sent - before.bytes.get(topic, 0.0)) / seconds)
                for topic, sent in sorted(self.bytes.items())
            },
        }


def spent(rig: ClusterRig) -> Spent:
    """Processor time of members and servers, bytes sent to topics, seconds of calls heard."""
    cpu = {m.name: _cpu_s(m.process.pid) for m in rig.members.values() if m.process is not None}
    cpu |= {server: _server_cpu_s(rig.folder / server) for server in SERVERS}
    sent: dict[str, float] = {}
    audio = 0.0
    for member in rig.members.values():
        with urllib.request.urlopen(f"{member.address}/metrics", timeout=5) as answer:
            page = answer.read().decode()
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == "duting_broker_bytes_total":
                    topic = sample.labels["topic"]
                    sent[topic] = sent.get(topic, 0.0) + sample.value
                elif sample.name == "duting_audio_seconds_total":
                    audio += sample.value
                elif sample.name == "duting_snapshot_bytes_total":
                    sent["(states)"] = sent.get("(states)", 0.0) + sample.value
    return Spent(cpu, sent, audio / 2)


def _cpu_s(pid: int) -> float:
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                total += times.user + times.system
    return total


def _server_cpu_s(folder: Path) -> float:
    """Of a server that ``scripts/`` started, and its children."""
    state = folder / "service.json"
    return _cpu_s(json.loads(state.read_text())["pid"]) if state.exists() else 0.0


def _address(member: Member) -> Callable[[], str]:
    return lambda: member.address


def material(count: int, seconds: float) -> dict[str, Tracks]:
    """``count`` calls of at most so many seconds, under new ids."""
    scripted_calls = truth.load(truth.CALLS)
    run_id = uuid.uuid4().hex[:6]
    out = {}
    for number in range(count):
        call = scripted_calls[number % len(scripted_calls)]
        out[f"{call.name}-{number}-{run_id}"] = load(call.audio, seconds)
    return out


# ── killing ───────────────────────────────────────────────────────────────────────────────────────


def killer(kinds: Sequence[str], first_s: float, every_s: float, down_s: float = 1.0) -> Disturb:
    """Kill one process of each kind in turn, and start it again ``down_s`` later."""

    async def disturb(rig: ClusterRig, watch: Watch) -> None:
        for number, kind in enumerate(kinds):
            due = watch.started_s + first_s + number * every_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            killed = time.monotonic()
            if kind in ("redis", "kafka", "postgres"):
                await asyncio.to_thread(rig.script, kind, "kill")
                await asyncio.sleep(down_s)
                await asyncio.to_thread(rig.script, kind, "start")
            else:
                member = next(m for m in rig.members.values() if m.name.startswith(kind))
                await asyncio.to_thread(member.kill)
                await asyncio.sleep(down_s)
                await asyncio.to_thread(member.start)
            up = time.monotonic()
            again = await _next_arrival(watch, up, 40.0)
            watch.killed.append(
                {
                    "kind": kind,
                    "at_s": round(killed - watch.started_s, 1),
                    "down_s": round(up - killed, 1),
                    "longest_silence_s": _longest_silence(watch, killed, again),
                }
            )

    return disturb


async def _next_arrival(watch: Watch, after: float, timeout_s: float) -> float:
    ends = after + timeout_s
    while time.monotonic() < ends:
        if all(any(at > after for at in b.arrivals[-50:]) for b in watch.browsers):
            break
        await asyncio.sleep(0.1)
    return time.monotonic()


def _longest_silence(watch: Watch, since: float, until: float) -> float:
    """The longest time in which a browser was told nothing of any call."""
    longest = 0.0
    for browser in watch.browsers:
        at = [since, *(t for t in browser.arrivals if since <= t <= until), until]
        longest = max(longest, max(b - a for a, b in pairwise(at)))
    return round(longest, 2)


# ── the command ───────────────────────────────────────────────────────────────────────────────────


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.cluster", description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--calls", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=75.0, help="of each call at most")
    parser.add_argument("--kill", default="", help=f"kinds in turn, of {','.join(KINDS)}; or all")
    parser.add_argument("--every", type=float, default=14.0, help="seconds between two")
    parser.add_argument("--model", action="store_true", help="the real model in place of scripted words")
    parser.add_argument("--beside", action="store_true")
    parser.add_argument("--gateways", type=int, default=2)
    parser.add_argument("--detect", type=int, default=2)
    given = parser.parse_args(arguments)
    console = Console()
    kinds = KINDS if given.kill == "all" else tuple(filter(None, given.kill.split(",")))
    calls = material(given.calls, given.seconds)
    real = model(settings_.load(), RichProgress()) if given.model else None
    expected = one_process(calls, real)
    del real  # the workers load their own
    beside = _beside(calls, given.model) if given.beside else None
    with (
        tempfile.TemporaryDirectory(prefix="duting-cluster-") as folder,
        cluster(Path(folder), scripted=not given.model) as rig,
    ):
        Path(folder).chmod(0o755)  # PostgreSQL runs as a user of its own
        began = time.monotonic()
        rig.start(gateways=given.gateways, detect=given.detect)
        console.print(f"the cluster is up after {time.monotonic() - began:.1f} s")
        disturb = killer(kinds, 10.0, given.every) if kinds else None
        before = spent(rig)
        report = asyncio.run(play(rig, calls, expected, disturb))
        units = spent(rig).since(before) if not kinds else {}
    summary = report.summary() | latencies(report) | units
    if beside is not None:
        summary["one_process"] = latencies(beside)
        summary |= added(report, beside)
    _show(console, summary)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(
        json.dumps(
            {"summary": summary, "machine": machine(), "runs": [summary]}, ensure_ascii=False, indent=2
        )
    )


def _beside(calls: dict[str, Tracks], model: bool) -> Report:
    """The same calls through ``duting serve`` alone, with the same words."""
    with tempfile.TemporaryDirectory(prefix="duting-alone-") as folder:
        rig = alone_rig(Path(folder), scripted=not model)
        try:
            rig.wait_ready()
            return asyncio.run(play(rig, calls, {}))
        finally:
            rig.stop()


def added(report: Report, beside: Report) -> dict[str, Any]:
    """What the broker's way adds to the same alerts, seconds; and where: means by step, milliseconds."""
    here, there = _first_shown(report), _first_shown(beside)
    both = sorted(here.keys() & there.keys())
    more = sorted(
        (here[name].latency_ms.total or 0.0) - (there[name].latency_ms.total or 0.0) for name in both
    )
    if not more:
        return {}
    return {
        "compared": len(more),
        "added_p50_s": round(statistics.median(more) / 1000, 3),
        "added_p95_s": round(more[min(len(more) - 1, int(0.95 * len(more)))] / 1000, 3),
        "added_ms_by_step": {
            step: round(
                statistics.mean(
                    (getattr(here[name].latency_ms, step) or 0.0)
                    - (getattr(there[name].latency_ms, step) or 0.0)
                    for name in both
                ),
                1,
            )
            for step in ("vad", "queue", "asr", "rules", "delivery")
        },
    }


def _first_shown(report: Report) -> dict[str, Alert]:
    """The alerts as the first browser got them first."""
    return {name: shown[0][1] for name, shown in report.browsers[0].raised.items()}


def latencies(report: Report) -> dict[str, Any]:
    """``latency_ms`` of the alerts as the browsers got them, seconds: all of it, and the last step."""
    totals = sorted(
        shown[0][1].latency_ms.total / 1000
        for browser in report.browsers
        for shown in browser.raised.values()
        if shown[0][1].latency_ms.total is not None
    )
    if not totals:
        return {"p50_s": None, "p95_s": None}
    return {
        "p50_s": round(statistics.median(totals), 3),
        "p95_s": round(totals[min(len(totals) - 1, int(0.95 * len(totals)))], 3),
    }


def _show(console: Console, summary: dict[str, Any]) -> None:
    table = Table("figure", "value")
    for name, value in summary.items():
        table.add_row(name, str(value))
    console.print(table)


if __name__ == "__main__":
    main()
