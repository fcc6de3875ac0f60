"""Manifests for Kubernetes: valid by KubeRay's own schemas, and what they promise."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from manifest_case import CASES, CPU, GPU, GPU_VARIABLES, manifest_text, objects, ray_job_spec
from pydantic import ValidationError

from cluster.kuberay import (
    Deployment,
    Machine,
    Volume,
    object_name,
    pod_cron_job,
    ray_cluster,
)
from cluster.kuberay.deployment import LONGEST_NAME


def strict(schema: Any) -> Any:
    """A structural schema with unknown fields as errors, as `kubectl apply` has them."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_ended:
        found["additionalProperties"] = False
    return found


@pytest.fixture(scope="module")
def schemas(shared_data: Path) -> dict[str, dict[str, Any]]:
    folder = shared_data / "kuberay"
    if not folder.is_dir():
        pytest.skip("no schemas of KubeRay")
    read = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    return {one["kind"]: {**one, "schema": strict(one["schema"])} for one in read}


def check(schema: dict[str, Any], value: object) -> None:
    problems = [
        f"{'/'.join(map(str, one.path))}: {one.message}" for one in Draft202012Validator(schema).iter_errors(value)
    ]
    assert problems == []


@pytest.mark.parametrize("case", CASES)
def test_every_ray_object_is_valid_by_kuberays_own_schema(
    case: str, schemas: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    found = objects(manifest_text(case, tmp_path))
    if "rayjob.yaml" in found.get("ConfigMap", {}).get("data", {}):
        found["RayJob"] = yaml.safe_load(found["ConfigMap"]["data"]["rayjob.yaml"])
    ray = [one for kind, one in found.items() if kind.startswith("Ray")]
    assert len(ray) == (0 if case.startswith("pod") else 1)
    for one in ray:
        known = schemas[one["kind"]]
        assert one["apiVersion"] == f"{known['group']}/{known['version']}"
        check(known["schema"], one)


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith(("pod", "cronjob"))])
def test_pods_of_cron_jobs_are_valid_by_the_schema_of_pods(
    case: str, schemas: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    template = objects(manifest_text(case, tmp_path))["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]
    head = schemas["RayCluster"]["schema"]["properties"]["spec"]["properties"]["headGroupSpec"]
    check(head["properties"]["template"], template)


def test_the_strict_schema_sees_a_misspelled_field(schemas: dict[str, dict[str, Any]]) -> None:
    manifest: dict[str, Any] = ray_cluster(CPU)
    manifest["spec"]["headGroupSpec"]["template"]["spec"]["contaners"] = []
    errors = list(Draft202012Validator(schemas["RayCluster"]["schema"]).iter_errors(manifest))
    assert ["contaners" in one.message for one in errors] == [True]


@pytest.mark.parametrize("case", CASES)
def test_no_object_has_a_name_or_namespace_of_another_kind(case: str, tmp_path: Path) -> None:
    namespace = CASES[case][1].namespace
    for one in yaml.safe_load_all(manifest_text(case, tmp_path)):
        assert one["metadata"]["namespace"] == namespace
        assert one["metadata"]["name"] in ("heatline-birds", "heatline-birds-creator")
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == "heatline-birds"


def pods(found: object) -> list[dict[str, Any]]:
    """Every pod's spec in an object."""
    if isinstance(found, list):
        return [pod for one in found for pod in pods(one)]
    if not isinstance(found, dict):
        return []
    own = [found] if "containers" in found else []
    return own + [pod for one in found.values() for pod in pods(one)]


@pytest.mark.parametrize("case", CASES)
def test_every_container_runs_without_rights_and_with_limits(case: str, tmp_path: Path) -> None:
    found = pods(list(yaml.safe_load_all(manifest_text(case, tmp_path))))
    assert found
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            rights = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            assert container["securityContext"] == rights
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()


@pytest.mark.parametrize("case", CASES)
def test_credentials_come_from_the_named_secret_alone(case: str, tmp_path: Path) -> None:
    for pod in pods(list(yaml.safe_load_all(manifest_text(case, tmp_path)))):
        for container in pod["containers"]:
            computes = container["name"] in ("ray-head", "ray-worker", "heatline")
            given = GPU_VARIABLES if case.endswith("gpu") else {}
            variables = {"RAY_USAGE_STATS_ENABLED": "0", **given} if computes else {}
            assert {one["name"]: one["value"] for one in container.get("env", [])} == variables
            named = [{"secretRef": {"name": "object-store"}}]
            assert container.get("envFrom", []) == (named if case.endswith("gpu") and computes else [])


def test_a_variables_value_is_taken_literally() -> None:
    given = CPU.model_copy(update={"environment": {"A": "$(B) $x $$", "RAY_USAGE_STATS_ENABLED": "1"}})
    for pod in pods(ray_cluster(given)):
        assert pod["containers"][0]["env"] == [
            {"name": "RAY_USAGE_STATS_ENABLED", "value": "1"},
            {"name": "A", "value": "$$(B) $$x $$$$"},
        ]


@pytest.mark.parametrize("case", CASES)
def test_every_pod_can_pull_from_a_private_registry(case: str, tmp_path: Path) -> None:
    found = pods(list(yaml.safe_load_all(manifest_text(case, tmp_path))))
    if case.startswith("cronjob"):
        found += pods(ray_job_spec(case, tmp_path))
    named = [{"name": "registry"}] if case.endswith("gpu") else None
    assert [pod.get("imagePullSecrets") for pod in found] == [named] * len(found)


@pytest.mark.parametrize("case", CASES)
def test_a_volumes_files_are_not_all_given_to_the_group_at_every_start(case: str, tmp_path: Path) -> None:
    for pod in pods(list(yaml.safe_load_all(manifest_text(case, tmp_path)))):
        rights = pod["securityContext"]
        assert (rights["fsGroup"], rights["fsGroupChangePolicy"]) == (1000, "OnRootMismatch")


def test_the_head_too_has_time_to_stop() -> None:
    # The run itself is there, and writes its record.
    assert [pod["terminationGracePeriodSeconds"] for pod in pods(ray_cluster(GPU))] == [120, 120]
    assert [pod["terminationGracePeriodSeconds"] for pod in pods(pod_cron_job(GPU, "0 3 * * 1"))] == [120]


def test_only_who_asks_kubernetes_for_something_gets_a_token() -> None:
    def tokens(deployment: Deployment) -> list[bool]:
        return [pod["automountServiceAccountToken"] for pod in pods(ray_cluster(deployment))]

    fixed = GPU.model_copy(update={"min_workers": 8})
    assert tokens(fixed) == [False, False]
    assert tokens(GPU) == [True, False]


def test_a_ray_cluster_asks_for_its_token() -> None:
    spec: Any = ray_cluster(GPU)["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["rayVersion"] == "2.60.0"


def test_workers_alone_get_gpus_and_go_to_their_nodes() -> None:
    head, worker = pods(ray_cluster(GPU))
    assert worker["containers"][0]["resources"]["limits"] == {"cpu": 8, "memory": "32Gi", "nvidia.com/gpu": 1}
    assert worker["containers"][0]["resources"]["requests"] == worker["containers"][0]["resources"]["limits"]
    assert worker["nodeSelector"] == {"cloud.google.com/gke-spot": "true"}
    assert worker["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Equal", "value": "true", "effect": "NoExecute"},
    ]
    assert "nvidia.com/gpu" not in head["containers"][0]["resources"]["limits"]
    assert not {"tolerations", "nodeSelector"} & head.keys()


def test_the_number_of_workers_follows_demand_only_between_two_numbers() -> None:
    def scaling(deployment: Deployment) -> tuple[object, ...]:
        spec: Any = ray_cluster(deployment)["spec"]
        (group,) = spec["workerGroupSpecs"]
        return "enableInTreeAutoscaling" in spec, group["replicas"], group["minReplicas"], group["maxReplicas"]

    assert scaling(GPU) == (True, 0, 0, 8)
    assert scaling(CPU.model_copy(update={"min_workers": 4, "max_workers": 4})) == (False, 4, 4, 4)


def test_a_rerun_that_failed_for_good_is_not_tried_again(tmp_path: Path) -> None:
    job = objects(manifest_text("pod-gpu", tmp_path))["CronJob"]["spec"]["jobTemplate"]["spec"]
    rules = {rule["action"]: rule for rule in job["podFailurePolicy"]["rules"]}
    assert rules["FailJob"]["onExitCodes"] == {"containerName": "heatline", "operator": "In", "values": [1, 2]}
    assert rules["Ignore"]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    # Kubernetes takes a failure policy with this restart policy alone.
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert job["backoffLimit"] == 3


def test_what_a_ray_cron_job_lacks_a_cron_job_has(tmp_path: Path) -> None:
    ray = objects(manifest_text("raycronjob-gpu", tmp_path))["RayCronJob"]["spec"]
    assert (ray["schedule"], ray["timeZone"], ray["suspend"]) == ("0 3 * * 1", "Europe/Berlin", True)
    cron = objects(manifest_text("cronjob-gpu", tmp_path))["CronJob"]["spec"]
    assert (cron["schedule"], cron["timeZone"], cron["suspend"]) == ("0 3 * * 1", "Europe/Berlin", True)


def test_the_fall_back_creates_the_very_job_of_the_ray_cron_job(tmp_path: Path) -> None:
    found = objects(manifest_text("cronjob-gpu", tmp_path))
    created = yaml.safe_load(found["ConfigMap"]["data"]["rayjob.yaml"])
    assert created["spec"] == objects(manifest_text("raycronjob-gpu", tmp_path))["RayCronJob"]["spec"]["jobTemplate"]
    assert created["metadata"]["generateName"] == "heatline-birds-"
    assert found["Role"]["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("birds", "heatline-birds"),
        ("cifar10-faithfulness", "heatline-cifar10-faithfulness"),
        ("2026-10", "heatline-2026-10"),
        ("Birds", "heatline-birds-"),
        ("a_b.c", "heatline-a-b-c-"),
        ("...", "heatline-"),
        ("x" * 32, f"heatline-{'x' * 32}"),
        ("x" * 33, f"heatline-{'x' * 25}-"),
        ("-a-", "heatline-a-"),
    ],
)
def test_names_are_dns_labels_that_leave_room_for_kuberay(name: str, expected: str) -> None:
    found = object_name(name)
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", found)
    assert len(found) <= LONGEST_NAME
    assert found == expected if not expected.endswith("-") else re.fullmatch(f"{expected}[0-9a-f]{{6}}", found)


def test_two_names_never_become_one() -> None:
    names = ["a.b", "a-b", "a_b", "A-b", "-a-b", "x" * 40, "x" * 41, "x" * 40 + "."]
    assert len({object_name(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"image": "a b"}, "expected an image"),
        ({"name": "Birds"}, "expected at most 63 lower case"),
        ({"worker": {"cpus": 4, "memory": "16"}}, "expected an amount with its unit"),
        ({"min_workers": 3, "max_workers": 2}, "expected the least before the most, got 3-2"),
        (
            {"volumes": [Volume(claim="a", path="/x"), Volume(claim="b", path="/x")]},
            "folders that are not taken, got /x",
        ),
        ({"volumes": [Volume(claim="a", path="/etc/heatline")]}, "folders that are not taken, got /etc/heatline"),
        ({"environment": {"A-B": "1"}}, "expected the name of an environment variable, got 'A-B'"),
        ({"nmae": "birds"}, "Extra inputs"),
    ],
)
def test_a_deployment_that_kubernetes_would_refuse_is_refused(change: dict[str, object], why: str) -> None:
    good: dict[str, object] = {"image": "heatline", "ray_version": "2.60.0", "worker": Machine(cpus=1, memory="1Gi")}
    Deployment.model_validate(good)
    with pytest.raises(ValidationError, match=why):
        Deployment.model_validate({**good, **change})
