"""A worker decodes what it is asked for and nothing else, and records a sample as failed without touching it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.profile import Profile
from jobs.run import prepare
from jobs.spec import load_spec
from pipeline.data import Dataset, Shard
from pipeline.errors import ShardError
from pipeline.stages.unreadable import UNREADABLE
from pipeline.stages.variant import Job, Unit
from pipeline.stages.worker import Worker
from pipeline.store import Output, open_output

GUILTY = 5


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions that were decoded, in order."""
    seen: list[int] = []
    original = Dataset.load

    def load(self: Dataset, positions: Sequence[int], *arguments: Any, **keys: Any) -> Shard:
        seen.extend(positions)
        return original(self, positions, *arguments, **keys)

    monkeypatch.setattr(Dataset, "load", load)
    return seen


@pytest.fixture
def job(tmp_path: Path) -> Job:
    spec = {
        "version": 1,
        "name": "job",
        "output": str(tmp_path / "out"),
        "dataset": {"source": "digits", "limit": 12},
        "models": [{"name": "mnist_cnn2", "weights": "random"}],
        "methods": ["gradient", {"name": "dynamic_ablation", "superpixels": 16, "iterations": 2}],
        "metrics": [{"name": "deletion", "step": 392}],
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(spec))
    _, _, plan = prepare(load_spec(str(tmp_path / "job.yaml")), Profile(executor="local", rows=4), create=True)
    return plan.job


@pytest.fixture
def output(job: Job) -> Output:
    return open_output(job.output)


def path_of(job: Job, stage: str, method: str | None = None) -> str:
    return next(path for path, one in job.variants.items() if one.stage == stage and one.method in (method, None))


def test_a_unit_alone_decodes_its_own_images_and_gives_the_same(job: Job, output: Output, decoded: list[int]) -> None:
    predict = path_of(job, "predict")
    worker = Worker(job)
    worker.run(Unit(predict, 2, 4), alone=True)
    assert decoded == [2, 3]
    worker.run(Unit(predict, 4, 12))
    assert set(decoded) == set(range(12))
    alone = output.read(predict, 2, 4)
    output.forget(predict)
    Worker(job).run(Unit(predict, 0, 12))
    assert open_output(job.output).read(predict, 2, 4).to_pylist() == alone.to_pylist()  # type: ignore[union-attr]


def test_a_look_decodes_the_images_and_commits_nothing(job: Job, output: Output, decoded: list[int]) -> None:
    predict = path_of(job, "predict")
    Worker(job).look(Unit(predict, GUILTY, GUILTY + 1))
    assert decoded == [GUILTY] and output.parts(predict) == []


def test_an_image_to_avoid_is_a_failure_that_nobody_decodes_now_or_later(
    job: Job, output: Output, decoded: list[int]
) -> None:
    worker, predict = Worker(job), path_of(job, "predict")
    worker.avoid({"explained": frozenset({GUILTY})})
    worker.run(Unit(predict, 0, 12))
    failures = output.failures([predict]).to_pylist()
    assert [(one["position"], one["reason"]) for one in failures] == [(GUILTY, UNREADABLE)]
    assert failures[0]["id"] == Dataset(job.dataset, output.open_table(job.index), 0).ids(GUILTY, GUILTY + 1)[0]
    # The next run's workers know it from the failures.
    other = Worker(job)
    for path in (path_of(job, "attribute", "gradient"), path_of(job, "segment"), path_of(job, "evaluate", "gradient")):
        other.run(Unit(path, 0, 12))
        table = output.read(path)
        assert table is not None and GUILTY not in table["position"].to_pylist()
        assert len(set(table["position"].to_pylist())) == 11
    assert GUILTY not in decoded


@pytest.mark.parametrize("stage", ["predict", "segment", "attribute", "evaluate"])
def test_a_sample_that_is_given_up_is_a_failure_and_what_reads_it_goes_on(
    job: Job, output: Output, stage: str, decoded: list[int]
) -> None:
    worker = Worker(job)
    chain = [path_of(job, name, "dynamic_ablation") for name in ("predict", "segment", "attribute", "evaluate")]
    for path in chain:
        if job.variants[path].stage != stage:
            worker.run(Unit(path, 0, 12))
            continue
        worker.run(Unit(path, 0, GUILTY))
        worker.run(Unit(path, GUILTY + 1, 12))
        del decoded[:]
        report = worker.give_up(Unit(path, GUILTY, GUILTY + 1), "it brings workers down")
        assert decoded == [] and (report.receipt.rows, report.receipt.failures) == (0, 1)
    wrong = path_of(job, stage, "dynamic_ablation")
    assert [(one["position"], one["reason"]) for one in output.failures([wrong]).to_pylist()] == [
        (GUILTY, "it brings workers down")
    ]
    whole = open_output(job.output)
    for path in chain[max(2, chain.index(wrong)) :]:
        table = whole.read(path)
        assert table is not None and set(table["position"].to_pylist()) == set(range(12)) - {GUILTY}
    maps = whole.read(chain[2])
    assert maps is not None and {"map", "mar"} <= set(maps.column_names)


def test_a_part_without_rows_hides_no_column_of_the_others(job: Job, output: Output) -> None:
    worker, predict, path = Worker(job), path_of(job, "predict"), path_of(job, "attribute", "dynamic_ablation")
    for needed in (predict, path_of(job, "segment")):
        worker.run(Unit(needed, 0, 12))
    worker.run(Unit(path, 1, 12))
    expected = output.read(path, 1, 12)
    worker.give_up(Unit(path, 0, 1), "it brings workers down")
    found = open_output(job.output).read(path)
    assert expected is not None and found is not None and found.schema.equals(expected.schema)
    assert found.equals(expected)


def test_a_sample_cannot_be_given_up_before_another_of_its_kind_is_done(job: Job) -> None:
    with pytest.raises(ShardError, match="no other sample of it is done"):
        Worker(job).give_up(Unit(path_of(job, "predict"), 0, 1), "it brings workers down")
