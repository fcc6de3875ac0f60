"""FullGrad: completeness, and the map against the published code's steps written out with hooks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_models import drawn, linear_classifier, make_batch, settle, small_classifier
from torch import Tensor, nn

from pipeline.contracts import Batch, Setting
from pipeline.errors import FatalError
from pipeline.methods.full_grad import FullGrad, full_gradient
from pipeline.models import Classifier, ModelConfig, load_classifier
from pipeline.noise import Noise


class Residual(nn.Module):
    """Batch normalisation, functional and in-place activations, a residual sum, max pooling."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.second, self.activation = nn.Conv2d(6, 6, 3, padding=1), activation
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.norm(self.first(images)), inplace=True)
        features = F.max_pool2d(self.activation(features + self.second(features)), 2)
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


def residual_classifier(activation: nn.Module) -> Classifier:
    network = settle(Residual(activation), 2.0)
    network.norm.running_mean.copy_(drawn("mean", 6, low=-1))
    network.norm.running_var.copy_(drawn("variance", 6, low=0.5, high=2))
    return Classifier(network, classes=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def sum_of_parts(model: Classifier, batch: Batch) -> Tensor:
    parts: list[Tensor] = []
    gradient = full_gradient(model, batch.images, batch.targets, "logit", parts.append)
    parts += [gradient * batch.images, -gradient * model.mean]
    return torch.stack([part.flatten(1).sum(1) for part in parts]).sum(0)


def logits_of(model: Classifier, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(batch.images).gather(1, batch.targets[:, None])[:, 0]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "activation", [nn.ReLU(inplace=True), nn.LeakyReLU(0.1), nn.PReLU(), nn.ReLU6(inplace=True), nn.SiLU(), nn.GELU()]
)
def test_the_parts_sum_to_the_output(activation: nn.Module, count: int) -> None:
    model = residual_classifier(activation)
    batch = make_batch(model, count)
    torch.testing.assert_close(sum_of_parts(model, batch), logits_of(model, batch), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "size"), [("mobilenet_v2", 32), ("squeezenet1_0", 48)])
def test_the_parts_sum_to_the_output_of_published_networks(name: str, size: int) -> None:
    model = load_classifier(ModelConfig(name=name, weights="random"), classes=5)
    batch = make_batch(model, 2, size=size)
    found, expected = sum_of_parts(model, batch), logits_of(model, batch)
    torch.testing.assert_close(found / expected, torch.ones(2), atol=1e-3, rtol=0)


def test_a_linear_model_has_weight_times_input_alone() -> None:
    model = linear_classifier()
    batch = make_batch(model, size=4)
    weights = model.network[1].weight[batch.targets].view_as(batch.images)
    size = (weights * batch.images).abs()
    low, high = size.amin((1, 2, 3), keepdim=True), size.amax((1, 2, 3), keepdim=True)
    expected = ((size - low) / (high - low)).sum(1, keepdim=True)
    torch.testing.assert_close(FullGrad()(model, batch, Noise()), expected)


def published_map(model: Classifier, image: Tensor, target: int, by_channel: bool) -> Tensor:
    """The published steps for one image: bias gradients by hooks on the modules, each rescaled and enlarged."""

    def processed(part: Tensor) -> Tensor:
        part = part.abs()
        groups = part.flatten(2).transpose(0, 1) if by_channel else part.flatten(1)[None]
        low, high = groups.amin((1, 2) if by_channel else 2), groups.amax((1, 2) if by_channel else 2)
        low, high = low.view(1, -1, 1, 1), high.view(1, -1, 1, 1)
        part = (part - low) / (high - low + 1e-20)
        large = F.interpolate(part, size=image.shape[1:], mode="bilinear", align_corners=True)
        return large.sum(1, keepdim=True)

    found, handles = [], []
    for module in model.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            bias = module.bias - module.running_mean * module.weight / torch.sqrt(module.running_var + module.eps)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            bias = module.bias
        else:
            continue

        def hook(owner: nn.Module, inputs: object, output: Tensor, bias: Tensor = bias) -> Tensor:
            found.append((output, bias))
            return output.clone()

        handles.append(module.register_forward_hook(hook))
    pixels = image[None].clone().requires_grad_(True)
    score = model(pixels)[0, target]
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(score, [pixels, *(output for output, _ in found)])
    total = processed(gradients[0] * image) + processed(gradients[0] * model.mean)
    for gradient, (_, bias) in zip(gradients[1:], found, strict=True):
        total = total + processed(gradient[:1] * bias.view(1, -1, 1, 1))
    return total


@pytest.mark.parametrize("rescale", ["layer", "channel"])
@pytest.mark.parametrize("rows", [1, 2, 64])
def test_a_map_is_that_of_the_published_steps(rescale: str, rows: int) -> None:
    model = residual_classifier(nn.ReLU())
    model.rows = rows
    batch = make_batch(model, 3)
    expected = [
        published_map(model, image, int(target), rescale == "channel")
        for image, target in zip(batch.images, batch.targets, strict=True)
    ]
    found = FullGrad(rescale=rescale)(model, batch, Noise())
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-4, rtol=1e-4)


def test_the_normalised_image_may_be_the_input() -> None:
    # A model without a bias: the input's part alone, of the normalised image.
    network = settle(nn.Sequential(nn.Flatten(), nn.Linear(48, 3, bias=False)))
    model = Classifier(network, classes=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    batch = make_batch(model, size=4)
    weights = network[1].weight[batch.targets].view_as(batch.images)
    size = (weights * (batch.images - model.mean) / model.std).abs()
    low, high = size.amin((1, 2, 3), keepdim=True), size.amax((1, 2, 3), keepdim=True)
    expected = ((size - low) / (high - low)).sum(1, keepdim=True)
    torch.testing.assert_close(FullGrad(input="normalised")(model, batch, Noise()), expected)


def test_networks_that_are_not_the_sum_of_their_parts_are_refused() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = settle(nn.Conv2d(3, 4, 3))

        def forward(self, images: Tensor) -> Tensor:
            features = self.inner(images)
            return (features * features.mean((2, 3), keepdim=True)).mean((2, 3))

    normalised = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    setting = Setting(4, 8, 8)
    assert "a product of features" in str(FullGrad().objection(Classifier(Gated(), classes=4), setting))
    model = Classifier(normalised, classes=4)
    assert "group_norm" in str(FullGrad().objection(model, setting))
    with pytest.raises(FatalError, match="group_norm"):
        FullGrad()(model, make_batch(model), Noise())
    assert FullGrad().objection(small_classifier(), Setting(5, 8, 8)) is None


def test_an_untrained_vision_transformer_is_refused() -> None:
    model = load_classifier(ModelConfig(name="vit_b_16", weights="random"), classes=5)
    assert str(FullGrad().objection(model, Setting(5, 224, 224))).startswith("full_grad: the network uses")


def test_a_network_that_autograd_refuses_is_objected_to() -> None:
    class Changed(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            features = images.sigmoid()
            features += images
            return features.mean((2, 3))

    objection = FullGrad().objection(Classifier(Changed(), classes=3), Setting(3, 8, 8))
    assert objection is not None and objection.startswith("full_grad: ") and "`y = y + x`" in objection
