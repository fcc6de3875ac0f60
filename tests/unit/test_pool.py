"""Workers come as there is work and room, and go; what they had in hand is told apart by why they went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fake_ray import Actor, FakeHead, FakeRay
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayTaskError

import cluster.capacity
import cluster.pool
from cluster.attempt import Attempt, Order, WorkerDiedError, WorkerGoneError
from cluster.need import Need
from cluster.pool import IDLE_SECONDS, REST_SECONDS, START_SECONDS, ActorPool
from cluster.profile import Profile, WorkerRange
from pipeline.data.digits import Digits
from pipeline.errors import FatalError, RetryableError, ShardError
from pipeline.stages.variant import Job, Unit

JOB = Job("out", Digits(), "index", 0, {}, {}, 10)
GROWING = Profile(workers=WorkerRange(min=1, max=4))
Start = Callable[..., tuple[FakeRay, ActorPool]]


@pytest.fixture
def head() -> FakeHead:
    """The cluster's."""
    return FakeHead()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, head: FakeHead) -> Start:
    """Starts a pool on fake nodes of two cores each."""

    def begin(profile: Profile, *nodes: str, units: int = 100) -> tuple[FakeRay, ActorPool]:
        ray = FakeRay(*nodes, CPU=2.0, memory=8 * 2.0**30)
        for module in (cluster.pool, cluster.capacity):
            monkeypatch.setattr(module, "ray", ray)
            monkeypatch.setattr(module, "time", ray)
        monkeypatch.setattr(cluster.capacity, "available_resources_per_node", ray.available_resources_per_node)
        return ray, ActorPool(JOB, profile, units, head)  # type: ignore[arg-type]

    return begin


def up(ray: FakeRay, pool: ActorPool, useful: int, *nodes: str) -> list[Actor]:
    """A pool whose actors have come up, on one node each."""
    pool.adapt(useful)
    for actor, node in zip(ray.actors, nodes, strict=True):
        actor.come_up(node)
        assert not list(pool.wait())
    return ray.actors


def ends(pool: ActorPool) -> list[Attempt]:
    return [attempt for _ in range(8) for attempt in pool.wait()]


def test_no_more_workers_are_asked_for_than_have_work_or_the_profile_allows(start: Start) -> None:
    ray, pool = start(GROWING, "one")
    pool.adapt(useful=2)
    assert pool.asked() == len(ray.actors) == 2
    pool.adapt(useful=50)
    assert pool.asked() == len(ray.actors) == 4


def test_without_a_number_there_are_as_many_as_the_nodes_hold_and_more_when_a_node_joins(start: Start) -> None:
    ray, pool = start(Profile(), "one")
    pool.adapt(useful=50)
    assert pool.asked() == 2
    ray.alive.append("two")
    ray.now += 60
    pool.adapt(useful=50)
    assert pool.asked() == 4


def test_a_worker_gets_work_as_soon_as_it_is_up_whatever_others_wait_for(start: Start) -> None:
    ray, pool = start(GROWING, "one")
    pool.adapt(useful=3)
    ray.actors[1].come_up("one")
    pool.gather(3, waiting=pytest.fail)
    assert pool.workers() == (1,) and pool.asked() == 2
    order = Order(Unit("p", 0, 1))
    pool.start(1, order)
    assert ray.actors[1].run.calls[0].arguments == (order,)


def test_idle_workers_are_given_back_after_a_while_and_pending_ones_first(start: Start) -> None:
    ray, pool = start(GROWING, "one", "two")
    pool.adapt(useful=4)
    for actor, node in zip(ray.actors[:3], ("one", "one", "two"), strict=True):
        actor.come_up(node)
        list(pool.wait())
    pool.start(0, Order(Unit("p", 0, 1)))
    pool.adapt(useful=1)
    ray.now += IDLE_SECONDS - 1
    pool.adapt(useful=1)
    assert len(pool.workers()) == 3 and pool.asked() == 1
    ray.now += 1
    pool.adapt(useful=1)
    assert pool.workers() == (0,) and pool.asked() == 0
    assert [actor.killed for actor in ray.actors] == [False, True, True, True]


def test_the_node_with_the_fewest_workers_is_emptied_first(start: Start) -> None:
    ray, pool = start(GROWING, "one", "two")
    up(ray, pool, 3, "one", "two", "one")
    pool.adapt(useful=2)
    ray.now += IDLE_SECONDS
    pool.adapt(useful=2)
    assert pool.workers() == (0, 2)


