"""``python -m benchmarks.detection --calls DIR --json OUT``: recall and precision per rule, through audio.

Every scripted call of DIR goes through the whole path as a replay (finals only, as fast as it can); the
alerts are matched with the truth beside the audio. Prints a table, writes OUT and a plot beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from app import logs
from app import settings as settings_
from app.build import build
from app.demo import truth
from app.media import open_recording
from app.models import SilentProgress
from app.replay import replay
from benchmarks.machine import machine
from streams.events import Alert, Published


def alerts_of(call: truth.ScriptedCall) -> list[Alert]:
    """What one call raises."""
    found: list[Alert] = []

    def note(event: Published) -> None:
        if event.type == "alert.raised" and isinstance(event.alert, Alert):
            found.append(event.alert)

    with tempfile.TemporaryDirectory() as folder:
        settings = settings_.load(data_dir=Path(folder), keep_audio=False)
        service = build(settings, SilentProgress(), on_published=note)
        asyncio.run(replay(service, open_recording(call.audio), lambda _: None))
    return found


def by_rule(score: truth.Score) -> dict[str, dict[str, int]]:
    """Hits, misses and unexpected alerts of every rule that was expected or raised."""
    out: dict[str, dict[str, int]] = {}
    for name, rules in (
        ("hit", [e.rule for e, _ in score.hit]),
        ("missed", [e.rule for e in score.missed]),
        ("unexpected", [a.rule_id for _, a in score.unexpected]),
    ):
        for rule in rules:
            out.setdefault(rule, {"hit": 0, "missed": 0, "unexpected": 0})[name] += 1
    return dict(sorted(out.items()))


def plot(rules: dict[str, dict[str, int]], path: Path) -> None:
    """A bar per rule: found, missed, not asked for."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(rules)
    figure, axes = pyplot.subplots(figsize=(8, 0.28 * len(names) + 1.2))
    left = [0] * len(names)
    for kind, colour in (("hit", "#2a7f62"), ("missed", "#b3261e"), ("unexpected", "#b08900")):
        widths = [rules[name][kind] for name in names]
        axes.barh(names, widths, left=left, color=colour, label=kind)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.legend()
    axes.set_xlabel("alerts")
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=Path, default=truth.CALLS)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    logs.configure("error", as_json=False)
    calls = truth.load(given.calls)
    console = Console()
    alerts = {}
    for call in calls:
        alerts[call.name] = alerts_of(call)
        console.print(f"{call.name}: {len(alerts[call.name])} alerts")
    scored = truth.score(calls, alerts)
    rules = by_rule(truth.score(calls, alerts, families=("",)))
    table = Table("rule", "hit", "missed", "unexpected")
    for rule, counts in rules.items():
        table.add_row(rule, *(str(counts[k]) for k in ("hit", "missed", "unexpected")))
    console.print(table)
    summary = {"recall": scored.recall, "precision": scored.precision, "by_rule": rules}
    console.print(f"redline and signal: recall {scored.recall}, precision {scored.precision}")
    runs = [{"call": name, "rules": [a.rule_id for a in found]} for name, found in alerts.items()]
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps({"summary": summary, "machine": machine(), "runs": runs}, indent=1))
    plot(rules, given.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
