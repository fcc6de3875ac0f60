"""What a job asks of a Kubernetes cluster."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from pipeline.contracts import Config

CONFIG_FOLDER = "/etc/heatline"
"""Where the files of the ConfigMap lie in a pod."""

LONGEST_NAME = 41
"""Of an object: KubeRay appends six characters for a RayJob and six more for its cluster, of at most 53."""

LARGEST = 2**31 - 1
"""Of the whole numbers that Kubernetes and KubeRay hold."""
START_SECONDS = 6 * 3600
"""Long enough for a GPU that is free in the morning; without an end, those that are never free would add up."""

_BYTES = {"M": 10**6, "G": 10**9, "T": 10**12, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def _text(pattern: str, expected: str, longest: int = 253) -> AfterValidator:
    """Text of a form, with words for those who miss it."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value) or len(value) > longest:
            raise ValueError(f"expected {expected}, got '{value}'")
        return value

    return AfterValidator(check)


Label = Annotated[
    str,
    _text("[a-z]([a-z0-9-]*[a-z0-9])?", "at most 63 lower case letters, digits and dashes, a letter first", 63),
]
Namespace = Annotated[str, _text("[a-z0-9]([a-z0-9-]*[a-z0-9])?", "lower case letters, digits and dashes", 63)]
ObjectName = Annotated[
    str, _text("[a-z0-9]([a-z0-9.-]*[a-z0-9])?", "the name of a Kubernetes object: lower case letters, digits, - and .")
]
Folder = Annotated[str, _text("/[^:]+", "an absolute folder")]
TaintKey = Annotated[str, _text("[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?", "a key such as nvidia.com/gpu")]
TaintValue = Annotated[str, _text("([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?", "letters, digits and . _ -", 63)]
Memory = Annotated[str, _text("[1-9][0-9]*(Mi|Gi|Ti|M|G|T)", "an amount with its unit, such as 16Gi")]
Image = Annotated[str, _text(r"[^\s]+", "an image such as registry.example/heatline:1")]
VariableName = Annotated[str, _text("[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")]
RayVersion = Annotated[str, _text(r"[0-9]+\.[0-9]+\.[0-9]+\S*", "a version such as 2.60.0")]


class Volume(Config):
    """A PersistentVolumeClaim and where pods see it."""

    claim: ObjectName = Field(description="name of the PersistentVolumeClaim")
    path: Folder = Field(description="folder in the pods")
    read_only: bool = Field(False, description="mounted without the right to write")


class Toleration(Config):
    """A taint of nodes that workers put up with, such as that of GPU or spot nodes."""

    key: TaintKey = Field(description="the taint's key, such as nvidia.com/gpu")
    value: TaintValue | None = Field(None, description="the taint's value; default: any")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = Field("NoSchedule", description="of the taint")


class Machine(Config):
    """What one pod gets; requested and limited alike, so that Ray counts what is there."""

    cpus: PositiveInt = Field(description="CPU cores")
    memory: Memory = Field(description="memory, such as 16Gi")
    gpus: int = Field(0, ge=0, description="NVIDIA GPUs")

    @property
    def resources(self) -> dict[str, float]:
        """What Ray counts in the pod, by its names; memory in bytes."""
        number = self.memory.rstrip("MGTi")
        return {"CPU": self.cpus, "GPU": self.gpus, "memory": int(number) * _BYTES[self.memory[len(number) :]]}


class Deployment(Config):
    """A job's pods and objects on Kubernetes. Nothing in it has a bearing on results."""

    name: Label = Field("heatline", max_length=LONGEST_NAME, description="of every object; see `object_name`")
    namespace: Namespace = Field("default", description="namespace of every object")
    image: Image = Field(description="container image with heatline, as cluster/Dockerfile builds it")
    ray_version: RayVersion = Field(description="Ray's version in the image")
    head: Machine = Field(Machine(cpus=2, memory="8Gi"), description="the pod that plans, and computes nothing")
    worker: Machine = Field(Machine(cpus=4, memory="16Gi"), description="the pods that compute")
    min_workers: int = Field(1, ge=0, description="worker pods at the start")
    max_workers: PositiveInt = Field(1, description="worker pods at most; more than min_workers brings an autoscaler")
    volumes: tuple[Volume, ...] = Field((), description="claims that every pod mounts")
    tolerations: tuple[Toleration, ...] = Field((), description="of the pods that compute")
    node_selector: dict[str, str] = Field({}, description="labels of the nodes for pods that compute")
    secret: ObjectName | None = Field(None, description="Secret whose keys become environment variables")
    environment: dict[VariableName, str] = Field({}, description="variables of the pods that run and compute")
    image_pull_secret: ObjectName | None = Field(
        None, description="Secret with the credentials of the image's registry"
    )
    service_account: ObjectName | None = Field(None, description="ServiceAccount of the pods")
    suspend: bool = Field(False, description="put there, but started only when this is taken back")
    retries: int = Field(0, ge=0, description="backoffLimit: further attempts after one that failed")
    deadline_seconds: int | None = Field(
        None,
        ge=1,
        le=LARGEST,
        description="activeDeadlineSeconds: a run that is not done by then is ended; default: none",
    )
    start_deadline_seconds: int | None = Field(
        START_SECONDS,
        ge=1,
        le=LARGEST,
        description="preRunningDeadlineSeconds: a RayJob whose pods are not all running by then fails; KubeRay 1.6",
    )
    keep_seconds: int | None = Field(
        None,
        ge=0,
        le=LARGEST,
        description="ttlSecondsAfterFinished: how long the Ray cluster of a RayJob, GPUs and all, or the Job of a pod, "
        "with its log, stays after the end; default: a minute, and until newer ones take its place",
    )
    command: tuple[str, ...] = Field((), description="what runs in the container")
    files: dict[str, str] = Field({}, description=f"texts by name that pods find in {CONFIG_FOLDER}")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.max_workers < self.min_workers:
            raise ValueError(f"expected the least before the most, got {self.min_workers}-{self.max_workers}")
        paths = [CONFIG_FOLDER, "/dev/shm", *(volume.path for volume in self.volumes)]
        twice = sorted({path for path in paths if paths.count(path) > 1})
        if twice:
            raise ValueError(f"volumes need folders that are not taken, got {', '.join(twice)}")
        return self

    @property
    def autoscaling(self) -> bool:
        """Whether the number of workers follows demand."""
        return self.max_workers > self.min_workers


def object_name(name: str) -> str:
    """The name of a job's objects and units: lower case letters, digits and dashes, beginning with `heatline-`.

    Args:
        name: a spec's name: letters, digits and `. _ -`.

    Returns:
        At most `LONGEST_NAME` characters, valid as a DNS label. What had to be changed or cut gets a hash of the name,
        so that two names never become one.
    """
    plain = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    longest = LONGEST_NAME - len("heatline-")
    if plain == name and len(plain) <= longest:
        return f"heatline-{plain}"
    mark = hashlib.sha256(name.encode()).hexdigest()[:6]
    kept = plain[: longest - len(mark) - 1].strip("-")
    return "-".join(part for part in ("heatline", kept, mark) if part)