def test_no_worker_below_the_least_is_given_back(start: Start) -> None:
    ray, pool = start(Profile(workers=2), "one")
    up(ray, pool, 2, "one", "one")
    for _ in range(5):
        ray.now += IDLE_SECONDS
        pool.adapt(useful=1)
    assert pool.workers() == (0, 1)


@pytest.mark.parametrize(
    ("error", "node_left", "expected"),
    [
        (ActorDiedError(), False, WorkerDiedError),
        (ActorDiedError(), True, WorkerGoneError),
        (ActorUnavailableError("socket closed", None), False, WorkerGoneError),
        (OutOfMemoryError("full"), False, WorkerDiedError),
    ],
)
def test_the_end_of_a_worker_is_told_by_its_cause_for_each_of_its_units_and_it_is_replaced(
    start: Start, error: Exception, node_left: bool, expected: type[Exception]
) -> None:
    ray, pool = start(GROWING, "one", "two")
    actors = up(ray, pool, 2, "one", "two")
    orders = [Order(Unit("p", number, number + 1)) for number in range(3)]
    for order in orders[:2]:
        pool.start(1, order)
    pool.start(0, orders[2])
    if node_left:
        ray.alive.remove("two")
    actors[1].die(error)
    found = ends(pool)
    assert [attempt.order for attempt in found] == orders[:2]
    assert all(type(attempt.error) is expected for attempt in found)
    memory = [isinstance(one.error, WorkerDiedError) and one.error.out_of_memory for one in found]
    assert memory == [isinstance(error, OutOfMemoryError)] * 2
    assert pool.workers() == (0,)
    pool.adapt(useful=2)
    assert pool.asked() == 1 and len(ray.actors) == 3


def test_a_worker_that_is_ended_for_a_reason_says_it(start: Start) -> None:
    ray, pool = start(GROWING, "one")
    up(ray, pool, 1, "one")
    pool.start(0, Order(Unit("p", 0, 1)))
    pool.end(0, "hung")
    (attempt,) = ends(pool)
    assert isinstance(attempt.error, WorkerDiedError) and str(attempt.error) == "hung"


def test_what_a_worker_raises_and_reports_comes_back(start: Start) -> None:
    ray, pool = start(GROWING, "one")
    (actor,) = up(ray, pool, 1, "one")
    pool.start(0, Order(Unit("p", 0, 1)))
    actor.run.calls[0].end("report")
    assert [attempt.report for attempt in ends(pool)] == ["report"]


def test_a_worker_of_other_code_is_refused(start: Start) -> None:
    ray, pool = start(GROWING, "one")
    pool.adapt(useful=1)
    other = cluster.pool.UnitActor.__module__
    ray.actors[0].introduce.calls[0].end(type("Other", (), {"code": "0", "place": other, "node": "one"})())
    with pytest.raises(FatalError, match="another copy of the program"):
        pool.gather(1, waiting=pytest.fail)


def test_workers_that_die_while_they_start_stop_the_job(start: Start) -> None:
    ray, pool = start(GROWING, "one")

    def crash(handles: list[Any], **how: Any) -> tuple[list[Any], list[Any]]:
        handles[0].end(ActorDiedError())
        return handles[:1], handles[1:]

    ray.wait = crash  # type: ignore[method-assign]
    with pytest.raises(FatalError, match="workers do not start: The actor died"):
        pool.gather(1, waiting=lambda line: None)
    assert len(ray.actors) == cluster.pool.FALSE_STARTS + 1


def test_a_worker_whose_program_lacks_something_says_what_and_none_is_asked_for_again(start: Start) -> None:
    ray, pool = start(GROWING, "one")
    pool.adapt(useful=1)
    lines = "\x1b[36mray::UnitActor.__init__()\x1b[39m (pid=1)\n  File 'x'\n    ^^^\nModuleNotFoundError: No module 'y'"
    ray.actors[0].die(ActorDiedError(RayTaskError("__init__", lines, ImportError())))
    with pytest.raises(FatalError, match=r"^workers do not start: ModuleNotFoundError: No module 'y'$"):
        list(pool.wait())
    assert len(ray.actors) == 1


