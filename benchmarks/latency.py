"""``python -m benchmarks.latency --calls N --seconds S --json OUT``: how soon the supervisor knows.

The real server process with the real model, N paced telephone streams from one load process, alerts received
on a real supervisor socket. Prints a table, writes OUT and a plot beside it.

First every scripted call is played once at low load: what is found there and missed in the run is *lost*.
``--reference FILE`` takes that from an earlier OUT, ``--no-reference`` goes without.

``--ramp``        1, 4, 8, 12 … calls; the largest number that passes (see ``PASS_P95_S``, ``PASS_POINTS``)
``--soak``        a plain run judged over time: p95, memory and queues of its first and last fifth
``--overload N``  N calls are offered at once for S seconds, then all but ``--stay`` end
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console
from rich.table import Table

from app.demo import truth
from benchmarks import plots
from benchmarks.machine import machine
from benchmarks.measured import (
    Delay,
    Key,
    Measured,
    Stay,
    alert_delays,
    fifths,
    final_delays,
    in_order,
    outcome_of,
    percentiles,
    recovery_s,
    rounded,
    slope,
    stays,
    summary,
)
from benchmarks.rig import Load, measure, server

PASS_P95_S = 2.0
PASS_POINTS = 2.0
"""So many points of recall may be missing against the same calls at low load."""
RAMP = (1, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48)
LOW_LOAD = 3
"""Calls at once while the reference is taken."""
SETTLE_S = 40.0
"""Watched on after an overload's end: recovery is asked for within 30 s."""
LEAST_CALL_SECONDS = 600.0
"""Every step of a ramp plays so much of calls: one slow alert of five would decide a p95."""
WARM_UP = 0.2
"""Share of a soak before memory has to be flat."""
FLAT = 0.05
"""Memory may grow by this share from the second fifth of a soak to its last."""
QUEUE_SLACK = 2.0
"""So many more jobs may wait on average in the last fifth of a soak than in its first."""

Reference = dict[Key, tuple[int, int]]
Row = dict[str, Any]

COLUMNS = (
    ("calls", "calls"),
    ("p50", "p50_s"),
    ("p95", "p95_s"),
    ("p99", "p99_s"),
    ("max", "max_s"),
    ("final p50", "final_p50_s"),
    ("final p95", "final_p95_s"),
    ("alerts", "alerts"),
    ("recall", "recall"),
    ("at low load", "recall_low_load"),
    ("lost", "lost"),
    ("precision", "precision"),
    ("withdrawn", "withdrawn"),
    ("gaps ms", "gap_ms"),
    ("refused", "refused"),
    ("step", "worst_step"),
    ("cores", "server_cores"),
    ("CPU/call s", "server_cpu_s_per_call_second"),
    ("RSS MiB", "server_rss_mib_max"),
    ("load cores", "load_cores"),
    ("lag s", "load_worst_lag_s"),
)


def run(load: Load, calls_dir: Path, settle_s: float = 0.0) -> Measured:
    """One load into a server of its own."""
    with server() as rig:
        return asyncio.run(measure(rig, load, calls_dir, settle_s))


def low_load(calls_dir: Path) -> tuple[Row, Reference]:
    """Every scripted call once, ``LOW_LOAD`` at a time."""
    load = Load(calls=LOW_LOAD, seconds=0.0, spread_s=5.0, once=True)
    measured = run(load, calls_dir)
    return {"calls": LOW_LOAD, "kind": "reference", **summary(measured, None)}, outcome_of(
        measured, measured.score()
    )


def passes(row: Row) -> list[str]:
    """Why a run does not pass; nothing when it does."""
    reasons = []
    if row["p95_s"] is None or row["p95_s"] > PASS_P95_S:
        reasons.append(f"p95 {row['p95_s']} s, at most {PASS_P95_S} s wanted")
    found, low = row.get("recall_compared"), row.get("recall_low_load")
    if found is not None and low is not None and (low - found) * 100 > PASS_POINTS:
        reasons.append(f"recall {found:.3f}, {low:.3f} at low load")
    if row["undelivered"]:
        reasons.append(f"{row['undelivered']} alerts never came on the socket")
    if row["refused"] or row["broken"]:
        reasons.append(f"{row['refused']} calls refused, {row['broken']} broken off")
    if not row["valid"]:
        reasons.append(f"the load itself was {row['load_worst_lag_s']} s late: not a valid run")
    return reasons


