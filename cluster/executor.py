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
        kind: `started`, `done`, `again` (the attempt failed, another follows), `lost` (given up), or `stopping` (units
            in flight are finished first).
        unit: the unit; None for `stopping`.
        report: for `done`.
        reason: for `again` and `lost`, one line.
    """

    kind: Literal["started", "done", "again", "lost", "stopping"]
    unit: Unit | None = None
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

    A unit whose attempt failed is tried again alone on a worker: where one unit brings its worker down, those beside
    it lose an attempt once and not each time.

    Raises:
        FatalError: raised by a worker, or every unit left waits for something that nothing makes.
    """
    desk = _Desk(pool, queue, watch, in_flight)
    attempts: Counter[Unit] = Counter()
    while len(queue):
        desk.hand_out()
        if not desk.busy.total() and pool.workers():
            raise FatalError(f"{len(queue)} units wait for what no unit makes; this is a fault of the program")
        for attempt in pool.wait():
            desk.take_back(attempt.worker, attempt.unit)
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
                desk.suspects.append(unit)
                watch(Event("again", unit, reason=reason))
            else:
                queue.lose(unit, reason)
                watch(Event("lost", unit, reason=reason))


class _Desk:
    """Who has what: units in flight by worker, and workers that get nothing beside the unit that they have."""

    def __init__(self, pool: Pool, queue: UnitQueue, watch: Watch, in_flight: int) -> None:
        self._pool = pool
        self._queue = queue
        self._watch = watch
        self._in_flight = in_flight
        self._alone: dict[Hashable, Unit] = {}
        self.busy: Counter[Hashable] = Counter()
        self.suspects: list[Unit] = []

    def hand_out(self) -> None:
        """Give each worker a unit in turn until all have enough or none is ready."""
        workers = [worker for worker in self._pool.workers() if worker not in self._alone]
        if self.suspects and workers:
            # One worker gets nothing new until it is idle, and then a suspect.
            emptiest = min(workers, key=lambda worker: self.busy[worker])
            workers.remove(emptiest)
            if not self.busy[emptiest]:
                self._alone[emptiest] = self.suspects.pop(0)
                self._start(emptiest, self._alone[emptiest])
        for round_number in range(self._in_flight):
            for worker in workers:
                if self.busy[worker] > round_number or worker in self._alone:
                    continue
                unit = self._queue.take(worker)
                if unit is None:
                    return
                if self._queue.fills_a_worker(unit):
                    self._alone[worker] = unit
                self._start(worker, unit)

    def take_back(self, worker: Hashable, unit: Unit) -> None:
        """A worker has one unit less."""
        self.busy[worker] -= 1
        if self._alone.get(worker) == unit:
            del self._alone[worker]

    def _start(self, worker: Hashable, unit: Unit) -> None:
        self._pool.start(worker, unit)
        self.busy[worker] += 1
        self._watch(Event("started", unit))


def _one_line(error: BaseException) -> str:
    """An error in one line; its type is named unless it is one of ours."""
    text = " ".join(str(error).split()) or "no message"
    known = isinstance(error, ShardError | RetryableError)
    return text if known else f"{type(error).__name__}: {text}"
