"""Learned propagation rules against a slow, literal re-implementation, finite differences and Eq. 6 in loops."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from small_models import drawn, linear_classifier, make_batch, settle, small_classifier
from torch import Tensor, nn

from pipeline.contracts import Batch, Setting
from pipeline.errors import FatalError
from pipeline.methods.gradient import GradientXInput
from pipeline.methods.learned_propagation import LearnedPropagation, smoothed
from pipeline.methods.propagation_rule import LearnedRules, Plugin, activation_inputs
from pipeline.models import Classifier
from pipeline.models.activation import replaced_activations
from pipeline.models.build import build_network
from pipeline.noise import Noise


def slow_masks(method: LearnedPropagation, attribution: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 4 and 5 (or the sense of Eq. 6) for one map (3, H, W)."""
    if method.mask_channels == "joint":
        attribution = attribution.sum(0, keepdim=True)
    if method.scaling == "extremes":
        scaled = (attribution - attribution.min()) / (attribution.max() - attribution.min())
    else:
        scaled = (attribution / attribution.abs().max() + 1) / 2
    if method.mask == "gaussian":
        near = slow_smoothed(scaled, method.sigma * min(scaled.shape[-2:]))
        return (1 - near).expand(3, -1, -1), near.expand(3, -1, -1)
    positive = 1 - 1 / (1 + torch.exp(-method.gamma * (scaled - method.alpha)))
    negative = 1 / (1 + torch.exp(-method.gamma * (scaled - method.beta)))
    return positive.expand(3, -1, -1), negative.expand(3, -1, -1)


