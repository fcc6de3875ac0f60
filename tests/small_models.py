"""Small models with known weights, and batches for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.contracts import Batch
from pipeline.models import Classifier
from pipeline.noise import Noise


def drawn(name: str, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Numbers that are the same on every machine, uniform between low and high."""
    return low + (high - low) * Noise(0).uniform("test", [name], shape)[0]


def settle(network: nn.Module, scale: float = 1.0) -> nn.Module:
    """Give a network weights that do not depend on PyTorch's initialisation."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            width = scale * (3.0 / max(1, parameter[0].numel() if parameter.dim() > 1 else 3)) ** 0.5
            parameter.copy_(drawn(name, *parameter.shape, low=-width, high=width))
    return network


def linear_classifier(classes: int = 3, size: int = 4) -> Classifier:
    """Logits W·x + b on the pixels themselves: every method has a closed form."""
    return Classifier(settle(nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, classes))), classes=classes)


def small_network(classes: int = 5) -> nn.Module:
    """Two convolutions with a reused and an in-place ReLU, pooling and a head."""
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), relu, nn.Conv2d(8, 12, 3, stride=2, padding=1), relu,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, classes),
    )  # fmt: skip


def small_classifier(classes: int = 5) -> Classifier:
    """The small network behind a normalisation."""
    return Classifier(settle(small_network(classes), 3.0), classes=classes, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def make_batch(model: Classifier, count: int = 5, size: int = 8, prefix: str = "sample") -> Batch:
    """Images with their predicted classes as targets."""
    ids = tuple(f"{prefix}-{number}" for number in range(count))
    images = Noise(1).uniform("image", ids, (3, size, size))
    with torch.no_grad():
        return Batch(images, model(images).argmax(1), ids)
