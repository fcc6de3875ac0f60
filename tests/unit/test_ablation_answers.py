"""What dynamic ablation finds where the answer is known, and what it says where there is none."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from ablation_case import NOISE, SIZE, disc, disc_batch, disc_classifier, grainy_batch
from PIL import Image
from small_models import linear_classifier
from torch import Tensor, nn

from pipeline.contracts import Batch, Explanation
from pipeline.methods.dynamic_ablation import DynamicAblation
from pipeline.metrics import Insertion
from pipeline.models import Classifier, ModelConfig, load_classifier


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
