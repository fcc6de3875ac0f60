"""LRP: closed forms, conservation, gradient × input, slow re-implementations of the rules, and Zennit."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from pydantic import ValidationError
from small_models import drawn, linear_classifier, make_batch, settle, small_classifier
from torch import Tensor, nn

from pipeline.contracts import Batch, Setting
from pipeline.errors import FatalError
from pipeline.methods import GradientXInput, LRPEpsilon
from pipeline.models import Classifier, ModelConfig, load_classifier
from pipeline.noise import Noise

COMPOSITES = ["epsilon", "epsilon_plus", "epsilon_gamma_box"]


def unbiased(network: nn.Module) -> nn.Module:
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    return network


def target_logits(model: Classifier, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(batch.images).gather(1, batch.targets[:, None])[:, 0]


def test_on_a_linear_model_it_is_weight_times_pixel_damped_by_epsilon() -> None:
    model = linear_classifier()
    batch = make_batch(model, size=4)
    weight, logits = model.network[1].weight[batch.targets].view_as(batch.images), target_logits(model, batch)
    damping = logits / (logits + 0.5 * logits.sign())
    found = LRPEpsilon(epsilon=0.5)(model, batch, Noise())
    torch.testing.assert_close(found, weight * batch.images * damping.view(-1, 1, 1, 1))


def test_with_relus_and_epsilon_to_zero_it_is_gradient_times_input() -> None:
    for name, size in (("cifar_resnet20", 32), ("densenet121", 32)):
        model = load_classifier(ModelConfig(name=name, weights="random"), classes=10)
        batch = make_batch(model, 2, size)
        expected = GradientXInput()(model, batch, Noise())
        found = LRPEpsilon(epsilon=1e-20)(model, batch, Noise())
        torch.testing.assert_close(found / expected.abs().max(), expected / expected.abs().max(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_without_biases_relevance_is_conserved(composite: str) -> None:
    network = unbiased(settle(nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 5),
    ), 3.0))  # fmt: skip
    model = Classifier(network, classes=5)
    batch = make_batch(model)
    found = LRPEpsilon.model_validate({"composite": composite})(model, batch, Noise())
    torch.testing.assert_close(found.sum((1, 2, 3)), target_logits(model, batch), rtol=1e-4, atol=0)


def slow_epsilon(network: nn.Sequential, image: Tensor, target: int, epsilon: float) -> Tensor:
    """Bach et al. 2015, Eq. 58, message by message, on a Flatten, Linear, activation, …, Linear stack."""
    activations = [image.flatten()]
    for layer in network[1:]:
        activations.append(layer(activations[-1]))
    relevance = torch.zeros_like(activations[-1])
    relevance[target] = activations[-1][target]
    for place in range(len(network) - 1, 0, -1):
        layer = network[place]
        if not isinstance(layer, nn.Linear):
            continue
        a, z = activations[place - 1], activations[place]
        lower = torch.zeros_like(a)
        for j in range(len(z)):
            lower += a * layer.weight[j] / (z[j] + epsilon * (1 if z[j] >= 0 else -1)) * relevance[j]
        relevance = lower
    return relevance.view_as(image)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.GELU(), nn.Hardswish(), nn.Tanh()])
@pytest.mark.parametrize("epsilon", [1e-6, 0.3])
def test_it_is_the_papers_sum_of_messages(activation: nn.Module, epsilon: float) -> None:
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(48, 20), activation, nn.Linear(20, 15), activation, nn.Linear(15, 3)
    )
    model = Classifier(settle(network, 4.0), classes=3)
    batch = make_batch(model, size=4)
    found = LRPEpsilon(epsilon=epsilon)(model, batch, Noise())
    for row, (image, target) in enumerate(zip(batch.images, batch.targets, strict=True)):
        expected = slow_epsilon(network, image, int(target), epsilon)
        torch.testing.assert_close(found[row], expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_a_pixel_of_the_value_zero_has_no_relevance() -> None:
    model = small_classifier()
    images = make_batch(model).images
    images[:, :, :4] = model.mean
    batch = Batch(images, torch.zeros(5, dtype=torch.long), tuple("abcde"))
    found = LRPEpsilon(zero="mean")(model, batch, Noise())
    assert found[:, :, :4].abs().max() == 0 < found[:, :, 4:].abs().max()


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "inception_v3", "mobilenet_v2"])
def test_relevance_stays_bounded_on_untrained_networks(name: str) -> None:
    model = load_classifier(ModelConfig(name=name, weights="random"), classes=10)
    size = 80 if name == "inception_v3" else 32
    settled_norm(model, size)
    batch = make_batch(model, 2, size)
    logits = target_logits(model, batch).abs().max()
    for composite in COMPOSITES[1:]:
        found = LRPEpsilon.model_validate({"composite": composite})(model, batch, Noise())
        assert found.isfinite().all()
        # These rules divide relevance among contributions of one sign: they cannot add to it.
        if composite == "epsilon_plus" and name != "densenet121":
            assert found.abs().sum((1, 2, 3)).max() <= 1.5 * logits
    plain = LRPEpsilon()(model, batch, Noise())
    assert plain.abs().max() <= 100 * logits


def settled_norm(model: Classifier, size: int) -> None:
    """Batch norm with statistics and weights of its own."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = None
    with torch.no_grad():
        model(drawn("statistics", 4, 3, size, size))
        for place, norm in enumerate(norms):
            norm.weight.copy_(drawn(f"weight {place}", norm.num_features, low=0.6, high=1.4))
            norm.bias.copy_(drawn(f"bias {place}", norm.num_features, low=-0.4, high=0.4))
    model.eval()


