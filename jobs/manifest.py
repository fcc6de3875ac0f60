"""What `heatline schedule` writes for Kubernetes: which objects, with what to know about them, as YAML."""

from __future__ import annotations

import json
from typing import Literal

from cluster.kuberay import (
    CONFIG_FOLDER,
    Deployment,
    config_map,
    pod_cron_job,
    ray_cluster,
    ray_cron_job,
    ray_job,
    ray_job_cron_job,
)
from cluster.kuberay.cron_job import KUBECTL_IMAGE, RAY_JOB_FILE, RUNS_KEPT
from cluster.kuberay.manifest import created_ray_job, kept_seconds
from cluster.need import Need, said
from cluster.profile import Profile
from jobs.cron import Cron
from jobs.document import write_document
from jobs.duration import said_duration
from jobs.problem import Problem, SpecError

Kind = Literal["raycronjob", "cronjob", "rayjob", "raycluster", "pod"]
TIMED: tuple[Kind, ...] = ("raycronjob", "cronjob", "pod")
"""The kinds that take a cron line."""

MOST_BYTES = 1_000_000  # a ConfigMap holds 1 MiB, keys and all
MOST_ANNOTATED = 250_000  # kubectl apply keeps a copy in an annotation, and all of an object's are at most 256 KiB
POD_SECONDS = 1800.0  # by then a node with a GPU has started and pulled the image

_NOTES: dict[Kind, tuple[str, ...]] = {
    "raycronjob": (
        "RayCronJob is alpha: KubeRay 1.6 or newer, its operator with --feature-gates=RayCronJob=true.",
        "Without it: --kind cronjob.",
        "A run starts whether or not the one before has ended. Two of one output share the work and are safe.",
    ),
    "cronjob": (
        "{kuberay}",
        "The CronJob creates the RayJob that lies in the ConfigMap.",
        "At once, for a trial: kubectl create job --namespace {namespace} --from=cronjob/{name} {name}-trial",
        "Its concurrencyPolicy keeps creators apart: a run starts whether or not the one before has ended. Two of one",
        "output share the work and are safe.",
    ),
    "rayjob": ("{kuberay}", "Runs once, as soon as it is there; to run it again, delete it first."),
    "raycluster": (
        "Stays until it is deleted. KubeRay 1.5.1 or newer. It makes a Secret of the cluster's name; its auth_token is",
        "the RAY_AUTH_TOKEN of whoever submits, and kubectl port-forward service/{name}-head-svc 8265 the way in.",
    ),
    "pod": (
        "One pod with a Ray of its own; exit codes 1 (finished with failures) and 2 (a mistake) are not tried again.",
        "Kubernetes 1.26 or newer.",
        "A time that comes while a run goes on is skipped, or made up for within an hour (concurrencyPolicy: Forbid).",
    ),
}
_RAY_JOB_NOTES = (
    "{kept} after the end the Ray cluster is deleted. The RayJob and the pod that submitted it, with the log, stay:",
    "  kubectl get rayjobs --namespace {namespace} --selector {selector}",
    "kubectl delete in place of get removes them, those that still run as well. An operator of KubeRay that has",
    "DELETE_RAYJOB_CR_AFTER_JOB_FINISHES=true removes them with the cluster, log and all.",
    "A RayJob does not tell exit codes apart: backoffLimit repeats what failed for good, too.",
)
_POD_NOTES = (
    "{kept} with the log, as long as the node is there:",
    "  kubectl get pods --namespace {namespace} --selector {selector}",
)


def manifest(
    kind: Kind,
    deployment: Deployment,
    cron: Cron | None,
    *,
    zone: str | None = None,
    kubectl_image: str = KUBECTL_IMAGE,
) -> str:
    """The objects of a job, ready for `kubectl apply`.

    Args:
        kind: what runs it: KubeRay's `raycronjob`, `rayjob`, `raycluster`, a `cronjob` that creates RayJobs, or a
            `pod` of a CronJob without KubeRay.
        deployment: the job, with its files.
        cron: when; for the kinds in `TIMED`.
        zone: time zone of the cron line; default: the cluster's.
        kubectl_image: for `cronjob`.

    Raises:
        SpecError: the spec is larger than a ConfigMap may be.
        ValueError: no cron line for a kind that takes one.
    """
    head = "".join(
        f"# {line}\n"
        for line in (f"Written by heatline schedule; {_apply(deployment)} FILE", *_notes(kind, deployment, zone))
    )
    if kind == "raycluster":
        return head + write_document(ray_cluster(deployment))
    if kind == "rayjob":
        return head + write_document(_files(deployment), ray_job(deployment))
    if cron is None:
        raise ValueError(f"{kind} takes a cron line")
    if kind == "raycronjob":
        return head + write_document(_files(deployment), ray_cron_job(deployment, cron.text, zone))
    if kind == "pod":
        return head + write_document(_files(deployment), pod_cron_job(deployment, cron.text, zone))
    created = write_document(created_ray_job(deployment))
    deployment = deployment.model_copy(update={"files": {**deployment.files, RAY_JOB_FILE: created}})
    timed = ray_job_cron_job(deployment, cron.text, zone, kubectl_image)
    return head + write_document(_files(deployment), *timed)


