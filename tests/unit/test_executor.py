"""The loop that hands out units: bounded, fair, and patient with the right ones."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import pytest

from cluster.executor import Attempt, Event, drive
from cluster.queue import UnitQueue
from pipeline.commit import Receipt
from pipeline.contracts import Cost
from pipeline.errors import FatalError, RetryableError, ShardError
from pipeline.stages.variant import Read, Unit, Variant
from pipeline.stages.worker import Report

POISON = Unit("p", 2, 3)


def variants() -> dict[str, Variant]:
    predict = Variant("p", "predict", "p", 8, 1, Cost(1, 0), (), "m")
    attribute = Variant("a", "attribute", "a", 8, 1, Cost(1, 1), (Read("p"),), "m")
    return {"p": predict, "a": attribute}


class FakePool:
    """Two workers that answer one unit a wait; a poisonous one brings down all that its worker has."""

    def __init__(self, errors: dict[Unit, Exception] | None = None, poison: Unit | None = None) -> None:
        self.errors = errors or {}
        self.poison = poison
        self.flying: dict[Hashable, list[Unit]] = {0: [], 1: []}
        self.most = 0
        self.started: list[Unit] = []

    def workers(self) -> Sequence[Hashable]:
        return (0, 1)

    def start(self, worker: Hashable, unit: Unit) -> None:
        self.flying[worker].append(unit)
        self.started.append(unit)
        self.most = max(self.most, len(self.flying[worker]))

    def wait(self) -> Iterable[Attempt]:
        for worker, units in self.flying.items():
            if self.poison in units:
                self.flying[worker] = []
                return [Attempt(worker, unit, None, RetryableError("the worker died")) for unit in units]
        worker = next(worker for worker, units in self.flying.items() if units)
        unit = self.flying[worker].pop(0)
        if unit in self.errors:
            return [Attempt(worker, unit, None, self.errors[unit])]
        receipt = Receipt(unit.start, unit.stop, 1, 0, 0, 0.0)
        return [Attempt(worker, unit, Report(unit, receipt, 0.0, 0.0, 0.0), None)]


def test_every_unit_is_done_once_and_no_worker_has_too_many() -> None:
    pool, events = FakePool(), list[Event]()
    drive(pool, UnitQueue(variants(), {}), events.append, in_flight=3, retries=2)
    assert sorted(pool.started) == sorted(set(pool.started)) and len(pool.started) == 16
    assert pool.most <= 3
    assert [event.kind for event in events].count("done") == 16


def test_a_poisonous_unit_is_given_up_alone() -> None:
    pool, queue = FakePool(poison=POISON), UnitQueue(variants(), {})
    drive(pool, queue, lambda event: None, in_flight=3, retries=3)
    assert set(queue.lost) == {POISON} and queue.stranded == {Unit("a", 2, 3)}
    assert pool.started.count(POISON) == 4
    # Its first neighbours lose one attempt; after that it travels alone.
    assert max(pool.started.count(unit) for unit in set(pool.started) - {POISON}) <= 2


def test_a_unit_that_cannot_be_done_is_not_tried_again() -> None:
    pool, queue = FakePool({Unit("p", 0, 1): ShardError("no")}), UnitQueue(variants(), {})
    drive(pool, queue, lambda event: None, in_flight=1, retries=5)
    assert pool.started.count(Unit("p", 0, 1)) == 1 and queue.lost == {Unit("p", 0, 1): "no"}


def test_a_fault_of_the_program_is_named_by_its_type() -> None:
    queue = UnitQueue(variants(), {})
    drive(FakePool({Unit("p", 0, 1): KeyError("x")}), queue, lambda event: None, in_flight=1, retries=0)
    assert queue.lost[Unit("p", 0, 1)] == "KeyError: 'x'"


def test_a_fatal_error_ends_the_job() -> None:
    with pytest.raises(FatalError, match="disk"):
        drive(
            FakePool({Unit("p", 0, 1): FatalError("disk")}), UnitQueue(variants(), {}), lambda event: None, 1, retries=5
        )
