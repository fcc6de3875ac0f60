"""The objects of a job, as mappings in the order in which they are to be read.

Exit codes and retries. Of the exit codes of `heatline run` only 3 (stopped before the end) is worth another attempt: 1
(finished with failures) and 2 (a mistake in the spec) would end the same way. A CronJob knows codes, and is told so; a
RayJob does not, so that its `backoffLimit` repeats whatever failed, with a new cluster: it is 0 by default, and the
next run of the schedule goes on where this one stopped.
"""

from __future__ import annotations

import shlex

from cluster.kuberay.deployment import CONFIG_FOLDER, Deployment
from cluster.kuberay.pod import CONTAINER_RIGHTS, POD_RIGHTS, USER, Mapping, labels, pod

FINISHED_WITH_FAILURES, MISTAKE = 1, 2

# Idle workers leave after this time; the next stage of a job may be a minute away.
IDLE_SECONDS = 300
# A missed start is made up for within this time, and no later.
LATEST_START_SECONDS = 3600
# Ray stops its workers and the run writes its record.
STOP_SECONDS = 120
# What is left to look at of a CronJob.
RUNS_KEPT = 3

KUBECTL_IMAGE = "registry.k8s.io/kubectl:v1.33.0"
RAY_JOB_FILE = "rayjob.yaml"


def config_map(deployment: Deployment) -> Mapping:
    """The spec and whatever else the container reads."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(deployment),
        "data": dict(deployment.files),
    }


def ray_cluster(deployment: Deployment) -> Mapping:
    """A Ray cluster that stays, to submit jobs to."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": _metadata(deployment),
        "spec": {**({"suspend": True} if deployment.suspend else {}), **_cluster_spec(deployment, reads_files=False)},
    }


def ray_job(deployment: Deployment) -> Mapping:
    """One run, at once, on a Ray cluster of its own that goes when the run has ended."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(deployment),
        "spec": {**({"suspend": True} if deployment.suspend else {}), **_job_spec(deployment)},
    }


def ray_cron_job(deployment: Deployment, schedule: str, zone: str | None = None) -> Mapping:
    """A RayJob at each time of a schedule.

    Args:
        deployment: the job.
        schedule: a cron line; see `jobs.cron`.
        zone: time zone of the line; default: the operator's, as a rule UTC.
    """
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCronJob",
        "metadata": _metadata(deployment),
        "spec": {
            "schedule": schedule,
            **({"timeZone": zone} if zone else {}),
            "suspend": deployment.suspend,
            "jobTemplate": _job_spec(deployment),
        },
    }


def ray_job_cron_job(
    deployment: Deployment, schedule: str, zone: str | None = None, kubectl_image: str = KUBECTL_IMAGE
) -> tuple[Mapping, ...]:
    """Where KubeRay has no RayCronJob: a CronJob that creates the RayJob which lies in the ConfigMap.

    Args:
        deployment: the job, whose files hold what `created_ray_job` returns as `RAY_JOB_FILE`.
        schedule, zone: as for `ray_cron_job`.
        kubectl_image: image whose entry point is kubectl.

    Returns:
        The account, its right to create RayJobs and nothing else, and the CronJob.
    """
    creator = f"{deployment.name}-creator"
    metadata = {**_metadata(deployment), "name": creator}
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
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": deployment.name}}],
    }
    rules = [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}]
    group = "rbac.authorization.k8s.io"
    return (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": creator},
            "subjects": [{"kind": "ServiceAccount", "name": creator, "namespace": deployment.namespace}],
        },
        _cron_job(deployment, schedule, zone, {"backoffLimit": 2}, template),
    )


def created_ray_job(deployment: Deployment) -> Mapping:
    """A RayJob whose name Kubernetes completes, to be created as often as wanted."""
    metadata = {key: value for key, value in _metadata(deployment).items() if key != "name"}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"generateName": f"{deployment.name}-", **metadata},
        "spec": _job_spec(deployment),
    }


def pod_cron_job(deployment: Deployment, schedule: str, zone: str | None = None) -> Mapping:
    """Kubernetes alone, without KubeRay: at each time one worker's pod, with a Ray of its own.

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
    }
    template = {"restartPolicy": "Never", "terminationGracePeriodSeconds": STOP_SECONDS, **template}
    return _cron_job(deployment, schedule, zone, job, template)


