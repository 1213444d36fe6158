"""``python -m benchmarks.feed --sockets N --rate R --seconds S --json OUT``: alerts to many dashboards.

The real server process, N real sockets in one load process, R alerts a second that are handed to the real
outlet (SQLite, one commit after the other) inside the server. ``p95_s`` counts from the outlet to the alert's
arrival on the socket, over all alerts and sockets; ``lost`` are those that a socket never saw, ``doubled``
those that it saw again. ``--calls C`` adds a floor: C live calls with two events a second each, told to all
sockets too. ``--slow K`` adds K sockets that hardly read: they must not slow the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from app.demo import run as run_
from benchmarks import plots
from benchmarks.appended import Plan, Played, begin, played
from benchmarks.feed_load import FeedReport
from benchmarks.machine import machine
from benchmarks.measured import percentile
from benchmarks.rig import ServerProbe, ahead, server

PLAYED_TIMEOUT_S = 60.0
SETTLE_S = 2.0
"""For what is still on its way when the last alert was stored."""
COLUMNS = (
    "sockets", "slow", "calls", "alerts", "p50_s", "p95_s", "p99_s", "max_s", "lost", "doubled", "resyncs",
    "closed", "slow_resyncs", "slow_closed", "frames_mb_s", "late_s",
    "server_cores", "load_cores", "load_worst_lag_s", "server_rss_mib_max",
)  # fmt: skip


def summary(report: FeedReport, told: Played) -> dict[str, Any]:
    """What the sockets saw of the alerts that were told."""
    delays = sorted(delay for socket in report.delays_s for delay in socket)
    lost = sum(told.alerts - len(set(numbers)) for numbers in report.numbers)
    doubled = sum(len(numbers) - len(set(numbers)) for numbers in report.numbers)
    figures = {"p50_s": 0.5, "p95_s": 0.95, "p99_s": 0.99, "max_s": 1.0}
    return {
        "sockets": len(report.numbers),
        "alerts": told.alerts,
        **{name: round(percentile(delays, share), 4) if delays else None for name, share in figures.items()},
        "lost": lost,
        "doubled": doubled,
        "resyncs": report.resyncs,
        "closed": report.closed,
        "slow_resyncs": report.slow_resyncs,
        "slow_closed": report.slow_closed,
        "late_s": told.late_s,
        "load_worst_lag_s": report.worst_lag_s,
    }


async def measure(sockets: int, rate: float, seconds: float, calls: int, slow: int) -> dict[str, Any]:
    plan = Plan(
        calls=max(10, calls),
        events_per_call_s=2.0 if calls else 0.0,
        alerts_s=rate,
        seconds=seconds,
        changes=calls > 0,
    )
    with (
        tempfile.TemporaryDirectory(prefix="duting-feed-") as folder,
        server(program=("benchmarks.appended",)) as rig,
    ):
        out = Path(folder) / "report.json"
        cookie = await asyncio.to_thread(run_.log_in, rig.address, rig.account)
        probe = ServerProbe(rig.pid, rig.address)
        with ahead():
            load = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "benchmarks.feed_load",
                *("--address", rig.address, "--out", str(out)),
                *("--sockets", str(sockets), "--slow", str(slow)),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
        assert load.stdin is not None
        assert load.stdout is not None
        try:
            load.stdin.write(cookie.encode() + b"\n")
            if (await asyncio.wait_for(load.stdout.readline(), 60)).strip() != b"ready":
                raise run_.DemoFailed("the load process failed; its message stands above")
            begin(rig.folder, plan)
            watching = asyncio.create_task(probe.watch())
            try:
                async with asyncio.timeout(seconds + PLAYED_TIMEOUT_S):
                    while (told := await asyncio.to_thread(played, rig.folder)) is None:  # noqa: ASYNC110
                        await asyncio.sleep(0.2)
            finally:
                watching.cancel()
            await asyncio.sleep(SETTLE_S)
            load.stdin.close()
            if await load.wait() != 0:
                raise run_.DemoFailed("the load process failed; its message stands above")
        finally:
            if load.returncode is None:
                load.terminate()
                await load.wait()
        report = msgspec.json.decode(out.read_bytes(), type=FeedReport)
    first, last = probe.samples[0], probe.samples[-1]
    return {
        **summary(report, told),
        "rate": rate,
        "seconds": seconds,
        "calls": calls,
        "slow": slow,
        "frames_mb_s": round(report.bytes / seconds / 1e6, 2),
        "server_cores": round((last.cpu_s - first.cpu_s) / (last.at_s - first.at_s), 2),
        "load_cores": round(report.cpu_s / seconds, 2),
        "server_rss_mib_max": round(max(sample.rss_mib for sample in probe.samples)),
        "delays": [report.delays_s[place] for place in range(0, len(report.delays_s), 20)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sockets", type=int, nargs="+", default=[200], help="several: one run each")
    parser.add_argument("--rate", type=float, default=50.0, help="alerts a second, of all calls together")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--calls", type=int, default=0, help="live calls with two events a second each")
    parser.add_argument("--slow", type=int, default=0, help="further sockets that hardly read")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    console = Console()
    rows: list[dict[str, Any]] = []
    delays: list[list[list[float]]] = []
    for sockets in given.sockets:
        row = asyncio.run(measure(sockets, given.rate, given.seconds, given.calls, given.slow))
        delays.append(row.pop("delays"))
        rows.append(row)
        console.print(_table(rows))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        plots.deliveries([row["sockets"] for row in rows], delays, given.rate, given.json.with_suffix(".png"))
        last = {key: rows[-1][key] for key in ("sockets", "rate", "p95_s", "lost", "doubled", "alerts")}
        given.json.write_text(json.dumps({"summary": last, "machine": machine(), "runs": rows}, indent=1))


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="alerts to dashboards")
    table.add_column("")
    for row in rows:
        table.add_column(f"{row['sockets']} × {row['rate']:g}/s", justify="right")
    for name in COLUMNS:
        table.add_row(name, *(str(row[name]) for row in rows))
    return table


if __name__ == "__main__":
    main()
