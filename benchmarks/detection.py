"""``python -m benchmarks.detection --calls DIR --json OUT``: recall and precision per rule, through audio.

Every scripted call of DIR goes through the whole path: 8 kHz mu-law, voice detection, the real model, the
default pack (what a rule finds counts, be it an alert or only a marker). As fast as the machine allows and
finals only; ``--live`` in real time, with partials, and with the time from the end of a phrase to its alert.
The alerts are matched with the truth beside the audio; so are, for comparison,

* ``truth``: what the same rules say to what was really said
* ``plain``: plain character matching on the transcripts that the model wrote (``plain_matching.py``)

Prints tables, also of what was missed or recognised by sound only, and what the model had written; writes OUT
and a plot beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import structs
from rich.console import Console
from rich.table import Table

from app import logs
from app.build import rules
from app.demo import truth
from app.phones.twilio import tracks
from benchmarks.engine import Frames, Listened, Watched, listen, telephone
from benchmarks.machine import machine
from benchmarks.plain_matching import plain
from detectors.dialogues import play
from detectors.rules import Pack
from detectors.rules.model import TestCase, TestTurn
from streams.audio import encode_mulaw
from streams.events import Alert, Channel, Latency, Transcript
from streams.raising import raised
from streams.transcribe import WhisperTranscriber

AT_ONCE = 4
"""Calls read at the same time, so that batches form."""
SIDES: Mapping[str, Channel] = {"outbound": "agent", "inbound": "customer"}

Alerts = dict[str, Sequence[Alert]]
"""By call."""
Counts = dict[str, dict[str, int]]
"""By rule: hits, misses and unexpected alerts."""


def frames_of(call: truth.ScriptedCall) -> Frames:
    """The call as a telephone sends it."""
    return telephone({SIDES[track]: encode_mulaw(samples) for track, samples in tracks(call.audio).items()})


def heeded(pack: Pack) -> Pack:
    """The pack, every rule raising an alert: praise is found or missed too, though it only sets a marker."""
    raising = [structs.replace(rule, actions=("alert",)) for rule in pack.rules]
    return structs.replace(pack, rules=tuple(raising))


def through_audio(
    calls: Sequence[truth.ScriptedCall], transcriber: Watched, pack: Pack, live: bool
) -> dict[str, Listened]:
    """What the whole path makes of each call."""
    lengths = [call.turns[-1].end for call in calls]
    offered = [(call.name, length, frames_of(call)) for call, length in zip(calls, lengths, strict=True)]
    listened, _ = listen(offered, transcriber, paced=live, at_once=AT_ONCE, pack=pack)
    return {one.name: one for one in listened}


def on_text(pack: Pack, turns: Iterable[TestTurn]) -> list[Alert]:
    """What the rules say to turns with these words at these times."""
    case = TestCase(name="call", line=1, turns=tuple(turns))
    found = (
        event
        for detection in play(pack, case)
        if not detection.withdrawn
        for event in raised(detection, pack.card(detection.rule_id), Latency(), lambda text: text)
    )
    return [event for event in found if isinstance(event, Alert)]


def said(call: truth.ScriptedCall) -> list[TestTurn]:
    """What was really said; a turn without words stands for a silence."""
    return [_turn(t.role, t.text, t.start * 1000, t.end * 1000) for t in call.turns if t.text]


def heard(finals: Iterable[Transcript]) -> list[TestTurn]:
    """What the model wrote."""
    return [_turn(t.role, t.text, t.start_ms, t.end_ms) for t in finals]


def _turn(role: Channel, text: str, start_ms: float, end_ms: float) -> TestTurn:
    return TestTurn(role=role, text=text, start_ms=round(start_ms), end_ms=round(end_ms))


def by_rule(score: truth.Score) -> Counts:
    """Of every rule that was expected or raised."""
    out: Counts = {}
    for name, ids in (
        ("hit", [e.rule for e, _ in score.hit]),
        ("missed", [e.rule for e in score.missed]),
        ("unexpected", [a.rule_id for _, a in score.unexpected]),
    ):
        for rule in ids:
            out.setdefault(rule, {"hit": 0, "missed": 0, "unexpected": 0})[name] += 1
    return dict(sorted(out.items()))


def figures(calls: Sequence[truth.ScriptedCall], alerts: Alerts) -> dict[str, object]:
    """Recall and precision over ``redline.*`` and ``signal.*``; counts of every rule."""
    scored = truth.score(calls, alerts)

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 4)

    return {
        "recall": rounded(scored.recall),
        "precision": rounded(scored.precision),
        "wanted": len(scored.hit) + len(scored.missed),
        "unexpected": [[name, a.rule_id, list(a.evidence.matched)] for name, a in scored.unexpected],
        "by_rule": by_rule(truth.score(calls, alerts, families=("",))),
    }


def confusions(
    calls: Sequence[truth.ScriptedCall], listened: Mapping[str, Listened], alerts: Alerts
) -> list[dict[str, object]]:
    """What was missed, and what was recognised though the model had written something else."""
    scored = truth.score(calls, alerts)
    turns = {(call.name, turn.start): turn for call in calls for turn in call.turns}
    out: list[dict[str, object]] = []
    for want, alert in [*((e, None) for e in scored.missed), *scored.hit]:
        turn = turns[want.call, want.start]
        if alert is not None and alert.evidence.how == "exact":
            continue
        if alert is not None:
            written, expected = "…".join(alert.evidence.matched), "、".join(alert.evidence.expected)
        else:
            finals = [
                t.text
                for t in listened[want.call].finals
                if t.role == turn.role and t.end_ms > turn.start * 1000 and t.start_ms < turn.end * 1000
            ]
            written, expected = " | ".join(finals), turn.text
        how = "missed" if alert is None else alert.evidence.how
        row = {"call": want.call, "rule": want.rule, "how": how, "expected": expected, "written": written}
        out.append(row)
    return out


def latencies(score: truth.Score, listened: Mapping[str, Listened]) -> list[float]:
    """Seconds from the scripted end of each phrase that was found to its alert; below zero: before it."""
    return sorted(
        round(listened[want.call].alerted[alert.id] - want.phrase_end, 3)
        for want, alert in score.hit
        if alert.id in listened[want.call].alerted
    )


def plot(rules_: Counts, path: Path) -> None:
    """A bar per rule: found, missed, not asked for."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(rules_)
    figure, axes = pyplot.subplots(figsize=(8, 0.28 * len(names) + 1.2))
    left = [0] * len(names)
    for kind, colour in (("hit", "#2a7f62"), ("missed", "#b3261e"), ("unexpected", "#b08900")):
        widths = [rules_[name][kind] for name in names]
        axes.barh(names, widths, left=left, color=colour, label=kind)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.legend()
    axes.set_xlabel("alerts")
    figure.tight_layout()
    figure.savefig(path)


