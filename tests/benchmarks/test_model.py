from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.model import Model, Timing, capacity, generation_limit, measure
from benchmarks.shapes import SHAPES, Tokens, vocabulary, write

TINY = SHAPES["tiny-test"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tokens]:
    folder = tmp_path_factory.mktemp("tiny")
    return folder, write(TINY, folder)


def test_special_tokens_stand_where_whisper_has_them() -> None:
    names, tokens = vocabulary(51865)
    assert len(names) == len(set(names)) == 51865
    assert (tokens.end, tokens.start, tokens.no_timestamps) == (50257, 50258, 50363)
    names, tokens = vocabulary(51866)
    assert (len(names), tokens.transcribe, tokens.no_timestamps) == (51866, 50360, 50364)


def test_a_vocabulary_without_languages_is_refused() -> None:
    with pytest.raises(ValueError, match="multilingual"):
        vocabulary(51_000)


@pytest.mark.parametrize("prompt", [0, 30, 110])
def test_every_clip_gets_exactly_the_tokens_asked_for(tiny: tuple[Path, Tokens], prompt: int) -> None:
    model = Model(tiny[0], TINY, tiny[1], "cpu", "int8")
    for wanted in (9, 22):
        assert model.run(250, 2, wanted, prompt)[1] == wanted


def test_half_of_the_limit_or_what_the_prompt_leaves_is_written() -> None:
    assert generation_limit(prompt=4, tokens=20) == 40
    assert generation_limit(prompt=114, tokens=20) == 133


def test_all_windows_and_batches_are_timed(tiny: tuple[Path, Tokens]) -> None:
    model = Model(tiny[0], TINY, tiny[1], "cpu", "float32")
    timings = measure(model, "float32", [1.0, 2.0], [1, 2], 4.5, 30, 1, Console(quiet=True))
    assert [(t.window_s, t.batch) for t in timings] == [(1.0, 1), (1.0, 2), (2.0, 1), (2.0, 2)]
    assert all(t.seconds > 0 for t in timings)


def test_a_faster_device_holds_more_calls() -> None:
    def timings(factor: float) -> list[Timing]:
        return [
            Timing("float16", window, batch, 20, factor * (0.1 + 0.01 * window * batch))
            for window in (5.0, 10.0, 30.0)
            for batch in (1, 4, 16)
        ]

    slow, fast = capacity(timings(1.0), 1.0, 32), capacity(timings(0.25), 1.0, 32)
    assert 0 < slow["calls"] < fast["calls"]
    assert slow["calls"] <= slow["calls_finals_only"]


def test_batches_that_did_not_fit_are_left_out_of_the_capacity() -> None:
    timings = [Timing("float16", 5.0, b, 20, 0.01 * b) for b in (1, 2, 4)]
    timings += [Timing("float16", 30.0, b, 130, 0.06 * b) for b in (1, 2)]
    assert capacity(timings, 1.0, 8)["largest_batch"] == 2
