"""DeepLIFT: closed forms, a slow re-implementation, Captum where it is right, and completeness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from captum.attr import DeepLift as CaptumDeepLift
from small_models import drawn, linear_classifier, make_batch, settle, small_classifier
from torch import Tensor, nn

from pipeline.contracts import Batch, Setting
from pipeline.errors import FatalError
from pipeline.fill import Fill, filled
from pipeline.methods import DeepLift
from pipeline.models import Classifier, ModelConfig, load_classifier
from pipeline.noise import Noise


def change(model: Classifier, batch: Batch, baseline: Fill = "black") -> Tensor:
    """f(x) − f(baseline) of each image."""
    with torch.no_grad():
        start = filled(baseline, model, batch.images).contiguous()
        return (model(batch.images) - model(start)).gather(1, batch.targets[:, None])[:, 0]


def assert_complete(model: Classifier, batch: Batch, method: DeepLift) -> None:
    found = method(model, batch, Noise()).double().sum(dim=(1, 2, 3))
    torch.testing.assert_close(found.float(), change(model, batch, method.baseline), rtol=1e-3, atol=0)


@pytest.mark.parametrize("baseline", ["black", "white", "mean", "blur"])
def test_on_a_linear_model_it_is_weight_times_difference(baseline: Fill) -> None:
    model = linear_classifier()
    batch = make_batch(model, size=4)
    weight = model.network[1].weight[batch.targets].view_as(batch.images)
    found = DeepLift(baseline=baseline)(model, batch, Noise())
    torch.testing.assert_close(found, weight * (batch.images - filled(baseline, model, batch.images)))


def slow_deeplift(network: nn.Sequential, image: Tensor, start: Tensor, target: int) -> Tensor:
    """Eq. 3 and the rescale rule on a Flatten, Linear, activation, …, Linear stack: explicit matrices, one image."""
    here, there = [image.flatten()], [start.flatten()]
    for layer in network[1:]:
        here.append(layer(here[-1]))
        there.append(layer(there[-1]))
    multiplier = torch.zeros_like(here[-1])
    multiplier[target] = 1.0
    for place in range(len(network) - 1, 0, -1):
        layer = network[place]
        if isinstance(layer, nn.Linear):
            multiplier = multiplier @ layer.weight
        else:
            multiplier = multiplier * (here[place] - there[place]) / (here[place - 1] - there[place - 1])
    return (multiplier * (here[0] - there[0])).view_as(image)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid(), nn.GELU(), nn.LeakyReLU(0.2), nn.Tanh(), nn.PReLU()])
def test_it_is_the_product_of_the_papers_multipliers(activation: nn.Module) -> None:
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(48, 20), activation, nn.Linear(20, 15), activation, nn.Linear(15, 3)
    )
    model = Classifier(settle(network, 2.0), classes=3)
    batch = make_batch(model, size=4)
    found = DeepLift()(model, batch, Noise())
    for row, (image, target) in enumerate(zip(batch.images, batch.targets, strict=True)):
        expected = slow_deeplift(network, image, torch.zeros_like(image), int(target))
        torch.testing.assert_close(found[row], expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_the_rule_sees_functional_reused_and_in_place_activations_alike() -> None:
    batch = make_batch(small_classifier())

    class Functional(nn.Module):
        def __init__(self, like: nn.Module) -> None:
            super().__init__()
            self.like = like

        def forward(self, images: Tensor) -> Tensor:
            like = self.like
            features = torch.relu(like[0](images))
            features = like[2](features).clamp(min=0)
            logits: Tensor = like[6](features.mean((2, 3)))
            return logits

    model = small_classifier()
    expected = DeepLift()(model, batch, Noise())
    model.network = Functional(model.network)
    torch.testing.assert_close(DeepLift()(model, batch, Noise()), expected)


def test_where_nothing_changes_the_multiplier_is_the_derivative() -> None:
    # The image is the baseline in its upper half: sigmoid units there see no difference, and a white baseline moved
    # by a millionth gives the gradient's map.
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.Flatten(), nn.Linear(4 * 64, 3))
    model = Classifier(settle(network, 2.0), classes=3)
    images = (1 - 1e-6 * drawn("near", 2, 3, 8, 8)).requires_grad_()
    targets = torch.tensor([0, 2])
    gradient = torch.autograd.grad(model(images).gather(1, targets[:, None]).sum(), images)[0]
    found = DeepLift(baseline="white")(model, Batch(images.detach(), targets, ("a", "b")), Noise())
    difference = images.detach() - 1
    torch.testing.assert_close(found / difference.masked_fill(difference == 0, 1), gradient * (difference != 0))


def slow_pooling(image: Tensor, start: Tensor, weight: Tensor) -> Tensor:
    """Contributions behind one 2 × 2 max pooling, window by window: the change goes to the unit that made it."""
    contribution = torch.zeros_like(image)
    for c in range(image.shape[0]):
        for i in range(0, image.shape[1], 2):
            for j in range(0, image.shape[2], 2):
                window, before = image[c, i : i + 2, j : j + 2], start[c, i : i + 2, j : j + 2]
                rise = window.max() - before.max()
                place = int((window if rise >= 0 else before).argmax())
                contribution[c, i + place // 2, j + place % 2] = weight[c, i // 2, j // 2] * rise
    return contribution


def test_a_max_pooling_credits_the_unit_that_made_the_change() -> None:
    network = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    model = Classifier(settle(network), classes=3)
    batch = make_batch(model, size=4)
    start = filled("blur", model, batch.images)
    found = DeepLift(baseline="blur")(model, batch, Noise())
    for row, target in enumerate(batch.targets.tolist()):
        expected = slow_pooling(batch.images[row], start[row], network[2].weight[target].view(3, 2, 2))
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-4)


class Gate(nn.Module):
    """A network that scales its features by a gate, and adds what it started from."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Conv2d(3, 6, 3), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = F.silu(self.first(images))
        gate = torch.sigmoid(self.gate(features.mean((2, 3))))
        features = features + features * gate[:, :, None, None]
        logits: Tensor = self.last(F.max_pool2d(features, 3, stride=2, padding=1, ceil_mode=True).mean((2, 3)))
        return logits


