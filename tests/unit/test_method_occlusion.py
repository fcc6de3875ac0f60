"""Occlusion against its closed form on a linear model, a loop over patches and Captum."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from captum.attr import Occlusion as CaptumOcclusion
from pydantic import ValidationError
from small_models import linear_classifier, make_batch, small_classifier
from torch import Tensor

from pipeline.contracts import Setting
from pipeline.errors import FatalError
from pipeline.fill import filled
from pipeline.methods.occlusion import Occlusion
from pipeline.models import Classifier
from pipeline.noise import Noise


def test_a_patch_of_one_pixel_gives_weight_times_input_on_a_linear_model() -> None:
    model = linear_classifier()
    batch = make_batch(model, size=4)
    weights = model.network[1].weight[batch.targets].view_as(batch.images)
    found = Occlusion(patch=1, stride=1, fill="black", output="logit")(model, batch, Noise())
    torch.testing.assert_close(found, (weights * batch.images).sum(1, keepdim=True))


@pytest.mark.parametrize(("size", "patch", "stride"), [(12, 5, 3), (12, 4, 4), (13, 6, 2), (9, 9, 1), (10, 7, 7)])
@pytest.mark.parametrize("rows", [2, 7, 64])
def test_partial_patches_are_captums(size: int, patch: int, stride: int, rows: int) -> None:
    model = small_classifier()
    model.rows = rows
    batch = make_batch(model, 3, size=size)
    expected = CaptumOcclusion(lambda images: F.softmax(model(images), 1)).attribute(
        batch.images,
        sliding_window_shapes=(3, patch, patch),
        strides=(3, stride, stride),
        baselines=model.mean.expand_as(batch.images),
        target=batch.targets,
    )
    found = Occlusion(patch=patch, stride=stride)(model, batch, Noise())
    scale = expected.abs().max()
    torch.testing.assert_close(found.expand(-1, 3, -1, -1) / scale, expected / scale, atol=1e-4, rtol=0)


def slow_occlusion(model: Classifier, image: Tensor, target: int, patch: int, stride: int, fill: Tensor) -> Tensor:
    """Whole patches alone, one at a time, and for each pixel the mean over those that covered it."""
    _, height, width = image.shape
    total, count = torch.zeros(height, width), torch.zeros(height, width)
    with torch.no_grad():
        clean = F.log_softmax(model(image[None]), 1)[0, target]
        for top in range(0, height - patch + 1, stride):
            for left in range(0, width - patch + 1, stride):
                covered = image.clone()
                here = (slice(top, top + patch), slice(left, left + patch))
                covered[:, *here] = fill[:, *here]
                total[here] += clean - F.log_softmax(model(covered[None]), 1)[0, target]
                count[here] += 1
    return torch.where(count > 0, total / count.clamp(min=1), torch.zeros(()))


@pytest.mark.parametrize("fill", ["white", "blur"])
def test_whole_patches_are_those_of_a_loop(fill: str) -> None:
    model = small_classifier()
    batch = make_batch(model, 2, size=12)
    found = Occlusion(patch=5, stride=3, edge="inside", fill=fill, output="log_probability")(model, batch, Noise())
    for row, under in enumerate(filled(fill, model, batch.images)):
        expected = slow_occlusion(model, batch.images[row], int(batch.targets[row]), 5, 3, under)
        torch.testing.assert_close(found[row, 0], expected, atol=1e-5, rtol=1e-4)


def test_pixels_under_the_same_patches_are_ties() -> None:
    model = small_classifier()
    batch = make_batch(model, 2, size=12)
    found = Occlusion(patch=6, stride=3)(model, batch, Noise())
    cells = found.view(2, 4, 3, 4, 3)
    assert (cells == cells[:, :, :1, :, :1]).all()


def test_the_cost_at_224_is_that_of_patch_15_and_stride_8() -> None:
    setting = Setting(1000, 224, 224)
    assert Occlusion(edge="inside").cost(setting).forwards == 1 + 27**2
    assert Occlusion().cost(setting).forwards == 1 + 28**2


def test_a_patch_larger_than_the_image_is_refused() -> None:
    model = small_classifier()
    assert "patch 15 is larger than the image, 8 × 8" in str(Occlusion().objection(model, Setting(5, 8, 8)))
    assert Occlusion(patch=8).objection(model, Setting(5, 8, 8)) is None
    with pytest.raises(FatalError, match="patch 15"):
        Occlusion()(model, make_batch(model), Noise())


def test_a_stride_that_leaves_gaps_is_refused() -> None:
    with pytest.raises(ValidationError, match="leaves pixels uncovered"):
        Occlusion(patch=4, stride=5)
