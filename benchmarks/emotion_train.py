"""``python -m benchmarks.emotion_train --manifest TSV --onnx OUT --json OUT``: a learned judge of voices.

Every row of the manifest (``path`` relative to it, ``speaker``, ``label``, perhaps ``text``) is heard as
through a telephone and measured by the code that measures calls: ``streams.voice``, then
``detectors.baseline`` against the first seconds of the same speaker. A call begins calm, so a speaker's calm
rows are the baseline (all but the one that is judged). Figures are of speakers never learned from: each
is judged by a head trained on the others only (leave one speaker out), beside the rule that judges
where there is no head.

The head itself is a softmax over ``detectors.emotion.FEATURES``, trained on all rows, written as ONNX: set
``DUTING_EMOTION_MODEL`` to it. Whether it may be handed on is for the licence of the recordings to say.

Labels: calm (neutral, boredom), pleased (happy), anxious (fear), sad (sadness), displeased (disgust), angry.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from app.errors import MediaError
from benchmarks.machine import machine
from benchmarks.onnx_file import Layer, network
from benchmarks.speech import Clip, manifest_rows
from detectors.baseline import SOUNDS, Baseline, sounds
from detectors.emotion import FEATURES, by_rule, features
from detectors.feelings import words
from streams.events import Feeling, Transcript, Utterance
from streams.voice import voice

Floats = npt.NDArray[np.float64]

CLASSES: tuple[Feeling, ...] = get_args(Feeling)
NAMES: dict[str, Feeling] = {
    **{feeling: feeling for feeling in CLASSES},
    "neutral": "calm",
    "boredom": "calm",
    "happy": "pleased",
    "happiness": "pleased",
    "fear": "anxious",
    "anxiety": "anxious",
    "sadness": "sad",
    "disgust": "displeased",
    "anger": "angry",
}
RAISED = ("pleased", "anxious", "angry")
"""What raises a voice; the rule can only be asked for this."""
PENALTY = 1.0
"""On the squares of the weights, over the number of rows."""
STEPS, RATE = 400, 0.5


@dataclass(frozen=True)
class Row:
    """One recording and how its speaker felt."""

    clip: Clip
    speaker: str
    feeling: Feeling


@dataclass(frozen=True)
class Example:
    speaker: str
    feeling: Feeling
    features: tuple[float, ...]


def read(manifest: Path) -> list[Row]:
    """Rows with a label that is known here; raises ``MediaError`` naming what is missing."""
    rows = []
    for row in manifest_rows(manifest, ("path", "speaker", "label")):
        feeling = NAMES.get(row["label"].strip().lower())
        if feeling is not None:
            text = (row.get("text") or "").strip() or None
            clip = Clip(manifest.parent / row["path"], 0.0, "", text)
            rows.append(Row(clip, row["speaker"], feeling))
    if len({row.speaker for row in rows}) < 2:
        raise MediaError(f"{manifest}: expected rows of at least two speakers with labels known here")
    return rows


def measure(rows: Sequence[Row]) -> list[Example]:
    """What a call's detector would be given of each row, had the speaker begun calm."""
    speakers: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        speakers[row.speaker].append(row)
    return [example for one in speakers.values() for example in _speaker(one)]


