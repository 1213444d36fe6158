"""``python -m benchmarks.peers --calls 1,2,4 --seconds S --json OUT``: Duting beside others.

Three services, one after the other, on the same machine, with the same model folder, the same calls in the
same order at the same pace:

* Duting, as ``benchmarks.latency`` runs it;
* WhisperLive 0.10.0 with batches across clients, a client for each channel (see ``benchmarks.whisper_live``);
* faster-whisper's own ``transcribe`` behind a lock (see ``benchmarks.plain_whisper``).

``+prompt``: with the words of our rules as ``initial_prompt``, as Duting's own model has them; without it, as
it comes.

The measure is the same for all: from the end of a scripted phrase until its rule fires, at a Duting
supervisor's socket, or over what the peer had written by then. Prints a table with ratios, writes OUT and a
plot. WhisperLive is installed into ``--peer-venv`` on the first run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from app import settings as settings_
from app.build import rules
from app.demo import truth
from app.demo.show import percentile
from benchmarks import plots, whisper_live
from benchmarks.latency import run as run_ours
from benchmarks.load import VALID_LAG_S
from benchmarks.machine import machine
from benchmarks.measured import rounded, summary
from benchmarks.plain_whisper import PlainWhisper
from benchmarks.played import Audio, Heard, Listen, audio, lines, score
from benchmarks.rig import Load, ahead
from detectors.rules.model import Pack
from streams.bias import bias
from streams.events import CallInfo

Row = dict[str, Any]

ENGINES = ("duting", "whisper_live", "whisper_live+prompt", "faster_whisper+prompt")
SPREAD_S = 10.0


def ours(load: Load, calls_dir: Path) -> Row:
    found = summary(run_ours(load, calls_dir), None)
    return {
        "engine": "duting",
        "calls": load.calls,
        "phrases": found["expected"],
        "seen": found["recall"],
        **{key: found[key] for key in ("p50_s", "p95_s", "max_s")},
        "server_cores": found["server_cores"],
        "lag_s": found["load_worst_lag_s"],
        "valid": found["valid"],
    }


def judged(
    engine: str, calls: int, heard: Sequence[Heard], pack: Pack, lag_s: float, cores: float | None
) -> Row:
    scored, delays = score(heard, pack)
    return {
        "engine": engine,
        "calls": calls,
        "phrases": len(scored.hit) + len(scored.missed),
        "seen": rounded(scored.recall),
        "p50_s": rounded(percentile(delays, 0.5)),
        "p95_s": rounded(percentile(delays, 0.95)),
        "max_s": rounded(delays[-1] if delays else None),
        "server_cores": rounded(cores, 2),
        "characters": sum(len(read.text) for call in heard for read in call.reads if read.done),
        "lag_s": rounded(lag_s),
        "valid": lag_s <= VALID_LAG_S,
    }


@dataclass(frozen=True)
class Peers:
    """What the other engines are given."""

    audios: Sequence[Audio]
    model: Path
    pack: Pack
    venv: Path
    """Where WhisperLive is installed."""

    def play(self, load: Load, listen: Listen) -> Coroutine[None, None, tuple[list[Heard], float]]:
        return lines(self.audios, load.calls, load.seconds, load.spread_s, load.seed, listen)


def live(peers: Peers, load: Load, prompt: str | None) -> Row:
    """WhisperLive's server under the load."""
    python = whisper_live.install(peers.venv)
    with tempfile.TemporaryDirectory(prefix="duting-peer-") as folder:
        log = Path(folder) / "server.log"
        with whisper_live.server(python, peers.model, 2 * load.calls + 2, log) as (address, pid):

            async def play() -> tuple[list[Heard], float, float]:
                await whisper_live.warm_up(address, peers.model, prompt)
                process = psutil.Process(pid)
                before, begun = _cpu_s(process), time.monotonic()
                heard, lag = await peers.play(
                    load,
                    lambda chosen, call_id: whisper_live.listen(
                        address, peers.model, prompt, chosen, call_id
                    ),
                )
                return heard, lag, (_cpu_s(process) - before) / (time.monotonic() - begun)

            with ahead():
                heard, lag, cores = asyncio.run(play())
    return judged("whisper_live", load.calls, heard, peers.pack, lag, cores)