def climb(
    calls: Sequence[int],
    seconds: float,
    seed: int,
    calls_dir: Path,
    reference: Reference | None,
    console: Console,
) -> tuple[list[Row], int]:
    """Runs at growing load until one does not pass; the rows, and the largest number that did.

    A run that fails only because the load was late is repeated once.
    """
    rows: list[Row] = []
    best = 0
    for number in calls:
        for _ in range(2):
            load = Load(calls=number, seconds=max(seconds, LEAST_CALL_SECONDS / number), seed=seed)
            row = {"calls": number, "kind": "ramp", **summary(run(load, calls_dir), reference)}
            row["failed"] = passes(row)
            rows.append(row)
            console.print(f"{number} calls: " + ("; ".join(row["failed"]) or "passes"), highlight=False)
            if row["valid"] or len(row["failed"]) > 1:
                break
        if row["failed"]:
            break
        best = number
    return rows, best


def drift(first: Sequence[Delay], last: Sequence[Delay], names: dict[str, str]) -> float | None:
    """By how much the same phrases came later at the end than at the start: the median over phrases.

    A few phrases always take long; how many of them a fifth of a run holds decides its p95.
    """
    parts: list[dict[tuple[str, str], list[float]]] = []
    for delays in (first, last):
        part: dict[tuple[str, str], list[float]] = {}
        for delay in delays:
            part.setdefault((names[delay.call_id], delay.what), []).append(delay.seconds)
        parts.append(part)
    both = parts[0].keys() & parts[1].keys()
    later = [median(parts[1][phrase]) - median(parts[0][phrase]) for phrase in both]
    return rounded(median(later)) if later else None


def over_time(measured: Measured) -> Row:
    """What a soak is judged by."""
    report = measured.report
    seconds = report.ended_s - report.begun_s
    alerts = fifths(alert_delays(measured, measured.score()), report.begun_s, seconds)
    p95 = [percentiles(part)["p95_s"] for part in alerts]
    finals = fifths(final_delays(measured), report.begun_s, seconds)
    final_p95 = [percentiles(part)["p95_s"] for part in finals]
    names_ = {call.call_id: call.name for call in report.calls}
    during = [s for s in measured.samples if report.begun_s <= s.at_s <= report.ended_s]
    parts = [[s for s in during if int(5 * (s.at_s - report.begun_s) / seconds) == n] for n in range(5)]
    rss = [_mean([s.rss_mib for s in part]) for part in parts]
    warm = [s for s in during if s.at_s - report.begun_s >= WARM_UP * seconds]
    growth = slope([s.at_s for s in warm], [s.rss_mib for s in warm])
    names = sorted({n for s in during for n in s.gauges if n.startswith(("jobs_", "appends"))})
    queues = {
        name: [_mean([s.gauges[name] for s in part if name in s.gauges]) for part in parts] for name in names
    }
    return {
        "p95_by_fifth_s": p95,
        "p95_last_to_first": rounded(p95[4] / p95[0]) if p95[0] and p95[4] else None,
        "final_p95_by_fifth_s": final_p95,
        "final_p95_last_to_first": rounded(final_p95[4] / final_p95[0])
        if final_p95[0] and final_p95[4]
        else None,
        "same_phrase_drift_s": drift(alerts[0], alerts[4], names_),
        "rss_mib_by_fifth": rss,
        "rss_mib_per_hour_after_warm_up": rounded(growth * 3600, 1) if growth is not None else None,
        "memory_flat": None if not (rss[1] and rss[4]) else rss[4] <= rss[1] * (1 + FLAT),
        "queues_by_fifth": queues,
        "queues_flat": all(
            q[0] is None or q[4] is None or q[4] <= q[0] + QUEUE_SLACK for q in queues.values()
        ),
    }


def _mean(values: Sequence[float]) -> float | None:
    return rounded(fmean(values), 2) if values else None


def overloaded(measured: Measured, load: Load) -> tuple[Row, list[Stay]]:
    """What an overload is judged by."""
    visited = stays(measured.socket.steps, measured.report.begun_s)
    refused = [call for call in measured.report.calls if call.outcome == "refused"]
    return {
        "steps": [
            {
                "step": s.step,
                "name": s.name,
                "entered_s": rounded(s.entered_s, 1),
                "left_s": rounded(s.left_s, 1),
            }
            for s in visited
        ],
        "steps_in_order": in_order(visited),
        "recovery_s": rounded(recovery_s(visited, load.seconds), 1),
        "admitted": len(measured.admitted),
        "refusals": sorted({f"{call.code}: {call.message}" for call in refused}),
    }, visited


