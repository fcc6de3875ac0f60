"""Kubernetes' own CronJobs: one that creates RayJobs, and one whose pod is the run."""

from __future__ import annotations

from cluster.kuberay.deployment import CONFIG_FOLDER, Deployment
from cluster.kuberay.pod import CONTAINER_RIGHTS, POD_RIGHTS, Mapping, labels, metadata, pod, pull_secret

FINISHED_WITH_FAILURES, MISTAKE = 1, 2

# A missed start is made up for within this time, and no later.
LATEST_START_SECONDS = 3600
# Creating a RayJob takes seconds; a pod whose image is not there would keep the next ones from starting.
CREATED_SECONDS = 600
# Of a CronJob's runs, of those that succeeded and of those that failed: their logs can be read until then.
RUNS_KEPT = 3

KUBECTL_IMAGE = "registry.k8s.io/kubectl:v1.33.0"
RAY_JOB_FILE = "rayjob.yaml"


def ray_job_cron_job(
    deployment: Deployment, schedule: str, zone: str | None = None, kubectl_image: str = KUBECTL_IMAGE
) -> tuple[Mapping, ...]:
    """Where KubeRay has no RayCronJob: a CronJob that creates the RayJob which lies in the ConfigMap.

    It is done when the RayJob is there, so that its `concurrencyPolicy` does not keep runs apart; as with a RayCronJob,
    those of one output share the work.

    Args:
        deployment: the job, whose files hold what `created_ray_job` returns as `RAY_JOB_FILE`.
        schedule, zone: as for `ray_cron_job`.
        kubectl_image: image whose entry point is kubectl.

    Returns:
        The account, its right to create RayJobs and nothing else, and the CronJob.
    """
    creator = f"{deployment.name}-creator"
    named = {**metadata(deployment), "name": creator}
    container: Mapping = {
        "name": "kubectl",
        "image": kubectl_image,
        "args": ["create", "--filename", f"{CONFIG_FOLDER}/{RAY_JOB_FILE}"],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": 1, "memory": "256Mi"}},
        "volumeMounts": [{"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True}],
        "securityContext": CONTAINER_RIGHTS,
    }
    template: Mapping = {
        "securityContext": POD_RIGHTS,
        "serviceAccountName": creator,
        **pull_secret(deployment),
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": deployment.name}}],
    }
    job: Mapping = {"backoffLimit": 2, "activeDeadlineSeconds": CREATED_SECONDS}
    rules = [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}]
    group = "rbac.authorization.k8s.io"
    return (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": named, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": named,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": creator},
            "subjects": [{"kind": "ServiceAccount", "name": creator, "namespace": deployment.namespace}],
        },
        _cron_job(deployment, schedule, zone, {**job, "template": _template(deployment, template)}),
    )


def pod_cron_job(deployment: Deployment, schedule: str, zone: str | None = None) -> Mapping:
    """Kubernetes alone, without KubeRay: at each time one worker's pod, with a Ray of its own.

    A run that goes on keeps the next one from starting. One that passes `deadline_seconds`, retries and all, is ended,
    and Kubernetes removes its pod with the log. A finished pod takes nothing but its entry, so the Job and its log stay
    until `RUNS_KEPT` newer ones are there, or for `keep_seconds` where that is given.

    Args:
        deployment: the job; of its machines only `worker` counts.
        schedule, zone: as for `ray_cron_job`.
    """
    template = pod(
        deployment,
        deployment.worker,
        "heatline",
        computes=True,
        reads_files=True,
        command=deployment.command,
        shared_memory=True,
    )
    final = [FINISHED_WITH_FAILURES, MISTAKE]
    job: Mapping = {
        "backoffLimit": deployment.retries,
        **({} if deployment.deadline_seconds is None else {"activeDeadlineSeconds": deployment.deadline_seconds}),
        "podFailurePolicy": {
            "rules": [
                # A pod that its node sends away is started anew without counting: what it committed stays.
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": "heatline", "operator": "In", "values": final},
                },
            ]
        },
        **({} if deployment.keep_seconds is None else {"ttlSecondsAfterFinished": deployment.keep_seconds}),
    }
    template = {"restartPolicy": "Never", **template}
    return _cron_job(deployment, schedule, zone, {**job, "template": _template(deployment, template)})


def _template(deployment: Deployment, pod: Mapping) -> Mapping:
    return {"metadata": {"labels": labels(deployment)}, "spec": pod}


def _cron_job(deployment: Deployment, schedule: str, zone: str | None, job: Mapping) -> Mapping:
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata(deployment),
        "spec": {
            "schedule": schedule,
            **({"timeZone": zone} if zone else {}),
            # Of the Jobs made here. Two at a time are safe, and of no use.
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": LATEST_START_SECONDS,
            "suspend": deployment.suspend,
            "successfulJobsHistoryLimit": RUNS_KEPT,
            "failedJobsHistoryLimit": RUNS_KEPT,
            "jobTemplate": {"metadata": {"labels": labels(deployment)}, "spec": job},
        },
    }
