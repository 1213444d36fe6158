"""``python -m benchmarks.bias --calls app/demo/calls --json OUT``: what the prompt's words are worth.

The same speech is read with different prompts: none, the opening sentence alone, and the words of the rules
cut to so many tokens. Counted for each of them:

* on scripted calls (finals only, the whole path): phrases of ``redline.*`` and ``signal.*`` found, alerts
  from words that no turn asks for, character errors, seconds in the model per second of speech
* on speech that is about something else (``--other``, a manifest; also noise): rules that fire, and words of
  the longest prompt that appear in the text though nobody said them. A word counts as said when the
  reference holds it.

The calls are read as fast as the machine allows; ``model`` is seconds in the model over all workers, true
only on a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from app import logs
from app.build import rules
from app.demo import truth
from app.media import open_recording
from benchmarks.asr import SENTENCE, word_alerts
from benchmarks.engine import ROLES, Frames, Listened, Watched, both_sides, listen, recognise
from benchmarks.errors import Errors, errors, total
from benchmarks.machine import machine
from benchmarks.normalise import comparable
from benchmarks.speech import Clip, read_manifest, some
from detectors.panel import Panel
from detectors.rules import Pack
from streams.events import CallInfo, Channel, Detection, Transcript
from streams.transcribe import WhisperTranscriber

AT_ONCE = 4
"""Calls read at the same time, so that batches form."""
LENGTHS = (30, 45, 60, 80, 110)
"""Prompt tokens that are tried."""


@dataclass(frozen=True)
class Variant:
    name: str
    prompt: str
    tokens: int


@dataclass
class Row:
    """One prompt, measured."""

    variant: str
    tokens: int
    recall: float | None = None
    missed: int = 0
    false_alerts: int = 0
    false_alerts_per_hour: float | None = None
    cer: float | None = None
    model_per_speech_second: float | None = None
    other_cer: float | None = None
    other_alerts: int = 0
    other_words: int = 0
    noise_alerts: int = 0
    noise_words: int = 0
    noise_characters_per_minute: float | None = None


def longest(words: Sequence[str], tokens: int, transcriber: Watched, opening: str = SENTENCE) -> str:
    """``opening`` and as many of ``words``, in order, as make a prompt of at most ``tokens`` tokens."""
    text = opening
    for count in range(1, len(words) + 1):
        longer = f"{opening}{'、'.join(words[:count])}。"
        # A prompt is cut at its most tokens: one that is exactly as long may have lost its end.
        if len(transcriber.prompt(longer).tokens) > tokens:
            break
        text = longer
    return text


def variants(pack: Pack, transcriber: Watched, lengths: Sequence[int]) -> list[Variant]:
    words = pack.hot_words()
    texts = {"none": "", "sentence": SENTENCE}
    texts |= {f"words {n}": longest(words, n, transcriber) for n in lengths}
    texts["words only 60"] = longest(words, 60, transcriber, opening="")
    # The words that stand last in the prompt weigh most: does the order matter?
    kept = [word for word in words if word in longest(words, 60, transcriber)]
    texts["words 60, turned"] = longest(kept[::-1], 60, transcriber)
    return [Variant(name, text, len(transcriber.prompt(text).tokens)) for name, text in texts.items()]


def frames_of(call: truth.ScriptedCall) -> Frames:
    return lambda call_id: list(open_recording(call.audio).frames(call_id))


def call_errors(call: truth.ScriptedCall, finals: Sequence[Transcript]) -> Errors:
    """Character errors of a call's channels, each from its first turn to its last."""

    def said(role: Channel) -> str:
        return "".join(turn.text for turn in call.turns if turn.role == role)

    def heard(role: Channel) -> str:
        return "".join(t.text for t in sorted(finals, key=lambda t: t.start_ms) if t.role == role)

    return total(errors(said(role), heard(role)) for role in ROLES)


def on_calls(row: Row, prompt: str, calls: Sequence[truth.ScriptedCall], transcriber: Watched) -> list[str]:
    """Fill in what the scripted calls give; returns what was missed and what was not asked for."""
    lengths = {call.name: open_recording(call.audio).seconds or call.turns[-1].end for call in calls}
    listened, cost = listen(
        [(call.name, lengths[call.name], frames_of(call)) for call in calls],
        transcriber,
        paced=False,
        at_once=AT_ONCE,
        prompt=prompt,
    )
    by_name = {one.name: one for one in listened}
    spoken = {one.name: [a for a in one.alerts if a.evidence.how != "timer"] for one in listened}
    scored = truth.score(calls, spoken)
    every = truth.score(calls, spoken, families=("",))
    row.recall, row.missed = scored.recall, len(scored.missed)
    row.false_alerts = len(every.unexpected)
    row.false_alerts_per_hour = round(row.false_alerts / (sum(lengths.values()) / 3600), 1)
    rate = total(call_errors(call, by_name[call.name].finals) for call in calls).rate
    row.cer = None if rate is None else round(rate, 4)
    row.model_per_speech_second = cost.summary()["model_per_speech_second"]
    return [f"missed {e.call} {e.rule} {e.start:.1f}s" for e in scored.missed] + [
        f"false {name} {alert.rule_id} {alert.evidence.matched}" for name, alert in every.unexpected
    ]


