"""What becomes of runs on Kubernetes: how long they may take, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from manifest_case import CASES, CPU, GPU, manifest_text, objects, ray_job_spec

from cluster.kuberay import pod_cron_job, ray_cron_job, ray_job, ray_job_cron_job

RAY_JOBS = [case for case in CASES if not case.startswith(("pod", "raycluster"))]


@pytest.mark.parametrize("case", RAY_JOBS)
def test_a_ray_cluster_is_not_paid_for_after_its_run(case: str, tmp_path: Path) -> None:
    job = ray_job_spec(case, tmp_path)
    assert (job["shutdownAfterJobFinishes"], job["ttlSecondsAfterFinished"]) == (True, 60)


def test_the_log_of_a_pod_that_failed_is_there_the_day_after(tmp_path: Path) -> None:
    cron = objects(manifest_text("pod-gpu", tmp_path))["CronJob"]["spec"]
    assert "ttlSecondsAfterFinished" not in cron["jobTemplate"]["spec"]
    assert (cron["successfulJobsHistoryLimit"], cron["failedJobsHistoryLimit"]) == (3, 3)
    assert cron["jobTemplate"]["metadata"]["labels"]["app.kubernetes.io/instance"] == "heatline-birds"


def test_a_time_to_keep_what_is_finished_goes_where_runs_are(tmp_path: Path) -> None:
    kept = GPU.model_copy(update={"keep_seconds": 0, "command": ("true",)})
    ray: Any = ray_job(kept)["spec"]
    pod: Any = pod_cron_job(kept, "0 3 * * 1")["spec"]
    assert ray["ttlSecondsAfterFinished"] == pod["jobTemplate"]["spec"]["ttlSecondsAfterFinished"] == 0
    # The pod that creates a RayJob is not the run.
    creator: Any = ray_job_cron_job(kept, "0 3 * * 1")[-1]["spec"]
    assert "ttlSecondsAfterFinished" not in creator["jobTemplate"]["spec"]


@pytest.mark.parametrize("case", RAY_JOBS)
def test_a_ray_job_whose_pods_find_no_nodes_ends(case: str, tmp_path: Path) -> None:
    job = ray_job_spec(case, tmp_path)
    assert job["preRunningDeadlineSeconds"] == 6 * 3600


def test_a_deadline_is_set_where_the_run_is() -> None:
    def deadlines(**given: object) -> list[tuple[object, object]]:
        deployment = CPU.model_copy(update={"command": ("true",), **given})
        ray: Any = ray_job(deployment)["spec"]
        repeated: Any = ray_cron_job(deployment, "0 3 * * 1")["spec"]
        pod: Any = pod_cron_job(deployment, "0 3 * * 1")["spec"]
        found = (ray, repeated["jobTemplate"], pod["jobTemplate"]["spec"])
        return [(one.get("activeDeadlineSeconds"), one.get("preRunningDeadlineSeconds")) for one in found]

    assert deadlines() == [(None, 21600), (None, 21600), (None, None)]
    given = deadlines(deadline_seconds=43200, start_deadline_seconds=None)
    assert given == [(43200, None), (43200, None), (43200, None)]


def test_a_pod_that_cannot_create_its_ray_job_does_not_keep_the_next_from_starting() -> None:
    creator: Any = ray_job_cron_job(GPU.model_copy(update={"deadline_seconds": 43200}), "0 3 * * 1")[-1]["spec"]
    assert creator["concurrencyPolicy"] == "Forbid"
    assert creator["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 600
