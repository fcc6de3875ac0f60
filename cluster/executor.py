"""The contract of an executor, and the loop that both executors share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from cluster.queue import UnitQueue
from pipeline.errors import FatalError, RetryableError, ShardError
from pipeline.stages.variant import Job, Unit
from pipeline.stages.worker import Report


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a unit.

    Attributes:
        kind: `started`, `done`, `again` (the attempt failed, another follows) or `lost` (given up).
        unit: the unit.
        report: for `done`.
        reason: for `again` and `lost`, one line.
    """

    kind: Literal["started", "done", "again", "lost"]
    unit: Unit
    report: Report | None = None
    reason: str = ""


Watch = Callable[[Event], None]


class Executor(Protocol):
    """Runs the units of a job until none is left."""

    def run(self, job: Job, queue: UnitQueue, watch: Watch) -> None:
        """Work through the queue.

        Args:
            job: what workers need to know.
            queue: the units; what is lost is noted in it.
            watch: told of each event, in the calling thread.

        Raises:
            FatalError: the job cannot go on; what is committed stays.
        """
        ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """The end of one attempt at a unit: a report, or the error that it ended with."""

    worker: Hashable
    unit: Unit
    report: Report | None
    error: BaseException | None


class Pool(Protocol):
    """Workers that units can be handed to."""

    def workers(self) -> Sequence[Hashable]:
        """Those there are now."""
        ...

    def start(self, worker: Hashable, unit: Unit) -> None:
        """Hand a unit to a worker, without waiting."""
        ...

    def wait(self) -> Iterable[Attempt]:
        """Attempts that ended; waits for the first, for a second at most."""
        ...


def drive(pool: Pool, queue: UnitQueue, watch: Watch, in_flight: int, retries: int) -> None:
    """Hand out units until none is left: at most `in_flight` a worker, `retries` further attempts a unit.

    Raises:
        FatalError: raised by a worker, or every unit left waits for something that nothing makes.
    """
    busy: Counter[Hashable] = Counter()
    attempts: Counter[Unit] = Counter()
    while len(queue):
        _hand_out(pool, queue, watch, busy, in_flight)
        if not busy.total() and pool.workers():
            raise FatalError(f"{len(queue)} units wait for what no unit makes; this is a fault of the program")
        for attempt in pool.wait():
            busy[attempt.worker] -= 1
            unit, error = attempt.unit, attempt.error
            if error is None:
                queue.done(unit)
                watch(Event("done", unit, report=attempt.report))
                continue
            if isinstance(error, FatalError):
                raise error
            attempts[unit] += 1
            reason = _one_line(error)
            if isinstance(error, RetryableError) and attempts[unit] <= retries:
                queue.again(unit)
                watch(Event("again", unit, reason=reason))
            else:
                queue.lose(unit, reason)
                watch(Event("lost", unit, reason=reason))


def _hand_out(pool: Pool, queue: UnitQueue, watch: Watch, busy: Counter[Hashable], in_flight: int) -> None:
    """Give each worker a unit in turn until all have enough or none is ready."""
    for round_number in range(in_flight):
        for worker in pool.workers():
            if busy[worker] > round_number:
                continue
            unit = queue.take(worker)
            if unit is None:
                return
            pool.start(worker, unit)
            busy[worker] += 1
            watch(Event("started", unit))


def _one_line(error: BaseException) -> str:
    """An error in one line; its type is named unless it is one of ours."""
    text = " ".join(str(error).split()) or "no message"
    known = isinstance(error, ShardError | RetryableError)
    return text if known else f"{type(error).__name__}: {text}"