def plain(peers: Peers, load: Load, prompt: str | None) -> Row:
    """``WhisperModel.transcribe`` under the load, in this process."""
    engine = PlainWhisper(peers.model, prompt)
    for chosen in peers.audios:
        engine.prepare(chosen)
    try:
        heard, lag = asyncio.run(peers.play(load, engine.listen))
    finally:
        engine.close()
    row = judged("faster_whisper", load.calls, heard, peers.pack, lag, None)
    row["model_s_per_speech_second"] = rounded(engine.busy_s / engine.speech_s if engine.speech_s else None)
    return row


RUNS: dict[str, Callable[[Peers, Load, str | None], Row]] = {"whisper_live": live, "faster_whisper": plain}


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def ratios(rows: Sequence[Row]) -> list[Row]:
    """Every peer's figures divided by ours at the same number of calls: above 1, ours is better by so much.

    For ``seen`` the ratio is ours divided by theirs.
    """
    mine = {row["calls"]: row for row in rows if row["engine"] == "duting"}
    out = []
    for row in rows:
        own = mine.get(row["calls"])
        if row["engine"] == "duting" or own is None:
            continue
        out.append(
            {
                "engine": row["engine"],
                "calls": row["calls"],
                "p50": _ratio(row["p50_s"], own["p50_s"]),
                "p95": _ratio(row["p95_s"], own["p95_s"]),
                "seen": _ratio(own["seen"], row["seen"]),
            }
        )
    return out


def _ratio(above: float | None, below: float | None) -> float | None:
    # A latency below zero (the phrase was recognised before its scripted end) has no ratio.
    return round(above / below, 2) if above is not None and below is not None and below > 0 else None


def table(rows: Sequence[Row]) -> Table:
    out = Table(
        "engine", "calls", "phrases", "seen", "p50 s", "p95 s", "max s", "cores", "lag s", "p50 ×", "p95 ×"
    )
    beside = {(r["engine"], r["calls"]): r for r in ratios(rows)}
    for row in rows:
        ratio = beside.get((row["engine"], row["calls"]), {})
        figures = ("engine", "calls", "phrases", "seen", "p50_s", "p95_s", "max_s", "server_cores", "lag_s")
        cells = [row[figure] for figure in figures]
        cells += [ratio.get("p50"), ratio.get("p95")]
        out.add_row(*("" if cell is None else str(cell) for cell in cells))
    return out


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", default="1,2,4", help="calls at once, e.g. 1,2,4")
    parser.add_argument("--seconds", type=float, default=180.0, help="of each run")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--calls-dir", type=Path, default=truth.CALLS)
    parser.add_argument("--model", type=Path, default=Path("models/base").absolute())
    parser.add_argument("--peer-venv", type=Path, default=Path("build/whisper-live"))
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    # Ending the benchmark by any signal must also end the servers it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    given = arguments()
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    pack = rules(settings_.load().rules)
    words = bias(CallInfo(call_id="peer"), pack.hot_words())
    engines = given.engines.split(",")
    if unknown := {e.removesuffix("+prompt") for e in engines} - {"duting", *RUNS}:
        raise SystemExit(f"unknown engines {sorted(unknown)}; known: duting, {', '.join(RUNS)}")
    audios = [audio(call) for call in truth.load(given.calls_dir)]
    peers = Peers(audios, given.model, pack, given.peer_venv.absolute())
    rows: list[Row] = []
    for calls in (int(n) for n in given.calls.split(",")):
        load = Load(calls=calls, seconds=given.seconds, seed=given.seed, spread_s=SPREAD_S)
        for engine in engines:
            console.print(f"{engine}, {calls} calls, {given.seconds:.0f} s …", highlight=False)
            name, _, prompted = engine.partition("+")
            if name == "duting":
                rows.append(ours(load, given.calls_dir))
            else:
                row = RUNS[name](peers, load, words if prompted else None)
                rows.append({**row, "engine": engine})
    console.print(table(rows))
    out: dict[str, Any] = {
        "summary": {
            "calls": [int(n) for n in given.calls.split(",")],
            "ratios": ratios(rows),
        },
        "machine": machine(),
        "runs": rows,
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(out, ensure_ascii=False, indent=1))
    plots.peers(rows, given.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