def slow_smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Eq. 6 by loops over all pairs of pixels; a kernel that ends at four sigma (a pixel at least) on either axis."""
    height, width = maps.shape[-2:]
    reach = max(1, math.ceil(4 * sigma))
    places = [(y, x) for y in range(height) for x in range(width)]
    near = torch.zeros(len(places), len(places), dtype=maps.dtype)
    for u, (y, x) in enumerate(places):
        for v, (b, a) in enumerate(places):
            if max(abs(y - b), abs(x - a)) <= reach:
                near[u, v] = math.exp(-((y - b) ** 2 + (x - a) ** 2) / (2 * sigma**2))
    return ((near / near.sum(1, keepdim=True)) @ maps.flatten(1).T).T.view_as(maps)


def slow_map(method: LearnedPropagation, model: Classifier, image: Tensor, target: int) -> Tensor:
    """One image through the small network, with the backward pass written out and Adam by hand."""
    first, second, head = model.network[0], model.network[2], model.network[6]
    zero = torch.zeros_like(image) if method.zero == "black" else model.mean[0].expand_as(image)

    def features(pixels: Tensor) -> list[Tensor]:
        f1 = first((pixels - model.mean) / model.std)
        return [f1, second(F.relu(f1))]

    seen, reference = features(image[None]), features(zero[None])
    differences = [f - r if method.reference else f for f, r in zip(seen, reference, strict=True)]

    def start(f: Tensor) -> Tensor:
        weights = (f > 0).to(f) if method.initial == "derivative" else torch.full_like(f, method.initial)
        return weights.mean((2, 3), keepdim=True) if method.architecture == "channel" else weights

    weights = [start(f).requires_grad_(True) for f in seen]
    moments = [(torch.zeros_like(w), torch.zeros_like(w)) for w in weights]

    def rule(layer: int, gradient: Tensor) -> Tensor:
        if method.reading == "gate":
            return gradient * torch.tanh(weights[layer] * differences[layer])
        return torch.tanh(weights[layer] * gradient)

    def attribution() -> Tensor:
        area = seen[1].shape[2] * seen[1].shape[3]
        gradient = (head.weight[target] / area).view(1, -1, 1, 1).expand_as(seen[1])
        gradient = F.conv_transpose2d(rule(1, gradient), second.weight, stride=2, padding=1, output_padding=1)
        gradient = F.conv_transpose2d(rule(0, gradient), first.weight, padding=1) / model.std
        return ((image - zero) * gradient)[0]

    def output(pixels: Tensor) -> Tensor:
        logits = model(pixels[None])[0]
        if method.output == "logit":
            return logits[target]
        return F.softmax(logits, 0)[target] if method.output == "probability" else F.log_softmax(logits, 0)[target]

    for step in range(1, method.iterations + 1):
        positive, negative = slow_masks(method, attribution())
        contrast = image - zero
        loss = output(zero + contrast * positive) - output(image)
        loss = loss + method.mask_loss * (1 - positive).abs().mean()
        if method.sign_aware:
            loss = loss + output(image) - output(zero + contrast * negative)
            loss = loss + method.mask_loss * (1 - negative).abs().mean()
        gradients = torch.autograd.grad(loss, weights)
        for layer, gradient in enumerate(gradients):
            m, v = moments[layer]
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            moments[layer] = (m, v)
            move = method.learning_rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
            weights[layer] = (weights[layer] - move).detach().requires_grad_(True)
    return attribution().detach()


@pytest.mark.parametrize("reading", ["gate", "gradient"])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"architecture": "channel"},
        {"initial": "derivative"},
        {"initial": 0.3},
        {"mask": "gaussian", "sigma": 0.15},
        {"mask_channels": "joint"},
        {"scaling": "magnitude"},
        {"scaling": "magnitude", "mask_channels": "joint"},
        {"sign_aware": False},
        {"reference": False},
        {"zero": "mean"},
        {"output": "probability"},
        {"output": "log_probability"},
        {"alpha": 0.6, "beta": 0.35, "gamma": 4.0, "mask_loss": 1.0, "learning_rate": 0.05},
    ],
    ids=str,
)
def test_it_is_the_papers_optimisation_with_the_backward_written_out(reading: str, changed: dict[str, object]) -> None:
    if reading == "gradient" and "reference" in changed:
        pytest.skip("the reference has no place there")
    # In double precision, since Adam's first steps are as large for a gradient of 1e-7 as for one of 1.
    model = small_classifier()
    batch = make_batch(model, 2)
    model, images = model.double(), batch.images.double()
    method = LearnedPropagation(reading=reading, iterations=5, **changed)
    found = method(model, Batch(images, batch.targets, batch.ids), Noise())
    for row in range(2):
        expected = slow_map(method, model, images[row], int(batch.targets[row]))
        torch.testing.assert_close(found[row], expected, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("reading", ["gate", "gradient"])
@pytest.mark.parametrize("architecture", ["position", "channel"])
def test_the_backward_can_be_differentiated_twice_with_respect_to_the_weights(reading: str, architecture: str) -> None:
    model = small_classifier().double()
    plugin = Plugin(reading=reading, architecture=architecture, initial=0.7, placement="every")
    rules = LearnedRules(plugin, None)
    pixels = drawn("pixels", 2, 3, 4, 4).double().requires_grad_(True)
    with replaced_activations(rules):
        score = model(pixels)[:, 1].sum()

    def gradient(*weights: Tensor) -> Tensor:
        rules.weights = dict(enumerate(weights))
        return torch.autograd.grad(score, pixels, create_graph=True)[0]

    weights = [
        drawn(f"weights-{index}", *weight.shape, low=-1).double().requires_grad_(True)
        for index, weight in rules.weights.items()
    ]
    assert torch.autograd.gradcheck(gradient, weights, fast_mode=True)
    assert torch.autograd.gradgradcheck(gradient, weights, fast_mode=True)


def test_the_first_architecture_has_one_weight_a_channel_and_the_second_one_a_unit() -> None:
    shapes = {}
    for architecture in ("position", "channel"):
        rules = LearnedRules(
            Plugin(reading="gate", architecture=architecture, initial=1.0, placement="every"), references=None
        )
        with replaced_activations(rules):
            small_classifier()(drawn("pixels", 3, 3, 8, 8))
        shapes[architecture] = [tuple(weight.shape) for weight in rules.weights.values()]
    assert shapes == {"position": [(3, 8, 8, 8), (3, 12, 4, 4)], "channel": [(3, 8, 1, 1), (3, 12, 1, 1)]}


def test_the_forward_is_the_models_own() -> None:
    model = small_classifier()
    pixels = drawn("pixels", 3, 3, 8, 8).requires_grad_(True)
    rules = LearnedRules(Plugin(reading="gate", architecture="position", initial=1.0, placement="every"), None)
    with replaced_activations(rules):
        found = model(pixels)
    torch.testing.assert_close(found, model(pixels))


def test_a_positive_mask_hides_what_supports_the_target_and_a_negative_mask_what_opposes_it() -> None:
    attribution = torch.zeros(1, 3, 2, 2)
    attribution[..., 0, 0], attribution[..., 1, 1] = 1.0, -1.0
    positive, negative = LearnedPropagation().masks(attribution)
    edge = 1 / (1 + math.exp(2.5))
    assert positive[0, 0, 0, 0] == pytest.approx(edge) and negative[0, 0, 1, 1] == pytest.approx(edge)
    # Nothing is said of the others: both masks leave them, equally.
    torch.testing.assert_close(positive[0, :, 0, 1], negative[0, :, 0, 1])
    assert positive[0, 0, 0, 1] == pytest.approx(1 - edge)


def test_magnitude_puts_zero_in_the_middle_of_the_masks_centres() -> None:
    attribution = drawn("map", 1, 3, 6, 6, low=-1, high=3)
    attribution[..., 2, 2] = 0.0
    masks = LearnedPropagation(scaling="magnitude").masks(attribution)
    assert masks[:, 0, :, 2, 2].flatten().tolist() == pytest.approx([1 - 1 / (1 + math.exp(2.5))] * 6)


def test_gaussian_masks_hide_the_same_side_as_the_sigmoid_masks() -> None:
    attribution = drawn("map", 1, 3, 6, 6, low=-1)
    sharp = LearnedPropagation().masks(attribution)
    smooth = LearnedPropagation(mask="gaussian", sigma=0.02).masks(attribution)
    for one, other in zip(sharp, smooth, strict=True):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.9


def test_an_ablation_that_would_change_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="set reading: gate beside it"):
        LearnedPropagation(reference=False)


def test_features_that_are_not_in_the_order_of_the_images_are_objected_to() -> None:
    class TokensFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 6)
            self.head = nn.Linear(6, 4)

        def forward(self, images: Tensor) -> Tensor:
            tokens = images.flatten(2).permute(2, 0, 1)
            return self.head(F.gelu(self.layer(tokens)).mean(0))

    model = Classifier(settle(TokensFirst()), classes=4)
    said = LearnedPropagation().objection(model, Setting(4, 4, 4))
    assert said is not None and said.startswith("learned_propagation: ") and "first dimension" in said


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_smoothing_is_equation_6(sigma: float) -> None:
    maps = drawn("map", 2, 3, 5, 7)
    expected = torch.stack([slow_smoothed(one, sigma) for one in maps])
    torch.testing.assert_close(smoothed(maps, sigma), expected)


@pytest.mark.parametrize(
    "changed",
    [
        {"sign_aware": False},
        {"reference": False},
        {"reading": "gradient"},
        {"architecture": "channel"},
        {"mask": "gaussian"},
        {"mask_channels": "joint"},
        {"scaling": "magnitude"},
        {"initial": "derivative"},
        {"zero": "mean"},
        {"output": "probability"},
    ],
    ids=str,
)
def test_each_reading_and_ablation_gives_another_map(changed: dict[str, object]) -> None:
    model = small_classifier()
    batch = make_batch(model, 2)
    ours = LearnedPropagation(reading="gate", iterations=4)(model, batch, Noise())
    other = LearnedPropagation(**{"reading": "gate", "iterations": 4, **changed})(model, batch, Noise())
    assert (ours - other).abs().amax((1, 2, 3)).min() > 1e-3


def loss_of(model: Classifier, batch: Batch, maps: Tensor) -> Tensor:
    """Eq. 10 of a map, (B,)."""
    positive, negative = LearnedPropagation().masks(maps)
    with torch.no_grad():
        logits = [model(batch.images * mask).gather(1, batch.targets[:, None])[:, 0] for mask in (positive, negative)]
    sizes = (1 - positive).flatten(1).mean(1) + (1 - negative).flatten(1).mean(1)
    return logits[0] - logits[1] + 0.1 * sizes


@pytest.mark.parametrize("reading", ["gate", "gradient"])
def test_learning_lowers_the_loss_of_every_image(reading: str) -> None:
    model = small_classifier()
    batch = make_batch(model)
    early, late = (LearnedPropagation(reading=reading, iterations=count)(model, batch, Noise()) for count in (1, 40))
    assert (loss_of(model, batch, late) < loss_of(model, batch, early)).all()


@pytest.mark.parametrize("count", [1, 2])
def test_the_passes_are_those_declared_but_for_the_shared_reference(count: int) -> None:
    method = LearnedPropagation(iterations=7)
    assert method.cost(Setting(5, 8, 8)) == LearnedPropagation(iterations=7, reading="gate").cost(Setting(5, 8, 8))
    assert (method.cost(Setting(5, 8, 8)).forwards, method.cost(Setting(5, 8, 8)).backwards) == (16, 22)
    model = small_classifier()
    batch = make_batch(model, 2 * count)
    images: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: images.append(len(inputs[0])))
    model.rows = 4
    method(model, batch, Noise())
    # The all-zero image once, then each piece of two images: itself, and two masked images an iteration.
    assert images == [1] + [2, *[4] * 7] * count


def test_a_black_image_has_a_map_of_zeros() -> None:
    model = small_classifier()
    batch = Batch(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), ("a", "b"))
    assert (LearnedPropagation(iterations=3)(model, batch, Noise()) == 0).all()


def test_a_model_without_activations_is_objected_to_and_refused() -> None:
    model = linear_classifier()
    assert "no activation" in str(LearnedPropagation().objection(model, Setting(3, 4, 4)))
    with pytest.raises(FatalError, match="no activation"):
        LearnedPropagation()(model, make_batch(model, size=4), Noise())
    assert LearnedPropagation().objection(small_classifier(), Setting(5, 8, 8)) is None


class Tokens(nn.Module):
    """Patches, self-attention, GELU on tokens (N, tokens, C): a vision transformer in little."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.wider = nn.Linear(8, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        logits: Tensor = self.head(F.gelu(self.wider(tokens)).mean(1))
        return logits


