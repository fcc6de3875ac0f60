"""A store that does not answer costs time, and in the end the job stops; no unit is to blame."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace

import pytest
from fake_pool import POISON, FakePool, variants

from cluster.attempt import Attempt
from cluster.drive import drive
from cluster.outage import FIRST_REST, LONGEST, LONGEST_REST, Outage
from cluster.queue import UnitQueue
from pipeline.errors import RetryableError
from pipeline.stages.variant import Unit


class Failing(FakePool):
    """Storage fails a number of times, whatever the unit."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def wait(self) -> Iterable[Attempt]:
        if not self.times or not any(self.flying.values()):
            return super().wait()
        self.times -= 1
        worker = next(worker for worker, orders in self.flying.items() if orders)
        return [Attempt(worker, self.flying[worker].pop(0), None, RetryableError("no answer"))]


class Clock:
    """Time that passes while somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("cluster.drive.time", SimpleNamespace(sleep=self.sleep))

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize(("times", "seconds"), [(1, 0.0), (5, 0.25), (7, 0.75)])
def test_a_store_that_does_not_answer_for_a_while_costs_time_and_no_unit(
    times: int, seconds: float, clock: Clock
) -> None:
    pool, queue = Failing(times), UnitQueue(variants(), {})
    drive(pool, queue, lambda event: None, in_flight=2, retries=3, clock=clock)
    assert pool.covered("p") == pool.covered("a") == list(range(8)) and not queue.lost
    assert clock.now == seconds


@pytest.mark.parametrize("retries", [0, 3, 1000])
def test_a_store_that_never_answers_stops_the_job_and_costs_two_units_at_most(retries: int, clock: Clock) -> None:
    pool, queue = Failing(10**6), UnitQueue(variants(1000), {})
    with pytest.raises(RetryableError, match="one unit after the other fails: no answer"):
        drive(pool, queue, lambda event: None, in_flight=2, retries=retries, clock=clock)
    assert len(queue.lost) <= 2, "of which nobody could tell yet that it was not theirs"
    assert clock.now < LONGEST + 2 * LONGEST_REST and (not retries or clock.now > LONGEST_REST)


def test_a_unit_that_alone_fails_each_time_is_given_up(clock: Clock) -> None:
    pool, queue = FakePool(errors={POISON: RetryableError("no answer")}), UnitQueue(variants(), {})
    drive(pool, queue, lambda event: None, in_flight=2, retries=3, clock=clock)
    assert queue.lost == {POISON: "no answer"} and queue.stranded == {Unit("a", 2, 3)}


def test_failures_that_are_far_apart_are_no_outage() -> None:
    """Eight trainings of hours run side by side; that three fail once each, long apart, is no reason to stop."""
    now = 0.0
    outage = Outage(lambda: now)
    for number in range(4):
        outage.note_failure(Unit("p", number, number + 1))
        assert not outage.lasts_long
        now += 20 * 60
    assert outage.is_general


def test_rests_grow_as_long_as_nothing_is_done() -> None:
    now = 0.0
    outage = Outage(lambda: now)
    grown = []
    for number in range(9):
        outage.note_failure(Unit("p", number % 2, number % 2 + 1))
        grown.append(outage.rest)
        now += outage.rest
    assert grown == [FIRST_REST * 2**number for number in range(7)] + [LONGEST_REST] * 2
    assert not outage.is_general, "two units are not many"
    outage.note_failure(Unit("p", 2, 3))
    assert outage.is_general
    outage.note_success()
    assert outage.rest == 0 and not outage.is_general
