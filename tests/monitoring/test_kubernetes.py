"""The manifests for Kubernetes: valid against its schemas, and in agreement with each other and with Sluice."""

import copy
import json
import re
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.settings import PREFIX, Settings
from app.telemetry.definitions import DEFINITIONS
from tests.docs.pages import ROOT
from tests.monitoring.prometheus import program

FOLDER = ROOT / "deploy" / "kubernetes"
OLDEST, NEWEST = "1.27", "1.37"
CUSTOM = {"ServiceMonitor"}
"""Kinds of an operator, which Kubernetes' schemas do not have."""


def resources() -> dict[str, dict[str, Any]]:
    """By kind."""
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    documents = [one for name in listed for one in yaml.safe_load_all((FOLDER / name).read_text())]
    found = {document["kind"]: document for document in documents}
    assert len(found) == len(documents)
    return found


def container() -> dict[str, Any]:
    [only] = resources()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(only)


@pytest.mark.ci
def test_kustomize_builds_the_manifests_and_their_schemas_allow_them() -> None:
    built = subprocess.run([program("kubectl"), "kustomize", str(FOLDER)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    documents = list(yaml.safe_load_all(built.stdout))
    assert {document["kind"] for document in documents} == resources().keys()
    assert {document["metadata"].get("namespace", "sluice") for document in documents} == {"sluice"}
    for document in documents:
        if document["kind"] not in CUSTOM:
            for version in (OLDEST, NEWEST):
                kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.ci
def test_the_schemas_find_a_field_that_there_is_not() -> None:
    wrong = copy.deepcopy(resources()["Deployment"])
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_the_settings_are_those_of_sluice() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    assert {entry["name"] for entry in container()["env"]} < known
    named = re.findall(
        r"SLUICE_\w+", (FOLDER / "deployment.yaml").read_text() + (FOLDER / "monitoring.yaml").read_text()
    )
    assert set(named) - {"SLUICE_PORT"} <= known


def test_everything_selects_the_pods_of_the_deployment() -> None:
    found = resources()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [found[kind]["spec"]["selector"] for kind in ("Deployment", "PodDisruptionBudget", "ServiceMonitor")]
    assert [one["matchLabels"] for one in selectors] == [labels] * 3
    assert found["Service"]["spec"]["selector"] == found["Service"]["metadata"]["labels"] == labels
    [port] = found["Service"]["spec"]["ports"]
    [own] = container()["ports"]
    assert port["targetPort"] == own["name"] and own["containerPort"] == Settings.model_fields["port"].default
    [endpoint] = found["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["port"] == port["name"]
    secret = endpoint["authorization"]["credentials"]
    assert {"secretRef": {"name": secret["name"]}} in container()["envFrom"]


def test_probes_ask_for_routes_that_there_are() -> None:
    paths = json.loads((ROOT / "openapi" / "openapi.json").read_text())["paths"]
    probes = {
        name: container()[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert probes == {
        "startupProbe": "/health/ready",
        "readinessProbe": "/health/ready",
        "livenessProbe": "/health/live",
    }
    assert set(probes.values()) <= paths.keys()


def test_a_pod_has_time_to_drain() -> None:
    pod = resources()["Deployment"]["spec"]["template"]["spec"]
    [pause] = [int(word) for word in container()["lifecycle"]["preStop"]["exec"]["command"] if word.isdigit()]
    drain = Settings.model_fields["drain_grace_seconds"].default
    assert pod["terminationGracePeriodSeconds"] >= pause + drain + 5
    assert pod["securityContext"]["runAsUser"] == 10001 and "10001" in (ROOT / "Dockerfile").read_text()
    assert pod["enableServiceLinks"] is False


def test_the_autoscaler_asks_for_what_the_adapter_serves() -> None:
    [metric] = resources()["HorizontalPodAutoscaler"]["spec"]["metrics"]
    [rule] = yaml.safe_load((FOLDER / "adapter-values.yaml").read_text())["rules"]["external"]
    assert metric["external"]["metric"]["name"] == rule["name"]["as"]
    asked = set(re.findall(r"\bsluice_\w+", rule["metricsQuery"] + rule["seriesQuery"]))
    assert asked <= {definition.name for definition in DEFINITIONS}
