"""Ablation-CAM against its formula, one channel at a time, and its closed form after global pooling."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_models import make_batch, small_classifier
from torch import Tensor

from pipeline.contracts import Setting
from pipeline.errors import FatalError
from pipeline.methods.ablation_cam import AblationCam
from pipeline.methods.grad_cam import GradCam
from pipeline.models import Classifier
from pipeline.models.pass_counter import counting
from pipeline.noise import Noise


def slow_ablation_cam(model: Classifier, image: Tensor, target: int, layer: int, relu: bool) -> Tensor:
    """(y − y_k) / y for each channel k, by running the rest of the small network without it."""
    with torch.no_grad():
        maps = model.network[: layer + 1]((image[None] - model.mean) / model.std)
        rest = model.network[layer + 1 :]
        clean = rest(maps.clone())[0, target]
        cam = torch.zeros(1, 1, *maps.shape[2:])
        for channel in range(maps.shape[1]):
            without = maps.clone()
            without[:, channel] = 0
            cam += (clean - rest(without)[0, target]) / clean.abs() * maps[:, channel : channel + 1]
        cam = cam.clamp(min=0) if relu else cam
        return F.interpolate(cam, size=image.shape[1:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.parametrize("rows", [1, 3, 64])
def test_a_map_is_that_of_the_formula(layer: int, rows: int, relu: bool) -> None:
    # Layer 3 is the same module as layer 1: the channel is taken from its second output alone.
    model = small_classifier()
    model.rows = rows
    batch = make_batch(model, 3, size=9)
    expected = [
        slow_ablation_cam(model, image, int(target), layer, relu)
        for image, target in zip(batch.images, batch.targets, strict=True)
    ]
    found = AblationCam(layer=str(layer), relu=relu)(model, batch, Noise())
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=1e-4)


def test_after_global_pooling_and_a_linear_head_the_weight_is_the_mean_contribution() -> None:
    # y − y_k = w_k · mean(A_k), and Grad-CAM's weight is w_k / (h·w): each map is weighted by its own sum more.
    model = small_classifier()
    batch = make_batch(model, 3)
    with torch.no_grad():
        maps = model.network[:4]((batch.images - model.mean) / model.std)
        logits = model(batch.images).gather(1, batch.targets[:, None])
        weights = model.network[6].weight[batch.targets] * maps.mean((2, 3)) / logits.abs()
        expected = (weights[:, :, None, None] * maps).sum(1, keepdim=True)
        expected = F.interpolate(expected, size=(8, 8), mode="bilinear", align_corners=False)
    found = AblationCam(layer="3", relu=False)(model, batch, Noise())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found, GradCam(layer="3", relu=False)(model, batch, Noise()), atol=1e-3)


def test_channels_that_are_zero_need_no_forward() -> None:
    model = small_classifier()
    with torch.no_grad():
        model.network[2].bias[:4] = -100
    batch = make_batch(model, 2)
    with counting(model) as counts:
        AblationCam(layer="3")(model, batch, Noise())
    with torch.no_grad():
        maps = model.network[:4]((batch.images - model.mean) / model.std)
    assert counts.forwards == 2 + int((maps != 0).flatten(2).any(2).sum()) <= 2 * (1 + 8)


def test_a_layer_with_more_channels_than_declared_is_refused() -> None:
    model = small_classifier()
    method = AblationCam(layer="3", channels=11)
    assert "ablation_cam: the layer has 12 channels" in str(method.objection(model, Setting(5, 8, 8)))
    with pytest.raises(FatalError, match="set `channels: 12`"):
        method(model, make_batch(model), Noise())
