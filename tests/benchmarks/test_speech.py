from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from app.errors import MediaError
from benchmarks.speech import Clip, read_manifest, some
from streams.testing import tone


def clip(folder: Path, milliseconds: int = 500) -> Clip:
    path = folder / "tone.wav"
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(tone(milliseconds).astype("<i2").tobytes())
    return Clip(path, milliseconds / 1000, "tone", None)


def manifest(folder: Path, *rows: str) -> Path:
    path = folder / "manifest.tsv"
    path.write_text("\n".join(("path\tseconds\tspeaker\tlabel\ttext", *rows)), "utf-8")
    return path


def test_rows_know_their_folder_and_whether_anything_is_said(tmp_path: Path) -> None:
    table = manifest(tmp_path, "asr/a.flac\t2.5\tA\tneutral\t你好", "noise/rain.flac\t5\t\tesc10:rain\t")
    spoken, rain = read_manifest(table)
    assert (spoken.corpus, spoken.text, spoken.seconds) == ("asr", "你好", 2.5)
    assert (rain.corpus, rain.text, rain.path) == ("noise/esc10", None, tmp_path / "noise/rain.flac")


def test_other_folders_are_left_out(tmp_path: Path) -> None:
    table = manifest(tmp_path, "asr/a.flac\t2.5\tA\tneutral\t你好", "noise/rain.flac\t5\t\tesc10:rain\t")
    assert [c.corpus for c in read_manifest(table, ["noise"])] == ["noise/esc10"]
    with pytest.raises(MediaError, match="expected rows of music"):
        read_manifest(table, ["music"])


def test_a_missing_manifest_and_missing_columns_are_told(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="expected a manifest"):
        read_manifest(tmp_path / "none.tsv")
    (tmp_path / "wrong.tsv").write_text("file\tlength\na\t1")
    with pytest.raises(MediaError, match=r"wrong\.tsv:2: expected the columns"):
        read_manifest(tmp_path / "wrong.tsv")


def test_the_same_seed_chooses_the_same_clips_in_their_order() -> None:
    clips = [Clip(Path(str(n)), 1.0, "asr", "好") for n in range(20)]
    chosen = some(clips, 5, seed=7)
    assert chosen == some(clips, 5, seed=7)
    assert [int(c.path.name) for c in chosen] == sorted(int(c.path.name) for c in chosen)
    assert some(clips, None, seed=7) == clips


def test_a_clip_is_heard_in_the_telephone_band(tmp_path: Path) -> None:
    heard = clip(tmp_path)
    assert len(heard.payload) == 4_000
    assert abs(len(heard.heard) - 8_000) <= 160
    spectrum = np.abs(np.fft.rfft(heard.heard.astype(float)))
    hertz = np.fft.rfftfreq(len(heard.heard), 1 / 16_000)
    assert spectrum[hertz > 4_200].max() < spectrum.max() / 100


def test_the_wire_brings_it_in_pieces_of_twenty_milliseconds(tmp_path: Path) -> None:
    chunks = list(clip(tmp_path).chunks())
    assert [media_ms for _, media_ms, _ in chunks[:3]] == [0, 20, 40]
    assert sum(len(payload) for _, _, payload in chunks) == 4_000
