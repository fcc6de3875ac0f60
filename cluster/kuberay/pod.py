"""Pods: one container of the image, without rights that it does not need."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.kuberay.deployment import CONFIG_FOLDER, Deployment, Machine

Mapping = dict[str, object]

# The user of cluster/Dockerfile; as group of mounted volumes it may write there.
USER = 1000
# Ray stops its workers and the run writes its record.
STOP_SECONDS = 120

CONTAINER_RIGHTS: Mapping = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD_RIGHTS: Mapping = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    # Not every file of a volume with millions of images at every start.
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}


def labels(deployment: Deployment) -> Mapping:
    """Labels by which all objects of a job are found."""
    return {"app.kubernetes.io/name": "heatline", "app.kubernetes.io/instance": deployment.name}


def metadata(deployment: Deployment) -> Mapping:
    """Of an object of the job's name."""
    return {"name": deployment.name, "namespace": deployment.namespace, "labels": labels(deployment)}


def resources(machine: Machine) -> Mapping:
    """Requests and limits, the same."""
    amounts: Mapping = {"cpu": machine.cpus, "memory": machine.memory}
    if machine.gpus:
        amounts["nvidia.com/gpu"] = machine.gpus
    return {"requests": amounts, "limits": amounts}


def pull_secret(deployment: Deployment) -> Mapping:
    """The part of a pod's spec that names the Secret of a private registry."""
    return {"imagePullSecrets": [{"name": deployment.image_pull_secret}]} if deployment.image_pull_secret else {}


def pod(
    deployment: Deployment,
    machine: Machine,
    container: str,
    *,
    computes: bool,
    reads_files: bool = False,
    ports: Sequence[Mapping] = (),
    command: Sequence[str] = (),
    shared_memory: bool = False,
    service_token: bool = False,
) -> Mapping:
    """A pod's spec.

    Args:
        deployment: the job.
        machine: what the pod gets.
        container: name of its container.
        computes: it goes where the deployment's tolerations and node selector let it.
        reads_files: the deployment's files are mounted in it, read-only.
        ports: of the container.
        command: what it runs; default: what KubeRay or the image says.
        shared_memory: memory at /dev/shm, which KubeRay brings to its own pods and a Ray in any other one needs.
        service_token: the pod may speak to Kubernetes.
    """
    mounts: list[Mapping] = []
    volumes: list[Mapping] = []
    if reads_files:
        mounts.append({"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True})
        volumes.append({"name": "config", "configMap": {"name": deployment.name}})
    for number, volume in enumerate(deployment.volumes):
        mounts.append({"name": f"volume-{number}", "mountPath": volume.path, "readOnly": volume.read_only})
        claim: Mapping = {"claimName": volume.claim, "readOnly": volume.read_only}
        volumes.append({"name": f"volume-{number}", "persistentVolumeClaim": claim})
    if shared_memory:
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory"}})
    main: Mapping = {"name": container, "image": deployment.image}
    if command:
        main["command"] = list(command)
    if ports:
        main["ports"] = list(ports)
    # Kubernetes replaces $(NAME) by another variable's value; a doubled $ is one.
    variables = {"RAY_USAGE_STATS_ENABLED": "0", **deployment.environment}
    main["env"] = [{"name": name, "value": value.replace("$", "$$")} for name, value in variables.items()]
    if deployment.secret:
        main["envFrom"] = [{"secretRef": {"name": deployment.secret}}]
    main["resources"] = resources(machine)
    if mounts:
        main["volumeMounts"] = mounts
    main["securityContext"] = CONTAINER_RIGHTS
    spec: Mapping = {
        # The head's pod too: the run itself is there, and writes its record.
        "terminationGracePeriodSeconds": STOP_SECONDS,
        "securityContext": POD_RIGHTS,
        "automountServiceAccountToken": service_token,
        **pull_secret(deployment),
    }
    if deployment.service_account:
        spec["serviceAccountName"] = deployment.service_account
    if computes and deployment.node_selector:
        spec["nodeSelector"] = dict(deployment.node_selector)
    if computes and deployment.tolerations:
        spec["tolerations"] = _tolerations(deployment)
    spec["containers"] = [main]
    if volumes:
        spec["volumes"] = volumes
    return spec


def _tolerations(deployment: Deployment) -> list[Mapping]:
    found: list[Mapping] = []
    for one in deployment.tolerations:
        match: Mapping = {"operator": "Exists"} if one.value is None else {"operator": "Equal", "value": one.value}
        found.append({"key": one.key, **match, "effect": one.effect})
    return found