def _notes(kind: Kind, deployment: Deployment, zone: str | None) -> list[str]:
    """What to know of the objects: which KubeRay, what becomes of a run and of what it leaves."""
    # KubeRay gives the jobs of a RayCronJob no other label.
    label = "ray.io/cronjob-name" if kind == "raycronjob" else "app.kubernetes.io/instance"
    words = {
        "name": deployment.name,
        "namespace": deployment.namespace,
        "selector": f"{label}={deployment.name}",
        "kept": _kept(kind, deployment),
        "kuberay": "KubeRay 1.5.1 or newer."
        if deployment.start_deadline_seconds is None
        else "KubeRay 1.6 or newer; with --start-deadline none 1.5.1.",
    }
    notes = list(_NOTES[kind])
    if zone and kind == "raycronjob":
        notes.append("timeZone is newer than KubeRay 1.6, which refuses it.")
    if kind != "raycluster":
        notes += _POD_NOTES if kind == "pod" else _RAY_JOB_NOTES
        notes += _limits(kind, deployment)
    return [line.format_map(words) for line in notes]


def _limits(kind: Kind, deployment: Deployment) -> list[str]:
    """What ends a run that is stuck, or how it is found."""
    end = deployment.deadline_seconds
    if kind == "pod":
        if end is None:
            return [
                "No run is ended for taking long, or for waiting for a node (--deadline): a stuck one is old there."
            ]
        return [f"A run that is not done after {said_duration(end)} is ended, and its pod and log go (--deadline)."]
    if end is None:
        limits = ["No run is ended for taking long (--deadline): a stuck one is old and Running there, and silent in"]
        limits += ["heatline status OUTPUT."]
    else:
        limits = [f"A run that is not done after {said_duration(end)} is ended (--deadline)."]
    if deployment.start_deadline_seconds is not None:
        limits += [f"One whose pods do not all run after {said_duration(deployment.start_deadline_seconds)} fails."]
    elif end is None:
        limits += ["Nor is one whose pods find no nodes (--start-deadline): it is old and Initializing there."]
    return limits


def _kept(kind: Kind, deployment: Deployment) -> str:
    if kind != "pod":
        return said_duration(kept_seconds(deployment))
    if deployment.keep_seconds is None:
        return f"Of the last {RUNS_KEPT} runs that succeeded and the last {RUNS_KEPT} that failed the pod stays"
    time = said_duration(deployment.keep_seconds)
    return f"For {time} after the end, and {RUNS_KEPT} runs of either outcome, the pod stays"


def container_command(profile: str) -> tuple[str, ...]:
    """What runs in a pod; the profile is a name, or a file among the deployment's."""
    return ("heatline", "run", f"{CONFIG_FOLDER}/spec.yaml", "--profile", profile)


def check_profile(name: str, profile: Profile, deployment: Deployment, kind: Kind) -> None:
    """Whether a profile's workers fit into the pods, and it looks for Ray where that is.

    Raises:
        SpecError: with what does not fit.
    """
    if kind == "raycluster":
        return
    problems = []
    if kind == "pod" and profile.address:
        problems.append(f"'{name}' looks for a running Ray at '{profile.address}', and the pod starts its own")
    if kind != "pod" and (profile.executor != "ray" or not profile.address):
        problems.append(f"'{name}' does not use the cluster; take cluster, cluster-cpu, or one with an address")
    need, machine = Need.of(profile), deployment.worker.resources
    if not need.fits(machine):
        problems.append(
            f"'{name}' asks for {need} a worker, the pods have {said(machine)}; see --cpus, --gpus and --memory"
        )
    elif (held := need.fits(machine) * (1 if kind == "pod" else deployment.max_workers)) < profile.least_workers:
        problems.append(f"'{name}' asks for {profile.least_workers} workers of {need}, the pods have room for {held}")
    if problems:
        raise SpecError([Problem("--profile", None, "", problem) for problem in problems])


def growing_profile(profile: Profile, deployment: Deployment, kind: Kind) -> dict[str, object] | None:
    """The profile with which a job asks for pods, and waits for them, where their number follows demand.

    None where it does not, or where the profile says itself how many workers there shall be.
    """
    if kind in ("pod", "raycluster") or not deployment.autoscaling or profile.workers is not None:
        return None
    most = Need.of(profile).fits(deployment.worker.resources) * deployment.max_workers
    given = profile.model_dump(mode="json", exclude_unset=True)
    return {**given, "workers": {"min": 1, "max": most}, "wait_s": profile.wait_s or POD_SECONDS}


def _apply(deployment: Deployment) -> str:
    copied = len(json.dumps(dict(deployment.files)))
    return "kubectl apply --server-side -f" if copied > MOST_ANNOTATED else "kubectl apply -f"


def _size(deployment: Deployment) -> int:
    return sum(len(name) + len(text.encode()) for name, text in deployment.files.items())


def _files(deployment: Deployment) -> dict[str, object]:
    size = _size(deployment)
    if size > MOST_BYTES:
        message = f"the spec takes {size:,} bytes, and a ConfigMap holds {MOST_BYTES:,}; shorten its list of ids"
        raise SpecError([Problem(deployment.name, None, "", message)])
    return config_map(deployment)
