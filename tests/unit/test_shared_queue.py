"""Several runs of one output: each unit is computed by one of them, and none waits for a run that is gone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cluster import shared_queue
from cluster.shared_queue import SharedQueue
from pipeline.claim import Claims
from pipeline.contracts import Cost
from pipeline.errors import RetryableError
from pipeline.noise import Noise
from pipeline.part import Part
from pipeline.stages.variant import Read, StageName, Unit, Variant
from pipeline.store import Output, open_output

TOTAL = 32


def variant(path: str, stage: StageName, size: int, *reads: Read, total: int = TOTAL) -> Variant:
    return Variant(path, stage, path, total, size, Cost(1, 1), reads, "m")


def chain(methods: Iterable[str] = ("a", "b"), size: int = 4, total: int = TOTAL) -> dict[str, Variant]:
    """Predictions, maps by some methods, their scores, and two trainings that wait for all maps."""
    found = [variant("p", "predict", 2 * size, total=total)]
    for name in methods:
        found.append(variant(name, "attribute", size, Read("p"), total=total))
        found.append(variant(f"{name}-score", "evaluate", 2 * size, Read(name), total=total))
        found.append(variant(f"{name}-cell", "retrain", 1, Read(name, whole=True), total=1))
    return {one.path: one for one in found}


class Store:
    """What is committed, without files."""

    def __init__(self) -> None:
        self.parts: dict[str, list[Part]] = {}
        self.looks = 0

    def commit(self, unit: Unit) -> None:
        parts = self.parts.setdefault(unit.variant, [])
        parts.append(Part(unit.start, unit.stop, "0" * 16))
        parts.sort()

    def look(self, paths: Iterable[str]) -> dict[str, list[Part]]:
        self.looks += 1
        return {path: list(self.parts.get(path, [])) for path in paths}


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return open_output(tmp_path / "out", create=True)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits before looking again."""
    monkeypatch.setattr(shared_queue, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(shared_queue, "_SHARE", 1e9)
    monkeypatch.setattr(shared_queue, "_WAIT", 0.0)


@pytest.fixture
def runs() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def begin(runs: ExitStack, output: Output, store: Store, variants: dict[str, Variant]) -> SharedQueue:
    """A run that begins now: its claims, then its plan."""
    claims = runs.enter_context(Claims(output, every=3600, look_every=0))
    return SharedQueue(variants, store.look(variants), claims, store.look)


def work(store: Store, queues: list[SharedQueue], key: str, losses: float = 0.0) -> list[Counter[Unit]]:
    """Let runs with two units in hand each take turns in a drawn order, until all are through; what each computed.

    Args:
        store: where they commit.
        queues: of the runs.
        key: of what is drawn.
        losses: share of the units that are given up.
    """
    draw = Noise(0).generator("turns", key)
    computed: list[Counter[Unit]] = [Counter() for _ in queues]
    hands: list[list[Unit]] = [[] for _ in queues]
    for _ in range(5000):
        number = int(draw.integers(len(queues)))
        queue, hand = queues[number], hands[number]
        if len(hand) < 2 and (unit := queue.take("worker")) is not None:
            hand.append(unit)
        elif hand:
            unit = hand.pop(0)
            if draw.random() < losses:
                queue.lose(unit, "crashed")
                continue
            store.commit(unit)
            computed[number][unit] += 1
            queue.done(unit)
        elif len(queue):
            assert queue.wait_for_others(), "it waits for what nobody makes"
        if not any(map(len, queues)):
            return computed
    raise AssertionError(f"{[len(queue) for queue in queues]} units are left")


@pytest.mark.parametrize("key", [str(number) for number in range(10)])
def test_two_runs_of_one_job_compute_each_unit_once(output: Output, runs: ExitStack, key: str) -> None:
    store = Store()
    queues = [begin(runs, output, store, chain()), begin(runs, output, store, chain())]
    units = {unit for path in chain() for unit in queues[0].units(path)}
    one, other = work(store, queues, key)
    assert one + other == Counter(units), "each once"
    assert one and other, "both had a share"
    assert set(queues[0].from_elsewhere()) == set(other) and set(queues[1].from_elsewhere()) == set(one)


@pytest.mark.parametrize("key", ["0", "1", "2"])
def test_runs_of_other_methods_and_unit_sizes_share_what_they_have_in_common(
    output: Output, runs: ExitStack, key: str
) -> None:
    store = Store()
    jobs = [chain(("a", "b")), chain(("b", "c"), size=8)]
    work(store, [begin(runs, output, store, job) for job in jobs], key)
    for path, parts in store.parts.items():
        covered = Counter(position for part in parts for position in range(part.start, part.stop))
        assert set(covered.values()) == {1}, f"{path} was computed twice"
    assert set(store.parts) == {*jobs[0], *jobs[1]}


@pytest.mark.parametrize("key", [str(number) for number in range(20)])
def test_a_shorter_run_whose_last_units_end_within_the_others_leaves_no_gap(
    output: Output, runs: ExitStack, key: str
) -> None:
    """The longer one has planned before: what it finds in part committed is cut, not computed as a whole."""
    store = Store()
    jobs = [chain(size=2), chain(size=8, total=21)]
    work(store, [begin(runs, output, store, job) for job in jobs], key)
    for path, parts in store.parts.items():
        if not path.endswith("-cell"):
            assert sorted(position for part in parts for position in range(part.start, part.stop)) == list(range(TOTAL))


@pytest.mark.parametrize("key", [str(number) for number in range(20)])
def test_runs_of_different_jobs_never_wait_for_each_other_for_ever_whatever_is_lost(
    output: Output, runs: ExitStack, key: str
) -> None:
    store = Store()
    calibrated = variant("c", "attribute", 4, Read("p"), Read("calibration", whole=True))
    other = {
        "p": variant("p", "predict", 8),
        "calibration": variant("calibration", "calibrate", 1, total=1),
        "c": calibrated,
        "a": variant("a", "attribute", 4, Read("p")),
    }
    queues = [begin(runs, output, store, job) for job in (chain(("a",)), other, chain(("a", "b")), other)]
    work(store, queues, key, losses=0.2)
    for queue in queues:
        assert not queue._claims._held, "what is left of a stretch was given up, and the stretch with it"
    for path, parts in store.parts.items():
        covered = Counter(position for part in parts for position in range(part.start, part.stop))
        assert set(covered.values()) == {1}, f"{path} was computed twice"


def test_two_runs_that_each_hold_what_the_other_waits_for_go_on(output: Output, runs: ExitStack) -> None:
    store = Store()

    def job(needed: str, name: str) -> dict[str, Variant]:
        """Samples by sixteens, and what waits for the whole of something that the other job does not make."""
        found = [variant("p", "predict", 16), variant(needed, "segment", 16)]
        return {one.path: one for one in [*found, variant(name, "attribute", 16, Read("p"), Read(needed, whole=True))]}

    first, second = (begin(runs, output, store, job(*names)) for names in (("q", "a"), ("r", "b")))
    for queue, start in ((first, 0), (second, 16)):
        for _ in range(2):
            unit = queue.take("worker")
            assert unit is not None and unit.start == start
            store.commit(unit)
            queue.done(unit)
    for queue in (first, second):
        assert queue.take("worker") is None and queue._claims._held, "it holds its half and waits for the other"
    work(store, [first, second], "0")


def test_a_stretch_whose_last_unit_is_lost_is_free_again(output: Output, runs: ExitStack) -> None:
    store = Store()
    first, second = (begin(runs, output, store, {"p": variant("p", "predict", 16)}) for _ in range(2))
    unit = first.take("worker")
    assert unit == Unit("p", 0, 16)
    assert second.take("worker") == Unit("p", 16, 32) and second.take("worker") is None
    first.lose(unit, "crashed")
    assert second.take("worker") == unit


def test_a_stretch_that_another_run_has_finished_is_not_claimed(output: Output, runs: ExitStack) -> None:
    store = Store()
    first, second = (begin(runs, output, store, {"p": variant("p", "predict", 16)}) for _ in range(2))
    unit = first.take("worker")
    assert unit is not None and second.take("worker") == Unit("p", 16, 32) and second.take("worker") is None
    store.commit(unit)
    first.done(unit)
    assert second.take("worker") is None and len(second) == 1
    assert [stretch.start for stretch in second._claims._held] == [16]


def test_a_stretch_is_not_taken_while_nobody_can_tell_what_is_committed_of_it(output: Output, runs: ExitStack) -> None:
    store = Store()
    first = begin(runs, output, store, chain())
    second = begin(runs, output, store, chain())
    unit = first.take("worker")
    assert unit is not None
    original = store.look

    def failing(paths: Iterable[str]) -> dict[str, list[Part]]:
        raise RetryableError("no answer")

    second._look = failing
    assert second.take("worker") is None and not second._claims._held
    second._look = original
    assert second.take("worker") == Unit("p", 8, 16)


def test_a_run_that_begins_later_takes_what_is_neither_done_nor_claimed(output: Output, runs: ExitStack) -> None:
    store = Store()
    first = begin(runs, output, store, chain())
    unit = first.take("worker")
    assert unit == Unit("p", 0, 8)
    second = begin(runs, output, store, chain())
    assert second.take("worker") == Unit("p", 8, 16), "the first stretch is the other's"


def test_what_a_killed_run_had_claimed_is_done_by_the_other(output: Output, runs: ExitStack) -> None:
    store = Store()
    first = begin(runs, output, store, chain())
    (file,) = (Path(output.uri) / "claims").glob("*.json")
    second = begin(runs, output, store, chain())
    done, lost = first.take("worker"), first.take("worker")
    assert done is not None and lost is not None
    store.commit(done)
    # As if its process were gone: it commits no more, and nobody has its number.
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    file.write_text(json.dumps({**json.loads(file.read_text()), "process": ended.pid}))
    (computed,) = work(store, [second], "alone")
    assert done not in computed and lost in computed and set(computed.values()) == {1}
    assert len(computed) == sum(second.count(path) for path in chain()) - 1


def test_a_run_alone_looks_at_nothing_again(output: Output, runs: ExitStack) -> None:
    store = Store()
    queue = begin(runs, output, store, chain())
    work(store, [queue], "alone")
    assert store.looks == 1, "the plan's"


def test_nobody_waits_where_there_is_no_other_run(output: Output, runs: ExitStack) -> None:
    queue = begin(runs, output, Store(), chain())
    while queue.take("worker") is not None:
        pass
    assert len(queue) and not queue.wait_for_others()


def test_what_a_run_has_in_hand_is_told_of_by_its_worker_alone(output: Output, runs: ExitStack) -> None:
    store = Store()
    first = begin(runs, output, store, chain())
    begin(runs, output, store, chain())
    unit = first.take("worker")
    assert unit is not None
    store.commit(unit)
    first.wait_for_others()
    assert first.from_elsewhere() == [] and len(first) == sum(first.count(path) for path in chain())


def test_what_was_in_hand_while_another_run_took_a_part_of_it_is_not_left_over(
    output: Output, runs: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run stood still so long that its claims did not count any more, with units in hand."""
    store = Store()
    long, short = (
        {"p": variant("p", "predict", size, total=total), "wide": variant("wide", "attribute", 32, total=total)}
        for size, total in ((2, 24), (8, 21))
    )
    one = begin(runs, output, store, long)
    taken = [unit for unit in (one.take(number) for number in range(12)) if unit is not None]
    hand = [unit for unit in taken if unit.variant == "p" and unit.start in (16, 18, 20)]
    for unit in taken:
        if unit not in hand and unit.variant == "p" and unit.start < 16:
            store.commit(unit)
            one.done(unit)
    one._claims.give_all_back()
    with ExitStack() as short_run:
        other = begin(short_run, output, store, short)
        while (unit := other.take("other")) is not None:
            store.commit(unit)
            other.done(unit)
    assert Part(16, 21, "0" * 16) in store.parts["p"]
    for _ in range(100):
        unit = one.take("worker")
        if unit is None and hand:
            unit = hand.pop()
        if unit is None:
            break
        if one.is_left(unit):
            store.commit(unit)
            one.done(unit)
    assert not len(one), "the last position of the unit that was cut is somebody's"


def test_what_a_run_without_workers_held_is_done_by_the_other(output: Output, runs: ExitStack) -> None:
    store = Store()
    one, other = (begin(runs, output, store, chain()) for _ in range(2))
    unit = one.take("worker")
    assert unit is not None
    while (taken := other.take(object())) is not None:
        assert taken.start >= unit.stop
    one.put_back(unit)
    one.rest()
    assert other.take("worker") == unit
    assert one.take("another") is None, "now the other has it"


def test_that_another_run_is_waited_for_is_told_once(output: Output, runs: ExitStack) -> None:
    store = Store()
    first = begin(runs, output, store, chain(size=16))
    unit = first.take("worker")
    assert unit == Unit("p", 0, 32), "all of the job is one stretch"
    second = begin(runs, output, store, chain(size=16))
    assert second.take("worker") is None and second.wait_for_others()
    assert "another run of this output has what is left" in second.waits
    second.waits = ""
    assert second.wait_for_others() and second.waits == ""
