"""``python -m benchmarks.protocols --json OUT``: does every protocol bring the same alerts?

The real server with the real model; every scripted call is played by each kind of telephone, in real time.
The alerts of each kind are held against those of Twilio's, as they are kept: the same rule, of the same
speaker, its phrase within ``NEAR_MS`` of media time; ``twilio-again`` shows what two runs of one kind differ
by. Recall is that of the truth. Prints a table and writes OUT.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from app.demo import run, truth
from app.phones import whip
from app.phones.kinds import KINDS, Kind
from benchmarks.machine import machine
from benchmarks.rig import Rig, server
from streams.events import Alert

NEAR_MS = 300
REFERENCE = "twilio"
Row = dict[str, Any]


@dataclass
class Compared:
    """The alerts of one kind of telephone beside the reference's."""

    same: list[int] = field(default_factory=list)
    """By how many milliseconds each stands later."""
    missing: list[str] = field(default_factory=list)
    more: list[str] = field(default_factory=list)

    @property
    def furthest_ms(self) -> int:
        return max((abs(shift) for shift in self.same), default=0)


def compared(
    alerts: dict[str, Sequence[Alert]],
    reference: dict[str, Sequence[Alert]],
    families: tuple[str, ...] = truth.SCORED,
) -> Compared:
    """Match alerts by call name, rule and speaker, the nearest first; only rules of ``families``."""
    out = Compared()
    for name in reference.keys() | alerts.keys():
        ours = [a for a in alerts.get(name, ()) if a.rule_id.startswith(families)]
        theirs = [a for a in reference.get(name, ()) if a.rule_id.startswith(families)]
        pairs = sorted(
            (abs(a.media_end_ms - b.media_end_ms), i, j)
            for i, a in enumerate(ours)
            for j, b in enumerate(theirs)
            if (a.rule_id, a.role) == (b.rule_id, b.role)
        )
        used: tuple[set[int], set[int]] = (set(), set())
        for apart, i, j in pairs:
            if apart <= NEAR_MS and i not in used[0] and j not in used[1]:
                used[0].add(i)
                used[1].add(j)
                out.same.append(ours[i].media_end_ms - theirs[j].media_end_ms)
        out.more += [told(name, a) for i, a in enumerate(ours) if i not in used[0]]
        out.missing += [told(name, b) for j, b in enumerate(theirs) if j not in used[1]]
    return out


def told(name: str, alert: Alert) -> str:
    return f"{name} {alert.rule_id} {alert.media_end_ms / 1000:.2f}"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


NETWORKS = {
    "whip-1%": whip.Network(loss=0.01),
    "whip-5%": whip.Network(loss=0.05),
    "whip-100ms": whip.Network(jitter_s=0.1),
}
"""WHIP over networks that lose packets or hold them up."""
AGAIN = "twilio-again"
"""The reference once more: what two runs of the same kind differ by is no protocol's doing."""


def known(kind: str) -> Kind:
    if kind in NETWORKS:
        return Kind("http", partial(whip.play, network=NETWORKS[kind]), "")
    return KINDS[REFERENCE if kind == AGAIN else kind]


def played(kind: str, rig: Rig, port: int, calls: list[truth.ScriptedCall], at_once: int) -> run.Outcome:
    """Every call once, by one kind of telephone."""
    phone = known(kind)
    plain = rig.address.removeprefix("http://")
    ingest = f"tcp://127.0.0.1:{port}" if phone.scheme == "tcp" else f"{phone.scheme}://{plain}"
    return asyncio.run(
        run.play_all(rig.address, rig.token, rig.account, calls, at_once, play=phone.play, ingest=ingest)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=Path, default=truth.CALLS, help="folder of scripted calls")
    parser.add_argument(
        "--kinds",
        nargs="*",
        default=list(KINDS),
        help=", ".join([*KINDS, AGAIN, *NETWORKS]).replace("%", "%%"),
    )
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    console = Console()
    calls = truth.load(given.calls)
    kinds = [REFERENCE, *(kind for kind in given.kinds if kind != REFERENCE)]
    rows: list[Row] = []
    reference: dict[str, Sequence[Alert]] = {}
    for kind in kinds:
        # A server of its own: no kind finds the store as another left it.
        port = free_port()
        with server({"DUTING_AUDIOSOCKET_PORT": str(port)}) as rig:
            outcome = played(kind, rig, port, calls, given.at_once)
        alerts = outcome.lasting()
        reference = reference or alerts
        beside = compared(alerts, reference)
        score = truth.score(calls, alerts)
        rows.append(
            {
                "kind": kind,
                "alerts": sum(len(found) for found in alerts.values()),
                "same": len(beside.same),
                "missing": beside.missing,
                "more": beside.more,
                "median_ms": median(beside.same) if beside.same else None,
                "furthest_ms": beside.furthest_ms,
                "recall": score.recall,
                "precision": score.precision,
                "worst_lag_s": max(call.worst_lag_s for call in outcome.played.values()),
            }
        )
        console.print(json.dumps(rows[-1], ensure_ascii=False), highlight=False)
    console.print(_table(rows))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        summary = {
            "kinds": len(rows),
            "missing": sum(len(row["missing"]) for row in rows),
            "more": sum(len(row["more"]) for row in rows),
            "furthest_ms": max(row["furthest_ms"] for row in rows),
        }
        given.json.write_text(
            json.dumps({"summary": summary, "machine": machine(), "runs": rows}, ensure_ascii=False, indent=1)
        )


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title=f"alerts of red lines and signals, by protocol (± {NEAR_MS} ms of media time)")
    for name in ("protocol", "same", "missing", "more", "median ms", "furthest ms", "recall", "precision"):
        table.add_column(name, justify="left" if name == "protocol" else "right")
    for row in rows:
        table.add_row(
            row["kind"],
            str(row["same"]),
            str(len(row["missing"])),
            str(len(row["more"])),
            "" if row["median_ms"] is None else f"{row['median_ms']:.0f}",
            str(row["furthest_ms"]),
            "" if row["recall"] is None else f"{row['recall']:.3f}",
            "" if row["precision"] is None else f"{row['precision']:.3f}",
        )
    return table


if __name__ == "__main__":
    main()
