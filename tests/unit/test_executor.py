"""The loop that hands out units: bounded, fair, and patient with the right ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from fake_pool import POISON, FakePool, alone, variants

from cluster.attempt import Attempt, Order, WorkerDiedError, WorkerGoneError
from cluster.drive import NODES_LOST, drive
from cluster.executor import Event
from cluster.isolation import LAST_TRIES
from cluster.queue import UnitQueue
from pipeline.contracts import Cost
from pipeline.errors import FatalError, RetryableError, ShardError
from pipeline.stages.unreadable import UNREADABLE
from pipeline.stages.variant import StageName, Unit, Variant


def touching(*positions: int, variant: str = "p") -> Callable[[Order], bool]:
    """Kills whatever computes one of the positions."""

    def kills(order: Order) -> bool:
        unit = order.unit
        inside = any(unit.start <= position < unit.stop for position in positions)
        return inside and unit.variant == variant and order.task in ("compute", "alone")

    return kills


def test_every_unit_is_done_once_and_no_worker_has_too_many() -> None:
    pool, events = FakePool(), list[Event]()
    drive(pool, UnitQueue(variants(), {}), events.append, in_flight=3, retries=2)
    assert sorted(pool.units()) == sorted(set(pool.units())) and len(pool.started) == 16
    assert pool.most <= 3
    assert [event.kind for event in events].count("done") == 16


def test_neighbours_of_a_deadly_unit_lose_one_attempt() -> None:
    pool, queue = FakePool(touching(2)), UnitQueue(variants(), {})
    drive(pool, queue, lambda event: None, in_flight=3, retries=3)
    assert pool.units().count(POISON) == 4 + 2  # tries, a look at its image, and its failure
    assert max(pool.units().count(unit) for unit in set(pool.units()) - {POISON}) <= 2


@pytest.mark.parametrize("guilty", [(5,), (0,), (63,), (17, 40)])
def test_a_deadly_sample_is_found_recorded_and_all_others_are_done(guilty: tuple[int, ...]) -> None:
    pool, queue, events = FakePool(touching(*guilty)), UnitQueue(variants(64, 64), {}), list[Event]()
    drive(pool, queue, events.append, in_flight=3, retries=3)
    assert {unit.start for unit in pool.given_up} == set(guilty) and all(len(unit) == 1 for unit in pool.given_up)
    assert pool.covered("p") == pool.covered("a") == list(range(64))
    assert not queue.lost and not queue.stranded
    assert all("brought its worker down" in reason for reason in pool.given_up.values())
    halvings = int(math.log2(64))
    assert pool.deaths <= 4 + len(guilty) * (halvings - 1 + LAST_TRIES)
    assert [event.kind for event in events].count("split") <= len(guilty) * halvings


def test_a_sample_alone_in_its_unit_is_recorded_once_others_of_its_kind_are_done() -> None:
    pool, queue = FakePool(touching(0)), UnitQueue(variants(), {})
    drive(pool, queue, lambda event: None, in_flight=1, retries=0)
    order = [(one.unit.start, one.task) for one in pool.started if one.unit.variant == "p"]
    assert order.index((0, "give_up")) > order.index((1, "compute"))
    assert not queue.lost


def test_an_image_that_ends_the_process_is_decoded_by_nobody_any_more() -> None:
    def decoded(order: Order) -> range:
        if order.task == "compute":  # in blocks of 16
            return range(order.unit.start // 16 * 16, -(-order.unit.stop // 16) * 16)
        return range(order.unit.start, order.unit.stop) if order.task != "give_up" else range(0)

    def kills(order: Order) -> bool:
        return 9 in decoded(order) and 9 not in order.unreadable.get("explained", ())

    pool, queue = FakePool(kills), UnitQueue(variants(32, 4), {})
    drive(pool, queue, lambda event: None, in_flight=2, retries=1)
    assert pool.given_up == {Unit("p", 9, 10): UNREADABLE}
    assert pool.covered("p") == pool.covered("a") == list(range(32))
    assert not queue.lost
    assert pool.deaths <= 4 + 1 + 2 + LAST_TRIES  # the block's units, the guilty one alone, its halves, the sample


def test_an_image_that_ends_the_process_is_named_as_such_by_every_stage_that_came_upon_it() -> None:
    stages: tuple[StageName, ...] = ("predict", "segment")
    both = {path: Variant(path, path, path, 16, 16, Cost(1, 0), (), "m") for path in stages}

    def kills(order: Order) -> bool:
        decoded = order.unit.start <= 9 < order.unit.stop and order.task != "give_up"
        return decoded and 9 not in order.unreadable.get("explained", ())

    pool = FakePool(kills)
    drive(pool, UnitQueue(both, {}), lambda event: None, in_flight=2, retries=1)
    assert set(pool.given_up) | {unit for unit in pool.done if len(unit) == 1 and unit.start == 9} == {
        Unit(path, 9, 10) for path in stages
    }
    assert set(pool.given_up.values()) == {UNREADABLE}


def test_where_every_sample_is_deadly_a_bounded_number_of_workers_dies() -> None:
    pool, queue = FakePool(touching(*range(256))), UnitQueue(variants(256, 16), {})
    drive(pool, queue, lambda event: None, in_flight=1, retries=3)
    lost = {position for unit in queue.lost for position in range(unit.start, unit.stop) if unit.variant == "p"}
    assert lost | set(pool.covered("p")) == set(range(256))
    assert pool.deaths <= 4 * (4 + 3 * (5 + LAST_TRIES) + 1)


def test_a_training_that_brings_workers_down_is_given_up_whole() -> None:
    pool, queue = FakePool(touching(0)), alone("train", 1, 1)
    drive(pool, queue, lambda event: None, in_flight=3, retries=2)
    assert list(queue.lost) == [Unit("p", 0, 1)] and "died 3 times" in queue.lost[Unit("p", 0, 1)]
    assert pool.deaths == 3 and not pool.given_up


def test_a_sample_that_memory_did_not_suffice_for_is_lost_and_not_recorded_as_failed() -> None:
    pool = FakePool(touching(3), death=lambda: WorkerDiedError("memory", out_of_memory=True))
    queue = alone("predict", 8, 8)
    drive(pool, queue, lambda event: None, in_flight=1, retries=1)
    assert list(queue.lost) == [Unit("p", 3, 4)] and "memory" in queue.lost[Unit("p", 3, 4)]
    assert pool.covered("p") == [0, 1, 2, 4, 5, 6, 7]


def test_a_node_that_leaves_costs_a_unit_no_attempt() -> None:
    left = Counter[Unit]()

    def leaves(order: Order) -> bool:
        left[order.unit] += 1
        return left[order.unit] <= 5

    pool, queue, events = FakePool(leaves, death=lambda: WorkerGoneError("left")), alone("predict", 4, 2), list[Event]()
    drive(pool, queue, events.append, in_flight=2, retries=0)
    assert not queue.lost and sorted(pool.done) == [Unit("p", 0, 2), Unit("p", 2, 4)]
    assert all(order.task == "compute" for order in pool.started)
    assert [event.kind for event in events].count("done") == 2


def test_a_sample_with_which_every_node_leaves_is_found_too() -> None:
    pool, queue = FakePool(touching(1), death=lambda: WorkerGoneError("left")), alone("predict", 4, 4)
    drive(pool, queue, lambda event: None, in_flight=1, retries=0)
    assert list(pool.given_up) == [Unit("p", 1, 2)] and not queue.lost
    assert pool.deaths <= 4 * (NODES_LOST + LAST_TRIES)


def test_a_worker_that_finishes_nothing_is_ended_unless_it_trains() -> None:
    seconds = iter(range(0, 10_000, 10))

    class Hanging(FakePool):
        def wait(self) -> Iterable[Attempt]:
            if not self.ended:
                return []
            return super().wait()

    pool = Hanging()
    drive(pool, alone("predict", 4, 2), lambda event: None, 1, 0, hung_after=100.0, clock=lambda: next(seconds))
    assert {worker for worker, _ in pool.ended} == {0, 1} and "100 s" in pool.ended[0][1]

    patient = FakePool()
    drive(patient, alone("train", 1, 1), lambda event: None, 1, 0, hung_after=5.0, clock=lambda: next(seconds))
    assert not patient.ended


def test_a_worker_that_comes_late_gets_work_and_one_that_went_leaves_its_place() -> None:
    class Growing(FakePool):
        def adapt(self, useful: int) -> None:
            if len(self.started) >= 2:
                self.flying.setdefault(2, [])
            if len(self.started) >= 6:
                self.flying = {worker: orders for worker, orders in self.flying.items() if worker or orders}

    pool, events = Growing(), list[Event]()
    drive(pool, UnitQueue(variants(), {}), events.append, in_flight=1, retries=0)
    assert pool.covered("p") == pool.covered("a") == list(range(8))
    by = {event.worker for event in events if event.kind == "done"}
    assert by == {0, 1, 2}
    assert [event.reason for event in events if event.kind == "workers"] == ["2 workers", "3 workers", "2 workers"]


def test_a_unit_that_cannot_be_done_is_not_tried_again() -> None:
    pool, queue = FakePool(errors={Unit("p", 0, 1): ShardError("no")}), UnitQueue(variants(), {})
    drive(pool, queue, lambda event: None, in_flight=1, retries=5)
    assert pool.units().count(Unit("p", 0, 1)) == 1 and queue.lost == {Unit("p", 0, 1): "no"}


def test_a_storage_that_fails_is_tried_again_and_then_the_unit_is_lost() -> None:
    pool, queue = FakePool(errors={Unit("p", 0, 1): RetryableError("no answer")}), UnitQueue(variants(), {})
    drive(pool, queue, lambda event: None, in_flight=1, retries=2)
    assert pool.units().count(Unit("p", 0, 1)) == 3 and queue.lost == {Unit("p", 0, 1): "no answer"}


def test_a_fault_of_the_program_is_named_by_its_type() -> None:
    queue = UnitQueue(variants(), {})
    pool = FakePool(errors={Unit("p", 0, 1): KeyError("x")})
    drive(pool, queue, lambda event: None, in_flight=1, retries=0)
    assert queue.lost[Unit("p", 0, 1)] == "KeyError: 'x'"


def test_an_attempt_that_fails_at_what_another_run_has_committed_meanwhile_is_dropped() -> None:
    queue, events = UnitQueue(variants(), {}), list[Event]()
    pool = FakePool(errors={POISON: RetryableError("gone")}, kills=touching(5))

    def watch(event: Event) -> None:
        events.append(event)
        if event.kind == "started" and event.unit in (POISON, Unit("p", 5, 6)) and queue.is_left(event.unit):
            queue.done(event.unit)

    drive(pool, queue, watch, in_flight=1, retries=3)
    assert [event.unit for event in events if event.kind == "dropped"] == [POISON, Unit("p", 5, 6)]
    assert pool.units().count(POISON) == pool.units().count(Unit("p", 5, 6)) == 1 and not queue.lost
    assert pool.covered("a") == list(range(8))


def test_a_suspect_that_another_run_has_committed_is_not_tried_again() -> None:
    queue, pool = UnitQueue(variants(), {}), FakePool(errors={POISON: RetryableError("the store does not answer")})

    def watch(event: Event) -> None:
        if event.kind == "again":
            queue.done(POISON)

    drive(pool, queue, watch, in_flight=1, retries=3)
    assert pool.units().count(POISON) == 1 and pool.covered("a") == list(range(8))


def test_why_a_worker_did_not_come_is_told_once() -> None:
    pool, events = FakePool(), list[Event]()
    pool.why = "a worker did not start: no module"
    drive(pool, UnitQueue(variants(), {}), events.append, in_flight=1, retries=0)
    assert [event.reason for event in events if event.kind == "waiting"] == ["a worker did not start: no module"]


def test_a_fatal_error_ends_the_job() -> None:
    pool = FakePool(errors={Unit("p", 0, 1): FatalError("disk")})
    with pytest.raises(FatalError, match="disk"):
        drive(pool, UnitQueue(variants(), {}), lambda event: None, 1, retries=5)