def test_products_of_features_keep_completeness() -> None:
    model = Classifier(settle(Gate(), 3.0), classes=3)
    assert_complete(model, make_batch(model), DeepLift())
    assert DeepLift().objection(model, Setting(3, 8, 8)) is None


def settled_norm(model: Classifier, size: int) -> None:
    """Batch norm with statistics of its own, so that an untrained network's output says something."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = None
    with torch.no_grad():
        model(drawn("statistics", 4, 3, size, size))
    model.eval()


NETWORKS = [
    ("squeezenet1_0", 64), ("resnet18", 48), ("vgg11", 32), ("inception_v3", 80), ("densenet121", 32),
    ("mobilenet_v2", 48), ("cifar_resnet20", 32), ("efficientnet_b0", 48), ("mobilenet_v3_small", 48),
]  # fmt: skip


@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_the_map_sums_to_the_change_of_the_output(name: str, size: int) -> None:
    model = load_classifier(ModelConfig(name=name, weights="random"), classes=10)
    settled_norm(model, size)
    assert_complete(model, make_batch(model, 2, size), DeepLift())


def test_it_is_captums_where_captum_is_complete() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
    )
    model = Classifier(settle(network, 2.0), classes=5)
    batch = make_batch(model)
    expected = CaptumDeepLift(model).attribute(batch.images, torch.zeros_like(batch.images), target=batch.targets)
    torch.testing.assert_close(expected.sum((1, 2, 3)), change(model, batch), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(DeepLift()(model, batch, Noise()), expected.detach(), atol=1e-5, rtol=1e-4)


def test_a_transformer_is_objected_to() -> None:
    model = Classifier(torchvision.models.VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=10), classes=10)
    assert "layer_norm" in str(DeepLift().objection(model, Setting(10, 16, 16)))


class Sinh(torch.autograd.Function):
    """A function that no rule sees."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return torch.sinh(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * torch.cosh(ctx.saved_tensors[0])


class Hidden(nn.Module):
    """Logits that are not linear in the features, unseen."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = images.mean((2, 3))
        logits: Tensor = Sinh.apply(4 * self.layer(features))
        return logits


def test_a_sum_that_misses_the_change_is_objected_to() -> None:
    model = Classifier(settle(Hidden(), 2.0), classes=3)
    assert "neither linear nor known" in str(DeepLift().objection(model, Setting(3, 8, 8)))


def test_a_forward_that_depends_on_pixel_values_is_an_error() -> None:
    class Moody(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            features = images.mean((2, 3))
            return torch.relu(features) if features.sum() > 0 else torch.tanh(features)

    model = Classifier(Moody(), classes=3)
    with pytest.raises(FatalError, match="depends on the pixels"):
        DeepLift()(model, make_batch(model), Noise())


class Cut(nn.Module):
    """Linear, a function, linear."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.function = nn.Linear(48, 12), nn.Linear(12, 3), function

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.second(self.function(self.first(images.flatten(1))))
        return logits


BOUNDS: dict[str, Callable[[Tensor], Tensor]] = {
    "below 1": lambda x: x.clamp(max=1.0),
    "between": lambda x: torch.clip(x, -0.5, 0.5),
    "in place": lambda x: x.clamp_(-0.2, 0.7),
    "relu": lambda x: x.clamp(min=0),
    "relu6": lambda x: x.clamp(0, 6),
    "minimum": lambda x: x.clamp_min(0),
    "threshold": lambda x: F.threshold(x, 0.0, 0.0),
    "hardtanh": F.hardtanh,
}


@pytest.mark.parametrize("name", BOUNDS)
def test_values_cut_off_at_bounds_have_the_rescale_rule(name: str) -> None:
    model = Classifier(settle(Cut(BOUNDS[name]), 4.0), classes=3)
    batch = make_batch(model, 3, 4)
    assert_complete(model, batch, DeepLift())
    network = model.network
    assert isinstance(network, Cut)
    before = network.first(torch.zeros(1, 48))
    here = network.first(batch.images.flatten(1))
    function = BOUNDS[name]
    multiplier = (function(here.clone()) - function(before.clone())) / (here - before)
    expected = (network.second.weight[batch.targets] * multiplier) @ network.first.weight
    found = DeepLift()(model, batch, Noise())
    torch.testing.assert_close(found.flatten(1), expected * batch.images.flatten(1), atol=1e-5, rtol=1e-4)
