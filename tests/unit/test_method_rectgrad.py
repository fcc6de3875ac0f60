"""Rectified gradient."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_models import drawn, linear_classifier, make_batch, settle, small_classifier
from torch import Tensor, nn

from pipeline.contracts import Setting
from pipeline.methods.gradient import input_gradient
from pipeline.methods.rectgrad import LONG, RectGrad, _picked
from pipeline.models import Classifier
from pipeline.noise import Noise

Method = Literal["nearest", "linear"]


def as_matrix(layer: nn.Module, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A linear layer as y = Ax + b, found by trying each unit of its input."""
    size = int(np.prod(shape))
    with torch.no_grad():
        offset = layer(torch.zeros(1, *shape)).flatten()
        columns = layer(torch.eye(size).view(size, *shape)).flatten(1) - offset
    return columns.T.double().numpy(), offset.double().numpy()


def slow(model: Classifier, image: Tensor, target: int, percentile: float, method: Method) -> NDArray[np.float64]:
    """The paper's recursion for one image of a chain of layers, without autograd: slower, less complicated."""
    values: NDArray[np.float64] = ((image - model.mean[0]) / model.std[0]).double().numpy().ravel()
    shape: tuple[int, ...] = tuple(image.shape)
    steps: list[tuple[str, NDArray[np.float64]]] = []
    for layer in model.network:
        if isinstance(layer, nn.ReLU | nn.ReLU6):
            values = np.clip(values, 0, 6 if isinstance(layer, nn.ReLU6) else np.inf)
            steps.append(("relu6" if isinstance(layer, nn.ReLU6) else "relu", values))
            continue
        matrix, offset = as_matrix(layer, shape)
        values = matrix @ values + offset
        steps.append(("linear", matrix))
        with torch.no_grad():
            shape = tuple(layer(torch.zeros(1, *shape)).shape[1:])
    relevance = np.zeros(len(values))
    relevance[target] = 1
    for kind, what in reversed(steps):
        if kind == "linear":
            relevance = what.T @ relevance
            continue
        importance = what * relevance
        kept = importance > np.percentile(importance, percentile, method=method)
        if kind == "relu6":
            kept &= what < 6
        relevance = np.where(kept, relevance, 0)
    return (relevance.reshape(image.shape) / model.std[0].double().numpy()) * image.double().numpy()


@pytest.mark.parametrize("method", ["nearest", "linear"])
@pytest.mark.parametrize("percentile", [0.0, 40.0, 90.0, 98.0])
def test_the_slow_recursion_agrees(method: Method, percentile: float) -> None:
    model = small_classifier()
    batch = make_batch(model)
    found = RectGrad(percentile=percentile, interpolation=method)(model, batch, Noise())
    assert found.abs().amax(dim=(1, 2, 3)).min() > 0
    for image, target, row in zip(batch.images, batch.targets.tolist(), found, strict=True):
        expected = torch.from_numpy(slow(model, image, target, percentile, method)).float()
        torch.testing.assert_close(row, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_saturated_relu6_hands_nothing_back(in_place: bool) -> None:
    layers = (nn.Flatten(), nn.Linear(48, 200), nn.ReLU6(inplace=in_place), nn.Linear(200, 3))
    model = Classifier(settle(nn.Sequential(*layers), 20.0), classes=3)
    batch = make_batch(model, size=4)
    found = RectGrad(percentile=80)(model, batch, Noise())
    assert found.abs().amax(dim=(1, 2, 3)).min() > 0
    for image, target, row in zip(batch.images, batch.targets.tolist(), found, strict=True):
        expected = torch.from_numpy(slow(model, image, target, 80, "nearest")).float()
        torch.testing.assert_close(row, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_without_activations_it_is_gradient_times_input() -> None:
    model = linear_classifier()
    batch = make_batch(model, size=4)
    gradient = input_gradient(model, batch.images, batch.targets, "logit")
    torch.testing.assert_close(RectGrad()(model, batch, Noise()), gradient * batch.images)
    torch.testing.assert_close(RectGrad(multiply_by_input=False)(model, batch, Noise()), gradient)


@pytest.mark.parametrize("method", ["nearest", "linear"])
def test_the_units_that_pass_are_those_above_the_percentile(method: Method) -> None:
    units = 101
    head = nn.Linear(units, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(drawn("weights", 2, units, low=0.1, high=1.0))
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, units, bias=False), nn.ReLU(), head)
    with torch.no_grad():
        # Each unit sees one pixel: the map shows which units passed.
        network[1].weight.copy_(torch.eye(48).repeat(3, 1)[:units] * torch.linspace(1, 2, units)[:, None])
    model = Classifier(network, classes=2)
    batch = make_batch(model, 1, size=4)
    found = RectGrad(percentile=97.6, interpolation=method, multiply_by_input=False)(model, batch, Noise())
    # The place of the percentile is 97.6 of 0 … 100: nearest to 98, and between 97 and 98.
    count = 2 if method == "nearest" else 3
    importance = network[2](network[1](batch.images.flatten(1)))[0] * head.weight[batch.targets[0]]
    passed = importance.argsort(descending=True)[:count]
    expected = (head.weight[batch.targets[0]][passed, None] * network[1].weight[passed]).sum(0)
    torch.testing.assert_close(found.flatten(), expected)


@pytest.mark.parametrize("above", [0, 1, 3000, LONG, 2 * LONG - 1])
@pytest.mark.parametrize("kind", ["distinct", "sparse", "empty", "few values", "negative", "striped"])
def test_the_quick_pick_is_the_one_that_sorting_finds(kind: str, above: int) -> None:
    draw = np.random.default_rng(0)
    values = draw.standard_normal(2 * LONG, dtype=np.float32)
    if kind == "sparse":
        values *= draw.random(2 * LONG) < 0.01
    elif kind == "empty":
        values *= 0
    elif kind == "few values":
        values = np.sign(values).astype(np.float32)
    elif kind == "negative":
        values = -np.abs(values)
    elif kind == "striped":
        values[::61] = 9
    assert _picked(torch.from_numpy(values), above).item() == np.sort(values)[::-1][above]


def test_long_layers_agree_with_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_classifier()
    batch = make_batch(model)
    expected = RectGrad()(model, batch, Noise())
    monkeypatch.setattr("pipeline.methods.rectgrad.LONG", 8)
    torch.testing.assert_close(RectGrad()(model, batch, Noise()), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("activation", "objects"), [(nn.ReLU(), False), (nn.ReLU6(), False), (nn.SiLU(), True), (nn.Tanh(), True)]
)
def test_it_objects_to_smooth_activations(activation: nn.Module, objects: bool) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), activation, nn.Linear(8, 3))
    reason = RectGrad().objection(Classifier(network, classes=3), Setting(3, 4, 4))
    assert (reason is not None) == objects