def _cron_job(deployment: Deployment, schedule: str, zone: str | None, job: Mapping, template: Mapping) -> Mapping:
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": _metadata(deployment),
        "spec": {
            "schedule": schedule,
            **({"timeZone": zone} if zone else {}),
            # Overlapping runs are safe, and of no use.
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": LATEST_START_SECONDS,
            "suspend": deployment.suspend,
            "successfulJobsHistoryLimit": RUNS_KEPT,
            "failedJobsHistoryLimit": RUNS_KEPT,
            "jobTemplate": {
                "spec": {
                    **job,
                    "ttlSecondsAfterFinished": deployment.keep_seconds,
                    "template": {"metadata": {"labels": labels(deployment)}, "spec": template},
                }
            },
        },
    }


def _metadata(deployment: Deployment) -> Mapping:
    return {"name": deployment.name, "namespace": deployment.namespace, "labels": labels(deployment)}


def _job_spec(deployment: Deployment) -> Mapping:
    """A RayJob's spec. Its submitter's pod is spelled out to get no more rights than the others."""
    submitter: Mapping = {
        "name": "ray-job-submitter",
        "image": deployment.image,
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": 1, "memory": "1Gi"}},
        "securityContext": CONTAINER_RIGHTS,
    }
    return {
        "entrypoint": shlex.join(deployment.command),
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": deployment.keep_seconds,
        "backoffLimit": deployment.retries,
        "submitterPodTemplate": {
            "metadata": {"labels": labels(deployment)},
            "spec": {
                "restartPolicy": "Never",
                "securityContext": POD_RIGHTS,
                "automountServiceAccountToken": False,
                # It may be what gives access to the image.
                **({"serviceAccountName": deployment.service_account} if deployment.service_account else {}),
                "containers": [submitter],
            },
        },
        "rayClusterSpec": _cluster_spec(deployment, reads_files=True),
    }


def _cluster_spec(deployment: Deployment, *, reads_files: bool) -> Mapping:
    """Head and workers. KubeRay lets the dashboard listen to its Service, so the token is what guards it."""
    scaling: Mapping = {
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "idleTimeoutSeconds": IDLE_SECONDS,
            "securityContext": {**CONTAINER_RIGHTS, "runAsNonRoot": True, "runAsUser": USER},
        },
    }
    head = pod(
        deployment,
        deployment.head,
        "ray-head",
        computes=False,
        reads_files=reads_files,
        ports=({"name": "gcs-server", "containerPort": 6379}, {"name": "dashboard", "containerPort": 8265}),
        # The autoscaler runs in the head's pod and asks Kubernetes for workers.
        service_token=deployment.autoscaling,
    )
    worker = pod(deployment, deployment.worker, "ray-worker", computes=True)
    worker = {"terminationGracePeriodSeconds": STOP_SECONDS, **worker}
    template = {"labels": labels(deployment)}
    return {
        "rayVersion": deployment.ray_version,
        "authOptions": {"mode": "token"},
        **(scaling if deployment.autoscaling else {}),
        "headGroupSpec": {
            "serviceType": "ClusterIP",
            # No unit of work runs on the head.
            "rayStartParams": {"num-cpus": "0"},
            "template": {"metadata": template, "spec": head},
        },
        "workerGroupSpecs": [
            {
                "groupName": "gpu" if deployment.worker.gpus else "cpu",
                "replicas": deployment.min_workers,
                "minReplicas": deployment.min_workers,
                "maxReplicas": deployment.max_workers,
                "rayStartParams": {},
                "template": {"metadata": template, "spec": worker},
            }
        ],
    }
