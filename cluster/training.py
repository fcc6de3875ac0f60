"""Trainings that several devices share: each through Ray Train, once the workers of all other units have gone."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import ray
import torch
import torch.distributed
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from cluster.actors import on_this_node
from cluster.attempt import Attempt, Order, WorkerDiedError, WorkerGoneError
from cluster.capacity import room
from cluster.code import code_digest, code_place
from cluster.log import WorkerLog
from cluster.memory import KEEP_FREED_MEMORY
from cluster.need import Need, said
from cluster.profile import Profile, WorkerRange
from cluster.reach import Head
from pipeline.errors import FatalError, RetryableError, ShardError
from pipeline.models import HeldTooMuchError, Processes
from pipeline.stages.variant import Job, Unit
from pipeline.stages.worker import Report, Worker
from pipeline.store import open_output

START_SECONDS = 180.0  # processes that have their resources are up by then
ROOM_SECONDS = 5.0  # between looks at how much the cluster holds
# By these words Ray tells the end of a process with its node from any other; it has no other sign of it.
_NODE_DIED = "node has died"


def process_need(profile: Profile) -> Need:
    """What each process of a training reserves."""
    return replace(Need.of(profile), gpus=1.0 if profile.gpus_per_training > 1 else 0.0)


def check_training_room(profile: Profile) -> None:
    """Whether the cluster can ever hold a training.

    Raises:
        FatalError: it cannot, and the profile does not say to wait for a cluster that grows.
    """
    need, count = process_need(profile), profile.training_processes
    held = room(need)
    if held < count and not profile.wait_s:
        key = "gpus_per_training" if profile.gpus_per_training > 1 else "processes_per_training"
        raise FatalError(
            f"{key}: {count} asks for {count} processes of {need} a training; the cluster has room for {held}: "
            f"{said(ray.cluster_resources())}. Lower it, or let the job wait for a cluster that grows (wait_s)"
        )


class TrainingPool:
    """As many trainings at a time as the cluster holds, each a task that sees to its processes. See `Pool`.

    No actor may hold a device meanwhile: the processes of a training would wait for it for ever.
    """

    def __init__(self, job: Job, profile: Profile, head: Head) -> None:
        self._job, self._profile, self._head = job, profile, head
        self._need, self._count = process_need(profile), profile.training_processes
        self._running: dict[Any, tuple[Hashable, Order]] = {}
        self._fates: dict[Hashable, str] = {}
        self._slots, self._looked = 1, float("-inf")
        patience = str(START_SECONDS + profile.wait_s)
        self._task = ray.remote(_trained).options(
            num_cpus=0,
            # A training whose process died is handed out again by the queue, which counts the attempts.
            max_retries=0,
            runtime_env={"env_vars": {**KEEP_FREED_MEMORY, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": patience}},
        )

    def workers(self) -> Sequence[Hashable]:
        """See `Pool`."""
        return tuple(range(self._slots))

    def asked(self) -> int:
        """See `Pool`."""
        return 0

    def adapt(self, useful: int) -> None:
        """See `Pool`. Processes that find no room wait for it, which makes Ray's autoscaler start nodes."""
        now = time.monotonic()
        if now - self._looked < ROOM_SECONDS:
            return
        self._looked = now
        self._slots = max(1, self._processes() // self._count)

    def _processes(self) -> int:
        """Processes of all trainings together."""
        most = self._profile.most_workers
        if most is not None and self._need.gpus:
            most = int(most * self._profile.gpus_per_worker) or most
        if isinstance(self._profile.workers, WorkerRange):
            return most or 1
        return min(room(self._need), most or room(self._need))

    def trouble(self) -> str:
        """See `Pool`."""
        return ""

    def start(self, worker: Hashable, order: Order) -> None:
        """See `Pool`."""
        self._running[self._task.remote(self._job, self._profile, order)] = (worker, order)

    def wait(self) -> Iterable[Attempt]:
        """See `Pool`."""
        self._head.check()
        if not self._running:
            return
        done, _ = ray.wait([*self._running], num_returns=1, timeout=1.0)
        for handle in done:
            worker, order = self._running.pop(handle)
            try:
                yield Attempt(worker, order, ray.get(handle), None)
            except RayTaskError as error:
                yield Attempt(worker, order, None, error.cause)
            except NodeDiedError:
                yield Attempt(worker, order, None, WorkerGoneError("the node that saw to it left the cluster"))
            except RayError as error:
                reason = self._fates.pop(worker, "its worker died: it crashed or was killed")
                memory = isinstance(error, OutOfMemoryError)
                yield Attempt(worker, order, None, WorkerDiedError(reason, out_of_memory=memory))

    def end(self, worker: Hashable, reason: str) -> None:
        """See `Pool`."""
        for handle in [handle for handle, (number, _) in self._running.items() if number == worker]:
            self._fates[worker] = reason
            ray.cancel(handle, force=True)

    def stop(self) -> None:
        """End all trainings; the next run goes on from their last checkpoints."""
        if self._head.is_gone:
            return
        for handle in self._running:
            ray.cancel(handle, force=True)
        self._running = {}


def _trained(job: Job, profile: Profile, order: Order) -> Report:
    """One training, in a task of its own: starts its processes, and says what they committed."""
    if profile.gpus_per_training > 1:
        job = replace(job, options=replace(job.options, device_share=1.0))
    streamed = ""
    while True:
        try:
            _fit(job, profile, order, streamed)
            break
        except HeldTooMuchError as error:
            if streamed:
                raise ShardError(f"{order.unit.variant}: {error}") from error
            streamed = str(error)
    return _report(job, order.unit)


def _report(job: Job, unit: Unit) -> Report:
    for receipt in open_output(job.output).receipts(unit.variant):
        if receipt.start <= unit.start and unit.stop <= receipt.stop:
            return Report(unit, receipt, 0.0, receipt.seconds, 0.0)
    raise RetryableError(f"{unit.variant}: the training ended, and nothing is committed")


def _fit(job: Job, profile: Profile, order: Order, streamed: str) -> None:
    """Ray Train's part: brings the processes up together, and ends all when one fails.

    Raises:
        HeldTooMuchError: memory did not suffice for held images.
        FatalError, ShardError, RetryableError: as `Worker.run`, and where a process died.
    """
    # Takes a second or two to import, and only trainings that share devices need it.
    from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig, WorkerGroupError  # noqa: PLC0415
    from ray.train.torch import TorchTrainer  # noqa: PLC0415

    need = process_need(profile)
    resources = {"CPU": need.cpus, "GPU": need.gpus, "memory": float(need.memory)}
    with tempfile.TemporaryDirectory(prefix="heatline-train-") as folder:
        trainer = TorchTrainer(
            _share_training,
            train_loop_config={
                "job": job, "order": order, "streamed": streamed, "cpus": profile.cpus_per_worker,
            },
            scaling_config=ScalingConfig(
                num_workers=profile.training_processes,
                use_gpu=bool(need.gpus),
                resources_per_worker={name: amount for name, amount in resources.items() if amount},
            ),
            run_config=RunConfig(
                name="training",
                # Nothing is reported to it: checkpoints and results are the output's, which every node reaches.
                storage_path=folder,
                # The queue counts attempts and tells of them; a node that is taken back with notice costs none.
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
                worker_runtime_env={"env_vars": dict(KEEP_FREED_MEMORY)},
            ),
        )  # fmt: skip
        try:
            trainer.fit()
        except WorkerGroupError as error:
            raise _cause([*error.worker_failures.values()]) from error
        except ControllerError as error:
            if _NODE_DIED in str(error.controller_failure):
                raise WorkerGoneError("a node left the cluster while its processes started") from error
            why = " ".join(str(error.controller_failure).split())[:200]
            raise FatalError(
                f"the {profile.training_processes} processes of a training did not start: {why}; the cluster has "
                f"{said(ray.cluster_resources())}, of which {said(ray.available_resources())} free"
            ) from error


def _cause(failures: Sequence[BaseException]) -> Exception:
    """Of the errors of several processes the one that the others follow from."""
    for kind in (HeldTooMuchError, FatalError, ShardError, RetryableError):
        for error in failures:
            if isinstance(error, kind):
                return error
    deaths = [getattr(error, "health_check_failure", error) for error in failures]
    for error in deaths:
        if isinstance(error, RayActorError):
            if error.preempted or _NODE_DIED in str(error):
                return WorkerGoneError("the node of one of its processes left the cluster")
            return WorkerDiedError("one of its processes died: it crashed or was killed")
    for error in failures:
        if isinstance(error, torch.distributed.DistError) or "gloo" in str(error):
            return RetryableError(f"its processes lost each other: {' '.join(str(error).split())[:200]}")
    return next((error for error in failures if isinstance(error, Exception)), RetryableError("no process said why"))


def _share_training(config: dict[str, Any]) -> None:
    """What each process of a training does: its share of the unit."""
    import ray.train.torch  # noqa: PLC0415

    job, order = config["job"], config["order"]
    if code_digest() != job.code:
        raise FatalError(
            f"a process of a training imported another copy of the program than the driver's, from {code_place()}; "
            "install the same version on every node, or run the same command again where files have just changed"
        )
    torch.set_num_threads(max(1, round(config["cpus"])))
    device = ray.train.torch.get_device()
    worker = Worker(on_this_node(job, config["cpus"], device), device, Processes.of_group(device), config["streamed"])
    worker.avoid(order.unreadable)
    try:
        worker.run(order.unit)
    except Exception as error:
        WorkerLog(job).note_failure(order.unit, error)
        raise
