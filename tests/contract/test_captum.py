"""Agreement with Captum, to 1e-4 of each map's largest value, where Captum is right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from captum.attr import InputXGradient, LayerAttribution, LayerGradCam, Saliency
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from torch import Tensor, nn

from pipeline.contracts import Batch
from pipeline.methods import GradCam, Gradient, GradientXInput, IntegratedGradients
from pipeline.models import Classifier, ModelConfig, load_classifier
from pipeline.models.layers import last_spatial_layer
from pipeline.noise import Noise

MODELS = [
    ("cifar_resnet20", 32, 10, "cifar10_resnet20.safetensors"),
    ("squeezenet1_0", 224, 1000, "imagenet_squeezenet1_0.safetensors"),
    ("mobilenet_v2", 64, 20, None),
    ("resnet18", 64, 20, None),
    ("densenet121", 64, 20, None),
    ("vgg11", 64, 20, None),
]


@pytest.fixture(params=MODELS, ids=lambda row: row[0])
def case(request: pytest.FixtureRequest) -> tuple[Classifier, Batch]:
    name, size, classes, file = request.param
    weights = "random"
    if file is not None:
        shared: Path = request.getfixturevalue("shared_data")
        weights = str(shared / "weights" / file)
    model = load_classifier(ModelConfig(name=name, weights=weights), classes=classes)
    ids = ("a", "b", "c")
    # Smooth images with a grain: on pure noise the scores of an untrained network hardly differ, and on flat places
    # the winner of a max pooling is decided by rounding.
    smooth = nn.functional.interpolate(Noise().uniform("image", ids, (3, 8, 8)), size=size, mode="bilinear")
    images = 0.8 * smooth + 0.2 * Noise().uniform("grain", ids, (3, size, size))
    with torch.no_grad():
        return model, Batch(images, model(images).argmax(1), ids)


def assert_agrees(found: Tensor, expected: Tensor) -> None:
    scale = expected.abs().amax(dim=(1, 2, 3), keepdim=True)
    assert (scale > 0).all()
    torch.testing.assert_close(found / scale, expected.detach() / scale, atol=1e-4, rtol=0)


def test_gradient(case: tuple[Classifier, Batch]) -> None:
    model, batch = case
    expected = Saliency(model).attribute(batch.images, target=batch.targets, abs=False)
    assert_agrees(Gradient()(model, batch, Noise()), expected)


def test_gradient_x_input(case: tuple[Classifier, Batch]) -> None:
    model, batch = case
    expected = InputXGradient(model).attribute(batch.images.clone().requires_grad_(), target=batch.targets)
    assert_agrees(GradientXInput()(model, batch, Noise()), expected)


@pytest.mark.parametrize(("ours", "theirs"), [("gauss_legendre", "gausslegendre"), ("riemann_right", "riemann_right")])
def test_integrated_gradients(case: tuple[Classifier, Batch], ours: str, theirs: str) -> None:
    # Eight steps: eighths are exact in binary. Captum's tenths are off by a last bit, which moves a point across the
    # kink of a ReLU now and then; ours then agrees with the plain sum and Captum's does not.
    model, batch = case
    method = CaptumIntegratedGradients(model)
    expected = method.attribute(
        batch.images, torch.zeros_like(batch.images), target=batch.targets, n_steps=8, method=theirs
    )
    found = IntegratedGradients.model_validate({"steps": 8, "quadrature": ours})(model, batch, Noise())
    assert_agrees(found, expected.float())


def test_grad_cam(case: tuple[Classifier, Batch]) -> None:
    model, batch = case
    size = batch.images.shape[-2:]
    layer = model.network.get_submodule(last_spatial_layer(model.network, *size))
    cam = LayerGradCam(model, layer).attribute(batch.images, target=batch.targets, relu_attributions=True)
    expected = LayerAttribution.interpolate(cam, tuple(size), "bilinear")
    found = GradCam()(model, batch, Noise())
    scale = expected.abs().amax().clamp(min=1e-12)
    torch.testing.assert_close(found / scale, expected.detach() / scale, atol=1e-4, rtol=0)
