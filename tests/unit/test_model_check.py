"""Whether a model fits its images, told before anything runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import FatalError
from pipeline.models import build_network, check_classifier


class Returning(nn.Module):
    """A model that returns what a function makes of the images' first three pixels' red, (N, 3)."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> object:
        return self.function(images[:, 0, 0, :3])


def test_a_classifier_of_the_right_size_passes() -> None:
    check_classifier(build_network("cifar_resnet8", 10).eval(), 28, 28, 10)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda pixels: (pixels,), "returns tuple"),
        (lambda pixels: {"logits": pixels}, "returns dict"),
        (lambda pixels: pixels[:, :2], r"\(3, 2\) for 3 images, expected logits \(3, 3\).*`classes: 2`"),
        (lambda pixels: pixels.view(-1, 3, 1, 1), r"\(3, 3, 1, 1\)"),
        (lambda pixels: pixels / 0, "NaN or infinite"),
        (lambda pixels: pixels.softmax(1), "returns probabilities"),
    ],
)
def test_an_output_that_is_no_logits_is_named(function: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(FatalError, match=message):
        check_classifier(Returning(function), 8, 8, 3)


def test_positive_logits_are_not_taken_for_probabilities() -> None:
    check_classifier(Returning(lambda pixels: pixels.abs() + 0.1), 8, 8, 3)


@pytest.mark.parametrize(("name", "size"), [("alexnet", 32), ("vit_b_32", 64), ("mnist_cnn2", 2)])
def test_an_image_too_small_for_the_net_is_one_line(name: str, size: int) -> None:
    with pytest.raises(FatalError, match=f"cannot take images of {size}x{size}: .+") as caught:
        check_classifier(build_network(name, 3).eval(), size, size, 3)
    assert "\n" not in str(caught.value)


class Changed(nn.Module):
    """A ReLU in place, whose output is changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.layer(images), inplace=True)
        features += images
        return features.mean((2, 3))


def test_a_network_that_autograd_refuses_is_named_with_the_mend() -> None:
    with pytest.raises(FatalError, match=r"no gradient .*inplace operation.*`y = y \+ x`") as caught:
        check_classifier(Changed(), 8, 8, 3)
    assert "\n" not in str(caught.value)
    with pytest.raises(FatalError, match=r"no gradient .*torch\.no_grad"):
        check_classifier(Returning(lambda pixels: pixels.detach() + 0.1), 8, 8, 3)


def test_an_image_changed_in_place_and_frozen_parameters_pass() -> None:
    check_classifier(Returning(lambda pixels: pixels.sub_(0.5)), 8, 8, 3)
    network = build_network("cifar_resnet8", 10).eval().requires_grad_(False)
    with torch.no_grad():
        check_classifier(network, 28, 28, 10)
    assert all(parameter.grad is None for parameter in network.parameters())
