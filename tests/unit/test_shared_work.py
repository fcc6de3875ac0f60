"""Work that methods share is done once for a sample."""

from __future__ import annotations

from typing import Literal

import torch
from small_models import make_batch, small_classifier
from torch import Tensor

from pipeline.contracts import Batch, SharedWork
from pipeline.models import Classifier
from pipeline.noise import Noise
from pipeline.stages.shared_work import SharedResults

DONE: list[str] = []


class Doubling(SharedWork):
    name: Literal["doubling"] = "doubling"
    factor: int = 2

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        DONE.extend(batch.ids)
        return {"images": self.factor * batch.images, "targets": batch.targets.float()}


def get(results: SharedResults, batch: Batch, work: SharedWork | None = None, replica: str = "net") -> list[str]:
    """The samples that were computed for this batch; what came out is checked on the way."""
    DONE.clear()
    work = work or Doubling()
    found = results.get(replica, work, small_classifier(), batch, Noise())
    factor = work.model_dump()["factor"]
    assert torch.equal(found["images"], factor * batch.images) and torch.equal(found["targets"], batch.targets.float())
    return list(DONE)


def part(batch: Batch, rows: list[int]) -> Batch:
    index = torch.tensor(rows)
    return Batch(batch.images[index], batch.targets[index], tuple(batch.ids[row] for row in rows))


def test_a_sample_is_computed_once_whatever_the_batch() -> None:
    results, batch = SharedResults(10**6), make_batch(small_classifier())
    assert get(results, part(batch, [0, 1])) == ["sample-0", "sample-1"]
    assert get(results, part(batch, [1, 0])) == []
    assert get(results, part(batch, [4, 1, 2])) == ["sample-4", "sample-2"]
    assert get(results, batch) == ["sample-3"]


def test_other_work_weights_or_target_is_computed_anew() -> None:
    results, batch = SharedResults(10**6), make_batch(small_classifier(), 1)
    get(results, batch)
    assert get(results, batch, Doubling(factor=3)) == ["sample-0"]
    assert get(results, batch, replica="other") == ["sample-0"]
    assert get(results, Batch(batch.images, batch.targets + 1, batch.ids)) == ["sample-0"]


def test_what_does_not_fit_is_given_up_oldest_first() -> None:
    batch = make_batch(small_classifier(), 3)
    results = SharedResults(2 * (3 * 8 * 8 + 1) * 4)
    get(results, batch)
    assert get(results, part(batch, [1, 2])) == []
    assert get(results, part(batch, [0])) == ["sample-0"]
