"""Units become ready shard by shard, and nothing is handed out twice."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.queue import UnitQueue
from cluster.unit_table import UnitTable
from pipeline.contracts import Cost
from pipeline.noise import Noise
from pipeline.part import Part
from pipeline.ranges import Ranges, gaps
from pipeline.stages.variant import Read, StageName, Unit, Variant


def variant(
    path: str, stage: StageName, reads: tuple[Read, ...] = (), size: int = 4, total: int = 8, model: str = "m"
) -> Variant:
    return Variant(path, stage, path, total, size, Cost(1, 1), reads, model)


def chain(**sizes: int) -> dict[str, Variant]:
    predict = variant("p", "predict", size=sizes.get("p", 4))
    attribute = variant("a", "attribute", (Read("p"),), size=sizes.get("a", 4))
    evaluate = variant("e", "evaluate", (Read("a"),), size=sizes.get("e", 4))
    return {one.path: one for one in (predict, attribute, evaluate)}


def test_gaps_are_what_no_part_covers() -> None:
    left = gaps([Part(2, 4, "x"), Part(6, 7, "y")], 10)
    assert (left.starts.tolist(), left.stops.tolist(), len(left)) == ([0, 4, 7], [2, 6, 10], 7)
    assert len(gaps([Part(0, 12, "x")], 10)) == len(gaps([], 0)) == 0


def test_units_are_cut_at_multiples_of_the_unit_size() -> None:
    table = UnitTable(variant("v", "predict", size=4, total=10), gaps([Part(0, 2, "x"), Part(5, 6, "y")], 10))
    found = table.units(range(len(table)))
    assert [(one.start, one.stop) for one in found] == [(2, 4), (4, 5), (6, 8), (8, 10)]


@pytest.mark.parametrize("key", ["0", "1", "2", "3"])
def test_ranges_count_the_positions_that_they_hold(key: str) -> None:
    draw = Noise(0).generator("ranges", key)
    held = draw.random(60) < draw.random()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], held, [False]]).astype(int)))
    ranges = Ranges(edges[::2], edges[1::2])
    starts, stops = np.sort(draw.integers(0, 61, (2, 200)), axis=0)
    expected = [held[start:stop].sum() for start, stop in zip(starts, stops, strict=True)]
    assert ranges.inside(starts, stops).tolist() == expected and len(ranges) == held.sum()


def test_halves_stand_in_the_place_of_a_unit_and_what_waited_for_it_waits_for_both() -> None:
    queue = UnitQueue(chain(), {})
    unit = queue.take(0)
    assert unit == Unit("p", 0, 4)
    halves = queue.split(unit)
    assert halves == (Unit("p", 0, 2), Unit("p", 2, 4)) and len(queue) == 6 + 1
    assert queue.take(0) == Unit("p", 4, 8), "whoever has cut it hands out its halves"
    queue.done(unit)
    queue.done(halves[0])
    assert queue.take(0) is None
    queue.done(halves[1])
    assert queue.take(0) == Unit("a", 0, 4)


def test_what_is_done_twice_counts_once() -> None:
    queue = UnitQueue(chain(a=8), {})
    for _ in range(2):
        queue.done(Unit("p", 0, 4))
    assert queue.take(0) == Unit("p", 4, 8) and queue.take(0) is None and len(queue) == 5 - 1


def test_a_unit_waits_for_exactly_its_shard() -> None:
    queue = UnitQueue(chain(), {})
    first, second = queue.take(0), queue.take(0)
    assert (first, second) == (Unit("p", 0, 4), Unit("p", 4, 8)) and queue.take(0) is None
    queue.done(second)
    assert queue.take(0) == Unit("a", 4, 8) and queue.take(0) is None


def test_shards_of_other_sizes_wait_for_all_that_they_overlap() -> None:
    queue = UnitQueue(chain(p=3, a=4, e=8), {})
    taken = [queue.take(0) for _ in range(3)]
    assert [(one.start, one.stop) for one in taken if one] == [(0, 3), (3, 6), (6, 8)]
    queue.done(Unit("p", 0, 3))
    assert queue.take(0) is None
    queue.done(Unit("p", 3, 6))
    assert queue.take(0) == Unit("a", 0, 4)
    queue.done(Unit("p", 6, 8))
    queue.done(Unit("a", 0, 4))
    assert queue.take(0) == Unit("a", 4, 8)
    queue.done(Unit("a", 4, 8))
    assert queue.take(0) == Unit("e", 0, 8)


def test_committed_parts_are_not_handed_out() -> None:
    queue = UnitQueue(chain(), {"p": [Part(0, 8, "x")], "a": [Part(0, 4, "y")]})
    assert {queue.take(0), queue.take(0)} == {Unit("e", 0, 4), Unit("a", 4, 8)}


def test_a_whole_read_waits_for_every_shard() -> None:
    variants = {
        "w": variant("w", "train", total=1, size=1),
        "p": variant("p", "predict", (Read("w", whole=True),)),
    }
    queue = UnitQueue(variants, {})
    assert queue.take(0) == Unit("w", 0, 1) and queue.take(0) is None
    queue.done(Unit("w", 0, 1))
    assert queue.take(0) == Unit("p", 0, 4)


def test_what_waits_for_a_lost_unit_is_stranded_and_the_rest_goes_on() -> None:
    queue = UnitQueue(chain(), {})
    queue.lose(Unit("p", 0, 4), "poisoned")
    assert queue.lost == {Unit("p", 0, 4): "poisoned"}
    assert queue.stranded == {Unit("a", 0, 4), Unit("e", 0, 4)}
    assert len(queue) == 3


def test_every_unit_is_handed_out_once() -> None:
    queue = UnitQueue(chain(p=2, a=1, e=3), {})
    seen: list[Unit] = []
    while len(queue):
        unit = queue.take(len(seen) % 3)
        assert unit is not None
        seen.append(unit)
        queue.done(unit)
    assert len(seen) == len(set(seen)) == 4 + 8 + 3


def test_a_worker_stays_with_its_stretch_and_another_takes_the_next() -> None:
    queue = UnitQueue(chain(), {})
    assert queue.take("one") == Unit("p", 0, 4)
    assert queue.take("two") == Unit("p", 4, 8)
    queue.done(Unit("p", 0, 4))
    queue.done(Unit("p", 4, 8))
    assert queue.take("two") == Unit("a", 4, 8)
    assert queue.take("one") == Unit("a", 0, 4)
