"""The contracts of an executor and of the workers that it has, and what it tells of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from cluster.attempt import Attempt, Order
from cluster.queue import UnitQueue
from pipeline.stages.variant import Job, Unit
from pipeline.stages.worker import Report

EventKind = Literal[
    "started", "done", "again", "split", "isolated", "lost", "dropped", "elsewhere", "workers", "waiting", "stopping"
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a unit, or to the workers.

    Attributes:
        kind: `started`, `done`, `again` (the attempt failed, another follows), `split` (in two units that are tried
            alone), `isolated` (a sample that brings workers down is to be recorded as failed), `lost` (given up),
            `dropped` (the attempt was in vain: another run has committed the unit), `elsewhere` (another run of the
            output committed it), `workers` (their number changed), `waiting` (for workers, or for another run of the
            output; also why a worker did not come), or `stopping` (units in flight are finished first, or left to the
            next run).
        unit: the unit; None for the last three.
        report: for `done`.
        reason: for all but `started` and `done`, one line.
        worker: who had the unit; None for one that nobody had.
        workers: for `workers`, how many there are, and how many more were asked for.
    """

    kind: EventKind
    unit: Unit | None = None
    report: Report | None = None
    reason: str = ""
    worker: Hashable | None = None
    workers: tuple[int, int] = (0, 0)


Watch = Callable[[Event], None]


def nothing() -> None:
    """Nothing has to be done before the first unit."""


class Executor(Protocol):
    """Runs the units of a job until none is left."""

    def run(self, job: Job, queue: UnitQueue, watch: Watch, begin: Callable[[], None] = nothing) -> None:
        """Work through the queue.

        Args:
            job: what workers need to know.
            queue: the units; what is lost is noted in it.
            watch: told of each event, in the calling thread.
            begin: called once, when there are workers and before the first unit is handed out.

        Raises:
            FatalError: the job cannot go on; what is committed stays.
            RetryableError: nor can it, as things are: its workers or its cluster have gone.
        """
        ...


class Pool(Protocol):
    """Workers that units can be handed to. They may come and go."""

    def workers(self) -> Sequence[Hashable]:
        """Those there are now."""
        ...

    def asked(self) -> int:
        """How many more were asked for and are not there yet."""
        ...

    def adapt(self, useful: int) -> None:
        """Ask for more workers, or give idle ones back, where `useful` is how many would have something to do."""
        ...

    def trouble(self) -> str:
        """Why a worker that was asked for did not come, in one line, once; else empty."""
        ...

    def start(self, worker: Hashable, order: Order) -> None:
        """Hand an order to a worker, without waiting."""
        ...

    def wait(self) -> Iterable[Attempt]:
        """Attempts that ended; waits for the first, for a second at most.

        Raises:
            FatalError, RetryableError: the job cannot go on.
        """
        ...

    def end(self, worker: Hashable, reason: str) -> None:
        """End a worker; its attempts end as `WorkerDiedError` with the reason."""
        ...
