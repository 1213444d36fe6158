"""The Helm chart: its values are described, and what it renders can be watched, drained and updated."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from app.settings import Settings
from tests.deploy.metrics import ROOT

CHART = ROOT / "deploy" / "helm" / "duting"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text("utf-8"))
TEMPLATES = sorted((CHART / "templates").iterdir())


def test_the_values_are_as_their_schema_says() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(VALUES)


def described(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> None:
    if schema.get("additionalProperties") is not False:
        return
    assert values.keys() == schema["properties"].keys() - {"global", "minAvailable", "maxUnavailable"} | (
        values.keys() & {"maxUnavailable"}
    ), path
    for name, value in values.items():
        if isinstance(value, dict):
            described(value, schema["properties"][name], f"{path}.{name}")


def test_every_value_has_a_default_and_a_description_in_the_schema() -> None:
    described(VALUES, SCHEMA)


@pytest.mark.parametrize(
    "wrong",
    [
        {"gateway": {"replica": 2}},
        {"gateway": {"replicas": 0}},
        {"asr": {"gpus": -1}},
        {"settings": {"DATABASE_URL": "postgresql://u:p@h/d"}},
        {"settings": {"log_level": "debug"}},
        {"detect": {"podDisruptionBudget": {"maxUnavailable": 1, "minAvailable": 1}}},
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(SCHEMA).validate(wrong)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_uses_only_values_that_exist(template: Path) -> None:
    text = template.read_text("utf-8")
    paths = re.findall(r"\.Values\.([\w.]+)", text)
    for part in ("gateway", "asr", "detect"):
        paths += [f"{part}.{path}" for path in re.findall(rf"\${part}\.([\w.]+)", text)]
    paths += [f"networkPolicy.{path}" for path in re.findall(r"\$policy\.([\w.]+)", text)]
    for path in paths:
        value: Any = VALUES
        for name in path.split("."):
            assert isinstance(value, dict), path
            # What a free part of the values may hold need not be in the defaults.
            value = value[name]


def test_the_settings_that_the_chart_makes_exist() -> None:
    known = {f"DUTING_{field.upper()}" for field in Settings.model_fields}
    text = "".join(path.read_text("utf-8") for path in TEMPLATES)
    made = {name for name in re.findall(r"DUTING_[A-Z_]+", text) if not name.endswith("_")}
    assert made <= known
    assert {f"DUTING_{name}" for name in VALUES["settings"]} <= known


def test_no_worker_is_added_that_would_find_no_partition() -> None:
    partitions = VALUES["settings"]["KAFKA_PARTITIONS"]
    for part in ("asr", "detect"):
        assert VALUES[part]["autoscaling"]["maxReplicas"] <= partitions


def test_what_the_chart_makes_cannot_be_set_beside_it() -> None:
    text = "".join(path.read_text("utf-8") for path in TEMPLATES)
    made = {name for name in re.findall(r"DUTING_([A-Z_]+)", text) if not name.endswith("_")} - {""}
    assert made <= set(SCHEMA["properties"]["settings"]["propertyNames"]["not"]["enum"])


# ── rendered ──────────────────────────────────────────────────────────────────────────────────────

EVERYTHING = {
    "existingSecret": "secrets",
    "rulesConfigMap": "rules",
    "imagePullSecrets": [{"name": "pull"}],
    "gateway": {
        "recordingsClaim": "recordings",
        "audiosocket": {
            "enabled": True,
            "from": [{"ipBlock": {"cidr": "10.1.0.0/16"}}],
            "service": {"annotations": {"a": "b"}, "loadBalancerSourceRanges": ["10.1.0.0/16"]},
        },
        "autoscaling": {"enabled": True},
        "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls", "annotations": {"a": "b"}},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}],
    },
    "asr": {
        "gpus": 1,
        "model": "large-v3-turbo",
        "modelClaim": "models",
        "autoscaling": {"enabled": True},
        "image": {"repository": "duting-cuda", "tag": "1"},
    },
    "detect": {"autoscaling": {"enabled": True}},
    "networkPolicy": {"gatewayFrom": [{"podSelector": {"matchLabels": {"app": "proxy"}}}]},
    "monitor": {"enabled": True, "labels": {"release": "prometheus"}},
}
CLUSTER = ("--kube-version", "1.30.0")
"""A helm that somebody built himself takes a cluster to be much older than the chart allows."""

SETS = {"least": {"existingSecret": "secrets"}, "everything": EVERYTHING}


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("helm")
    if found is None:
        pytest.skip("no helm on PATH: the chart's templates are only read, not rendered")
    return subprocess.run([found, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(params=sorted(SETS))
def values(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(SETS[request.param]))
    return path


def rendered(values: Path) -> dict[str, dict[str, Any]]:
    """Kind/name of every object, and the object."""
    done = helm("template", "duting", *CLUSTER, str(CHART), "--namespace", "bank", "--values", str(values))
    assert done.returncode == 0, done.stderr
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    objects = {f"{document['kind']}/{document['metadata']['name']}": document for document in documents}
    assert len(objects) == len(documents)
    return objects


def test_helm_finds_nothing_to_complain_about(values: Path) -> None:
    done = helm("lint", "--strict", str(CHART), "--values", str(values))
    assert done.returncode == 0, done.stdout


def test_without_a_secret_helm_says_what_it_must_hold() -> None:
    done = helm("template", "duting", *CLUSTER, str(CHART))
    assert done.returncode != 0
    assert "existingSecret: name a Secret with kafka-url" in done.stderr


def test_every_part_can_be_watched_drained_and_updated(values: Path) -> None:
    objects = rendered(values)
    for part in ("gateway", "asr", "detect"):
        deployment = objects[f"Deployment/duting-{part}"]["spec"]
        pod = deployment["template"]["spec"]
        (container,) = pod["containers"]
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert {"requests", "limits"} <= container["resources"].keys()
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert pod["terminationGracePeriodSeconds"] >= 30
        labels = deployment["template"]["metadata"]["labels"]
        assert deployment["selector"]["matchLabels"].items() <= labels.items()
        budget = objects[f"PodDisruptionBudget/duting-{part}"]["spec"]
        assert budget["selector"] == deployment["selector"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        names = [variable["name"] for variable in container["env"]]
        assert len(set(names)) == len(names)


def test_no_object_holds_a_secret(values: Path) -> None:
    objects = rendered(values)
    assert not [name for name in objects if name.startswith("Secret/")]
    for part in ("gateway", "asr", "detect"):
        (container,) = objects[f"Deployment/duting-{part}"]["spec"]["template"]["spec"]["containers"]
        env = {variable["name"]: variable for variable in container["env"]}
        for name in ("DUTING_KAFKA_URL", "DUTING_REDIS_URL", "DUTING_DATABASE_URL"):
            assert env[name]["valueFrom"]["secretKeyRef"]["name"] == "secrets"


def test_a_recogniser_asks_for_gpus_and_scales_by_how_long_speech_waits(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(EVERYTHING))
    objects = rendered(path)
    deployment = objects["Deployment/duting-asr"]["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"name": "DUTING_DEVICE", "value": "cuda"} in container["env"]
    assert container["image"] == "duting-cuda:1"
    assert "initContainers" not in deployment["template"]["spec"]
    # The autoscaler counts, not the chart.
    assert "replicas" not in deployment
    scaled = objects["ScaledObject/duting-asr"]["spec"]
    assert scaled["scaleTargetRef"] == {"name": "duting-asr"}
    wait, lag = scaled["triggers"]
    assert "duting_queue_wait_seconds_bucket" in wait["metadata"]["query"]
    assert wait["metricType"] == "Value"
    assert "duting_consumer_lag" in lag["metadata"]["query"]


def test_without_a_gpu_recognition_runs_on_the_processor_and_fetches_its_model(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(SETS["least"]))
    objects = rendered(path)
    pod = objects["Deployment/duting-asr"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert {"name": "DUTING_DEVICE", "value": "cpu"} in container["env"]
    assert pod["initContainers"][0]["args"] == ["models", "fetch", "base"]
    (gateway,) = objects["Deployment/duting-gateway"]["spec"]["template"]["spec"]["containers"]
    # No place that all gateways share: no recordings.
    assert {"name": "DUTING_KEEP_AUDIO", "value": "false"} in gateway["env"]
    assert "model" not in json.dumps(gateway)