def table(rows: Sequence[Row], title: str) -> Table:
    out = Table(title=title)
    shown = [(head, key) for head, key in COLUMNS if any(row.get(key) is not None for row in rows)]
    for head, _ in shown:
        out.add_column(head, justify="right")
    for row in rows:
        cells = ["" if row.get(key) is None else str(row[key]) for _, key in shown]
        if row.get("kind") == "reference":
            cells[0] += " (ref)"
        out.add_row(*cells, style="" if row["valid"] else "red")
    return out


def written(reference: Reference) -> list[list[Any]]:
    return [[*key, *counts] for key, counts in reference.items()]


def read(path: Path) -> Reference:
    """The reference in an earlier OUT. Raises ``ValueError`` when it has none."""
    kept = json.loads(path.read_text()).get("reference")
    if not kept:
        raise ValueError(f"{path}: holds no reference; run without --reference to take one")
    return {(call, rule, start): (hits, missed) for call, rule, start, hits, missed in kept}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=8, help="calls at once")
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="of the run, or of each step of the ramp"
    )
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--calls-dir", type=Path, default=truth.CALLS)
    parser.add_argument("--seed", type=int, default=1)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--ramp", action="store_true")
    kind.add_argument("--soak", action="store_true")
    kind.add_argument("--overload", type=int, metavar="N")
    parser.add_argument("--steps", help="of the ramp, e.g. 1,4,8")
    parser.add_argument("--stay", type=int, default=3, help="calls that go on after an overload")
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--no-reference", action="store_true")
    return parser.parse_args()


def main() -> None:
    # Ending the benchmark by any signal must also end the server it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    given = arguments()
    console = Console()
    if not console.is_terminal:
        # A file is as wide as the table.
        console = Console(width=220)
    reference: Reference | None = None
    rows: list[Row] = []
    if given.reference is not None:
        reference = read(given.reference)
    elif not given.no_reference:
        console.print(f"reference: every scripted call once, {LOW_LOAD} at a time")
        row, reference = low_load(given.calls_dir)
        rows.append(row)
    plot = given.json.with_suffix(".png")
    given.json.parent.mkdir(parents=True, exist_ok=True)
    if given.ramp:
        steps = [int(s) for s in given.steps.split(",")] if given.steps else RAMP
        climbed, best = climb(steps, given.seconds, given.seed, given.calls_dir, reference, console)
        rows += climbed
        passed = [row for row in climbed if not row["failed"]]
        result: Row = {**(passed[-1] if passed else climbed[-1]), "max_calls": best}
        plots.ramp(climbed, PASS_P95_S, plot)
    else:
        result, measured, visited = single(given, reference)
        rows.append(result)
        report = measured.report
        plots.timeline(
            alert_delays(measured, measured.score()),
            final_delays(measured),
            measured.samples,
            visited,
            report.begun_s,
            plot,
        )
    console.print(table(rows, f"phrase end → alert on the supervisor's socket, {given.seconds:.0f} s"))
    for key, value in result.items():
        console.print(f"{key}: {value}", highlight=False, markup=False)
    if not result["valid"]:
        console.print("[red]not valid: the load was late itself; run it on an idle machine")
    out = {
        "summary": result,
        "machine": machine(),
        "runs": rows,
        "reference": written(reference) if reference is not None else None,
    }
    given.json.write_text(json.dumps(out, ensure_ascii=False, indent=1))


def single(given: argparse.Namespace, reference: Reference | None) -> tuple[Row, Measured, list[Stay]]:
    """A plain run, a soak or an overload."""
    if given.overload:
        load = Load(
            calls=given.overload,
            seconds=given.seconds,
            seed=given.seed,
            spread_s=2.0,
            stay=given.stay,
            stay_s=SETTLE_S,
        )
        measured = run(load, given.calls_dir, settle_s=0.0 if given.stay else SETTLE_S)
        more, visited = overloaded(measured, load)
        row = {"calls": given.overload, "kind": "overload", **summary(measured, reference), **more}
        return row, measured, visited
    load = Load(calls=given.calls, seconds=given.seconds, seed=given.seed)
    measured = run(load, given.calls_dir)
    visited = stays(measured.socket.steps, measured.report.begun_s)
    row = {"calls": given.calls, "kind": "soak" if given.soak else "run", **summary(measured, reference)}
    if given.soak:
        row |= over_time(measured)
    else:
        row["steps"] = [asdict(stay) for stay in visited]
    return row, measured, visited


if __name__ == "__main__":
    main()
