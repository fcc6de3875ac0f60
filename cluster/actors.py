"""The Ray actor: a worker with a replica, on the resources that Ray gives it."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace

import ray
import torch

from cluster.attempt import Order
from cluster.code import code_digest, code_place
from cluster.log import WorkerLog
from cluster.metrics import WorkerMetrics
from pipeline.stages.variant import Job
from pipeline.stages.worker import Report, Worker


@dataclass(frozen=True, slots=True)
class Introduction:
    """Digest and place of the code that a worker runs, and Ray's id of its node."""

    code: str
    place: str
    node: str


class UnitActor:
    """Runs units. Calls overlap (Ray's `max_concurrency`); the worker lets one compute at a time."""

    def __init__(self, job: Job, cpus: float) -> None:
        torch.set_num_threads(max(1, round(cpus)))
        self._job, self._cpus = job, cpus
        self._worker: Worker | None = None
        self._opening = threading.Lock()
        self._log = WorkerLog(job)
        self._metrics = WorkerMetrics(job.run)

    def introduce(self) -> Introduction:
        """Opens the worker, unless the code here is another than the driver's."""
        context = ray.get_runtime_context()
        with self._opening:
            if self._worker is None and code_digest() == self._job.code:
                device = "cuda" if context.get_accelerator_ids().get("GPU") else "cpu"
                self._worker = Worker(on_this_node(self._job, self._cpus, device), device)
        return Introduction(code_digest(), code_place(), context.get_node_id())

    def run(self, order: Order) -> Report | None:
        """Carry out an order; see `Order` and `Worker`. None after a look."""
        if self._worker is None:
            raise RuntimeError("this worker was not opened, or runs other code than the driver")
        try:
            report = _carried_out(self._worker, order)
        except Exception as error:
            # The driver hears the reason in one line; the way to it stays in this worker's log.
            self._log.note_failure(order.unit, error)
            if isinstance(error, RuntimeError) and "CUDA error" in str(error):
                # The process cannot use its GPU any more; another takes its place, and the unit is handed out again.
                os._exit(1)
            raise
        self._metrics.note_memory()
        return report


def on_this_node(job: Job, cpus: float, device: str | torch.device) -> Job:
    """The job with the share of its node's memory that a worker may count on: that of its cores, without a GPU.

    Args:
        job: the job.
        cpus: cores that the worker reserves.
        device: where it computes.
    """
    if torch.device(device).type != "cpu":
        return job
    here = ray.get_runtime_context().get_node_id()
    # As Ray counts them, and the pool fills the node by them; the machine may have more than this container.
    cores = next((node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["NodeID"] == here), 0.0)
    return replace(job, options=replace(job.options, device_share=min(1.0, cpus / max(cores, cpus))))


def _carried_out(worker: Worker, order: Order) -> Report | None:
    worker.avoid(order.unreadable)
    match order.task:
        case "look":
            worker.look(order.unit)
            return None
        case "give_up":
            return worker.give_up(order.unit, order.reason)
        case "compute" | "alone":
            return worker.run(order.unit, alone=order.task == "alone")
