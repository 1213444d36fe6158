"""compose.yaml: what it starts stands together, keeps its secrets and can be watched."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from app.settings import Settings
from tests.deploy.metrics import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if service["image"].startswith("duting:")}
ONCE = {"models"}
"""Ends when its work is done."""


def environment(name: str) -> dict[str, str]:
    return {key: str(value) for key, value in SERVICES[name].get("environment", {}).items()}


def mounts(name: str) -> list[tuple[str, str, str]]:
    """Source, target, mode."""
    parts = [mount.split(":") for mount in SERVICES[name].get("volumes", ())]
    return [(part[0], part[1], part[2] if len(part) > 2 else "rw") for part in parts]


def test_the_parts_of_a_cluster_are_there() -> None:
    assert {"gateway-1", "gateway-2", "models", "asr", "detect"} == OURS
    assert set(SERVICES) - OURS == {"proxy", "kafka", "redis", "postgres", "prometheus", "grafana"}
    assert SERVICES["detect"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_pinned_restarted_and_without_privileges(name: str) -> None:
    service = SERVICES[name]
    tag = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", service["image"]).rpartition(":")[2]
    assert re.match(r"v?\d+\.\d+", tag), service["image"]
    assert service["restart"] == ("on-failure" if name in ONCE else "unless-stopped")
    assert not {"privileged", "network_mode", "pid", "cap_add", "devices"} & service.keys()
    assert not any("docker.sock" in source for source, _, _ in mounts(name))


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONCE))
def test_a_service_is_asked_whether_it_is_well_and_given_time_to_end(name: str) -> None:
    health = SERVICES[name]["healthcheck"]
    assert health["test"][0] == "CMD"
    assert {"interval", "timeout", "retries"} <= health.keys()
    if name != "redis":
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= 30


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_is_ours_runs_with_nothing_to_spare(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_the_settings_of_what_is_ours_exist(name: str) -> None:
    known = {f"DUTING_{field.upper()}" for field in Settings.model_fields}
    assert {key for key in environment(name) if key.startswith("DUTING_")} <= known


def test_gateways_and_workers_are_told_the_same_cluster() -> None:
    for name in OURS - ONCE:
        told = environment(name)
        assert told["DUTING_KAFKA_URL"] == "kafka://kafka:9092"
        assert told["DUTING_REDIS_URL"] == "redis://redis:6379/0"
        assert re.fullmatch(
            r"postgresql://duting:\$\{POSTGRES_PASSWORD:\?.*\}@postgres/duting", told["DUTING_DATABASE_URL"]
        )


def test_the_settings_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS - ONCE:
        with monkeypatch.context() as patch:
            for key, value in environment(name).items():
                patch.setenv(
                    key, re.sub(r"\$\{\w+:-(.*?)\}", r"\1", re.sub(r"\$\{\w+:\?.*?\}", "s3cret", value))
                )
            settings = Settings(_env_file=None)  # type: ignore[call-arg]
        assert settings.brokers == ("kafka:9092",)


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "compose.yaml").read_text("utf-8")
    secrets = re.findall(r"\$\{(\w*(?:PASSWORD|TOKEN|SECRET)\w*)(:?[-?]?)", text)
    assert {name for name, _ in secrets} == {
        "POSTGRES_PASSWORD",
        "DUTING_INGEST_TOKEN",
        "DUTING_METRICS_TOKEN",
        "GRAFANA_PASSWORD",
    }
    assert {form for _, form in secrets} == {":?"}


def test_only_the_proxy_and_grafana_are_reached_from_outside_and_from_this_machine_alone() -> None:
    assert COMPOSE["networks"]["inside"]["internal"] is True
    outside = {name for name, service in SERVICES.items() if "outside" in service["networks"]}
    # The model is fetched from outside.
    assert outside == {"proxy", "grafana", "models"}
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published.keys() == {"proxy", "grafana"}
    for ports in published.values():
        assert all(re.match(r"\$\{\w+:-127\.0\.0\.1:\d+\}:\d+$", port) for port in ports)


def test_who_waits_for_a_healthy_service_waits_for_one_that_is_asked() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"], (name, other)
            else:
                assert how["condition"] == "service_completed_successfully"
                assert other in ONCE


def test_what_is_mounted_exists() -> None:
    for name in SERVICES:
        for source, _, mode in mounts(name):
            if source.startswith("."):
                assert (ROOT / source).exists(), source
                assert mode == "ro"
            else:
                assert source in COMPOSE["volumes"]


def test_recognisers_read_one_model_and_gateways_none() -> None:
    assert ("models", "/data/models", "ro") in mounts("asr")
    assert ("models", "/data/models", "rw") in mounts("models")
    for name in ("gateway-1", "gateway-2", "detect"):
        assert not [source for source, _, _ in mounts(name) if source == "models"]
    assert mounts("gateway-1") == mounts("gateway-2") == [("recordings", "/data/var", "rw")]


def test_the_image_has_a_folder_of_its_own_user_under_every_volume() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    found = re.search(r"install -d -o duting -g duting -m 0700 (.*)", text)
    assert found is not None
    targets = {target for name in OURS for _, target, _ in mounts(name)}
    assert targets <= set(found[1].split())


def test_the_broker_is_the_version_that_the_tests_run_with() -> None:
    pom = (ROOT / "scripts" / "kafka.pom.xml").read_text("utf-8")
    version = SERVICES["kafka"]["image"].partition(":")[2]
    assert f"<artifactId>kafka_2.13</artifactId>\n      <version>{version}</version>" in pom


def test_prometheus_asks_everything_that_is_ours() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text("utf-8"))
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert jobs["gateway"]["static_configs"][0]["targets"] == ["gateway-1:8420", "gateway-2:8420"]
    token = jobs["gateway"]["authorization"]["credentials_file"]
    assert token == f"/run/secrets/{SERVICES['prometheus']['secrets'][0]}"
    assert COMPOSE["secrets"]["metrics_token"] == {"environment": "DUTING_METRICS_TOKEN"}
    for worker in ("asr", "detect"):
        assert jobs[worker]["dns_sd_configs"][0]["names"] == [worker]
        assert jobs[worker]["dns_sd_configs"][0]["port"] == 8421


def test_the_proxy_knows_every_gateway() -> None:
    text = (ROOT / "deploy" / "Caddyfile").read_text("utf-8")
    assert "reverse_proxy gateway-1:8420 gateway-2:8420 {" in text
    assert "health_uri /readyz" in text


def test_audiosockets_are_booked_at_the_gateway_that_takes_them() -> None:
    added = yaml.safe_load((ROOT / "deploy" / "compose.audiosocket.yaml").read_text("utf-8"))["services"]
    (name,) = added
    assert name in SERVICES
    port = added[name]["environment"]["DUTING_AUDIOSOCKET_PORT"]
    # From this machine alone, unless somebody says so.
    assert added[name]["ports"] == [f"${{DUTING_AUDIOSOCKET_LISTEN:-127.0.0.1:9092}}:{port}"]
    assert added[name]["networks"] == [*SERVICES[name]["networks"], "outside"]
    text = (ROOT / "deploy" / "Caddyfile").read_text("utf-8")
    assert f"reverse_proxy /ingest/audiosocket/* {name}:8420" in text


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text("utf-8"))
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    boards = yaml.safe_load((provisioning / "dashboards" / "duting.yml").read_text("utf-8"))
    path = boards["providers"][0]["options"]["path"]
    assert ("./deploy/grafana/dashboards", path, "ro") in mounts("grafana")