@pytest.mark.parametrize(
    "error",
    [
        ActorDiedError(),
        RayTaskError("introduce", "a trace", RetryableError("the store does not answer")),
        RayTaskError("introduce", "a trace", FatalError("/shared/out: no heatline output here")),
    ],
)
def test_workers_that_do_not_start_beside_others_are_told_of_and_asked_for_later(
    start: Start, error: Exception
) -> None:
    ray, pool = start(GROWING, "one")
    up(ray, pool, 1, "one")
    for _ in range(3 * cluster.pool.FALSE_STARTS):
        ray.now += REST_SECONDS
        pool.adapt(useful=2)
        assert pool.asked() == 1
        ray.actors[-1].die(error)
        assert not list(pool.wait()) and pool.workers() == (0,)
        pool.adapt(useful=2)
        assert pool.asked() == 0, "not at once"
        assert pool.trouble().startswith("a worker did not start: ") and pool.trouble() == ""


def test_a_store_that_does_not_answer_the_first_worker_is_asked_again(start: Start) -> None:
    ray, pool = start(GROWING, "one")
    pool.adapt(useful=1)
    ray.actors[0].die(RayTaskError("introduce", "a trace", RetryableError("the store does not answer")))
    assert not list(pool.wait()) and "the store does not answer" in pool.trouble()
    pool.adapt(useful=1)
    assert pool.asked() == 1 and len(ray.actors) == 2


def test_a_store_that_does_not_answer_any_worker_stops_the_job_and_is_no_mistake(start: Start) -> None:
    ray, pool = start(GROWING, "one")
    with pytest.raises(RetryableError, match="workers do not start: the store does not answer"):
        for _ in range(cluster.pool.FALSE_STARTS + 1):
            pool.adapt(useful=1)
            ray.actors[-1].die(RayTaskError("introduce", "a trace", RetryableError("the store does not answer")))
            list(pool.wait())


def test_cores_that_are_free_on_different_nodes_are_no_room_for_one_worker(start: Start) -> None:
    def begin() -> None:
        start(Profile(workers=1, cpus_per_worker=2.0), "one", "two")

    begin()
    with pytest.MonkeyPatch.context() as patch:
        halves = {name: {"CPU": 1.0, "memory": 2.0**30} for name in ("one", "two")}
        patch.setattr(FakeRay, "available_resources_per_node", lambda self: halves)
        with pytest.raises(FatalError, match="are free, room for 0"):
            begin()


def test_a_job_whose_cluster_has_lost_its_head_stops_and_asks_nothing_of_it(start: Start, head: FakeHead) -> None:
    ray, pool = start(GROWING, "one")
    actors = up(ray, pool, 1, "one")
    assert not list(pool.wait())
    head.silent = RetryableError("the head has not answered for 32 s")
    with pytest.raises(RetryableError, match="has not answered"):
        list(pool.wait())
    pool.stop()
    assert not actors[0].killed


def test_the_job_waits_without_turning_round_while_no_worker_is_asked_for(start: Start) -> None:
    ray, pool = start(GROWING, "one")
    before = ray.now
    assert not list(pool.wait()) and ray.now >= before + 1


def test_the_last_worker_is_replaced_at_once_although_another_did_not_start(start: Start) -> None:
    ray, pool = start(GROWING, "one")
    (actor,) = up(ray, pool, 1, "one")
    pool.adapt(useful=2)
    ray.actors[-1].die(ActorDiedError())
    assert not list(pool.wait())
    pool.start(0, Order(Unit("p", 0, 1)))
    actor.die(ActorDiedError())
    assert len(ends(pool)) == 1 and pool.workers() == ()
    pool.adapt(useful=2)
    assert pool.asked() == 2


