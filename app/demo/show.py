"""What ``duting demo`` prints: addresses and accounts; after ``--once``, expected against raised."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import secrets
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from app import settings as settings_
from app.demo import run, truth
from app.store import Store
from streams.events import Alert, Published

FOLDERS = {True: Path("var/demo-once"), False: Path("var/demo")}
"""Database, recordings and the server's log; emptied at each start."""


def demo(
    console: Console,
    calls: list[truth.ScriptedCall],
    *,
    at_once: int,
    port: int,
    once: bool,
    report: Path | None,
    fetch: Callable[[], None],
) -> None:
    """Run the demo; with ``once`` raises ``DemoFailed`` when a critical alert is missing."""
    # Ending the demo by any signal must also end the server it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    fetch()
    folder = FOLDERS[once].absolute()
    shutil.rmtree(folder, ignore_errors=True)
    settings = settings_.load(data_dir=folder, port=port)
    # Nothing of a demo belongs into a configured database or cluster.
    settings = settings.model_copy(update={"database_url": None, "redis_url": None, "kafka_url": None})
    people = run.accounts()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    store = Store.open(settings.database)
    for person in people:
        store.users.ensure(person.username, person.password, person.name, person.role)
    store.close()
    environment = {
        "DUTING_DATA_DIR": str(settings.data_dir),
        "DUTING_DATABASE_URL": "",
        "DUTING_REDIS_URL": "",
        "DUTING_KAFKA_URL": "",
        "DUTING_PORT": str(port),
        "DUTING_HOST": "127.0.0.1",
        "DUTING_INGEST_TOKEN": settings.token(),
        # What is masked can be read again, with a reason, for as long as this demo's folder is there.
        "DUTING_PII_KEYS": base64.b64encode(secrets.token_bytes(32)).decode(),
    }
    with run.Server(environment, settings.data_dir / "server.log") as server:
        console.print("starting the server and loading the model …")
        server.wait()
        _welcome(console, server.address, people)
        if once:
            outcome = _once(console, server.address, settings.token(), people[0], calls, at_once)
            _judge(console, outcome, report)
            return
        _forever(console, server.address, settings.token(), people[0], calls, at_once)


def _welcome(console: Console, address: str, people: Sequence[run.Account]) -> None:
    console.print(f"\n[bold]Duting 督听[/]  {address}\n")
    table = Table("账号 account", "密码 password", "角色 role", box=None)
    for person in people:
        table.add_row(person.username, person.password, f"{person.name} ({person.role})")
    console.print(table)
    console.print()


def _once(
    console: Console,
    address: str,
    token: str,
    account: run.Account,
    calls: list[truth.ScriptedCall],
    at_once: int,
) -> run.Outcome:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task(f"calls, {at_once} at a time", total=len(calls))
        return asyncio.run(
            run.play_all(address, token, account, calls, at_once, on_done=lambda _: bar.advance(task))
        )


def _forever(
    console: Console,
    address: str,
    token: str,
    account: run.Account,
    calls: list[truth.ScriptedCall],
    at_once: int,
) -> None:
    console.print("playing calls until Ctrl-C …\n")

    def tell(event: Published) -> None:
        if event.type == "alert.raised" and isinstance(event.alert, Alert):
            alert = event.alert
            total = alert.latency_ms.total
            console.print(
                f"{alert.severity:9} {alert.name['zh']}  {alert.call_id}  "
                f"{alert.media_end_ms / 1000:.1f} s  {'' if total is None else f'{total:.0f} ms'}",
                highlight=False,
            )

    try:
        while True:
            asyncio.run(run.play_all(address, token, account, calls, at_once, on_event=tell))
    except (KeyboardInterrupt, asyncio.CancelledError):
        # A second Ctrl-C must not interrupt the server's orderly end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        console.print("\nstopping …")


def percentile(values: Sequence[float], share: float) -> float | None:
    """Nearest-rank percentile of sorted ``values``; ``None`` when there are none."""
    if not values:
        return None
    return values[max(0, math.ceil(share * len(values)) - 1)]


def _judge(console: Console, outcome: run.Outcome, report: Path | None) -> None:
    alerts, shown = outcome.alerts(), outcome.shown()
    scored = truth.score(outcome.calls, alerts)
    everything = truth.score(outcome.calls, alerts, families=("",))
    _table(console, outcome, everything)
    totals, heard = outcome.totals_ms(), outcome.heard_s(scored)
    clean = [c.name for c in outcome.calls if not any(e.rule.startswith("redline.") for e in c.expected)]
    false_redlines = [
        (name, a.rule_id) for name in clean for a in shown[name] if a.rule_id.startswith("redline.")
    ]
    missing_critical = [
        e for e in scored.missed if e.rule.startswith("redline.") or e.rule == "signal.self_harm"
    ]
    summary = {
        "calls": len(outcome.calls),
        "recall": _round(scored.recall),
        "precision": _round(scored.precision),
        "expected": len(scored.hit) + len(scored.missed),
        "hit": len(scored.hit),
        "missed": [f"{e.call}: {e.rule}" for e in scored.missed],
        "unexpected": [f"{name}: {a.rule_id}" for name, a in scored.unexpected],
        "withdrawn": [f"{name}: {a.rule_id}" for name in shown for a in shown[name] if a not in alerts[name]],
        "false_redlines_on_clean_calls": len(false_redlines),
        "total_ms": {f"p{p}": _round(percentile(totals, p / 100), 0) for p in (50, 95, 99)},
        "phrase_end_to_socket_s": {f"p{p}": _round(percentile(heard, p / 100), 2) for p in (50, 95, 99)},
        "phone_worst_lag_s": _round(max(p.worst_lag_s for p in outcome.played.values()), 3),
    }
    for key, value in summary.items():
        console.print(f"{key}: {value}", highlight=False)
    if report is not None:
        runs = [
            {"call": name, "alerts": [msgspec.to_builtins(a) for a in found]}
            for name, found in alerts.items()
        ]
        report.write_text(json.dumps({"summary": summary, "runs": runs}, ensure_ascii=False, indent=1))
    if missing_critical:
        raise run.DemoFailed(
            "critical alerts are missing: " + ", ".join(f"{e.call} {e.rule}" for e in missing_critical)
        )
    if false_redlines:
        raise run.DemoFailed(f"redline alerts on calls that have none: {false_redlines}")


def _round(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def _table(console: Console, outcome: run.Outcome, scored: truth.Score) -> None:
    table = Table(
        "call", "at", "rule", "expected", "raised", "total ms", "heard as", title="expected / raised"
    )
    rows: list[tuple[str, float, str, str, Alert | None]]
    rows = [(e.call, e.start, e.rule, "yes", a) for e, a in scored.hit]
    rows += [(e.call, e.start, e.rule, "yes", None) for e in scored.missed]
    rows += [(name, a.media_start_ms / 1000, a.rule_id, "no", a) for name, a in scored.unexpected]
    for call, at, rule, expected, alert in sorted(rows, key=lambda row: row[:3]):
        style = "" if alert and expected == "yes" else "red" if not alert else "yellow"
        total = alert.latency_ms.total if alert else None
        table.add_row(
            call,
            f"{at:.1f}",
            rule,
            expected,
            "yes" if alert else "MISSING",
            "" if total is None else f"{total:.0f}",
            "、".join(alert.evidence.matched)[:24] if alert else "",
            style=style,
        )
    console.print(table)
