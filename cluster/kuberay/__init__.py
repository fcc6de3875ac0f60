"""Jobs on Kubernetes: KubeRay's RayCluster, RayJob and RayCronJob, and Kubernetes' own CronJob, as plain mappings."""

from __future__ import annotations

from cluster.kuberay.cron_job import pod_cron_job, ray_job_cron_job
from cluster.kuberay.deployment import CONFIG_FOLDER, Deployment, Machine, Toleration, Volume, object_name
from cluster.kuberay.manifest import config_map, ray_cluster, ray_cron_job, ray_job

__all__ = [
    "CONFIG_FOLDER",
    "Deployment",
    "Machine",
    "Toleration",
    "Volume",
    "config_map",
    "object_name",
    "pod_cron_job",
    "ray_cluster",
    "ray_cron_job",
    "ray_job",
    "ray_job_cron_job",
]
