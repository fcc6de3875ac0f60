"""Trainings that several devices share: when they come, how many at a time, and what a failure of one process is."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_ray import FakeHead
from pydantic import ValidationError
from ray.exceptions import ActorDiedError

from cluster import training
from cluster.attempt import WorkerDiedError, WorkerGoneError
from cluster.profile import Profile
from cluster.queue import UnitQueue
from cluster.training import TrainingPool, check_training_room
from pipeline.contracts import Cost
from pipeline.errors import FatalError, RetryableError, ShardError
from pipeline.models import HeldTooMuchError
from pipeline.stages.variant import Read, StageName, Unit, Variant


def variant(path: str, stage: StageName, reads: tuple[Read, ...] = (), total: int = 1) -> Variant:
    return Variant(path, stage, path, total, 1, Cost(1, 1), reads, "m")


def grid() -> UnitQueue:
    """Two ranges of ranks, a cell that reads them, and the clean arm, which reads nothing."""
    variants = (
        variant("r", "rank", total=2), variant("clean", "retrain"), variant("c", "retrain", (Read("r", whole=True),))
    )  # fmt: skip
    return UnitQueue({one.path: one for one in variants}, {})


def test_held_cells_are_neither_counted_nor_handed_out_until_they_are_released() -> None:
    queue = grid()
    assert queue.hold_cells() and (len(queue), queue.ready) == (2, 2)
    taken = [queue.take(0), queue.take(0)]
    assert {one.variant for one in taken if one} == {"r"} and queue.take(0) is None
    for unit in taken:
        queue.done(unit)
    assert (len(queue), queue.take(0)) == (0, None)
    queue.release_cells()
    assert (len(queue), queue.ready) == (2, 2)
    assert {queue.take(0), queue.take(0)} == {Unit("c", 0, 1), Unit("clean", 0, 1)}


def test_a_cell_whose_ranks_are_lost_is_not_released() -> None:
    queue = grid()
    queue.hold_cells()
    queue.lose(Unit("r", 0, 1), "broken")
    assert (len(queue), queue.stranded) == (1, {Unit("c", 0, 1)})
    queue.done(Unit("r", 1, 2))
    queue.release_cells()
    assert (queue.take(0), queue.take(0), len(queue)) == (Unit("clean", 0, 1), None, 1)


def test_a_job_without_cells_holds_nothing() -> None:
    queue = UnitQueue({"r": variant("r", "rank")}, {})
    assert not queue.hold_cells() and len(queue) == 1


@pytest.mark.parametrize(
    ("keys", "processes"),
    [({}, 1), ({"gpus_per_training": 1}, 1), ({"gpus_per_training": 4}, 4), ({"processes_per_training": 2}, 2)],
)
def test_a_profile_says_what_a_training_is_spread_over(keys: Mapping[str, Any], processes: int) -> None:
    assert Profile.model_validate(keys).training_processes == processes


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"gpus_per_training": 2, "processes_per_training": 2}, "got both"),
        ({"gpus_per_training": 2, "executor": "local"}, "executor: local has one"),
        ({"processes_per_training": 2, "executor": "local"}, "executor: local has one"),
        ({"gpus_per_training": -1}, "greater than or equal to 0"),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(keys: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Profile.model_validate(keys)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """The resources of each node."""
    nodes = [{"CPU": 8.0, "GPU": 4.0}, {"CPU": 3.0, "GPU": 4.0}]
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    total = lambda: {key: sum(node.get(key, 0) for node in nodes) for key in ("CPU", "GPU")}  # noqa: E731
    monkeypatch.setattr("ray.cluster_resources", total)
    return nodes


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        # The second node has cores for one process alone.
        (
            {"gpus_per_training": 6, "cpus_per_worker": 2},
            r"gpus_per_training: 6 asks for 6 processes of 2 CPU, 1 GPU a training; the cluster has room for 5: "
            r"11 CPU, 8 GPU\. Lower it",
        ),
        ({"processes_per_training": 12}, r"processes_per_training: 12 .* of 1 CPU a training; .* room for 11"),
    ],
)
def test_a_training_that_the_cluster_can_never_hold_is_refused(
    cluster: list[dict[str, float]], keys: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(FatalError, match=message):
        check_training_room(Profile.model_validate(keys))
    check_training_room(Profile.model_validate({**keys, "wait_s": 600.0}))


@pytest.mark.parametrize(
    ("keys", "slots"),
    [
        ({"gpus_per_training": 2}, 3),  # 4 + 3 processes
        ({"gpus_per_training": 4}, 1),
        ({"gpus_per_training": 2, "gpus_per_worker": 0.5, "workers": 8}, 2),
        ({"gpus_per_training": 4, "gpus_per_worker": 1, "workers": 2}, 1),
        ({"gpus_per_training": 2, "gpus_per_worker": 1, "workers": {"max": 10}}, 5),
        ({"processes_per_training": 3}, 3),
        ({"processes_per_training": 2, "workers": 4}, 2),
    ],
)
def test_as_many_trainings_run_at_a_time_as_the_cluster_or_the_profile_holds(
    cluster: list[dict[str, float]], keys: Mapping[str, Any], slots: int
) -> None:
    pool = TrainingPool(SimpleNamespace(), Profile.model_validate(keys), FakeHead())  # type: ignore[arg-type]
    pool.adapt(100)
    assert len(pool.workers()) == slots


class SilentError(Exception):
    """What Ray Train says of a process that does not answer."""

    def __init__(self, why: Exception) -> None:
        super().__init__("a process does not answer")
        self.health_check_failure = why


def preempted() -> ActorDiedError:
    error = ActorDiedError()
    error._preempted = True
    return error


@pytest.mark.parametrize(
    ("failures", "kind", "message"),
    [
        ([RuntimeError("gloo: connection closed by peer"), HeldTooMuchError("full")], HeldTooMuchError, "full"),
        ([ShardError("corrupt"), FatalError("no space left")], FatalError, "no space left"),
        ([RuntimeError("gloo: closed"), SilentError(ActorDiedError())], WorkerDiedError, "crashed or was killed"),
        ([SilentError(preempted()), RuntimeError("gloo")], WorkerGoneError, "left the cluster"),
        ([RuntimeError("[gloo/pair.cc] Connection closed by peer")], RetryableError, "lost each other"),
        ([torch.distributed.DistBackendError("NCCL watchdog")], RetryableError, "lost each other: NCCL watchdog"),
        ([ZeroDivisionError("division by zero")], ZeroDivisionError, "division by zero"),
        ([], RetryableError, "no process said why"),
    ],
)
def test_of_the_errors_of_several_processes_the_first_cause_counts(
    failures: list[Exception], kind: type[Exception], message: str
) -> None:
    found = training._cause(failures)
    assert type(found) is kind and message in str(found)


def test_a_death_is_the_nodes_where_one_has_left() -> None:
    death = ActorDiedError()
    death.error_msg = "The actor died because its node has died. Node Id: ab, Ip: 10.0.0.1"
    assert type(training._cause([RuntimeError("gloo"), death])) is WorkerGoneError
