"""A learned judge of voices: loaded whole or refused with words, and asked by a call's detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.head import HeadRefused, OnnxHead
from benchmarks.onnx_file import network
from detectors.emotion import FEATURES

FEELINGS = ("calm", "angry")
RANDOM = np.random.default_rng(5)


def layer(inputs: int = len(FEATURES), outputs: int = 2):
    return RANDOM.normal(0, 1, (inputs, outputs)).astype(np.float32), np.zeros(outputs, np.float32)


def written(folder: Path, *layers, **described: str) -> Path:
    path = folder / "head.onnx"
    given = {"features": ",".join(FEATURES), "feelings": ",".join(FEELINGS)} | described
    path.write_bytes(network(layers or (layer(),), given))
    return path


def test_a_head_gives_the_probabilities_that_its_weights_say(tmp_path: Path) -> None:
    first, second = layer(outputs=5), layer(inputs=5)
    head = OnnxHead.load(written(tmp_path, first, second))
    features = RANDOM.normal(0, 1, len(FEATURES))
    hidden = np.maximum(0, features @ first[0] + first[1])
    raised = np.exp(hidden @ second[0] + second[1])
    found = head.probabilities(features.tolist())
    assert list(found) == ["calm", "angry"]
    assert list(found.values()) == pytest.approx((raised / raised.sum()).tolist(), abs=1e-5)


def test_a_file_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(HeadRefused, match=r"cannot read .*none\.onnx: No such file"):
        OnnxHead.load(tmp_path / "none.onnx")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(HeadRefused, match="no ONNX model"):
        OnnxHead.load(path)


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"features": "level,peak"}, "made for 2 features"),
        ({"features": ""}, r"\(none\)"),
        ({"feelings": "calm,hungry"}, "unknown here: hungry"),
        ({"feelings": "calm,angry,sad"}, "into 3 probabilities"),
    ],
)
def test_a_head_for_something_else_is_refused(tmp_path: Path, described: dict[str, str], words: str) -> None:
    with pytest.raises(HeadRefused, match=words):
        OnnxHead.load(written(tmp_path, **described))


def test_a_head_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadRefused, match=f"does not turn {len(FEATURES)} numbers"):
        OnnxHead.load(written(tmp_path, layer(inputs=3)))