def fired(text: str, pack: Pack) -> list[str]:
    """Rules that a sentence alone fires, whoever says it."""
    found = []
    for role in ROLES:
        spoken = Transcript(
            call_id="other",
            utterance_id=f"other:{role}:0",
            role=role,
            start_ms=0,
            end_ms=5_000,
            text=text,
            final=True,
        )
        raised = Panel(CallInfo(call_id="other"), pack).on_event(spoken)
        found += [d.rule_id for d in raised if isinstance(d, Detection)]
    return found


def never_said(words: Sequence[str], heard: str, said: str) -> list[str]:
    """Words of the prompt that stand in ``heard`` and not in ``said``."""
    got, real = comparable(heard), comparable(said)
    return [word for word in words if comparable(word) in got and comparable(word) not in real]


def on_other(
    row: Row, prompt: str, clips: Sequence[Clip], words: Sequence[str], pack: Pack, transcriber: Watched
) -> list[str]:
    answers, _ = recognise(clips, transcriber, prompt, "batches")
    notes = []
    for answer in answers:
        said = answer.clip.text or ""
        # A rule that the reference fires too was right to.
        justly = fired(said, pack)
        rules_ = [rule for rule in fired(answer.transcript.text, pack) if rule not in justly]
        phrases = never_said(words, answer.transcript.text, said)
        row.other_alerts += len(rules_)
        row.other_words += len(phrases)
        if rules_ or phrases:
            notes.append(f"other {answer.clip.path.stem}: {rules_} {phrases} in {answer.transcript.text}")
    rate = total(errors(a.clip.text or "", a.transcript.text) for a in answers).rate
    row.other_cer = None if rate is None else round(rate, 4)
    return notes


def on_noise(
    row: Row, prompt: str, clips: Sequence[Clip], words: Sequence[str], transcriber: Watched
) -> list[str]:
    calls = [(clip.path.stem, clip.seconds, both_sides(clip)) for clip in clips]
    listened: list[Listened] = listen(calls, transcriber, paced=False, at_once=AT_ONCE, prompt=prompt)[0]
    notes = []
    for one in listened:
        text = " | ".join(t.text for t in one.finals if t.text)
        alerts, phrases = word_alerts(one), never_said(words, text, "")
        row.noise_alerts += len(alerts)
        row.noise_words += len(phrases)
        if alerts or phrases:
            notes.append(f"noise {one.name}: {alerts} {phrases} in {text}")
    characters = sum(len(comparable(t.text)) for one in listened for t in one.finals) / len(ROLES)
    row.noise_characters_per_minute = round(characters / (sum(one.seconds for one in listened) / 60), 2)
    return notes


def show(console: Console, rows: Sequence[Row]) -> None:
    table = Table(
        *("prompt", "tokens", "recall", "false/h", "CER calls", "model s/s"),
        *("CER other", "false other", "words other", "false noise", "words noise", "noise chars/min"),
    )
    for row in rows:
        shown = (
            *(
                row.variant,
                row.tokens,
                row.recall and round(row.recall, 3),
                row.false_alerts_per_hour,
                row.cer,
            ),
            *(row.model_per_speech_second, row.other_cer, row.other_alerts, row.other_words),
            *(row.noise_alerts, row.noise_words, row.noise_characters_per_minute),
        )
        table.add_row(*("–" if cell is None else str(cell) for cell in shown))
    console.print(table)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Recall and character errors over the prompt's tokens."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for row in rows:
        axes.annotate(row.variant, (row.tokens, 100 * (row.cer or 0.0)), fontsize=7)
    tokens = [row.tokens for row in rows]
    axes.scatter(
        tokens, [100 * (row.cer or 0.0) for row in rows], color="#b3261e", label="CER of the calls, %"
    )
    axes.scatter(
        tokens, [100 * (1 - (row.recall or 0.0)) for row in rows], color="#2a7f62", label="phrases missed, %"
    )
    axes.set_xlabel("tokens of the prompt")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=Path, default=truth.CALLS)
    parser.add_argument("--other", type=Path, help="manifest of speech and noise that holds no phrase")
    parser.add_argument("--folders", nargs="*", default=["asr", "noise"], help="top folders of --other")
    parser.add_argument("--limit", type=int, help="calls, and clips of --other")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--tokens", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--model", type=Path, default=Path("models/base"))
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    logs.configure("error", as_json=False)
    console = Console(width=180)
    calls = truth.load(given.calls)[: given.limit]
    clips = read_manifest(given.other, given.folders) if given.other else []
    spoken = some([clip for clip in clips if clip.text], given.limit, given.seed)
    noise = [clip for clip in clips if not clip.text]
    pack = rules(None)
    transcriber = Watched(WhisperTranscriber(given.model))
    transcriber.warm_up()
    rows, notes = [], {}
    for variant in variants(pack, transcriber, given.tokens):
        row = Row(variant.name, variant.tokens)
        found = on_calls(row, variant.prompt, calls, transcriber)
        if spoken:
            found += on_other(row, variant.prompt, spoken, pack.hot_words(), pack, transcriber)
        if noise:
            found += on_noise(row, variant.prompt, noise, pack.hot_words(), transcriber)
        rows.append(row)
        notes[variant.name] = {"prompt": variant.prompt, "found": found}
        console.print(f"{variant.name}: recall {row.recall}, CER {row.cer}, {len(found)} findings")
    show(console, rows)
    summary = {row.variant: asdict(row) for row in rows}
    given.json.parent.mkdir(parents=True, exist_ok=True)
    report = {"summary": summary, "machine": machine(), "runs": notes}
    given.json.write_text(json.dumps(report, ensure_ascii=False, indent=1))
    plot(rows, given.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
