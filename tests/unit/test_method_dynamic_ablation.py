"""Dynamic ablation against a slow form of Algorithm 1, closed forms and real images."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from small_models import linear_classifier
from torch import Tensor, nn

from pipeline.contracts import Batch, Explanation, Segmentation, Setting
from pipeline.fill import filled
from pipeline.methods.circle import Circles, Regions
from pipeline.methods.dynamic_ablation import DynamicAblation
from pipeline.metrics import Insertion
from pipeline.models import Classifier, ModelConfig, load_classifier
from pipeline.noise import Noise
from pipeline.superpixel import superpixels

SIZE = 12
NOISE = Noise(3)


def grainy_batch(model: Classifier, count: int = 6, height: int = SIZE, width: int = SIZE) -> Batch:
    ids = tuple(f"sample-{number}" for number in range(count))
    images = Noise(1).uniform("image", ids, (3, height, width))
    with torch.no_grad():
        return Batch(images, model(images).argmax(1), ids)


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


class DiscNetwork(nn.Module):
    """Class 1 where at least nine tenths of a disc's brightness are there, else class 0."""

    def __init__(self, disc: Tensor, brightness: float) -> None:
        super().__init__()
        self.disc = nn.Parameter(disc)
        self.threshold = 0.9 * brightness

    def forward(self, images: Tensor) -> Tensor:
        inside = (images * self.disc).flatten(1).sum(1)
        return torch.stack([torch.full_like(inside, self.threshold), inside], 1)


DISC_SIZE = 24


def disc() -> Tensor:
    """Pixels within 4 of (9, 14), (H, W) float32."""
    middle = torch.arange(DISC_SIZE) + 0.5
    return ((middle[:, None] - 9) ** 2 + (middle[None] - 14) ** 2 <= 16).float()


def disc_batch(count: int) -> Batch:
    ids = tuple(f"disc-{number}" for number in range(count))
    grain = 0.01 * Noise(1).uniform("image", ids, (3, DISC_SIZE, DISC_SIZE))
    return Batch(0.6 + grain, torch.ones(count, dtype=torch.long), ids)


def disc_classifier() -> Classifier:
    return Classifier(DiscNetwork(disc(), 0.605 * 3 * float(disc().sum())), classes=2)


def test_the_minimal_mask_of_a_classifier_that_looks_at_a_disc_is_about_the_disc() -> None:
    method = DynamicAblation(superpixels=0, iterations=800, circles=1, step=0.1)
    found = method.explain(disc_classifier(), disc_batch(6), NOISE)
    share = float(disc().mean())
    kept = torch.as_tensor(found.columns["kept"]).float()
    assert ((kept * disc()).sum((1, 2)) >= 0.88 * disc().sum()).all()
    mar = torch.as_tensor(found.columns["mar"])
    assert (mar >= 0.88 * share).all() and (mar <= 1.2 * share).all()
    inside = (found.maps[:, 0] * disc()).sum((1, 2)) / disc().sum()
    outside = (found.maps[:, 0] * (1 - disc())).sum((1, 2)) / (1 - disc()).sum()
    assert (inside > 0.9).all() and (outside < 0.5).all()
    assert (found.maps.amax((1, 2, 3)) == 1).all() and (found.maps >= 0).all()


def test_the_smallest_part_that_disturbs_that_classifier_is_about_a_tenth_of_the_disc() -> None:
    method = DynamicAblation(rule="negative", superpixels=0, iterations=800, circles=1)
    found = method.explain(disc_classifier(), disc_batch(6), NOISE)
    share = float(disc().mean())
    mar = torch.as_tensor(found.columns["mar"])
    assert (mar >= 0.08 * share).all() and (mar <= 0.2 * share).all()
    assert torch.as_tensor(found.columns["premise"]).all() and not found.failed


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


def test_an_image_that_is_not_predicted_as_its_target_fails_with_the_reason() -> None:
    model = linear_classifier(size=SIZE)
    batch = grainy_batch(model)
    other = replace(batch, targets=torch.where(torch.arange(6) == 2, (batch.targets + 1) % 3, batch.targets))
    for rule in ("positive", "negative"):
        method = DynamicAblation.model_validate({"rule": rule, "superpixels": 0, "iterations": 60})
        found, right = method.explain(model, other, NOISE), method.explain(model, batch, NOISE)
        assert found.maps[2].isnan().all() and not torch.as_tensor(found.columns["premise"])[2]
        assert f"predicted as class {int(batch.targets[2])}, not as the explained class" in found.failed[2]
        others = torch.arange(6) != 2
        assert torch.equal(found.maps[others].nan_to_num(2), right.maps[others].nan_to_num(2))


