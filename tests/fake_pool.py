"""Workers in the test's hand, for the loop that hands out units."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

from cluster.attempt import Attempt, Order, WorkerDiedError
from cluster.queue import UnitQueue
from pipeline.contracts import Cost
from pipeline.errors import RetryableError
from pipeline.part import Receipt
from pipeline.stages.variant import Read, StageName, Unit, Variant
from pipeline.stages.worker import Report

POISON = Unit("p", 2, 3)


def variants(total: int = 8, size: int = 1) -> dict[str, Variant]:
    predict = Variant("p", "predict", "p", total, size, Cost(1, 0), (), "m")
    attribute = Variant("a", "attribute", "a", total, size, Cost(1, 1), (Read("p"),), "m")
    return {"p": predict, "a": attribute}


def alone(stage: StageName, total: int, size: int) -> UnitQueue:
    """A queue of one variant."""
    return UnitQueue({"p": Variant("p", stage, "p", total, size, Cost(1, 0), (), "m")}, {})


class FakePool:
    """Two workers that answer one order a wait; a deadly one brings down all that its worker has.

    Attributes:
        kills: whether an order brings its worker down.
        errors: what units end with instead.
        death: the error of a worker's end.
        deaths: workers that died.
        done: ranges that were committed, and those that were given up with the reason.
    """

    def __init__(
        self,
        kills: Callable[[Order], bool] = lambda order: False,
        errors: dict[Unit, Exception] | None = None,
        death: Callable[[], RetryableError] = lambda: WorkerDiedError("crashed"),
    ) -> None:
        self.kills, self.errors, self.death = kills, errors or {}, death
        self.flying: dict[Hashable, list[Order]] = {0: [], 1: []}
        self.most, self.deaths = 0, 0
        self.started: list[Order] = []
        self.done: list[Unit] = []
        self.given_up: dict[Unit, str] = {}
        self.ended: list[tuple[Hashable, str]] = []
        self.why = ""

    def workers(self) -> Sequence[Hashable]:
        return tuple(self.flying)

    def asked(self) -> int:
        return 0

    def adapt(self, useful: int) -> None:
        assert useful > 0

    def trouble(self) -> str:
        told, self.why = self.why, ""
        return told

    def start(self, worker: Hashable, order: Order) -> None:
        self.flying[worker].append(order)
        self.started.append(order)
        self.most = max(self.most, len(self.flying[worker]))

    def wait(self) -> Iterable[Attempt]:
        for worker, orders in self.flying.items():
            if any(map(self.kills, orders)):
                self.flying[worker] = []
                self.deaths += 1
                return [Attempt(worker, order, None, self.death()) for order in orders]
        worker = next((worker for worker, orders in self.flying.items() if orders), None)
        if worker is None:
            return []
        order = self.flying[worker].pop(0)
        if order.unit in self.errors:
            return [Attempt(worker, order, None, self.errors[order.unit])]
        return [Attempt(worker, order, self.report(order), None)]

    def report(self, order: Order) -> Report | None:
        unit = order.unit
        if order.task == "look":
            return None
        if order.task == "give_up":
            self.given_up[unit] = order.reason
        else:
            self.done.append(unit)
        failures = len(unit) if order.task == "give_up" else 0
        return Report(unit, Receipt(unit.start, unit.stop, len(unit) - failures, failures, 0, 0.0), 0.0, 0.0, 0.0)

    def end(self, worker: Hashable, reason: str) -> None:
        self.ended.append((worker, reason))

    def units(self) -> list[Unit]:
        return [order.unit for order in self.started]

    def covered(self, variant: str) -> list[int]:
        """Positions of a variant that were committed, as often as they were."""
        every = [*self.done, *self.given_up]
        return sorted(
            position for unit in every if unit.variant == variant for position in range(unit.start, unit.stop)
        )
