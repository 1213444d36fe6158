"""``python -m benchmarks.plan --calls 10000 --units OUT``: what a centre of that size needs.

``--units`` is what ``benchmarks.cluster`` wrote: processor time and bytes per second of call, measured here.
What one machine for recognition holds comes from ``benchmarks.latency --ramp`` (``--calls-per-asr``), or from
``benchmarks.model`` on a GPU.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

BUSY = 0.6
"""Share of a core that is planned with: the rest is for peaks, rebalances, and a machine that fails."""
PARTITION_BYTES_S = 5_000_000.0
"""What one partition is planned to take, a tenth of what a broker's disk writes; keeps one worker's share of
recovery small."""
KEPT_S = {"speech": 3_600, "transcripts": 3_600, "signals": 21_600, "calls": 600, "alerts": 86_400}
"""How long each topic keeps what it has (``streams.kafka``); the small ones like ``alerts``. ``calls`` is
compacted: about what was written since the cleaner came round."""


def plan(units: dict[str, Any], calls: int, calls_per_asr: float, spare: float = 1.25) -> dict[str, Any]:
    """Machines, partitions and disk for ``calls`` at once.

    ``units``: ``cpu_s_per_call_s`` by kind of process, ``bytes_per_call_s`` by topic. ``calls_per_asr``: what
    one recognition worker holds. ``spare``: more of everything, for what fails.
    """
    cpu, sent = units["cpu_s_per_call_s"], units["bytes_per_call_s"]
    topics = {name: size for name, size in sent.items() if not name.startswith("(")}
    bytes_s = {name: size * calls for name, size in topics.items()}
    asr = math.ceil(spare * calls / calls_per_asr)
    detect_cores = spare * calls * cpu.get("detect", 0.0) / BUSY
    by_bytes = math.ceil(max(bytes_s.values(), default=0.0) / PARTITION_BYTES_S)
    disk = sum(size * KEPT_S.get(name, KEPT_S["alerts"]) for name, size in bytes_s.items())
    return {
        "calls": calls,
        "asr_workers": asr,
        "detect_cores": math.ceil(detect_cores),
        "gateway_cores": math.ceil(spare * calls * cpu.get("gateway", 0.0) / BUSY),
        "postgres_cores": math.ceil(spare * calls * cpu.get("postgres", 0.0) / BUSY),
        "redis_cores": math.ceil(spare * calls * cpu.get("redis", 0.0) / BUSY),
        "kafka_cores": math.ceil(spare * calls * cpu.get("kafka", 0.0) / BUSY),
        # Every worker needs one partition at least, and a power of two spreads evenly.
        "partitions": 2 ** math.ceil(math.log2(max(asr, math.ceil(detect_cores), by_bytes, 1))),
        "mbit_s": {name: round(size * 8 / 1e6, 1) for name, size in bytes_s.items()},
        "kafka_disk_gb_per_copy": round(disk / 1e9, 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.plan", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--units", type=Path, required=True)
    parser.add_argument("--calls-per-asr", type=float, required=True)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    units = json.loads(given.units.read_text())["summary"]
    planned = plan(units, given.calls, given.calls_per_asr)
    table = Table("figure", f"{given.calls} calls at once")
    for name, value in planned.items():
        table.add_row(name, str(value))
    Console().print(table)
    if given.json is not None:
        given.json.write_text(json.dumps({"summary": planned, "units": units}, indent=2))


if __name__ == "__main__":
    main()