@pytest.mark.parametrize("architecture", ["position", "channel"])
def test_attention_is_differentiated_twice_and_tokens_have_rules(architecture: str) -> None:
    model = Classifier(settle(Tokens(), 2.0), classes=5)
    batch = make_batch(model, 3)
    method = LearnedPropagation(iterations=20, architecture=architecture)
    maps = method(model, batch, Noise())
    early = method.model_copy(update={"iterations": 1})(model, batch, Noise())
    assert loss_of(model, batch, maps).mean() < loss_of(model, batch, early).mean() - 0.1
    assert "placement: every" in str(method.model_copy(update={"placement": "maps"}).objection(model, Setting(5, 8, 8)))


@pytest.mark.parametrize("kind", [nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU, nn.Sigmoid, nn.PReLU])
def test_every_kind_of_activation_has_a_rule(kind: type[nn.Module]) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), kind(), nn.MaxPool2d(2), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3), kind(), nn.Flatten(),
        nn.Linear(8, 5), kind(), nn.Linear(5, 5),
    )  # fmt: skip
    model = Classifier(settle(network, 2.0), classes=5)
    batch = make_batch(model, 3)
    maps = LearnedPropagation(iterations=3)(model, batch, Noise())
    assert maps.isfinite().all() and maps.flatten(1).std(1).min() > 0
    # On maps alone the third activation keeps its derivative.
    rules = LearnedRules(Plugin(reading="gate", architecture="position", initial=1.0, placement="maps"), None)
    with replaced_activations(rules):
        model(batch.images)
    assert list(rules.weights) == [0, 1] and len(activation_inputs(model, batch.images[:1])) == 3


def test_removing_the_top_pixels_of_real_images_hurts_far_more_than_with_gradient_x_input(shared_data: Path) -> None:
    network = build_network("cifar_resnet20", 10)
    network.load_state_dict(load_file(shared_data / "weights" / "cifar10_resnet20.safetensors"))
    model = Classifier(network, classes=10, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    rows = parquet.read_table(shared_data / "cifar10" / "test.parquet").slice(0, 5).to_pylist()
    decoded = [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")) for row in rows]
    images = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        batch = Batch(images, model(images).argmax(1), tuple(row["id"] for row in rows))

    def ratio(maps: Tensor) -> float:
        """Target logit with the top 5 % of the pixels black over that of the whole image (MoRF), the mean."""
        top = maps.sum(1).flatten(1).argsort(dim=1, descending=True)[:, :51]
        kept = torch.ones(len(maps), 32 * 32).scatter_(1, top, 0.0).view(-1, 1, 32, 32)
        with torch.no_grad():
            clean, without = (model(x).gather(1, batch.targets[:, None]) for x in (images, images * kept))
        return float((without / clean).mean())

    learned = ratio(LearnedPropagation(iterations=12)(model, batch, Noise()))
    assert learned < ratio(GradientXInput()(model, batch, Noise())) - 0.1
