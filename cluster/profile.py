"""Where and with what a job runs: the profile. Nothing in it has a bearing on results."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, PositiveInt, Tag, model_validator

from pipeline.contracts import Config
from pipeline.stages.variant import WorkOptions


class WorkerRange(Config):
    """A number of workers that follows the work."""

    min: PositiveInt = Field(1, description="workers without which the job does not start; they are kept to its end")
    max: PositiveInt = Field(description="workers that the cluster is asked for while there is work for so many")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max is to be at least min, got {self.min} and {self.max}")
        return self


def _form(value: object) -> str:
    return "range" if isinstance(value, dict | WorkerRange) else "number"


Workers = Annotated[
    Annotated[PositiveInt, Tag("number")] | Annotated[WorkerRange, Tag("range")],
    # A mistake in the one form is not told as one of the other, too.
    Discriminator(_form),
]


class Profile(Config):
    """Resources and sizes of work.

    A file of `cluster/profiles` or a file of the user's own, in YAML.
    """

    executor: Literal["ray", "local"] = Field("ray", description="Ray actors, or this process (for debugging)")
    address: str | None = Field(None, description="a running Ray cluster; default: start Ray on this machine")
    workers: Workers | None = Field(
        None,
        description="actors: a number, or {min, max} on a cluster that grows; default: as many as the resources hold",
    )
    wait_s: float = Field(
        0.0, ge=0, description="seconds to wait for workers that the cluster has no room for; default: it is an error"
    )
    cpus_per_worker: float = Field(1.0, gt=0, description="CPU cores an actor reserves and computes with")
    gpus_per_worker: float = Field(0.0, ge=0, description="GPUs an actor reserves; a fraction shares one")
    gpus_per_training: int = Field(
        0,
        ge=0,
        description="GPUs that one training of `retrain` is spread over, each with cpus_per_worker cores; "
        "below 2: a training has what an actor has",
    )
    processes_per_training: int = Field(
        0, ge=0, description="the same on CPUs: processes that one training is spread over"
    )
    memory_mb_per_worker: PositiveInt | None = Field(
        None,
        description="memory an actor reserves, MiB: a node gets no more than its memory holds; default: none",
    )
    in_flight: PositiveInt = Field(3, description="units an actor has at a time: one decodes, one computes, one writes")
    retries: int = Field(3, ge=0, description="further attempts at a unit whose worker or storage failed")
    hung_after_s: float | None = Field(
        None,
        gt=0,
        description="seconds after which a worker that finishes no unit is replaced, trainings apart; default: never",
    )
    unit_passes: PositiveInt = Field(
        2000,
        description="passes of a 224 × 224 image that a unit should take at most; smaller images count less",
    )
    rows: PositiveInt | None = Field(None, description="images a forward; default: measured")
    decode_threads: PositiveInt = Field(2, description="threads an actor decodes with")
    cache_mb: PositiveInt = Field(256, description="decoded images an actor keeps, MiB")
    object_store_mb: PositiveInt = Field(512, description="Ray's shared memory on this machine, MiB")

    @model_validator(mode="after")
    def _trainings_can_be_spread(self) -> Self:
        if self.gpus_per_training > 1 and self.processes_per_training > 1:
            raise ValueError("expected gpus_per_training or processes_per_training, got both")
        if self.executor == "local" and self.training_processes > 1:
            raise ValueError("a training is spread over several processes by Ray, and executor: local has one")
        return self

    @property
    def training_processes(self) -> int:
        """Processes that one training is spread over."""
        return max(1, self.gpus_per_training, self.processes_per_training)

    @property
    def least_workers(self) -> int:
        """Workers without which a job does not start."""
        return self.workers.min if isinstance(self.workers, WorkerRange) else self.workers or 1

    @property
    def most_workers(self) -> int | None:
        """Workers that are asked for at most; None: as many as the resources hold."""
        return self.workers.max if isinstance(self.workers, WorkerRange) else self.workers

    def options(self) -> WorkOptions:
        """The part of the profile that workers need."""
        share = min(self.gpus_per_worker or 1.0, 1.0)
        return WorkOptions(self.rows, self.decode_threads, self.cache_mb * 2**20, share)
