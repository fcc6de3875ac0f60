"""The loop that both executors share: hands out units, and sees to those that fail."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from cluster.attempt import Attempt, Order, WorkerDiedError, WorkerGoneError
from cluster.desk import Desk
from cluster.executor import Event, EventKind, Pool, Watch
from cluster.isolation import Isolation, Verdict
from cluster.outage import Outage
from cluster.queue import UnitQueue
from pipeline.credential import without_credentials
from pipeline.errors import FatalError, RetryableError, ShardError
from pipeline.stages.variant import Unit

# A unit that so many nodes left with is treated as if it had brought its workers down: it may bring nodes down.
NODES_LOST = 10
# Where so many units of a variant brought their workers down and none was ever done, no further one is tried.
HOPELESS = 3
_LOOK_SECONDS = 1.0  # between looks at workers that have nothing to do


def drive(
    pool: Pool,
    queue: UnitQueue,
    watch: Watch,
    in_flight: int,
    retries: int,
    hung_after: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Hand out units until none is left.

    A unit whose attempt failed is tried again alone on a worker: where one unit brings its worker down, those beside
    it lose an attempt once and not each time. One that brings it down again and again is cut until the guilty sample
    is found; see `Isolation`. Where one unit after the other fails for a passing reason, such as a store that does not
    answer, no new ones are handed out for a while, and in the end the job stops: at most two of them are given up.
    Units of a worker that left with its node go back to the queue as if never taken.

    Args:
        pool: the workers.
        queue: the units.
        watch: told of each event.
        in_flight: units a worker has at most.
        retries: further attempts at a unit.
        hung_after: seconds after which a worker that finishes nothing is ended, unless it has a training; None: never.
        clock: seconds.

    Raises:
        FatalError: raised by a worker, or every unit left waits for something that nothing makes.
        RetryableError: units fail one after the other for a reason that is none of them.
    """
    desk = Desk(pool, queue, watch, in_flight, clock)
    settlement = _Settlement(queue, desk, watch, retries, Outage(clock))
    while len(queue):
        pool.adapt(desk.useful())
        desk.note_workers()
        if rest := settlement.outage.rest:
            if not desk.busy.total():
                time.sleep(min(rest, _LOOK_SECONDS))
        else:
            desk.hand_out()
            if not desk.busy.total() and pool.workers() and not queue.wait_for_others():
                raise FatalError(f"{len(queue)} units wait for what no unit makes; this is a fault of the program")
        if not pool.workers():
            queue.rest()
        if hung_after is not None:
            desk.end_hung(hung_after)
        for attempt in pool.wait():
            desk.take_back(attempt)
            settlement.settle(attempt)
        for unit in queue.from_elsewhere():
            watch(Event("elsewhere", unit))
        if queue.waits:
            watch(Event("waiting", reason=queue.waits))
            queue.waits = ""


class _Settlement:
    """What follows from the end of an attempt."""

    def __init__(self, queue: UnitQueue, desk: Desk, watch: Watch, retries: int, outage: Outage) -> None:
        self.outage = outage
        self._queue = queue
        self._desk = desk
        self._watch = watch
        self._retries = retries
        self._isolation = Isolation(queue, retries)
        desk.unreadable = self._isolation.unreadable
        self._failed: Counter[Unit] = Counter()
        self._left: Counter[Unit] = Counter()
        self._deadly: Counter[str] = Counter()
        self._hopeless: set[str] = set()

    def settle(self, attempt: Attempt) -> None:
        """Note an attempt's end, and see to what is to be done about it."""
        order, error = attempt.order, attempt.error
        unit = order.unit
        if not isinstance(error, FatalError) and not self._queue.is_left(unit):
            self._tell("dropped", replace(attempt, report=None), "another run has committed it meanwhile")
        elif error is None and order.task == "look":
            self._carry_out(attempt, self._isolation.after_look(unit))
        elif error is None:
            self.outage.note_success()
            self._queue.done(unit)
            self._tell("done", attempt)
        elif isinstance(error, FatalError):
            raise error
        elif isinstance(error, WorkerGoneError) and self._left[unit] < NODES_LOST:
            self._left[unit] += 1
            self._again(order)
            self._tell("again", attempt, str(error))
        elif unit.variant in self._hopeless:
            self._lose(attempt, _one_line(error))
        elif isinstance(error, WorkerDiedError | WorkerGoneError):
            died = error if isinstance(error, WorkerDiedError) else WorkerDiedError(str(error))
            self._carry_out(attempt, self._isolation.after_death(order, died))
        elif isinstance(error, RetryableError):
            self._after_passing_failure(attempt, error)
        else:
            self._lose(attempt, _one_line(error))

    def _after_passing_failure(self, attempt: Attempt, error: RetryableError) -> None:
        unit = attempt.order.unit
        self.outage.note_failure(unit)
        tired = self._failed[unit] >= self._retries
        if self.outage.is_general and (tired or self.outage.lasts_long):
            raise RetryableError(f"one unit after the other fails: {_one_line(error)}") from error
        if tired:
            self._lose(attempt, _one_line(error))
            return
        self._failed[unit] += 1
        self._desk.suspects.append(attempt.order)
        self._tell("again", attempt, _one_line(error))

    def _carry_out(self, attempt: Attempt, verdict: Verdict) -> None:
        for order in verdict.orders:
            # A sample that is given up gets the columns of those that were done, so one of them has to be first.
            later = order.task == "give_up" and not self._queue.has_begun(order.unit.variant)
            (self._desk.last if later else self._desk.suspects).append(order)
        if verdict.kind != "lost":
            self._tell(verdict.kind, attempt, verdict.reason)
            return
        self._lose(attempt, verdict.reason)
        path = attempt.order.unit.variant
        self._deadly[path] += 1
        if self._deadly[path] >= HOPELESS and not self._queue.has_begun(path):
            self._hopeless.add(path)
            reason = "not tried: every unit before it brought its workers down"
            for unit in self._queue.lose_rest(path, reason, self._desk.in_hand()):
                self._watch(Event("lost", unit, reason=reason))

    def _again(self, order: Order) -> None:
        if order.task == "compute":
            self._queue.put_back(order.unit)
        else:
            self._desk.suspects.insert(0, order)

    def _lose(self, attempt: Attempt, reason: str) -> None:
        self._queue.lose(attempt.order.unit, reason)
        self._tell("lost", attempt, reason)

    def _tell(self, kind: EventKind, attempt: Attempt, reason: str = "") -> None:
        self._watch(Event(kind, attempt.order.unit, attempt.report, reason, attempt.worker))


def _one_line(error: BaseException) -> str:
    """An error in one line; its type is named unless it is one of ours."""
    text = without_credentials(" ".join(str(error).split())) or "no message"
    known = isinstance(error, ShardError | RetryableError)
    return text if known else f"{type(error).__name__}: {text}"
