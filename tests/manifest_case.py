"""The manifests that tests look at: every kind, with and without GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cluster.kuberay import Deployment, Machine, Toleration, Volume
from jobs.cron import read_cron
from jobs.manifest import TIMED, Kind
from jobs.schedule import Rerun, kubernetes_text

SPEC = """\
version: 1
name: birds
output: s3://results/birds
dataset: {source: parquet, path: /data/birds.parquet, limit: 2000}
models:
  - {name: resnet50, weights: /data/birds.safetensors}
methods:
  - random
  - {name: agi, sweep: {classes: [1, 5]}}
metrics: [deletion, mar]
"""
CPU = Deployment(
    image="registry.example/heatline:1",
    ray_version="2.60.0",
    volumes=(Volume(claim="data", path="/data", read_only=True),),
)
GPU = CPU.model_copy(
    update={
        "namespace": "vision",
        "worker": Machine(cpus=8, memory="32Gi", gpus=1),
        "min_workers": 0,
        "max_workers": 8,
        "tolerations": (Toleration(key="nvidia.com/gpu"), Toleration(key="spot", value="true", effect="NoExecute")),
        "node_selector": {"cloud.google.com/gke-spot": "true"},
        "secret": "object-store",
        "image_pull_secret": "registry",
        "service_account": "heatline",
        "suspend": True,
        "deadline_seconds": 43200,
        "retries": 3,
    }
)
GPU_VARIABLES = {"AWS_ENDPOINT_URL": "https://objects.example", "HEATLINE_LOG": "-"}
CASES: dict[str, tuple[Kind, Deployment, str | None]] = {
    "raycronjob-cpu": ("raycronjob", CPU, None),
    "raycronjob-gpu": ("raycronjob", GPU, "Europe/Berlin"),
    "rayjob-cpu": ("rayjob", CPU, None),
    "raycluster-gpu": ("raycluster", GPU, None),
    "cronjob-cpu": ("cronjob", CPU, None),
    "cronjob-gpu": ("cronjob", GPU, "Europe/Berlin"),
    "pod-cpu": ("pod", CPU, None),
    "pod-gpu": ("pod", GPU, "Europe/Berlin"),
}


def manifest_text(case: str, folder: Path) -> str:
    """What is written for a case; the spec is put into `folder`."""
    kind, deployment, zone = CASES[case]
    file = folder / "birds.yaml"
    file.write_text(SPEC)
    cron = read_cron("0 3 * * mon") if kind in TIMED else None
    variables = GPU_VARIABLES if deployment is GPU else {}
    return kubernetes_text(Rerun(str(file), cron=cron, zone=zone, environment=variables), kind, deployment)


def objects(text: str) -> dict[str, dict[str, Any]]:
    """A manifest's objects by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def ray_job_spec(case: str, folder: Path) -> dict[str, Any]:
    """The RayJob's spec in a manifest, whatever starts it."""
    found = objects(manifest_text(case, folder))
    if "rayjob.yaml" in found["ConfigMap"]["data"]:
        found["RayJob"] = yaml.safe_load(found["ConfigMap"]["data"]["rayjob.yaml"])
    spec: dict[str, Any] = (
        found["RayCronJob"]["spec"]["jobTemplate"] if "RayCronJob" in found else found["RayJob"]["spec"]
    )
    return spec
