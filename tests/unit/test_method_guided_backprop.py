"""Guided backpropagation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from captum.attr import GuidedBackprop as CaptumGuidedBackprop
from small_models import drawn, linear_classifier, make_batch, settle, small_classifier
from torch import Tensor, nn

from pipeline.contracts import Batch, Setting
from pipeline.methods.gradient import input_gradient
from pipeline.methods.guided_backprop import GuidedBackprop
from pipeline.models import Classifier, ModelConfig, load_classifier
from pipeline.noise import Noise


def grained(count: int, size: int) -> Tensor:
    ids = tuple(str(number) for number in range(count))
    smooth = nn.functional.interpolate(Noise().uniform("image", ids, (3, 8, 8)), size=size, mode="bilinear")
    return 0.8 * smooth + 0.2 * Noise().uniform("grain", ids, (3, size, size))


def batch_of(model: Classifier, count: int, size: int) -> Batch:
    images = grained(count, size)
    with torch.no_grad():
        return Batch(images, model(images).argmax(1), tuple(str(number) for number in range(count)))


def test_without_activations_it_is_the_gradient() -> None:
    model = linear_classifier()
    batch = make_batch(model, size=4)
    torch.testing.assert_close(
        GuidedBackprop()(model, batch, Noise()), input_gradient(model, batch.images, batch.targets, "logit")
    )


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.ReLU6(inplace=True)])
def test_two_layers_follow_the_formula(activation: nn.Module) -> None:
    first, second = nn.Linear(48, 200), nn.Linear(200, 3)
    model = Classifier(settle(nn.Sequential(nn.Flatten(), first, activation, second), 20.0), classes=3)
    batch = make_batch(model, size=4)
    before = batch.images.flatten(1) @ first.weight.T + first.bias
    passes = before > 0
    if isinstance(activation, nn.ReLU6):
        assert (before > 6).any() and ((before > 0) & (before < 6)).any()
        passes &= before < 6
    weights = second.weight[batch.targets]
    expected = ((weights * passes * (weights > 0)) @ first.weight).view_as(batch.images)
    torch.testing.assert_close(GuidedBackprop()(model, batch, Noise()), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "file"), [("squeezenet1_0", 224, "imagenet_squeezenet1_0.safetensors"), ("vgg11", 64, None)]
)
def test_captum_agrees_where_no_module_is_reused(
    name: str, size: int, file: str | None, request: pytest.FixtureRequest
) -> None:
    folder: Path | None = request.getfixturevalue("shared_data") if file else None
    weights = str(folder / "weights" / file) if folder and file else "random"
    model = load_classifier(ModelConfig(name=name, weights=weights), classes=1000 if file else 20)
    batch = batch_of(model, 2, size)
    found = GuidedBackprop()(model, batch, Noise())
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    expected = CaptumGuidedBackprop(model).attribute(batch.images.clone().requires_grad_(), target=batch.targets)
    scale = expected.abs().amax(dim=(1, 2, 3), keepdim=True)
    assert (scale > 0).all()
    torch.testing.assert_close(found / scale, expected.detach() / scale, atol=1e-4, rtol=0)


class Functional(nn.Module):
    """One function used on two branches and again on their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(48, 30), nn.Linear(48, 30)
        self.head = nn.Linear(30, 3)

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        total = torch.relu(self.left(flat)) - nn.functional.relu(self.right(flat))
        logits: Tensor = self.head(nn.functional.relu_(total))
        return logits


def test_functional_calls_on_branches_follow_the_formula() -> None:
    network = Functional()
    model = Classifier(settle(network, 3.0), classes=3)
    batch = make_batch(model, size=4)
    flat = batch.images.flatten(1)
    left, right = network.left(flat), network.right(flat)
    total = left.clamp(min=0) - right.clamp(min=0)
    arriving = network.head.weight[batch.targets]
    summed = arriving.clamp(min=0) * (total > 0)
    # The right branch is subtracted: what arrives at its ReLU is never positive.
    expected = ((summed * (left > 0)) @ network.left.weight).view_as(batch.images)
    torch.testing.assert_close(GuidedBackprop()(model, batch, Noise()), expected, atol=1e-5, rtol=1e-4)


def test_a_reused_module_is_guided_at_each_call() -> None:
    model = small_classifier()
    batch = make_batch(model)
    separate = small_classifier()
    separate.network[1], separate.network[3] = nn.ReLU(), nn.ReLU()
    expected = CaptumGuidedBackprop(separate).attribute(batch.images.clone().requires_grad_(), target=batch.targets)
    torch.testing.assert_close(GuidedBackprop()(model, batch, Noise()), expected.detach(), atol=1e-6, rtol=1e-4)


def test_the_probability_can_be_explained() -> None:
    model = Classifier(settle(nn.Sequential(nn.Flatten(), nn.Linear(48, 30), nn.ReLU(), nn.Linear(30, 3))), classes=3)
    batch = make_batch(model, size=4)
    flat = batch.images.flatten(1)
    before = flat @ model.network[1].weight.T + model.network[1].bias
    probability = model(batch.images).softmax(1)
    chosen = probability.gather(1, batch.targets[:, None])
    one_hot = nn.functional.one_hot(batch.targets, 3)
    arriving = (chosen * (one_hot - probability)) @ model.network[3].weight
    expected = ((arriving.clamp(min=0) * (before > 0)) @ model.network[1].weight).view_as(batch.images)
    found = GuidedBackprop(output="probability")(model, batch, Noise())
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("activation", "objects"), [(nn.ReLU(), False), (nn.ReLU6(), False), (nn.GELU(), True), (nn.Hardswish(), True)]
)
def test_it_objects_to_smooth_activations(activation: nn.Module, objects: bool) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), activation, nn.Linear(8, 3))
    reason = GuidedBackprop().objection(Classifier(network, classes=3), Setting(3, 4, 4))
    assert (reason is not None) == objects
    if reason is not None:
        assert "guided_backprop" in reason and "relu" in reason


def test_a_zero_gradient_stays_zero() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        network[3].weight.copy_(-drawn("w", 3, 8))
    model = Classifier(network, classes=3)
    assert GuidedBackprop()(model, make_batch(model, size=4), Noise()).abs().sum() == 0