def test_why_no_worker_starts_is_told_while_it_waits_for_them(start: Start) -> None:
    ray, pool = start(Profile(workers=2), "one")
    lines: list[str] = []
    pool.adapt(useful=2)
    ray.actors[0].come_up("one")
    ray.actors[1].die(RayTaskError("introduce", "a trace", ShardError("the driver is too old")))
    with pytest.raises(RetryableError, match="workers did not come"):
        pool.gather(2, lines.append)
    assert "a worker did not start: the driver is too old" in lines


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"workers": 3},
            "the profile asks for 3 workers of 1 CPU; the cluster has room for 2 (1 node: 2 CPU, 8.0 GiB). Ask for",
        ),
        ({"workers": WorkerRange(min=3, max=9)}, "asks for 3 workers of 1 CPU"),
        ({"cpus_per_worker": 4.0}, "asks for 1 worker of 4 CPU; the cluster has room for 0"),
        ({"gpus_per_worker": 0.5}, "asks for 1 worker of 1 CPU, 0.5 GPU"),
        ({"memory_mb_per_worker": 9 * 1024}, "asks for 1 worker of 1 CPU, 9.0 GiB"),
    ],
)
def test_a_profile_that_asks_for_more_than_there_is_says_so_before_anything_starts(
    start: Start, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(FatalError) as caught:
        start(Profile(**keys), "one")
    assert message in str(caught.value) and "wait_s" in str(caught.value)


def test_it_waits_when_told_to_and_says_for_what(start: Start) -> None:
    ray, pool = start(Profile(workers=2, wait_s=600.0))
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        ray.alive.append("one")
        for actor in ray.actors:
            actor.come_up("one")

    pool.gather(10, say)
    assert pool.workers() == (0, 1)
    needed = "2 workers of 1 CPU needed; the cluster has 0 CPU, of which 0 CPU free"
    assert lines == [f"waiting up to {600 + START_SECONDS:g} s for workers: {needed}"]


def test_it_says_so_where_others_use_all_that_there_is(start: Start) -> None:
    ray, pool = start(Profile(workers=1, wait_s=600.0), "one")
    ray.free = {"one": {"CPU": 0.0, "memory": 0.0}}
    lines: list[str] = []
    with pytest.raises(RetryableError):
        pool.gather(10, lambda line: lines.append(f"{ray.now:g} {line}"))
    assert len(lines) == 1 and lines[0].startswith("1 waiting up to 780 s for workers: 1 worker of 1 CPU needed")


def test_a_worker_that_takes_long_to_start_is_told_of_once(start: Start) -> None:
    ray, pool = start(Profile(workers=1), "one")
    lines: list[str] = []
    with pytest.raises(RetryableError):
        pool.gather(10, lambda line: lines.append(f"{ray.now:g} {line}"))
    assert len(lines) == 1 and lines[0].startswith("30 waiting up to 180 s for workers:")


def test_it_waits_no_longer_than_told(start: Start) -> None:
    ray, pool = start(Profile(workers=2, wait_s=600.0))
    with pytest.raises(RetryableError, match="2 workers of 1 CPU needed"):
        pool.gather(10, lambda line: None)
    assert 600 < ray.now < 700 + START_SECONDS


def test_a_job_without_any_worker_left_does_not_wait_for_ever(start: Start) -> None:
    ray, pool = start(GROWING, "one")
    (actor,) = up(ray, pool, 1, "one")
    pool.start(0, Order(Unit("p", 0, 1)))
    ray.alive.clear()
    actor.die(ActorDiedError())
    with pytest.raises(RetryableError, match="no worker is left"):
        for _ in range(1000):
            pool.adapt(useful=1)
            list(pool.wait())


@pytest.mark.parametrize(
    ("gpus", "each", "fits"), [(1.0, 2.0, 2), (0.25, 1.0, 4), (0.4, 2.0, 4), (0.1, 1.0, 10), (2.0, 3.0, 1)]
)
def test_a_fraction_of_a_gpu_lies_on_one_gpu(gpus: float, each: float, fits: int) -> None:
    need = Need(cpus=0.01, gpus=gpus, memory=0)
    assert need.fits({"CPU": 64, "GPU": each}) == fits


def test_the_actors_reserve_what_the_profile_says(start: Start) -> None:
    ray, _ = start(Profile(cpus_per_worker=0.5, memory_mb_per_worker=512, in_flight=2), "one")
    given = ray.options_given
    assert (given["num_cpus"], given["num_gpus"], given["memory"]) == (0.5, 0.0, 512 * 2**20)
    assert given["max_concurrency"] == 2 and given["max_restarts"] == 0


def test_a_units_own_error_is_handed_on(start: Start) -> None:
    ray, pool = start(GROWING, "one")
    (actor,) = up(ray, pool, 1, "one")
    pool.start(0, Order(Unit("p", 0, 1)))
    error = RayTaskError("run", "a trace", ShardError("no"))
    actor.run.calls[0].end(error)
    (attempt,) = ends(pool)
    assert isinstance(attempt.error, ShardError) and str(attempt.error) == "no"
