"""``python -m benchmarks.asr --manifest TSV --json OUT``: how well and how cheaply speech becomes text.

Every row of the manifest (``path`` relative to it, ``seconds``, ``text``, perhaps ``label``) is heard as
through a telephone (8 kHz mu-law). Rows with a text go through the real engine as finals: scheduler, short
windows, retries, guards. Counted: CER with script, numerals, width and punctuation made equal; loops
(``benchmarks.errors.is_loop``, of what was shown, and of what a guard had to refuse as one); seconds.
``--full`` also reads every clip in the full 30 s window with the same prompt, so that the loss is known.

Rows without a text are noise: each is played on both channels of a call in real time, through VAD, model and
rules. Counted: characters shown per minute of file, and alerts from words (a timer that notices dead air is
right to fire).

``rtf`` is wall time with all workers busy over seconds of speech: only true on a machine with nothing else to
do. ``cpu_per_speech_second`` is of this process alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from app import logs
from app.build import rules
from benchmarks.engine import Answer, Listened, Offer, Watched, both_sides, in_full_windows, listen, recognise
from benchmarks.errors import Errors, errors, is_loop, total
from benchmarks.machine import machine
from benchmarks.normalise import comparable
from benchmarks.speech import Clip, read_manifest, some
from streams.bias import bias
from streams.events import CallInfo
from streams.guards import Reading
from streams.transcribe import WhisperTranscriber

SENTENCE = "以下是银行客服的普通话通话。"
AT_ONCE = 12
"""Noise files played at the same time."""
REFUSED_LOOPS = ("compression", "rate")


@dataclass(frozen=True)
class Line:
    """One clip with a text, measured."""

    answer: Answer
    errors: Errors
    full: Reading | None
    full_errors: Errors | None

    @property
    def looped(self) -> bool:
        """Shown, or refused for it: either way the words of this clip are lost."""
        text, clip = self.answer.transcript.text, self.answer.clip
        return self.answer.transcript.rejected in REFUSED_LOOPS or is_loop(text, clip.seconds, clip.text)

    def as_json(self) -> dict[str, Any]:
        transcript, clip = self.answer.transcript, self.answer.clip
        return {
            "path": clip.path.name,
            "corpus": clip.corpus,
            "seconds": clip.seconds,
            "text": clip.text,
            "heard": transcript.text,
            "edits": self.errors.edits,
            "characters": self.errors.characters,
            "looped": self.looped,
            "rejected": transcript.rejected,
            "passes": [passed_as_json(p.frames, p.batch, p.reading) for p in self.answer.passes],
            "full": self.full and passed_as_json(3000, 1, self.full),
            "full_edits": self.full_errors and self.full_errors.edits,
        }


def passed_as_json(frames: int, batch: int, reading: Reading) -> dict[str, Any]:
    return {
        "frames": frames,
        "batch": batch,
        "text": reading.text,
        "tokens": reading.tokens,
        "log_probability": round(reading.log_probability, 3),
        "no_speech": round(reading.no_speech, 3),
        "compression": round(reading.compression, 2),
        "tokens_per_second": round(reading.tokens / max(reading.seconds, 1e-6), 1),
        "characters_per_second": round(len(comparable(reading.text)) / max(reading.seconds, 1e-6), 1),
    }


def prompt_text(name: str) -> str:
    """``none``, ``default`` (one sentence) or ``pack`` (what the service gives: the words of the rules)."""
    if name == "pack":
        return bias(CallInfo(call_id="asr"), rules(None).hot_words())
    return {"none": "", "default": SENTENCE}[name]


def measure_speech(
    clips: Sequence[Clip], transcriber: Watched, prompt: str, offer: Offer, full: bool
) -> tuple[list[Line], dict[str, Any]]:
    answers, cost = recognise(clips, transcriber, prompt, offer)
    readings: Sequence[Reading | None] = [None] * len(clips)
    summary: dict[str, Any] = cost.summary()
    if full:
        readings, full_cost = in_full_windows(clips, transcriber, prompt)
        summary["rtf_full"] = full_cost.summary()["rtf"]
    lines = [
        Line(
            answer,
            errors(answer.clip.text or "", answer.transcript.text),
            reading,
            errors(answer.clip.text or "", reading.text) if reading else None,
        )
        for answer, reading in zip(answers, readings, strict=True)
    ]
    batches = [p.batch for a in answers for p in a.passes]
    summary |= figures(lines)
    summary["mean_batch"] = round(statistics.fmean(batches), 2) if batches else None
    return lines, summary


def figures(lines: Sequence[Line]) -> dict[str, Any]:
    """Of any set of lines: one corpus, or all."""

    def rate(all_: Errors) -> float | None:
        return None if all_.rate is None else round(all_.rate, 4)

    full = [line.full_errors for line in lines if line.full_errors is not None]
    cer, cer_full = rate(total(line.errors for line in lines)), rate(total(full))
    return {
        "clips": len(lines),
        "seconds": round(sum(line.answer.clip.seconds for line in lines), 1),
        "cer": cer,
        "cer_full": cer_full,
        "points_lost": None if cer is None or cer_full is None else round(100 * (cer - cer_full), 2),
        "loops": sum(line.looped for line in lines),
        "loops_full": sum(
            is_loop(line.full.text, line.answer.clip.seconds, line.answer.clip.text)
            for line in lines
            if line.full
        ),
        "rejected": dict(Counter(r for line in lines if (r := line.answer.transcript.rejected))),
        "retries": sum(line.answer.retried for line in lines),
    }


def noise_figures(listened: Sequence[Listened]) -> dict[str, Any]:
    """Characters and alerts over all noise files. A file counts once, though both channels heard it."""
    minutes = sum(one.seconds for one in listened) / 60
    # The same sound on two channels gives the same text: half of it is what one line would show.
    characters = sum(len(comparable(t.text)) for one in listened for t in one.finals) / 2
    return {
        "noise_files": len(listened),
        "noise_minutes": round(minutes, 2),
        "noise_characters_per_minute": round(characters / minutes, 2),
        "noise_alerts": sum(len(word_alerts(one)) for one in listened),
        "noise_utterances": sum(len(one.finals) for one in listened) // 2,
    }


def word_alerts(listened: Listened) -> list[str]:
    """Rules that fired on words; timers hear none."""
    return [a.rule_id for a in listened.alerts if a.evidence.how != "timer"]


def show(console: Console, lines: Sequence[Line], listened: Sequence[Listened], worst: int) -> None:
    table = Table("corpus", "clips", "seconds", "CER", "CER full", "points", "loops", "rejected", "retries")
    for corpus in sorted({line.answer.clip.corpus for line in lines}):
        row = figures([line for line in lines if line.answer.clip.corpus == corpus])
        keys = ("clips", "seconds", "cer", "cer_full", "points_lost", "loops", "rejected", "retries")
        table.add_row(corpus, *("–" if row[k] is None else str(row[k] or 0) for k in keys))
    if lines:
        console.print(table)
    table = Table("worst", "edits", "said", "heard", "log p", "no speech", "compr", "tok/s", "rejected")
    order = sorted(lines, key=lambda line: -line.errors.edits)[:worst]
    for line in order:
        last = line.answer.passes[0].reading if line.answer.passes else None
        table.add_row(
            line.answer.clip.path.stem,
            f"{line.errors.edits}/{line.errors.characters}",
            line.answer.clip.text,
            line.answer.transcript.text,
            *(
                (
                    f"{last.log_probability:.2f}",
                    f"{last.no_speech:.2f}",
                    f"{last.compression:.2f}",
                    f"{last.tokens / max(last.seconds, 1e-6):.1f}",
                )
                if last
                else ("", "", "", "")
            ),
            line.answer.transcript.rejected or "",
        )
    if order:
        console.print(table)
    table = Table("noise that gave utterances", "seconds", "utterances", "text", "refused", "alerts")
    for one in listened:
        if one.finals or word_alerts(one):
            table.add_row(
                one.name,
                f"{one.seconds:.1f}",
                str(len(one.finals)),
                " | ".join(t.text for t in one.finals if t.text),
                ", ".join(
                    f"{k} {n}" for k, n in Counter(t.rejected for t in one.finals if t.rejected).items()
                ),
                ", ".join(word_alerts(one)),
            )
    if listened:
        console.print(table)


def plot(lines: Sequence[Line], path: Path) -> None:
    """CER by length of the clip, engine and full window."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    edges = [0, 3, 4, 5, 6, 8, 15, 30]
    groups = [
        [line for line in lines if low <= line.answer.clip.seconds < high] for low, high in pairwise(edges)
    ]
    labels = [
        f"{low}–{high} s\n{len(g)} clips" for (low, high), g in zip(pairwise(edges), groups, strict=True)
    ]
    for shift, name, colour, of in (
        (-0.2, "engine", "#2a7f62", lambda line: line.errors),
        (0.2, "full window", "#8a8f98", lambda line: line.full_errors),
    ):
        rates = [total(e for line in group if (e := of(line)) is not None).rate or 0.0 for group in groups]
        axes.bar(
            [x + shift for x in range(len(groups))], [100 * r for r in rates], 0.4, label=name, color=colour
        )
    axes.set_xticks(range(len(groups)), labels, fontsize=8)
    axes.set_ylabel("CER, %")
    axes.set_title("Character errors by length of the clip")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--folders", nargs="*", default=["asr", "noise"], help="top folders; none: all")
    parser.add_argument("--model", type=Path, default=Path("models/base"))
    parser.add_argument("--prompt", choices=["none", "default", "pack"], default="pack")
    parser.add_argument("--offer", choices=["batches", "live"], default="batches")
    parser.add_argument("--full", action="store_true", help="also read every clip in the full window")
    parser.add_argument("--limit", type=int, help="clips with a text")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--worst", type=int, default=10, help="clips to print")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    logs.configure("error", as_json=False)
    clips = read_manifest(given.manifest, given.folders)
    spoken = some([clip for clip in clips if clip.text], given.limit, given.seed)
    noise = sorted((clip for clip in clips if not clip.text), key=lambda clip: -clip.seconds)
    console = Console(width=200)
    transcriber = Watched(WhisperTranscriber(given.model))
    transcriber.warm_up()
    prompt = prompt_text(given.prompt)
    lines: list[Line] = []
    summary: dict[str, Any] = {
        "prompt": given.prompt,
        "prompt_tokens": len(transcriber.prompt(prompt).tokens),
        "offer": given.offer,
    }
    if spoken:
        lines, measured = measure_speech(spoken, transcriber, prompt, given.offer, given.full)
        summary |= measured
    listened: list[Listened] = []
    if noise:
        calls = [(clip.path.stem, clip.seconds, both_sides(clip)) for clip in noise]
        listened, _ = listen(calls, transcriber, paced=True, at_once=AT_ONCE, prompt=prompt)
        summary |= noise_figures(listened)
    show(console, lines, listened, given.worst)
    console.print(summary)
    runs = {
        "clips": [line.as_json() for line in lines],
        "noise": [
            {
                "name": one.name,
                "seconds": one.seconds,
                "finals": [
                    {"role": t.role, "start_ms": t.start_ms, "end_ms": t.end_ms, "text": t.text}
                    | {"confidence": t.confidence, "rejected": t.rejected}
                    for t in one.finals
                ],
                "alerts": word_alerts(one),
            }
            for one in listened
        ],
        "noise_passes": [
            [round(len(pcm) / 32_000, 2), *(passed_as_json(p.frames, p.batch, p.reading) for p in passes)]
            for pcm, passes in (transcriber.passes.items() if noise else ())
        ],
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    report = {"summary": summary, "machine": machine(), "runs": runs}
    given.json.write_text(json.dumps(report, ensure_ascii=False, indent=1))
    if lines:
        plot(lines, given.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
