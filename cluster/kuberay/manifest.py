"""The objects of a job, as mappings in the order in which they are to be read.

Exit codes and retries. Of the exit codes of `heatline run` only 3 (stopped before the end) is worth another attempt: 1
(finished with failures) and 2 (a mistake in the spec) would end the same way. A CronJob knows codes, and is told so; a
RayJob does not, so that its `backoffLimit` repeats whatever failed, with a new cluster: it is 0 by default, and the
next run of the schedule goes on where this one stopped.
"""

from __future__ import annotations

import shlex

from cluster.kuberay.deployment import Deployment
from cluster.kuberay.pod import CONTAINER_RIGHTS, POD_RIGHTS, USER, Mapping, labels, metadata, pod, pull_secret

# Idle workers leave after this time; the next stage of a job may be a minute away.
IDLE_SECONDS = 300
# A cluster is billed for as long as it is there. In older KubeRay 0 took it away from a submitter that still read the
# end of the log.
CLUSTER_KEPT_SECONDS = 60


def config_map(deployment: Deployment) -> Mapping:
    """The spec and whatever else the container reads."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(deployment),
        "data": dict(deployment.files),
    }


def ray_cluster(deployment: Deployment) -> Mapping:
    """A Ray cluster that stays, to submit jobs to."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": metadata(deployment),
        "spec": {**({"suspend": True} if deployment.suspend else {}), **_cluster_spec(deployment, reads_files=False)},
    }


def ray_job(deployment: Deployment) -> Mapping:
    """One run, at once, on a Ray cluster of its own, which goes `kept_seconds` after the end; see `_job_spec`."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": metadata(deployment),
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
        "metadata": metadata(deployment),
        "spec": {
            "schedule": schedule,
            **({"timeZone": zone} if zone else {}),
            "suspend": deployment.suspend,
            "jobTemplate": _job_spec(deployment),
        },
    }


def kept_seconds(deployment: Deployment) -> int:
    """How long the Ray cluster of a RayJob stays after the end."""
    return CLUSTER_KEPT_SECONDS if deployment.keep_seconds is None else deployment.keep_seconds


def created_ray_job(deployment: Deployment) -> Mapping:
    """A RayJob whose name Kubernetes completes, to be created as often as wanted."""
    unnamed = {key: value for key, value in metadata(deployment).items() if key != "name"}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"generateName": f"{deployment.name}-", **unnamed},
        "spec": _job_spec(deployment),
    }


def _job_spec(deployment: Deployment) -> Mapping:
    """A RayJob's spec. Its submitter's pod is spelled out to get no more rights than the others.

    After the end KubeRay deletes the Ray cluster alone: the RayJob stays, and with it the submitter's pod, whose log is
    the run's; both go when somebody deletes the RayJob. A `deletionStrategy` could do that as well, but takes the place
    of `shutdownAfterJobFinishes`, and an operator without its feature gate (off before KubeRay 1.6) refuses the job.
    """
    submitter: Mapping = {
        "name": "ray-job-submitter",
        "image": deployment.image,
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": 1, "memory": "1Gi"}},
        "securityContext": CONTAINER_RIGHTS,
    }
    return {
        "entrypoint": shlex.join(deployment.command),
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": kept_seconds(deployment),
        **_limits(deployment),
        "backoffLimit": deployment.retries,
        "submitterPodTemplate": {
            "metadata": {"labels": labels(deployment)},
            "spec": {
                "restartPolicy": "Never",
                "securityContext": POD_RIGHTS,
                "automountServiceAccountToken": False,
                **pull_secret(deployment),
                # It may be what gives access to the image.
                **({"serviceAccountName": deployment.service_account} if deployment.service_account else {}),
                "containers": [submitter],
            },
        },
        "rayClusterSpec": _cluster_spec(deployment, reads_files=True),
    }


def _limits(deployment: Deployment) -> Mapping:
    """How long a run may take, and how long its pods may wait for their nodes."""
    given: Mapping = {
        "activeDeadlineSeconds": deployment.deadline_seconds,
        "preRunningDeadlineSeconds": deployment.start_deadline_seconds,
    }
    return {key: value for key, value in given.items() if value is not None}


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
