"""Who has what: units in flight by worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace

from cluster.attempt import Attempt, Order
from cluster.executor import Event, Pool, Watch
from cluster.queue import UnitQueue
from pipeline.stages.variant import Split, Unit


class Desk:
    """Who has what: units in flight by worker, and workers that get nothing beside the unit that they have.

    Attributes:
        busy: number of units in flight by worker.
        suspects: orders for workers that have nothing else.
        last: the same, for when nothing else is left to do.
        unreadable: what every order says of images that no worker must decode.
    """

    def __init__(self, pool: Pool, queue: UnitQueue, watch: Watch, in_flight: int, clock: Callable[[], float]) -> None:
        self._pool = pool
        self._queue = queue
        self._watch = watch
        self._in_flight = in_flight
        self._clock = clock
        self._alone: dict[Hashable, Unit] = {}
        self._since: dict[Hashable, float] = {}
        self._there: set[Hashable] = set()
        self._told = (-1, -1)
        self._flying: set[Unit] = set()
        self.busy: Counter[Hashable] = Counter()
        self.suspects: list[Order] = []
        self.last: list[Order] = []
        self.unreadable: Mapping[Split, frozenset[int]] = {}

    def useful(self) -> int:
        """How many workers would have something to do."""
        return self.busy.total() + self._queue.ready + len(self.suspects) + len(self.last)

    def in_hand(self) -> set[Unit]:
        """Units that a worker has, and those of orders that wait for one."""
        return {*self._flying, *(order.unit for order in (*self.suspects, *self.last))}

    def note_workers(self) -> None:
        """See who came and who went, and tell of a change in their number."""
        if trouble := self._pool.trouble():
            self._watch(Event("waiting", reason=trouble))
        there, asked = set(self._pool.workers()), self._pool.asked()
        for worker in self._there - there:
            self._queue.leave(worker)
        self._there = there
        if (len(there), asked) != self._told:
            self._told = (len(there), asked)
            more = f", {asked} more asked for" if asked else ""
            reason = f"{len(there)} worker{'s' if len(there) != 1 else ''}{more}"
            self._watch(Event("workers", reason=reason, workers=self._told))

    def hand_out(self) -> None:
        """Give each worker a unit in turn until all have enough or none is ready."""
        self._hand_round()
        if self.last and not self.busy.total():
            self.suspects, self.last = self.last, []
            self._hand_round()

    def _hand_round(self) -> None:
        workers = [worker for worker in self._pool.workers() if worker not in self._alone]
        # Another run may have committed some meanwhile.
        self.suspects = [order for order in self.suspects if self._queue.is_left(order.unit)]
        if self.suspects and workers:
            # One worker gets nothing new until it is idle, and then a suspect.
            emptiest = min(workers, key=lambda worker: self.busy[worker])
            workers.remove(emptiest)
            if not self.busy[emptiest]:
                order = self.suspects.pop(0)
                self._alone[emptiest] = order.unit
                self._start(emptiest, order)
        for round_number in range(self._in_flight):
            for worker in workers:
                if self.busy[worker] > round_number or worker in self._alone:
                    continue
                unit = self._queue.take(worker)
                if unit is None:
                    return
                if self._queue.fills_a_worker(unit):
                    self._alone[worker] = unit
                self._start(worker, Order(unit))

    def take_back(self, attempt: Attempt) -> None:
        """A worker has one unit less."""
        worker, unit = attempt.worker, attempt.order.unit
        self.busy[worker] -= 1
        self._flying.discard(unit)
        self._since[worker] = self._clock()
        if self._alone.get(worker) == unit:
            del self._alone[worker]

    def end_hung(self, limit: float) -> None:
        """End workers that have had units for longer than the limit and finished none."""
        for worker in [worker for worker, units in self.busy.items() if units]:
            alone = self._alone.get(worker)
            training = alone is not None and self._queue.fills_a_worker(alone)
            if not training and self._clock() - self._since[worker] > limit:
                self._since[worker] = self._clock()
                self._pool.end(worker, f"its worker finished nothing for {limit:g} s and was replaced")

    def _start(self, worker: Hashable, order: Order) -> None:
        if not self.busy[worker]:
            self._since[worker] = self._clock()
        self._pool.start(worker, replace(order, unreadable=self.unreadable))
        self.busy[worker] += 1
        self._flying.add(order.unit)
        self._watch(Event("started", order.unit, worker=worker))
