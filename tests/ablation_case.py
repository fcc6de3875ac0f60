"""Pictures and networks whose ablation is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.contracts import Batch
from pipeline.models import Classifier
from pipeline.noise import Noise

SIZE = 12
NOISE = Noise(3)


def grainy_batch(model: Classifier, count: int = 6, height: int = SIZE, width: int = SIZE) -> Batch:
    ids = tuple(f"sample-{number}" for number in range(count))
    images = Noise(1).uniform("image", ids, (3, height, width))
    with torch.no_grad():
        return Batch(images, model(images).argmax(1), ids)


class DiscNetwork(nn.Module):
    """Class 1 where at least nine tenths of a disc's brightness are there, else class 0."""

    def __init__(self, disc: Tensor, brightness: float) -> None:
        super().__init__()
        self.disc = nn.Parameter(disc)
        self.threshold = 0.9 * brightness

    def forward(self, images: Tensor) -> Tensor:
        inside = (images * self.disc).flatten(1).sum(1)
        return torch.stack([torch.full_like(inside, self.threshold), inside], 1)


DISC_SIZE = 24


def disc() -> Tensor:
    """Pixels within 4 of (9, 14), (H, W) float32."""
    middle = torch.arange(DISC_SIZE) + 0.5
    return ((middle[:, None] - 9) ** 2 + (middle[None] - 14) ** 2 <= 16).float()


def disc_batch(count: int) -> Batch:
    ids = tuple(f"disc-{number}" for number in range(count))
    grain = 0.01 * Noise(1).uniform("image", ids, (3, DISC_SIZE, DISC_SIZE))
    return Batch(0.6 + grain, torch.ones(count, dtype=torch.long), ids)


def disc_classifier() -> Classifier:
    return Classifier(DiscNetwork(disc(), 0.605 * 3 * float(disc().sum())), classes=2)
