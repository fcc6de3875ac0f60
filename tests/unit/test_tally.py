"""Counts, speed and time left of a run, from its events."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from small_plan import ATTRIBUTE, PREDICT, done, small_plan, started

from cluster.executor import Event
from jobs.status import StageProgress
from jobs.tally import RECENT, Tally
from pipeline.part import Part
from pipeline.stages.variant import Unit


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    yield Clock()


def stages(tally: Tally) -> dict[str, StageProgress]:
    return {one.stage: one for one in tally.stages()}


def test_what_was_committed_before_is_told_apart_from_what_the_run_did(clock: Clock) -> None:
    tally = Tally(small_plan({PREDICT: [Part(0, 4, "0" * 16)]}), clock)
    tally.take(started(PREDICT, 4))
    clock.now += 4
    tally.take(done(PREDICT, 4, failures=1))
    found = stages(tally)
    # One part of four samples was there; the other four are two units.
    assert found["predict"] == StageProgress("predict", 3, 1, 1, 0, 2, 1, 0, samples_per_second=0.5)
    assert found["attribute"] == StageProgress("attribute", 4)


def test_stages_come_in_the_order_of_the_pipeline(clock: Clock) -> None:
    assert [one.stage for one in Tally(small_plan(), clock).stages()] == ["predict", "attribute"]


def test_attempts_that_fail_and_units_given_up_are_counted(clock: Clock) -> None:
    tally = Tally(small_plan(), clock)
    for event in (
        Event("again", Unit(PREDICT, 0, 2), reason="died", worker=0),
        Event("lost", Unit(PREDICT, 0, 2), reason="died", worker=0),
    ):
        tally.take(event)
    assert (stages(tally)["predict"].again, stages(tally)["predict"].lost) == (1, 1)


def test_a_unit_that_is_cut_in_two_is_one_more(clock: Clock) -> None:
    tally = Tally(small_plan(), clock)
    tally.take(Event("split", Unit(PREDICT, 0, 2), reason="died", worker=0))
    assert stages(tally)["predict"].units == 5


def test_speed_is_that_of_the_last_minute(clock: Clock) -> None:
    tally = Tally(small_plan(), clock)
    tally.take(started(PREDICT, 0))
    tally.take(done(PREDICT, 0))
    clock.now += RECENT + 1
    tally.take(done(PREDICT, 2))
    assert stages(tally)["predict"].samples_per_second == pytest.approx(2 / RECENT, abs=1e-3)
    clock.now += RECENT + 1
    assert stages(tally)["predict"].samples_per_second is None


def test_time_left_goes_by_passes_and_not_by_units(clock: Clock) -> None:
    tally = Tally(small_plan(), clock)
    tally.take(started(PREDICT, 0))
    assert tally.left_seconds() is None
    for start in (0, 2, 4, 6):
        clock.now += 1
        tally.take(done(PREDICT, start))
    # A prediction weighs 1.1, a map 9.1: of 81.6 passes 8.8 took four seconds.
    assert tally.left_seconds() == pytest.approx(4 * 8 * 9.1 / (8 * 1.1), abs=0.06)


def test_no_time_is_left_at_the_end(clock: Clock) -> None:
    tally = Tally(small_plan(), clock)
    tally.take(started(PREDICT, 0))
    clock.now += 1
    for path in (PREDICT, ATTRIBUTE):
        for start in (0, 2, 4, 6):
            tally.take(done(path, start))
    assert tally.left_seconds() == 0.0


def test_a_run_with_nothing_to_do_has_no_time_left(clock: Clock) -> None:
    whole = [Part(0, 8, "0" * 16)]
    assert Tally(small_plan({PREDICT: whole, ATTRIBUTE: whole}), clock).left_seconds() == 0.0


def test_what_another_run_committed_is_neither_done_here_nor_left(clock: Clock) -> None:
    tally = Tally(small_plan(), clock)
    for path in (PREDICT, ATTRIBUTE):
        for start in (0, 2, 4, 6):
            tally.take(Event("elsewhere", Unit(path, start, start + 2)))
    assert [(one.reused, one.done, one.samples) for one in tally.stages()] == [(4, 0, 0), (4, 0, 0)]
    assert tally.left_seconds() == 0.0


def test_what_happens_to_workers_is_no_unit(clock: Clock) -> None:
    tally = Tally(small_plan(), clock)
    tally.take(Event("workers", reason="2 workers", workers=(2, 0)))
    assert [one.done for one in tally.stages()] == [0, 0]