def zennits(model: Classifier, batch: Batch, composite: str) -> Tensor:
    """Zennit's relevance at the normalised image, batch norm folded where its canonizers know how."""
    composites = pytest.importorskip("zennit.composites")
    attribution, rules = pytest.importorskip("zennit.attribution"), pytest.importorskip("zennit.rules")
    types, canonizers = pytest.importorskip("zennit.types"), pytest.importorskip("zennit.torchvision")
    network = copy.deepcopy(model.network)
    residual = isinstance(network, torchvision.models.ResNet)
    given = {"canonizers": [canonizers.ResNetCanonizer() if residual else canonizers.VGGCanonizer()]}
    if composite == "epsilon":
        layers = [((types.Convolution, types.Linear), rules.Epsilon())]
        chosen = composites.LayerMapComposite(layer_map=composites.layer_map_base() + layers, **given)
    elif composite == "epsilon_plus":
        chosen = composites.EpsilonPlus(**given)
    else:
        low, high = -model.mean / model.std, (1 - model.mean) / model.std
        chosen = composites.EpsilonGammaBox(low=low, high=high, **given)
    images = (batch.images - model.mean) / model.std
    with torch.no_grad():
        start = F.one_hot(batch.targets, model.classes) * model.network(images)
    with attribution.Gradient(model=network, composite=chosen) as running:
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                # Folded, it is meant to be the identity; Zennit leaves its eps of 1e-5.
                norm.eps = 0.0
        return running(images, start)[1]


def miniature(name: str) -> nn.Module:
    """A narrow VGG without or with batch norm, a ResNet with few blocks, or a whole SqueezeNet."""
    if name == "resnet":
        return torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 2, 1, 1], num_classes=10)
    if name == "squeezenet":
        return torchvision.models.squeezenet1_0(num_classes=10)
    features = torchvision.models.vgg.make_layers([8, "M", 16, 16, "M"], batch_norm=name == "vgg_bn")
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 20), nn.ReLU(True), nn.Dropout(), nn.Linear(20, 10)]
    return nn.Sequential(features, *head)


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", ["vgg", "vgg_bn", "resnet", "squeezenet"])
def test_it_is_zennits(name: str, composite: str) -> None:
    # In double precision: rounding decides ReLUs near zero, and these differ between folded and unfolded weights.
    pytest.importorskip("zennit")
    network = settle(miniature(name), 2.0)
    model = Classifier(network, classes=10, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    settled_norm(model, 32)
    batch = make_batch(model, 2, 32)
    model = model.double()
    batch = Batch(batch.images.double(), batch.targets, batch.ids)
    expected = zennits(model, batch, composite)
    found = LRPEpsilon.model_validate({"composite": composite, "zero": "mean"})(model, batch, Noise())
    scale = expected.abs().amax((1, 2, 3), keepdim=True)
    assert (scale > 1e-6).all()
    torch.testing.assert_close(found / scale, expected / scale, atol=1e-8, rtol=0)


def test_with_pixels_as_the_input_it_is_zennits_without_normalisation() -> None:
    pytest.importorskip("zennit")
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)
    )
    model = Classifier(settle(network, 3.0), classes=4)
    batch = make_batch(model)
    for composite in COMPOSITES:
        found = LRPEpsilon.model_validate({"composite": composite})(model, batch, Noise())
        torch.testing.assert_close(found, zennits(model, batch, composite), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("composite", COMPOSITES[1:])
def test_the_normalisation_is_part_of_the_first_convolution(composite: str) -> None:
    inner = nn.Conv2d(3, 6, 3)
    rest = [nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)]
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    outside = Classifier(settle(nn.Sequential(inner, *rest), 3.0), classes=4, mean=mean, std=std)
    folded = copy.deepcopy(outside.network)
    folded[0].weight.data /= outside.std
    folded[0].bias.data -= (folded[0].weight * outside.mean).sum((1, 2, 3))
    inside = Classifier(folded, classes=4)
    batch = make_batch(outside)
    method = LRPEpsilon.model_validate({"composite": composite})
    torch.testing.assert_close(method(outside, batch, Noise()), method(inside, batch, Noise()), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("composite", COMPOSITES[1:])
@pytest.mark.parametrize("rows", [1, 2, 64])
def test_a_composites_map_does_not_depend_on_its_batch(composite: str, rows: int) -> None:
    model = load_classifier(ModelConfig(name="cifar_resnet20", weights="random"), classes=10)
    batch = make_batch(model, 3, 32)
    method = LRPEpsilon.model_validate({"composite": composite})
    together = method(model, batch, Noise())
    model.rows = rows
    torch.testing.assert_close(method(model, batch, Noise()), together, atol=1e-5, rtol=0)


class Transformed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 8)

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.layer(images * 2)).flatten(1)


