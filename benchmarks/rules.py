"""``python -m benchmarks.rules --phrases 50,500,5000 --json OUT``: what rules cost with that many phrases.

One generated pack for each number: ten phrases a rule, by character and by sound. Read and compiled from its
YAML, then asked about utterances: those of the demo calls, sentences made of the same words as the phrases
(most of them hit something), random characters. Processor time of this process, so that other work on the
machine counts little. Prints a table, writes OUT and a plot beside it.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from rich.console import Console
from rich.table import Table

from app.demo import truth
from benchmarks.machine import machine
from benchmarks.phrases import noise, phrases, sentences
from detectors.mandarin import normalise
from detectors.panel import Panel
from detectors.rules.lexicon import Lexicon
from detectors.rules.loader import parse_pack
from detectors.rules.model import Pack
from streams.events import CallInfo, CallStarted, Transcript

PHRASES_A_RULE: Final = 10
MADE: Final = 300
"""Generated utterances of a kind."""
_TURN_MS: Final = 6000
_GAP_MS: Final = 2000

Item = TypeVar("Item")


def pack_text(count: int) -> str:
    """A pack with ``count`` phrases, as its author would write it."""
    listed = phrases(count)
    lines = ["id: made.zh", 'version: "1"', "name: {zh: 生成, en: made}", "rules:"]
    for number, at in enumerate(range(0, count, PHRASES_A_RULE)):
        lines += [
            f"  - id: made.rule{number}",
            f"    name: {{zh: 规则{number}, en: rule {number}}}",
            "    severity: warning",
            f"    role: {('agent', 'customer', 'any')[number % 3]}",
            "    when:",
            "      phrase:",
            f"        any: [{', '.join(listed[at : at + PHRASES_A_RULE])}]",
        ]
    return "\n".join(lines) + "\n"


def utterances() -> dict[str, list[str]]:
    """Texts by kind."""
    calls = [turn.text for call in truth.load(truth.CALLS) for turn in call.turns]
    return {"calls": calls, "made": sentences(MADE), "random": noise(MADE, sorted(set("".join(calls))))}


def finals(texts: Sequence[str]) -> list[Transcript]:
    """The texts as one call's final transcripts, both sides in turn."""
    return [
        Transcript(
            call_id="bench",
            utterance_id=str(number),
            role="customer" if number % 2 else "agent",
            start_ms=number * (_TURN_MS + _GAP_MS),
            end_ms=number * (_TURN_MS + _GAP_MS) + _TURN_MS,
            text=text,
            final=True,
            confidence=0.9,
        )
        for number, text in enumerate(texts)
    ]


def timed(work: Callable[[Item], object], items: Sequence[Item]) -> list[float]:
    """Microseconds of processor time for each item."""
    out: list[float] = []
    for item in items:
        started = time.process_time_ns()
        work(item)
        out.append((time.process_time_ns() - started) / 1000)
    return out


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank."""
    ordered = sorted(values)
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 1)


def compiled(count: int) -> tuple[Pack, dict[str, float]]:
    """The pack, and milliseconds: for all of it from YAML, for the index of its phrases; first and again."""
    text, listed = pack_text(count), phrases(count)
    figures: dict[str, float] = {}
    for name in ("compile_ms", "compile_again_ms"):
        gc.collect()
        started = time.process_time_ns()
        pack = parse_pack(text, "made.zh.yaml")
        figures[name] = round((time.process_time_ns() - started) / 1e6, 1)
    started = time.process_time_ns()
    Lexicon(listed)
    figures["index_ms"] = round((time.process_time_ns() - started) / 1e6, 1)
    return pack, figures


def measure(count: int, texts: dict[str, list[str]]) -> list[dict[str, object]]:
    """One run for each kind of text."""
    pack, figures = compiled(count)
    runs: list[dict[str, object]] = []
    for kind, said in texts.items():
        normal = [normalise(text) for text in said]
        transcripts = finals(said)
        info = CallInfo(call_id="bench", channels=("agent", "customer"))
        for repetition in ("cold", "warm"):
            panel = Panel(info, pack)
            panel.on_event(CallStarted(call=info))
            if repetition == "cold":
                # What a process does once for every sound it has not met: part of no utterance's figure.
                first = sum(timed(pack.lexicon.scan, normal)) / len(normal)
                timed(panel.on_event, transcripts)
                continue
            scan, whole = timed(pack.lexicon.scan, normal), timed(panel.on_event, transcripts)
        runs.append(
            {
                "phrases": count,
                "rules": len(pack.rules),
                "texts": kind,
                "utterances": len(said),
                "characters": round(sum(map(len, said)) / len(said), 1),
                "hits": round(sum(len(pack.lexicon.scan(n)) for n in normal) / len(said), 2),
                **figures,
                "scan_first_mean_us": round(first, 1),
                "scan_p50_us": percentile(scan, 0.5),
                "scan_p99_us": percentile(scan, 0.99),
                "final_p50_us": percentile(whole, 0.5),
                "final_p99_us": percentile(whole, 0.99),
            }
        )
    return runs


def plot(runs: list[dict[str, object]], path: Path) -> None:
    """Microseconds per final over the number of phrases, a line for each kind of text."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for kind in dict.fromkeys(str(run["texts"]) for run in runs):
        of_kind = [run for run in runs if run["texts"] == kind]
        counts = [run["phrases"] for run in of_kind]
        for share, style in (("p50", "-"), ("p99", "--")):
            axes.plot(
                counts,
                [run[f"final_{share}_us"] for run in of_kind],
                style,
                marker="o",
                label=f"{kind} {share}",
            )
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("phrases")
    axes.set_ylabel("µs per final")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phrases", default="50,500,5000", help="numbers of phrases, with commas")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    texts = utterances()
    runs = [run for count in map(int, given.phrases.split(",")) for run in measure(count, texts)]
    shown = ("phrases", "texts", "hits", "compile_ms", "index_ms", "scan_p50_us", "scan_p99_us")
    shown += ("final_p50_us", "final_p99_us")
    table = Table(*shown)
    for run in runs:
        table.add_row(*(str(run[name]) for name in shown))
    Console().print(table)
    most = max(int(str(run["phrases"])) for run in runs)
    largest = [run for run in runs if run["phrases"] == most]
    summary = {
        "phrases": most,
        "compile_ms": largest[0]["compile_ms"],
        "index_ms": largest[0]["index_ms"],
        "final_p50_us": {run["texts"]: run["final_p50_us"] for run in largest},
        "final_p99_us": {run["texts"]: run["final_p99_us"] for run in largest},
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps({"summary": summary, "machine": machine(), "runs": runs}, indent=1))
    plot(runs, given.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