class Brightness(nn.Module):
    """Class 1 where the mean of the image is at least (or, `dark`, at most) the threshold, else class 0."""

    def __init__(self, threshold: float, *, dark: bool = False) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))
        self.sign = -1 if dark else 1

    def forward(self, images: Tensor) -> Tensor:
        over = self.sign * (images.flatten(1).mean(1) - self.threshold)
        return torch.stack([-over, over + 1e-9], 1)


def explained(network: nn.Module, **parameters: object) -> Explanation:
    model = Classifier(network, classes=2)
    batch = grainy_batch(model, 3)
    return DynamicAblation.model_validate({"iterations": 50, **parameters}).explain(model, batch, NOISE)


def test_an_image_whose_black_is_predicted_the_same_fails_for_neg_r_where_nothing_helps() -> None:
    found = explained(Brightness(0.9, dark=True), rule="negative")
    assert not torch.as_tensor(found.columns["premise"]).any() and found.maps.isnan().all()
    assert len(found.failed) == 3 and "filled with black the explained class is still predicted" in found.failed[0]


class Middle(nn.Module):
    """Class 0 where the mean brightness is between 0.15 and 0.35, else class 1: black and white are predicted alike."""

    def forward(self, images: Tensor) -> Tensor:
        away = (images.flatten(1).mean(1) - 0.25).abs() - 0.1
        return torch.stack([-away, away], 1)


def test_a_false_premise_of_neg_r_is_told_and_the_map_kept_where_a_mask_disturbs() -> None:
    found = explained(Middle(), rule="negative", superpixels=0)
    assert not torch.as_tensor(found.columns["premise"]).any() and not found.failed
    assert found.maps.isfinite().all() and (torch.as_tensor(found.columns["mar"]) < 0.7).all()


def test_an_image_of_which_nothing_can_go_has_mar_one() -> None:
    found = explained(Brightness(0.47), superpixels=0)
    assert not found.failed and not found.maps.any() and found.columns["areas"] == [[], [], []]
    assert torch.as_tensor(found.columns["premise"]).all()
    assert torch.as_tensor(found.columns["kept"]).all() and (torch.as_tensor(found.columns["mar"]) == 1).all()


def test_a_fill_that_is_predicted_alone_is_told_for_pos_r() -> None:
    found = explained(Brightness(0.9, dark=True), superpixels=0)
    assert not found.failed and not torch.as_tensor(found.columns["premise"]).any()


class NotANumber(nn.Module):
    """Logits that are not a number where the image is dark."""

    def forward(self, images: Tensor) -> Tensor:
        light = images.flatten(1).mean(1)
        return torch.stack([light, torch.where(light < 0.3, torch.nan, 0.0)], 1)


def test_logits_that_are_no_numbers_predict_nothing() -> None:
    assert not any(explained(NotANumber(), rule="negative", superpixels=0).columns["areas"])
    suffices = explained(NotANumber(), superpixels=0)
    light = (grainy_batch(Classifier(NotANumber(), classes=2), 3).images * suffices.columns["kept"][:, None]).mean(
        (1, 2, 3)
    )
    assert (light >= 0.3).all() and (torch.as_tensor(suffices.columns["mar"]) < 1).all()
    model = Classifier(NotANumber(), classes=2)
    dark = replace(grainy_batch(model, 1), images=torch.zeros(1, 3, SIZE, SIZE))
    assert "not finite" in DynamicAblation(iterations=3, superpixels=0).explain(model, dark, NOISE).failed[0]


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


def test_on_real_images_masks_are_small_and_maps_beat_random_ones(shared_data: Path) -> None:
    weights = shared_data / "weights" / "cifar10_resnet20.safetensors"
    model = load_classifier(ModelConfig(name="cifar_resnet20", weights=str(weights)), classes=10)
    cells = pq.read_table(shared_data / "cifar10" / "test.parquet")["image"].slice(0, 10).to_pylist()
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in cells])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    batch = Batch(images, model(images).argmax(1), tuple(map(str, range(10))))
    found = DynamicAblation(iterations=80).explain(model, batch, NOISE)
    assert not found.failed and torch.as_tensor(found.columns["mar"]).mean() < 0.4
    insertion = Insertion(step=64)
    own = insertion(model, batch, found.maps).measures["auc"].mean()
    chance = insertion(model, batch, NOISE.normal("map", batch.ids, (1, 32, 32))).measures["auc"].mean()
    assert own > chance + 0.1
