"""benchmarks.latency: what passes, and what is kept for the next run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.latency import Reference, drift, over_time, passes, read, table, written
from benchmarks.load import LoadReport
from benchmarks.measured import Delay, Measured, Sample, Socket

GOOD = {
    "p95_s": 1.9,
    "recall_compared": 0.95,
    "recall_low_load": 0.96,
    "undelivered": 0,
    "refused": 0,
    "broken": 0,
    "valid": True,
    "load_worst_lag_s": 0.01,
}


def test_a_run_within_the_limits_passes() -> None:
    assert passes(GOOD) == []


@pytest.mark.parametrize(
    "worse",
    [
        {"p95_s": 2.01},
        {"p95_s": None},
        {"recall_compared": 0.93},
        {"undelivered": 1},
        {"refused": 1},
        {"broken": 1},
        {"valid": False},
    ],
    ids=str,
)
def test_a_run_fails_by_any_one_figure(worse: dict[str, object]) -> None:
    assert len(passes({**GOOD, **worse})) == 1


def test_recall_is_not_judged_without_a_reference() -> None:
    assert passes({**GOOD, "recall_compared": None, "recall_low_load": None}) == []


def test_a_reference_comes_back_from_the_file(tmp_path: Path) -> None:
    reference: Reference = {("sale", "redline.guaranteed_return", 1.25): (2, 1)}
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"reference": written(reference)}))
    assert read(path) == reference


def test_a_file_without_a_reference_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"reference": None}))
    with pytest.raises(ValueError, match="holds no reference"):
        read(path)


def soak(rss: list[float], waiting: list[float]) -> Measured:
    report = LoadReport(begun_s=0.0, ended_s=100.0, cpu_s=0.0, worst_lag_s=0.0, late={}, calls=[], turns={})
    samples = [
        Sample(n * 100 / len(rss), 0.0, mib, {"jobs_final": jobs})
        for n, (mib, jobs) in enumerate(zip(rss, waiting, strict=True))
    ]
    return Measured(report, Socket(), samples, {}, {}, {})


def test_memory_that_grows_only_while_warming_up_is_flat() -> None:
    found = over_time(soak([300, 500, 505, 500, 505], [0, 1, 0, 1, 1]))
    assert found["memory_flat"] is True
    assert found["queues_flat"] is True
    assert found["queues_by_fifth"]["jobs_final"] == [0, 1, 0, 1, 1]


def test_drift_compares_the_same_phrases() -> None:
    """The second call's phrase always takes long; the last fifth only holds more of it."""
    names = {"c1": "one", "c2": "two"}
    first = [Delay(0.0, 0.4, "rule", "c1"), Delay(1.0, 2.4, "rule", "c2")]
    last = [Delay(90.0, 0.5, "rule", "c1"), *(Delay(91.0 + n, 2.5, "rule", "c2") for n in range(3))]
    assert drift(first, last, names) == pytest.approx(0.1)
    assert drift(first, [], names) is None


def test_memory_and_queues_that_grow_are_not() -> None:
    found = over_time(soak([300, 500, 550, 600, 650], [0, 1, 2, 3, 4]))
    assert found["memory_flat"] is False
    assert found["queues_flat"] is False
    assert found["rss_mib_per_hour_after_warm_up"] == pytest.approx(50 / 20 * 3600)


def test_the_table_leaves_out_what_no_run_has() -> None:
    shown = table([{**GOOD, "calls": 4}], "run")
    heads = [str(column.header) for column in shown.columns]
    assert "p95" in heads
    assert "lost" not in heads
