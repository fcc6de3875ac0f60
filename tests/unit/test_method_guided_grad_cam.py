"""Guided Grad-CAM."""

from __future__ import annotations

import pytest
import torch
from captum.attr import GuidedGradCam as CaptumGuidedGradCam
from small_models import make_batch, small_classifier
from torch import nn

from pipeline.contracts import Setting
from pipeline.methods.grad_cam import GradCam
from pipeline.methods.guided_backprop import GuidedBackprop
from pipeline.methods.guided_grad_cam import GuidedGradCam
from pipeline.models import Classifier
from pipeline.noise import Noise


def test_it_is_the_product_of_its_parts() -> None:
    model = small_classifier()
    batch = make_batch(model)
    guided, cam = GuidedBackprop()(model, batch, Noise()), GradCam(layer="3")(model, batch, Noise())
    found = GuidedGradCam(layer="3")(model, batch, Noise())
    assert found.shape == (5, 3, 8, 8) and found.abs().sum() > 0
    torch.testing.assert_close(found, guided * cam)


def test_captum_agrees() -> None:
    model = small_classifier()
    batch = make_batch(model)
    separate = small_classifier()
    separate.network[1], separate.network[3] = nn.ReLU(), nn.ReLU()
    theirs = CaptumGuidedGradCam(separate, separate.network[3])
    expected = theirs.attribute(
        batch.images.clone().requires_grad_(), target=batch.targets, interpolate_mode="bilinear"
    ).detach()
    found = GuidedGradCam(layer="3")(model, batch, Noise())
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize(
    ("network", "layer", "said"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3)), None, "spatial"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(16, 3)), "0", "gelu"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)), "nowhere", "nowhere"),
    ],
)
def test_it_objects(network: nn.Module, layer: str | None, said: str) -> None:
    reason = GuidedGradCam(layer=layer).objection(Classifier(network, classes=3), Setting(3, 4, 4))
    assert reason is not None and reason.startswith("guided_grad_cam") and said in reason


def test_it_accepts_a_network_of_relus() -> None:
    assert GuidedGradCam(layer="3").objection(small_classifier(), Setting(5, 8, 8)) is None
