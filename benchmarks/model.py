"""``python -m benchmarks.model --shape large-v3-turbo --device cuda --json OUT``: what a batch costs.

Random weights serve for speed. Every (compute type, window, batch) is timed as the engine would run it: mel
features are handed in as an array, one ``generate``, greedy, a prompt in front; the output's length is fixed
(``--tokens-per-second`` of the window) because random weights would end at once or never. From the costs of
each compute type, ``benchmarks.queueing`` finds how many calls one device holds at p95 ≤ 1 s from the cut of
an utterance to its text: the scheduler is the real one, its clock is simulated, audio, mel features and rules
cost nothing there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from benchmarks.queueing import interpolated, most_calls
from benchmarks.shapes import DECODER_POSITIONS, SHAPES, Shape, Tokens, write
from streams.transcribe import FRAMES_PER_SECOND

BATCHES = (1, 2, 4, 8, 16, 32, 64)
WINDOWS_S = (5.0, 10.0, 30.0)
COMPUTE_TYPES = {"cuda": ("float16", "int8_float16"), "cpu": ("int8",)}


@dataclass(frozen=True)
class Timing:
    compute_type: str
    window_s: float
    batch: int
    tokens: int
    """Written per clip."""
    seconds: float
    """Median of the repeats."""

    @property
    def speech_per_second(self) -> float:
        """Seconds of speech, windows full, per second of the device."""
        return self.window_s * self.batch / self.seconds


def generation_limit(prompt: int, tokens: int) -> int:
    """The ``max_length`` that lets CTranslate2 write ``tokens``.

    Seen with 4.8: a Whisper writes at most half of ``max_length``, and at most what is left of it behind the
    prompt and one more.
    """
    return min(2 * DECODER_POSITIONS, max(2 * tokens, prompt + tokens - 1))


class Model:
    """A model of a known shape, loaded, that writes as many tokens as it is asked to."""

    def __init__(self, folder: Path, shape: Shape, tokens: Tokens, device: str, compute_type: str) -> None:
        import ctranslate2

        self._storage = ctranslate2.StorageView
        self._shape, self._tokens = shape, tokens
        # One batch at a time with all cores: on a GPU the threads do not matter.
        self._model: Any = ctranslate2.models.Whisper(
            str(folder), device=device, compute_type=compute_type, intra_threads=len(os.sched_getaffinity(0))
        )

    def run(self, frames: int, batch: int, tokens: int, prompt: int) -> tuple[float, int]:
        """Seconds of one batch, and how many tokens each clip got."""
        features = np.random.default_rng(0).standard_normal((batch, self._shape.mels, frames), np.float32)
        t = self._tokens
        before = [t.previous, *range(1, prompt)] if prompt else []
        start = [*before, t.start, t.language, t.transcribe, t.no_timestamps]
        started = time.perf_counter()
        results = self._model.generate(
            self._storage.from_array(features),
            [start] * batch,
            beam_size=1,
            max_length=generation_limit(len(start), tokens),
            suppress_tokens=[t.end],
            suppress_blank=False,
            return_scores=True,
            return_no_speech_prob=True,
            repetition_penalty=1.1,
        )
        written = min(len(result.sequences_ids[0]) for result in results)
        return time.perf_counter() - started, written


def measure(
    model: Model,
    compute_type: str,
    windows_s: Sequence[float],
    batches: Sequence[int],
    tokens_per_second: float,
    prompt: int,
    repeats: int,
    console: Console,
) -> list[Timing]:
    """All windows × batches of one loaded model. One that does not fit into the memory ends its window."""
    out = []
    for window_s in windows_s:
        frames = round(window_s * FRAMES_PER_SECOND)
        tokens = round(window_s * tokens_per_second)
        for batch in batches:
            try:
                model.run(frames, batch, tokens, prompt)
                runs = [model.run(frames, batch, tokens, prompt) for _ in range(repeats)]
            except RuntimeError as error:
                console.print(
                    f"{compute_type} {window_s:g} s × {batch}: left out, {str(error).splitlines()[0]}"
                )
                break
            seconds = statistics.median(run for run, _ in runs)
            out.append(Timing(compute_type, window_s, batch, runs[0][1], seconds))
    return out


def capacity(timings: Sequence[Timing], p95_s: float, limit: int) -> dict[str, Any]:
    """Calls one device holds, with the partials of the live path and with finals alone."""
    measured = {(round(t.window_s * FRAMES_PER_SECOND), t.batch): t.seconds for t in timings}
    sizes = set.intersection(*({s for f, s in measured if f == frames} for frames, _ in measured))
    whole = {(f, s): seconds for (f, s), seconds in measured.items() if s in sizes}
    cost, largest = interpolated(whole), max(sizes)
    return {
        "calls": most_calls(cost, largest, p95_s, limit),
        "calls_finals_only": most_calls(cost, largest, p95_s, limit, partials=False),
        "largest_batch": largest,
    }


def show(console: Console, timings: Sequence[Timing]) -> None:
    table = Table("compute type", "window s", "batch", "tokens", "seconds", "speech s per s")
    for t in timings:
        shown = (f"{t.window_s:g}", t.batch, t.tokens, f"{t.seconds:.4f}", f"{t.speech_per_second:.0f}")
        table.add_row(t.compute_type, *map(str, shown))
    console.print(table)


def plot(timings: Sequence[Timing], path: Path) -> None:
    """Seconds of speech per second of the device, by batch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for compute_type, window_s in sorted({(t.compute_type, t.window_s) for t in timings}):
        line = [t for t in timings if (t.compute_type, t.window_s) == (compute_type, window_s)]
        axes.plot(
            [t.batch for t in line],
            [t.speech_per_second for t in line],
            marker="o",
            label=f"{compute_type}, {window_s:g} s",
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("clips in a batch")
    axes.set_ylabel("seconds of speech per second")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--compute-types", nargs="+", help="default: float16 int8_float16, or int8 on a CPU")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--windows", type=float, nargs="+", default=list(WINDOWS_S), help="seconds")
    parser.add_argument("--tokens-per-second", type=float, default=4.5)
    parser.add_argument("--prompt", type=int, default=60, help="tokens in front of each clip")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--p95", type=float, default=1.0, help="seconds from cut to text")
    parser.add_argument("--most-calls", type=int, default=2048, help="the simulation tries no more")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    console = Console(width=120)
    shape = SHAPES[given.shape]
    compute_types = given.compute_types or COMPUTE_TYPES[given.device]
    timings: list[Timing] = []
    held: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        tokens = write(shape, Path(folder))
        for compute_type in compute_types:
            model = Model(Path(folder), shape, tokens, given.device, compute_type)
            found = measure(
                model,
                compute_type,
                given.windows,
                given.batches,
                given.tokens_per_second,
                given.prompt,
                given.repeats,
                console,
            )
            del model
            timings += found
            if found:
                held[compute_type] = capacity(found, given.p95, given.most_calls)
    show(console, timings)
    for compute_type, figures in held.items():
        console.print(f"{compute_type}: at p95 ≤ {given.p95:g} s, simulated: {figures}")
    summary = {"shape": given.shape, "device": given.device, "p95_s": given.p95, "held": held}
    runs = [asdict(t) | {"speech_per_second": round(t.speech_per_second, 1)} for t in timings]
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps({"summary": summary, "machine": machine(), "runs": runs}, indent=1))
    if timings:
        plot(timings, given.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
