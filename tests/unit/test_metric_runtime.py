"""What a map costs, measured on methods whose cost is known."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
import torch
from small_models import make_batch, small_classifier
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Context, Cost, Scores, Setting
from pipeline.methods import Gradient, IntegratedGradients, Occlusion, SmoothGrad
from pipeline.metrics import Runtime, peak_memory
from pipeline.metrics.peak_memory import PeakMemory
from pipeline.models import Classifier
from pipeline.models.pass_counter import counting
from pipeline.noise import Noise

needs_books = pytest.mark.skipif(
    math.isnan(PeakMemory(torch.device("cpu")).taken()), reason="the process's peak memory cannot be read here"
)


def measured(model: Classifier, batch: Batch, method: AttributionMethod) -> Scores:
    context = Context(explain=lambda used, images: method(used, images, Noise()))
    return Runtime()(model, batch, torch.zeros(len(batch), 1, 8, 8), context)


@pytest.mark.parametrize(
    "method", [Gradient(), SmoothGrad(samples=7), IntegratedGradients(steps=4), Occlusion(patch=3, stride=3)]
)
@pytest.mark.parametrize("count", [1, 5])
def test_the_passes_are_those_that_the_method_declares(method: AttributionMethod, count: int) -> None:
    model = small_classifier()
    found = measured(model, make_batch(model, count), method).measures
    declared = method.cost(Setting(5, 8, 8))
    assert found["forwards"].tolist() == [declared.forwards] * count
    assert found["backwards"].tolist() == [declared.backwards] * count


def test_the_seconds_are_those_of_the_batch_over_its_images_the_second_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small_classifier()
    batch = make_batch(model, 4)
    seen: list[tuple[str, ...]] = []
    clock = [1000.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def explain(used: Classifier, images: Batch) -> Tensor:
        # What is done on first use takes long, and what is watched longer.
        clock[0] += {0: 50.0, 1: 20.0, 2: 3.0}[len(seen)]
        seen.append(images.ids)
        return images.images[:, :1]

    seconds = Runtime()(model, batch, torch.zeros(4, 1, 8, 8), Context(explain=explain)).measures["seconds"]
    assert seen == [batch.ids[:1], batch.ids, batch.ids]
    assert seconds.tolist() == [0.75] * 4


def test_the_superpixels_go_with_the_images() -> None:
    model = small_classifier()
    plain = make_batch(model, 3)
    superpixels = torch.arange(3 * 64, dtype=torch.int32).view(3, 8, 8)
    batch = Batch(plain.images, plain.targets, plain.ids, superpixels=superpixels)
    seen: list[Batch] = []

    def explain(used: Classifier, images: Batch) -> Tensor:
        seen.append(images)
        return images.images[:, :1]

    Runtime()(model, batch, torch.zeros(3, 1, 8, 8), Context(explain=explain))
    assert torch.equal(seen[0].superpixels, superpixels[:1]) and torch.equal(seen[1].superpixels, superpixels)  # type: ignore[arg-type]


@needs_books
def test_the_memory_is_the_peak_of_the_batch_over_its_images() -> None:
    model = small_classifier()
    batch = make_batch(model, 4)
    megabytes = 200

    def explain(used: Classifier, images: Batch) -> Tensor:
        # Freed before it is measured again: only a peak shows it.
        if len(images) == 4:
            torch.ones(megabytes * 250_000)
        return images.images[:, :1]

    memory = Runtime()(model, batch, torch.zeros(4, 1, 8, 8), Context(explain=explain)).measures["memory_mb"]
    assert memory.tolist() == pytest.approx([megabytes / 4] * 4, rel=0.1)


@needs_books
def test_a_peak_from_before_does_not_show() -> None:
    # Pieces that the allocator keeps when they are freed, and one that it gives back.
    kept = [torch.ones(2_000) for _ in range(10_000)]
    torch.ones(60_000_000)
    del kept
    memory = PeakMemory(torch.device("cpu"))
    assert memory.taken() < 20e6
    kept = [torch.ones(2_000) for _ in range(15_000)]
    assert memory.taken() == pytest.approx(len(kept) * 8_000, rel=0.15)


def test_memory_is_not_a_number_where_the_books_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = small_classifier()
    batch = make_batch(model, 2)
    # A folder that is not there: no writing and no reading.
    for name in ("_CLEAR", "_STATUS"):
        with monkeypatch.context() as patched:
            patched.setattr(peak_memory, name, tmp_path / "none" / "file")
            found = measured(model, batch, Gradient()).measures
        assert found["memory_mb"].isnan().all() and found["seconds"].isfinite().all()


def test_a_method_that_fails_leaves_the_model_uncounted() -> None:
    model = small_classifier()
    batch = make_batch(model, 3)

    def explain(used: Classifier, images: Batch) -> Tensor:
        if len(images) == 3:
            raise RuntimeError("out of memory")
        return images.images[:, :1]

    with pytest.raises(RuntimeError, match="out of memory"):
        Runtime()(model, batch, torch.zeros(3, 1, 8, 8), Context(explain=explain))
    assert type(model) is Classifier


def test_its_cost_bounds_its_passes_and_is_that_of_an_image_alone() -> None:
    model = small_classifier()
    method = SmoothGrad(samples=3)
    declared = Runtime().cost(Setting(5, 8, 8), method.cost(Setting(5, 8, 8)))
    for count, times in ((1, 3), (4, 2.25)):
        batch = make_batch(model, count)
        with counting(model) as passes:
            measured(model, batch, method)
        counted = Cost(passes.forwards / count, passes.backwards / count)
        assert counted == Cost(3, 3) * times and counted.forwards <= declared.forwards == 9


def test_maps_alone_are_not_enough() -> None:
    model = small_classifier()
    with pytest.raises(ValueError, match="runtime: explains the images again"):
        Runtime()(model, make_batch(model, 2), torch.zeros(2, 1, 8, 8))
