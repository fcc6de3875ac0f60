"""Networks that bring their worker down when they see a marked image, for `module:function`.

They take pixels in [0, 1] as they are: a spec that names one sets `mean: [0, 0, 0]` and `std: [1, 1, 1]`.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.models.mnist_cnn import mnist_cnn2

MARK = (255, 0, 255)
"""Colour of the first pixel of a marked image; digits are grey."""

APPETITE = 64 * 2**20
"""Bytes that the hungry network takes for an image."""

ROOM = 10 * APPETITE
"""Bytes that it may take beyond what its process has: enough for eight images, not for sixteen."""


class Crashing(nn.Module):
    """A digits network whose process is killed, as by a fault in a native library, when a marked image comes by."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.network = mnist_cnn2(classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, classes)."""
        if marked(images).any():
            os.kill(os.getpid(), signal.SIGKILL)
        logits: Tensor = self.network(images)
        return logits


class Hungry(nn.Module):
    """A digits network that takes memory for each image, which the system refuses beyond some images."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.network = mnist_cnn2(classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, classes)."""
        with little_room():
            taken = [torch.empty(APPETITE, dtype=torch.uint8) for _ in images]
        logits: Tensor = self.network(images)
        del taken
        return logits


@contextmanager
def little_room() -> Iterator[None]:
    """Inside the block the system gives this process little more memory than it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def marked(images: Tensor) -> Tensor:
    """Which images are marked, (N,) bool."""
    colour = torch.tensor(MARK, dtype=images.dtype, device=images.device) / 255
    return (images[:, :, 0, 0] == colour).all(1)


def crashing(num_classes: int) -> nn.Module:
    """A network that a marked image kills."""
    return Crashing(num_classes)


def hungry(num_classes: int) -> nn.Module:
    """A network that needs more memory than there is."""
    return Hungry(num_classes)
