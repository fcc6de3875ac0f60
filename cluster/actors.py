"""The Ray actor: a worker with a replica, on the resources that Ray gives it."""

from __future__ import annotations

import os
import threading

import ray
import torch

from cluster.code import code_digest, code_place
from pipeline.stages.variant import Job, Unit
from pipeline.stages.worker import Report, Worker


class UnitActor:
    """Runs units. Calls overlap (Ray's `max_concurrency`); the worker lets one compute at a time."""

    def __init__(self, job: Job, cpus: float) -> None:
        torch.set_num_threads(max(1, round(cpus)))
        self._job = job
        self._worker: Worker | None = None
        self._opening = threading.Lock()

    def introduce(self) -> tuple[str, str]:
        """Digest and place of the code here. Opens the worker, unless the code is another than the driver's."""
        with self._opening:
            if self._worker is None and code_digest() == self._job.code:
                device = "cuda" if ray.get_runtime_context().get_accelerator_ids().get("GPU") else "cpu"
                self._worker = Worker(self._job, device)
        return code_digest(), code_place()

    def run(self, unit: Unit) -> Report:
        """Load, compute and commit a unit; see `Worker.run`."""
        if self._worker is None:
            self.introduce()
        if self._worker is None:
            raise RuntimeError("this worker runs other code than the driver")
        try:
            return self._worker.run(unit)
        except RuntimeError as error:
            if "CUDA error" in str(error):
                # The process cannot use its GPU any more; Ray starts another, and the unit is handed out again.
                os._exit(1)
            raise
