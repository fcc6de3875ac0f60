"""Dynamic ablation against a slow form of Algorithm 1, closed forms and real images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from ablation_case import NOISE, SIZE, disc_batch, disc_classifier, grainy_batch
from numpy.typing import NDArray
from small_models import linear_classifier
from torch import Tensor, nn

from pipeline.contracts import Batch, Segmentation, Setting
from pipeline.fill import filled
from pipeline.methods.circle import Circles, Regions
from pipeline.methods.dynamic_ablation import DynamicAblation
from pipeline.models import Classifier
from pipeline.superpixel import superpixels


def with_superpixels(batch: Batch, count: int) -> Batch:
    return replace(
        batch, superpixels=torch.stack([superpixels(one, Segmentation(count=count)) for one in batch.images])
    )


Labels = NDArray[np.int32]


@dataclass
class Slow:
    """What the slow form finds for one image."""

    mask: NDArray[np.float64]
    total: NDArray[np.float64]
    mar: float = 1.0
    areas: list[float] = field(default_factory=list)
    accepted_at: list[int] = field(default_factory=list)


def slow_mask(
    rows: list[float], columns: list[float], radii: list[float], centroids: NDArray[np.float64], labels: Labels
) -> NDArray[np.float64]:
    """Superpixel after superpixel, circle after circle; with one superpixel a pixel, also Eq. 3 for pixels."""
    inside = np.zeros(len(centroids))
    for number, (row, column) in enumerate(centroids):
        for y, x, r in zip(rows, columns, radii, strict=True):
            if (row - y) ** 2 + (column - x) ** 2 <= r**2:
                inside[number] = 1
    return inside[labels]


def slow_walk(method: DynamicAblation, model: Classifier, batch: Batch, row: int, labels: Labels) -> Slow:
    """Algorithm 1 for one image, one proposal at a time."""
    image, target, sample = batch.images[row].numpy(), int(batch.targets[row]), batch.ids[row]
    rest = filled(method.fill, model, batch.images[row : row + 1])[0].numpy()
    height, width = labels.shape
    first = NOISE.uniform("dynamic_ablation", [sample], (3, method.circles))[0].tolist()
    later = NOISE.uniform("dynamic_ablation", [sample], (method.iterations, 3, method.circles), 1)[0].tolist()
    places = [np.nonzero(labels == number) for number in range(labels.max() + 1)]
    centroids = np.array([[rows.mean() + 0.5, columns.mean() + 0.5] for rows, columns in places])
    area = float(height * width)
    y = [height * u for u in first[0]]
    x = [width * u for u in first[1]]
    r = [math.sqrt(area / math.pi) * u for u in first[2]]
    found = Slow(np.ones(labels.shape), np.zeros(labels.shape))
    for iteration in range(method.iterations):
        draws = [[2 * u - 1 for u in kind] for kind in later[iteration]]
        new_y = [min(max(c + u * height * method.step, 0), height) for c, u in zip(y, draws[0], strict=True)]
        new_x = [min(max(c + u * width * method.step, 0), width) for c, u in zip(x, draws[1], strict=True)]
        largest = math.sqrt(area / math.pi)
        new_r = [max(c + u * largest * method.step, 0) for c, u in zip(r, draws[2], strict=True)]
        total = math.pi * sum(c**2 for c in new_r)
        if total == 0:
            new_r, total = [1.0] * len(r), math.pi * len(r)
        new_r = [c * math.sqrt(area / total) for c in new_r]
        mask = slow_mask(new_y, new_x, new_r, centroids, labels)
        shown = mask if method.rule == "positive" else 1 - mask
        seen = torch.from_numpy(np.where(shown == 1, image, rest)).float()
        with torch.no_grad():
            same = int(model(seen[None]).argmax()) == target
        if same == (method.rule == "positive"):
            y, x, r = new_y, new_x, new_r
            found.total += mask
            area *= method.shrinkage
            found.areas.append(mask.mean())
            found.accepted_at.append(iteration + 1)
            if mask.mean() <= found.mar:
                found.mar, found.mask = mask.mean(), mask
    return found


@pytest.mark.parametrize("rule", ["positive", "negative"])
@pytest.mark.parametrize("count", [0, 40])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"circles": 1},
        {"circles": 16},
        {"shrinkage": 1.0},
        {"step": 0.0},
        {"fill": "mean", "step": 0.6},
        {"fill": "blur"},
    ],
    ids=str,
)
def test_the_chain_is_that_of_a_loop_with_one_proposal_at_a_time(
    rule: str, count: int, parameters: dict[str, object]
) -> None:
    model = linear_classifier(size=SIZE)
    batch = grainy_batch(model, 4)
    method = DynamicAblation.model_validate({"rule": rule, "superpixels": count, "iterations": 40, **parameters})
    if count:
        batch = with_superpixels(batch, count)
    found = method.explain(model, batch, NOISE)
    walked = 0
    for row in range(4):
        pixels = np.arange(SIZE * SIZE, dtype=np.int32).reshape(SIZE, SIZE)
        labels = pixels if batch.superpixels is None else batch.superpixels[row].numpy()
        slow = slow_walk(method, model, batch, row, labels)
        assert found.columns["accepted_at"][row] == slow.accepted_at
        np.testing.assert_allclose(found.columns["areas"][row], slow.areas, atol=1e-12)
        assert float(found.columns["mar"][row]) == pytest.approx(slow.mar, abs=1e-7)
        mask = found.columns["kept" if rule == "positive" else "removed"][row]
        assert isinstance(mask, Tensor) and np.array_equal(mask.numpy(), slow.mask)
        if not slow.areas and row in found.failed:
            assert rule == "negative" and not found.columns["premise"][row]
            continue
        np.testing.assert_allclose(found.maps[row, 0].numpy(), slow.total / max(slow.total.max(), 1), atol=1e-6)
        walked += len(slow.areas) > 0
    assert walked


@contextmanager
def forward_sizes(model: Classifier) -> Iterator[list[int]]:
    """Images of every forward."""
    sizes: list[int] = []
    hook = model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    try:
        yield sizes
    finally:
        hook.remove()


@pytest.mark.parametrize("rule", ["positive", "negative"])
def test_the_chain_does_not_depend_on_how_many_proposals_share_a_forward(rule: str) -> None:
    model = linear_classifier(size=SIZE)
    batch = grainy_batch(model, 7)
    method = DynamicAblation.model_validate({"rule": rule, "superpixels": 0, "iterations": 60})
    model.rows = 1
    alone = method.explain(model, batch, NOISE)
    for rows in (2, 7, 10, 300):
        model.rows = rows
        together = method.explain(model, batch, NOISE)
        assert torch.equal(together.maps.nan_to_num(2), alone.maps.nan_to_num(2))
        assert together.failed == alone.failed
        for name in ("areas", "accepted_at"):
            assert together.columns[name] == alone.columns[name]
        for name in ({"kept", "removed"} & set(alone.columns)) | {"mar", "premise"}:
            assert torch.equal(torch.as_tensor(together.columns[name]), torch.as_tensor(alone.columns[name]))


def test_forwards_are_those_that_ran_and_no_more_than_declared() -> None:
    model = linear_classifier(size=SIZE)
    batch = grainy_batch(model, 5)
    for rule in ("positive", "negative"):
        method = DynamicAblation.model_validate({"rule": rule, "superpixels": 0, "iterations": 60})
        assert method.cost(Setting(3, SIZE, SIZE)).forwards == 66 + 2
        for rows in (3, 5, 16, 400):
            model.rows = rows
            with forward_sizes(model) as sizes:
                forwards = torch.as_tensor(method.explain(model, batch, NOISE).columns["forwards"])
            # One more, which all share: the fill.
            assert sum(sizes) == forwards.sum() + 1 and max(sizes) <= rows
            assert forwards.min() >= 60 + 1 and forwards.max() <= 66 + 1
            if rows <= len(batch):
                assert (forwards == 60 + 1).all()


def test_room_in_a_forward_is_used_where_proposals_are_mostly_rejected() -> None:
    model = disc_classifier()
    batch = disc_batch(1)
    method = DynamicAblation(superpixels=0, iterations=400, circles=1)
    model.rows = 32
    with forward_sizes(model) as sizes:
        method.explain(model, batch, NOISE)
    assert len(sizes) < 250 and sum(sizes) <= 442


def test_forwards_stay_full_when_the_images_do_not_divide_by_the_rows() -> None:
    model = linear_classifier(size=SIZE)
    model.rows = 4
    method = DynamicAblation(superpixels=0, iterations=60)
    batch = grainy_batch(model, 6)
    with forward_sizes(model) as sizes:
        method(model, batch, NOISE)
    walking = sizes[3:]
    assert sum(walking) == 6 * 60 and len(walking) == 6 * 60 / 4


def test_the_mask_suffices_for_pos_r_and_its_absence_disturbs_for_neg_r() -> None:
    model = linear_classifier(size=SIZE)
    batch = grainy_batch(model, 8)
    kept = DynamicAblation(superpixels=0, iterations=80).explain(model, batch, NOISE)
    shown = torch.as_tensor(kept.columns["kept"])[:, None]
    assert torch.equal(model(batch.images * shown).argmax(1), batch.targets) and not kept.failed
    taken = DynamicAblation(rule="negative", superpixels=0, iterations=80).explain(model, batch, NOISE)
    walked = [row for row in range(8) if row not in taken.failed]
    removed = torch.as_tensor(taken.columns["removed"])[:, None]
    assert (model(batch.images * ~removed).argmax(1) != batch.targets)[walked].all() and len(walked) > 3
    for one, name in ((kept, "kept"), (taken, "removed")):
        share = torch.as_tensor(one.columns[name]).float().mean((1, 2))
        torch.testing.assert_close(torch.as_tensor(one.columns["mar"]), share)


def test_with_no_steps_the_first_rejection_is_final() -> None:
    method = DynamicAblation(superpixels=0, iterations=80, circles=1, step=0)
    found = method.explain(disc_classifier(), disc_batch(6), NOISE)
    at = found.columns["accepted_at"]
    assert all(list(one) == list(range(1, len(one) + 1)) for one in at) and 0 < max(map(len, at)) < 80


def test_without_shrinkage_the_circles_keep_the_area_of_the_image() -> None:
    circles = Circles.drawn(NOISE.uniform("start", ["a", "b"], (3, 4)), 10, 20)
    area = torch.tensor([200.0, 50.0], dtype=torch.float64)
    for draw in range(50):
        circles = circles.moved(NOISE.uniform("step", ["a", "b"], (3, 4), draw), area, 0.9, 10, 20)
        torch.testing.assert_close(math.pi * circles.radius.square().sum(1), area)
        assert circles.radius.min() >= 0
        assert circles.row.min() >= 0 and circles.row.max() <= 10
        assert circles.column.min() >= 0 and 10 < circles.column.max() <= 20


def test_circles_that_shrank_to_nothing_become_equal() -> None:
    nothing = torch.zeros(1, 2, dtype=torch.float64)
    draws = torch.full((1, 3, 2), 0.5)
    circles = Circles(nothing, nothing, nothing).moved(draws, torch.tensor([8 * math.pi]).double(), 1.0, 4, 4)
    torch.testing.assert_close(circles.radius, torch.full((1, 2), 2.0, dtype=torch.float64))


def test_a_superpixel_lies_at_the_mean_of_its_pixels() -> None:
    labels = torch.tensor([[[0, 0, 1], [0, 2, 2]], [[0, 0, 0], [1, 1, 1]]], dtype=torch.int32)
    regions = Regions.superpixels(labels)
    assert regions.size.tolist() == [[3, 1, 2], [3, 3, 0]]
    torch.testing.assert_close(regions.row[0], torch.tensor([5 / 6, 0.5, 1.5], dtype=torch.float64))
    torch.testing.assert_close(regions.column[0], torch.tensor([5 / 6, 2.5, 2.0], dtype=torch.float64))
    everywhere = Circles(*torch.tensor([[[1.0]] * 2, [[1.0]] * 2, [[9.0]] * 2], dtype=torch.float64).unbind(0))
    covered = regions.covered(torch.arange(2), everywhere)
    assert covered.tolist() == [[True, True, True], [True, True, False]]
    assert regions.share(torch.arange(2), covered).tolist() == [1.0, 1.0]


def test_superpixels_of_the_batch_are_those_found_without_them() -> None:
    model = linear_classifier(size=SIZE)
    batch = grainy_batch(model, 3)
    method = DynamicAblation(iterations=40, superpixels=30)
    assert method.segmentation() == Segmentation(count=30)
    brought = method(model, with_superpixels(batch, 30), NOISE)
    assert torch.equal(method(model, batch, NOISE), brought)
    assert not torch.equal(method(model, with_superpixels(batch, 60), NOISE), brought)
    for none in (0, None):
        assert DynamicAblation(superpixels=none).segmentation() is None


def test_images_that_are_not_square_have_maps_of_their_size() -> None:
    model = Classifier(nn.Sequential(nn.AdaptiveAvgPool2d(4), *linear_classifier().network), classes=3)
    batch = grainy_batch(model, 3, 12, 20)
    for count in (0, 500):
        found = DynamicAblation(iterations=40, superpixels=count).explain(model, batch, NOISE)
        assert found.maps.shape == (3, 1, 12, 20) and not found.failed
        assert torch.as_tensor(found.columns["kept"]).shape == (3, 12, 20)


def test_a_longer_walk_begins_with_the_shorter_one() -> None:
    model = linear_classifier(size=SIZE)
    batch = grainy_batch(model, 3)
    short = DynamicAblation(iterations=30, superpixels=0).explain(model, batch, NOISE).columns["accepted_at"]
    long = DynamicAblation(iterations=90, superpixels=0).explain(model, batch, NOISE).columns["accepted_at"]
    assert [list(one) for one in short] == [[at for at in one if at <= 30] for one in long]
