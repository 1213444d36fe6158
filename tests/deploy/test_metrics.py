"""What dashboards and autoscalers ask Prometheus for is what the code tells it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.deploy.metrics import ROOT, metrics, named

DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "duting.json"

# What Prometheus itself adds to a series.
ADDED = {"instance", "job", "namespace", "pod"}


def queries() -> Iterator[tuple[str, str, str]]:
    """Title, query and legend."""
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]


def test_the_sources_are_read() -> None:
    known = metrics()
    assert known["duting_queue_wait_seconds_bucket"] == {"kind", "le"}
    assert known["duting_events_total"] == {"type"}
    assert known["duting_gap_seconds_total"] == {"reason"}
    assert known["duting_calls"] == set()


def test_the_dashboard_asks_only_for_metrics_that_exist() -> None:
    unknown = {name for _, query, _ in queries() for name in named(query)} - metrics().keys()
    assert not unknown


def test_the_dashboard_groups_only_by_labels_that_exist() -> None:
    for title, query, legend in queries():
        has = set.union(ADDED, *(metrics()[name] for name in named(query)))
        grouped = {
            label.strip() for part in re.findall(r"by \(([^)]*)\)", query) for label in part.split(",")
        }
        assert grouped <= has, title
        assert set(re.findall(r"{{(\w+)}}", legend)) <= grouped, title
        filtered = set(re.findall(r'(\w+)=~?"', query))
        assert filtered <= has, title


def test_a_counter_is_asked_for_its_rate_and_a_gauge_is_not() -> None:
    for title, query, _ in queries():
        for function, name in re.findall(r"(\w*)\(?\b(duting_[a-z0-9_]+)", query):
            counted = name.endswith(("_total", "_bucket", "_sum", "_count"))
            assert (function in ("rate", "increase")) == counted, title


def test_the_dashboard_shows_what_a_cluster_is_watched_by() -> None:
    shown = {name for _, query, _ in queries() for name in named(query)}
    assert shown >= {
        "duting_calls",
        "duting_alert_latency_seconds_bucket",
        "duting_queue_wait_seconds_bucket",
        "duting_batch_size_sum",
        "duting_model_seconds_total",
        "duting_degradation_step",
        "duting_gap_seconds_total",
        "duting_calls_refused_total",
        "duting_consumer_lag",
        "duting_rebalances_total",
        "duting_events_total",
        "duting_commit_seconds_bucket",
        "duting_resyncs_total",
        "duting_redis_connected",
        "duting_dead_letters_total",
        "duting_worker_ready",
    }


def test_every_panel_has_a_number_and_a_place_of_its_own() -> None:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("folder", ["deploy/helm", "deploy/grafana/provisioning"])
def test_other_files_name_only_metrics_that_exist(folder: str) -> None:
    for path in (ROOT / folder).rglob("*"):
        if path.is_file():
            assert named(path.read_text("utf-8")) <= metrics().keys(), path
