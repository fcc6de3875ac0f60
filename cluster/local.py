"""The executor in the calling process: for debugging and tests, and where Ray is not wanted."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import torch

from cluster.attempt import Attempt, Order
from cluster.drive import drive
from cluster.executor import Event, Watch, nothing
from cluster.profile import Profile
from cluster.queue import UnitQueue
from pipeline.errors import FatalError
from pipeline.stages.variant import Job
from pipeline.stages.worker import Report, Worker


class LocalExecutor:
    """One worker in this process; up to `in_flight` units at a time, of which one computes."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    def run(self, job: Job, queue: UnitQueue, watch: Watch, begin: Callable[[], None] = nothing) -> None:
        """See `Executor`. On an interrupt the units in flight are finished first."""
        if self._profile.gpus_per_worker and not torch.cuda.is_available():
            raise FatalError("the profile asks for a GPU, and PyTorch sees none here")
        worker = Worker(job, "cuda" if self._profile.gpus_per_worker else "cpu")
        begin()
        with ThreadPoolExecutor(self._profile.in_flight, thread_name_prefix="unit") as threads:
            pool = _Threads(worker, threads)
            try:
                drive(pool, queue, watch, self._profile.in_flight, self._profile.retries)
            except BaseException:
                # A signal as well as an error: a thread cannot be ended, so what it does is finished.
                watch(Event("stopping", reason="stopping: units in flight are finished first"))
                pool.finish()
                raise


class _Threads:
    """The one worker of this process, behind threads. See `Pool`."""

    def __init__(self, worker: Worker, threads: ThreadPoolExecutor) -> None:
        self._worker = worker
        self._threads = threads
        self._running: dict[Future[Report], Order] = {}

    def workers(self) -> Sequence[Hashable]:
        return (0,)

    def asked(self) -> int:
        return 0

    def adapt(self, useful: int) -> None:
        """There is this process and no other."""

    def trouble(self) -> str:
        return ""

    def start(self, worker: Hashable, order: Order) -> None:
        self._running[self._threads.submit(self._worker.run, order.unit)] = order

    def wait(self) -> Iterable[Attempt]:
        done, _ = wait(self._running, timeout=1, return_when=FIRST_COMPLETED)
        for future in done:
            order, error = self._running.pop(future), future.exception()
            yield Attempt(0, order, None if error else future.result(), error)

    def finish(self) -> None:
        """Wait for what is under way, a second at a time: a signal that comes just before a wait is seen after it."""
        while wait(self._running, timeout=1).not_done:
            pass

    def end(self, worker: Hashable, reason: str) -> None:
        raise FatalError(reason)
