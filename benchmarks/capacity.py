"""``python -m benchmarks.capacity --calls N --protocols P … --json OUT``: what all but the model carries.

The real server (hearing, recording, rules, store, feed) with words from a script instead of the model's, N
paced calls from one load process over each protocol, alerts received on a real supervisor's socket, on one
machine.

``p95_s`` is the work of the server alone. An alert cannot come before its utterance is cut, and that takes
the silence that ends it (``streams.listen.Endpointing``): so it counts from the moment at which the last
sample that the cut needs was sent, to the alert's arrival on the socket. ``phrase_p95_s`` counts from the
phrase's end. ``lost`` is what the same calls raise when a few of them are played, and did not raise here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from app.demo import truth
from benchmarks import plots
from benchmarks.machine import machine
from benchmarks.measured import (
    Delay,
    Measured,
    final_delays,
    outcome_of,
    percentiles,
    stays,
    summary,
)
from benchmarks.rig import Load, measure, server
from benchmarks.wires import WIRES
from streams.events import SAMPLE_RATE
from streams.listen import Endpointing
from streams.silero import WINDOW

WINDOW_MS = WINDOW * 1000 // SAMPLE_RATE
FEW = 10
"""Calls at once when what the calls raise is found out."""
COLUMNS = (
    "calls", "p50_s", "p95_s", "p99_s", "max_s", "phrase_p50_s", "phrase_p95_s", "alerts", "lost", "gap_ms",
    "refused", "worst_step", "server_cores", "load_cores", "server_rss_mib_max", "load_worst_lag_s",
)  # fmt: skip


def server_delays(measured: Measured, scored: truth.Score) -> list[Delay]:
    """Last sample that the cut needs sent → alert on the socket, for every hit whose utterance is known."""
    played = {call.call_id: call for call in measured.report.calls}
    rules = Endpointing()
    ends = {
        text.utterance_id: (text.start_ms, text.end_ms)
        for finals in measured.socket.finals.values()
        for _, text in finals
    }
    out = []
    for want, alert in scored.hit:
        if alert.utterance_id not in ends:
            continue
        start_ms, end_ms = ends[alert.utterance_id]
        call = played[want.call]
        # The window in which the silence became long enough; a call that was hung up before cuts at its end.
        cut_s = (end_ms + rules.hangover_at(end_ms - start_ms) + WINDOW_MS) / 1000
        sent = measured.report.sent_s(call, min(cut_s, call.seconds))
        arrived = next(t for t, a in measured.socket.alerts[want.call] if a.id == alert.id)
        out.append(Delay(sent, arrived - sent, alert.rule_id, want.call))
    return sorted(out, key=lambda delay: delay.at_s)


def run(calls: int, seconds: float, calls_dir: Path, keep_audio: bool, protocol: str) -> Measured:
    environment = {"DUTING_KEEP_AUDIO": "true" if keep_audio else "false", "DUTING_MAX_CALLS": str(2 * calls)}
    if protocol == "audiosocket":
        environment["DUTING_AUDIOSOCKET_PORT"] = "0"
    with server(environment, scripted=True) as rig:
        return asyncio.run(measure(rig, Load(calls=calls, seconds=seconds, protocol=protocol), calls_dir))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, nargs="+", default=[150], help="at once; several: one run each")
    parser.add_argument("--protocols", nargs="+", choices=WIRES, default=["twilio"])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--calls-dir", type=Path, default=truth.CALLS)
    parser.add_argument("--no-audio", action="store_true", help="keep no recordings")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    console = Console()
    rows: list[dict[str, Any]] = []
    for protocol, calls in product(given.protocols, given.calls):
        few = run(FEW, given.seconds, given.calls_dir, not given.no_audio, protocol)
        reference = outcome_of(few, few.score())
        measured = run(calls, given.seconds, given.calls_dir, not given.no_audio, protocol)
        scored = measured.score()
        row = summary(measured, reference)
        row |= {f"phrase_{key}": row[key] for key in ("p50_s", "p95_s", "p99_s")}
        row |= {"calls": calls, "protocol": protocol, **percentiles(server_delays(measured, scored))}
        rows.append(row)
        console.print(_table(rows))
        if given.json:
            given.json.parent.mkdir(parents=True, exist_ok=True)
            plots.timeline(
                server_delays(measured, scored),
                final_delays(measured),
                measured.samples,
                stays(measured.socket.steps, measured.report.begun_s),
                measured.report.begun_s,
                given.json.with_suffix(".png"),
            )
            told = ("protocol", "calls", "p95_s", "lost", "phrase_p95_s", "gap_ms", "valid")
            last = {key: rows[-1][key] for key in told}
            given.json.write_text(
                json.dumps(
                    {"summary": last, "machine": machine(), "runs": rows}, ensure_ascii=False, indent=1
                )
            )


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    """A column for each run: there are more figures than runs."""
    table = Table(title="all but the model")
    table.add_column("")
    for row in rows:
        table.add_column(f"{row['protocol']}, {row['calls']}", justify="right")
    for name in COLUMNS[1:]:
        table.add_row(name, *(str(row.get(name)) for row in rows))
    return table


if __name__ == "__main__":
    main()
