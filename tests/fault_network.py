"""Networks that bring their worker down when they see a marked image, for `module:function`.

They take pixels in [0, 1] as they are: a spec that names one sets `mean: [0, 0, 0]` and `std: [1, 1, 1]`.
"""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.models.mnist_cnn import mnist_cnn2

MARK = (255, 0, 255)
"""Colour of the first pixel of a marked image; digits are grey."""

ROOM = 768 * 2**20
"""Bytes that a process of the hungry network may still take when its first batch comes."""

APPETITE = 64 * 2**20
"""Bytes that the hungry network takes for an image: eight fit beside its own work, sixteen do not."""

TRIAL = 3
"""Images that a network is tried with before a job begins, in the driver as well, which is to stay free."""


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
    """A digits network that takes memory for each image, more than there is for a marked one.

    The process gets little more than it has from its first batch on: what fails is the allocation itself.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.network = mnist_cnn2(classes)
        self._limited = False

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, classes)."""
        if len(images) <= TRIAL and not self._limited:
            return self.network(images)  # type: ignore[no-any-return]
        if not self._limited:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, hard))
            self._limited = True
        sizes = [2 * ROOM if one else APPETITE for one in marked(images).tolist()]
        taken = [torch.empty(size, dtype=torch.uint8) for size in sizes]
        logits: Tensor = self.network(images)
        del taken
        return logits


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