def test_what_has_no_rule_is_objected_to() -> None:
    transformer = Classifier(torchvision.models.VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=10), classes=10)
    assert "layer_norm" in str(LRPEpsilon().objection(transformer, Setting(10, 16, 16)))
    softplus = Classifier(nn.Sequential(nn.Conv2d(3, 4, 8), nn.Softplus(), nn.Flatten()), classes=4)
    assert "softplus" in str(LRPEpsilon().objection(softplus, Setting(4, 8, 8)))
    dense = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Sigmoid(), nn.Linear(8, 4))
    assert "gates" in str(LRPEpsilon().objection(Classifier(dense, classes=4), Setting(4, 8, 8)))
    changed = Classifier(Transformed(), classes=4)
    assert LRPEpsilon().objection(changed, Setting(4, 8, 8)) is None
    assert "first convolution" in str(LRPEpsilon(composite="epsilon_plus").objection(changed, Setting(4, 8, 8)))


def test_a_tensor_changed_in_place_behind_the_rules_is_an_error() -> None:
    class Late(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            features, other = images.mean(2), images.mean(3)
            features.add_(other)
            return torch.relu(features).flatten(1)

    model = Classifier(Late(), classes=24)
    with pytest.raises(FatalError, match="in place"):
        LRPEpsilon()(model, make_batch(model), Noise())


def test_an_epsilon_of_zero_is_refused() -> None:
    with pytest.raises(ValidationError):
        LRPEpsilon(epsilon=0)


def between_convolutions(function: Callable[[Tensor], Tensor]) -> Classifier:
    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 6)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.last(function(self.first(images)))
            return logits.flatten(1)

    return Classifier(settle(Between(), 3.0), classes=3)


CURVED: dict[str, Callable[[Tensor], Tensor]] = {
    "power": lambda x: 2.0**x,
    "__pow__": lambda x: x**2,
    "where": lambda x: torch.where(x > 0.1, x, 0.0),
    "masked_fill": lambda x: x.masked_fill(x < 0.1, 0.0),
    "expm1": torch.expm1,
    "special_erf": torch.special.erf,
    "hypot": lambda x: torch.hypot(x, x),
    "addcmul": lambda x: torch.addcmul(x, x, x),
    "lerp": lambda x: torch.lerp(x, x.flip(1), 0.3),
    "cosine_similarity": lambda x: x * F.cosine_similarity(x.detach(), x, dim=1)[:, None],
    "cumsum": lambda x: torch.stack([x.cumsum(1), x]).sum(0),
    "exp_": lambda x: x.exp_(),
    "quotient": lambda x: torch.div(1.0, other=x),
    "rounded": lambda x: torch.div(x, 0.1, rounding_mode="floor") + x,
    "matmul": lambda x: torch.matmul(x, other=x.mT),
    "aten": torch.ops.aten.sinh,
}


@pytest.mark.parametrize("name", CURVED)
def test_what_is_not_known_to_be_linear_is_refused(name: str) -> None:
    model = between_convolutions(CURVED[name])
    with pytest.raises(FatalError, match="lrp_epsilon: no rule for"):
        LRPEpsilon()(model, make_batch(model), Noise())


LINEAR: dict[str, Callable[[Tensor], Tensor]] = {
    "quotient": lambda x: torch.div(x, other=torch.tensor(2.0)),
    "in place": lambda x: x.div_(2).mul_(3),
    "minus": lambda x: -(0 - x),
    "parts": lambda x: torch.cat([*x.chunk(2, 1)], 1).transpose(2, 3).mT,
    "clamp": lambda x: x.clamp(min=0),
    "clamp_min": lambda x: x.clamp_min_(0),
    "threshold": lambda x: F.threshold(x, 0.0, 0.0),
    "hardtanh": lambda x: F.hardtanh(x, -50.0, 50.0),
}


@pytest.mark.parametrize("name", LINEAR)
def test_what_is_piecewise_linear_passes(name: str) -> None:
    model = between_convolutions(LINEAR[name])
    batch = make_batch(model)
    expected = GradientXInput()(model, batch, Noise())
    torch.testing.assert_close(LRPEpsilon(epsilon=1e-20)(model, batch, Noise()), expected, atol=1e-5, rtol=1e-4)


def test_an_activation_sees_a_tensor_changed_in_place_behind_the_rules() -> None:
    class Late(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            features, other = images.mean(2), images.mean(3)
            features.add_(other)
            return torch.relu(features).flatten(1) + other.flatten(1)

    model = Classifier(Late(), classes=24)
    with pytest.raises(FatalError, match="in 'relu'"):
        LRPEpsilon()(model, make_batch(model), Noise())