def show(console: Console, measured: Mapping[str, dict[str, object]], wrong: list[dict[str, object]]) -> None:
    kinds = ("hit", "missed", "unexpected")
    counts: dict[str, Counts] = {name: found["by_rule"] for name, found in measured.items()}  # type: ignore[misc]
    table = Table("rule", *(f"{name}: {'/'.join(kinds)}" for name in measured))
    for rule in sorted({rule for of_name in counts.values() for rule in of_name}):
        cells = (counts[name].get(rule) for name in measured)
        table.add_row(rule, *("–" if c is None else "/".join(str(c[k]) for k in kinds) for c in cells))
    console.print(table)
    table = Table("call", "rule", "how", "expected", "written")
    for row in wrong:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)
    for name, found in measured.items():
        console.print(f"{name}: redline and signal: recall {found['recall']}, precision {found['precision']}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=Path, default=truth.CALLS)
    parser.add_argument("--live", action="store_true", help="in real time, with partials and latency")
    parser.add_argument("--model", type=Path, default=Path("models/base"))
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    logs.configure("error", as_json=False)
    calls = truth.load(given.calls)
    console = Console(width=180)
    pack = heeded(rules(None))
    transcriber = Watched(WhisperTranscriber(given.model))
    transcriber.warm_up()
    listened = through_audio(calls, transcriber, pack, given.live)
    alerts: dict[str, Alerts] = {
        "audio": {name: one.alerts for name, one in listened.items()},
        "truth": {call.name: on_text(pack, said(call)) for call in calls},
        "plain": {name: on_text(plain(pack), heard(one.finals)) for name, one in listened.items()},
    }
    measured = {name: figures(calls, found) for name, found in alerts.items()}
    wrong = confusions(calls, listened, alerts["audio"])
    show(console, measured, wrong)
    summary: dict[str, object] = {**measured["audio"], "truth": measured["truth"], "plain": measured["plain"]}
    if given.live:
        late = latencies(truth.score(calls, alerts["audio"]), listened)
        summary["p50_s"] = round(statistics.median(late), 3) if late else None
        console.print(f"phrase end → alert: median {summary['p50_s']} s of {len(late)}")
    runs = [
        {
            "call": name,
            "alerts": [[a.rule_id, a.media_start_ms, a.evidence.how] for a in one.alerts],
            "finals": [[t.role, t.start_ms, t.end_ms, t.text, t.confidence] for t in one.finals],
        }
        for name, one in listened.items()
    ]
    report = {"summary": summary, "machine": machine(), "confusions": wrong, "runs": runs}
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(report, ensure_ascii=False, indent=1))
    plot(by_rule(truth.score(calls, alerts["audio"], families=("",))), given.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
