"""Where and with what a job runs: the profile. Nothing in it has a bearing on results."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field, PositiveInt

from pipeline.contracts import Config
from pipeline.stages.variant import WorkOptions


class Profile(Config):
    """Resources and sizes of work.

    A file of `cluster/profiles` or a file of the user's own, in YAML.
    """

    executor: Literal["ray", "local"] = Field("ray", description="Ray actors, or this process (for debugging)")
    address: str | None = Field(None, description="a running Ray cluster; default: start Ray on this machine")
    workers: PositiveInt | None = Field(None, description="actors; default: as many as the resources hold")
    cpus_per_worker: float = Field(1.0, gt=0, description="CPU cores an actor reserves and computes with")
    gpus_per_worker: float = Field(0.0, ge=0, description="GPUs an actor reserves; a fraction shares one")
    in_flight: PositiveInt = Field(3, description="units an actor has at a time: one decodes, one computes, one writes")
    retries: int = Field(3, ge=0, description="further attempts at a unit whose worker or storage failed")
    unit_passes: PositiveInt = Field(
        2000,
        description="passes of a 224 × 224 image that a unit should take at most; smaller images count less",
    )
    rows: PositiveInt | None = Field(None, description="images a forward; default: measured")
    decode_threads: PositiveInt = Field(2, description="threads an actor decodes with")
    cache_mb: PositiveInt = Field(256, description="decoded images an actor keeps, MiB")
    object_store_mb: PositiveInt = Field(512, description="Ray's shared memory on this machine, MiB")

    def options(self) -> WorkOptions:
        """The part of the profile that workers need."""
        cores = max(os.cpu_count() or 1, 1)
        share = self.gpus_per_worker or (self.cpus_per_worker / cores if self.executor == "ray" else 1.0)
        return WorkOptions(self.rows, self.decode_threads, self.cache_mb * 2**20, min(share, 1.0))
