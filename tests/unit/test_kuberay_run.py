"""What becomes of runs on Kubernetes: how long they may take, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from manifest_case import CASES, GPU, manifest_text, objects, ray_job_spec

from cluster.kuberay import pod_cron_job, ray_job, ray_job_cron_job


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith(("pod", "raycluster"))])
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
