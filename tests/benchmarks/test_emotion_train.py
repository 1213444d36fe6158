"""benchmarks.emotion_train: from recordings to a head that a server loads."""

from __future__ import annotations

import json
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from app.errors import MediaError
from app.head import OnnxHead
from benchmarks import emotion_train
from benchmarks.emotion_train import CLASSES, judge, left_out, measure, onnx, read, train
from streams.events import SAMPLE_RATE
from streams.testing import speak


def record(path: Path, hertz: float, level: int) -> None:
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        out.writeframes(speak(2400, hertz, level, swing=1).tobytes())


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three speakers who are calm, and angry in a higher and louder voice."""
    folder = tmp_path_factory.mktemp("voices")
    rows = ["path\tspeaker\tlabel\ttext"]
    for speaker, hertz in (("one", 110), ("two", 160), ("three", 210)):
        for number in range(4):
            record(folder / f"{speaker}{number}.wav", hertz * (1 + 0.02 * number), 3000 + 200 * number)
            rows.append(f"{speaker}{number}.wav\t{speaker}\tneutral\t")
        for number in range(3):
            record(folder / f"{speaker}a{number}.wav", hertz * (1.5 + 0.05 * number), 9000)
            rows.append(f"{speaker}a{number}.wav\t{speaker}\tanger\t")
        rows.append(f"{speaker}0.wav\t{speaker}\tpuzzled\t")
    (folder / "manifest.tsv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.tsv"


def test_labels_that_are_not_known_are_left_out(manifest: Path) -> None:
    rows = read(manifest)
    assert len(rows) == 21
    assert {row.feeling for row in rows} == {"calm", "angry"}


def test_a_speaker_that_was_never_heard_is_judged_right_and_the_file_says_the_same(
    manifest: Path, tmp_path: Path
) -> None:
    examples = measure(read(manifest))
    figures = left_out(examples)
    assert (figures.examples, figures.speakers) == (21, 3)
    assert figures.recall > 0.9
    assert figures.raised_auc > 0.9
    assert figures.rule_auc > 0.9
    layer = train(examples)
    path = tmp_path / "head.onnx"
    path.write_bytes(onnx(layer))
    head = OnnxHead.load(path)
    for example, wanted in zip(examples, judge(layer, examples), strict=True):
        found = head.probabilities(example.features)
        assert [found[feeling] for feeling in CLASSES] == pytest.approx(wanted.tolist(), abs=1e-4)
        assert sum(found.values()) == pytest.approx(1, abs=1e-5)
        assert found["sad"] < 1e-6, "nobody was sad among those it learned from"


def test_a_speakers_own_row_is_not_part_of_its_baseline(manifest: Path) -> None:
    examples = measure(read(manifest))
    assert np.abs([e.features for e in examples if e.feeling == "calm"]).max() > 0.3


def test_the_command_writes_figures_and_a_head(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, head = tmp_path / "out.json", tmp_path / "head.onnx"
    given = ["--manifest", str(manifest), "--json", str(out), "--onnx", str(head)]
    monkeypatch.setattr(sys, "argv", ["emotion_train", *given])
    emotion_train.main()
    assert json.loads(out.read_text())["summary"]["speakers"] == 3
    OnnxHead.load(head)


def test_a_manifest_without_speakers_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    path.write_text("path\tlabel\na.wav\tangry\n")
    with pytest.raises(MediaError, match="expected the columns path, speaker and label"):
        read(path)
    path.write_text("path\tspeaker\tlabel\na.wav\tone\tangry\n")
    with pytest.raises(MediaError, match="at least two speakers"):
        read(path)