def _speaker(rows: Sequence[Row]) -> list[Example]:
    heard = [(row, sounds(*_utterance(row), overlap=0.0)) for row in rows]
    calm_first = sorted(heard, key=lambda pair: pair[0].feeling != "calm")
    out = []
    for row, sound in heard:
        baseline = Baseline()
        for other, before in calm_first:
            # Its own row is none of what came before it.
            if other is not row:
                baseline.learn(before, len(other.clip.heard) * 1000 // 16_000)
        scores = baseline.compare(sound)
        if scores is not None:
            said = words(row.clip.text or "", "customer")
            out.append(Example(row.speaker, row.feeling, tuple(features(scores, said))))
    return out


def _utterance(row: Row) -> tuple[Any, Transcript]:
    pcm = row.clip.heard
    end_ms = len(pcm) * 1000 // 16_000
    utterance = Utterance(
        call_id="train",
        channel="customer",
        start_ms=0,
        end_ms=end_ms,
        pcm=pcm.tobytes(),
        final=True,
        endpoint="end",
    )
    transcript = Transcript(
        call_id="train",
        utterance_id=utterance.utterance_id,
        role="customer",
        start_ms=0,
        end_ms=end_ms,
        text=row.clip.text or "",
        final=True,
    )
    return voice(utterance), transcript


def train(examples: Sequence[Example]) -> Layer:
    """Weights of a softmax; every feeling counts the same, however many rows it has."""
    given = np.array([example.features for example in examples], np.float64)
    wanted = np.array([CLASSES.index(example.feeling) for example in examples])
    counts = np.bincount(wanted, minlength=len(CLASSES))
    share = 1 / (counts[wanted] * np.count_nonzero(counts))
    target = np.eye(len(CLASSES))[wanted]
    absent = np.where(counts == 0, -1e3, 0.0)
    weights, added = np.zeros((given.shape[1], len(CLASSES))), np.zeros(len(CLASSES))
    for _ in range(STEPS):
        error = (_softmax(given @ weights + added + absent) - target) * share[:, None]
        weights -= RATE / 4 * (given.T @ error + PENALTY / len(examples) * weights)
        added -= RATE / 4 * error.sum(axis=0)
    return weights.astype(np.float32), (added + absent).astype(np.float32)


def judge(layer: Layer, examples: Sequence[Example]) -> Floats:
    """Probabilities, shape (examples, CLASSES)."""
    given = np.array([example.features for example in examples], np.float64).reshape(-1, len(FEATURES))
    return _softmax(given @ layer[0] + layer[1])


def _softmax(x: Floats) -> Floats:
    raised = np.exp(x - x.max(axis=1, keepdims=True))
    out: Floats = raised / raised.sum(axis=1, keepdims=True)
    return out


@dataclass(frozen=True)
class Figures:
    """How often the right feeling was named, by speakers that were not learned from."""

    examples: int
    speakers: int
    accuracy: float
    recall: float
    """Mean over the feelings (unweighted average recall)."""
    by_feeling: dict[str, float]
    by_speaker: dict[str, float]
    confused: dict[str, dict[str, int]]
    raised_auc: float
    """How well the head tells a raised voice from another: chance is 0.5."""
    rule_auc: float
    """The same, of the rule that needs no training."""


def left_out(examples: Sequence[Example]) -> Figures:
    """Judge every speaker by a head trained on the others."""
    speakers = sorted({example.speaker for example in examples})
    named: list[Feeling] = []
    raised: list[float] = []
    judged: list[Example] = []
    for speaker in speakers:
        own = [e for e in examples if e.speaker == speaker]
        probabilities = judge(train([e for e in examples if e.speaker != speaker]), own)
        judged += own
        named += [CLASSES[index] for index in probabilities.argmax(axis=1)]
        raised += probabilities[:, [CLASSES.index(f) for f in RAISED]].sum(axis=1).tolist()  # type: ignore[arg-type]
    right = [e.feeling == n for e, n in zip(judged, named, strict=True)]
    confused: dict[str, dict[str, int]] = {f: dict.fromkeys(CLASSES, 0) for f in CLASSES}
    for example, name in zip(judged, named, strict=True):
        confused[example.feeling][name] += 1
    by_feeling = {f: row[f] / sum(row.values()) for f, row in confused.items() if sum(row.values())}
    is_raised = [e.feeling in RAISED for e in judged]
    by_the_rule = [_rule(e) for e in judged]
    return Figures(
        examples=len(judged),
        speakers=len(speakers),
        accuracy=sum(right) / len(right),
        recall=sum(by_feeling.values()) / len(by_feeling),
        by_feeling=by_feeling,
        by_speaker={
            s: float(np.mean([r for r, e in zip(right, judged, strict=True) if e.speaker == s]))
            for s in speakers
        },
        confused=confused,
        raised_auc=_auc(raised, is_raised),
        rule_auc=_auc(by_the_rule, is_raised),
    )


def _rule(example: Example) -> float:
    feeling, level = by_rule(example.features[: len(SOUNDS)])
    return -level if feeling == "sad" else level


def _auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Probability that one that is raised has the higher score; a tie counts half."""
    up = [s for s, p in zip(scores, positive, strict=True) if p]
    down = [s for s, p in zip(scores, positive, strict=True) if not p]
    if not up or not down:
        return 0.5
    return float(np.mean([(u > d) + (u == d) / 2 for u in up for d in down]))


def onnx(layer: Layer) -> bytes:
    """The file that ``app.head.OnnxHead`` loads."""
    return network([layer], {"features": ",".join(FEATURES), "feelings": ",".join(CLASSES)})


def table(figures: Figures) -> Table:
    out = Table(title="judged by heads that never heard the speaker", title_justify="left")
    for column in ("feeling", *CLASSES, "recall"):
        out.add_column(column, justify="left" if column == "feeling" else "right")
    for feeling, row in figures.confused.items():
        if sum(row.values()):
            out.add_row(feeling, *(str(row[f]) for f in CLASSES), f"{figures.by_feeling[feeling]:.2f}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--folder", help="only rows below this folder of the manifest's")
    parser.add_argument("--onnx", type=Path, help="where the head goes; without it there are only figures")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    console = Console(stderr=True)
    rows = read(given.manifest)
    if given.folder:
        below = given.manifest.parent / given.folder
        rows = [row for row in rows if row.clip.path.is_relative_to(below)]
    examples = measure(rows)
    figures = left_out(examples)
    console.print(table(figures))
    console.print(
        f"{figures.examples} rows, {figures.speakers} speakers: accuracy {figures.accuracy:.2f}, "
        f"mean recall {figures.recall:.2f} (chance {1 / len(figures.by_feeling):.2f}); "
        f"raised or not, AUC: head {figures.raised_auc:.2f}, rule {figures.rule_auc:.2f}"
    )
    if given.onnx is not None:
        given.onnx.write_bytes(onnx(train(examples)))
    summary = {name: value for name, value in vars(figures).items() if name != "confused"}
    report = {"summary": summary, "machine": machine(), "runs": [{"confused": figures.confused}]}
    given.json.write_text(json.dumps(report, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
