"""The one form in which a network reaches methods and metrics: pixels in, logits out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

DEFAULT_ROWS = 32


class Classifier(nn.Module):
    """A network with its normalisation inside: images in [0, 1] go in, logits come out.

    Parameters are frozen and the mode is eval from the start.

    Attributes:
        network: takes normalised images (N, 3, H, W), returns logits (N, classes).
        mean, std: per channel, (1, 3, 1, 1), in pixel scale [0, 1]; pixel value `mean` is zero inside.
        classes: number of logits.
        digest: hash of the weights (16 hexadecimal digits), part of every fingerprint.
        rows: images that one forward should hold on this device; methods cut their work into such pieces,
            and an out-of-memory error halves it. It never changes a result beyond rounding.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        classes: int,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        digest: str = "",
        rows: int = DEFAULT_ROWS,
    ) -> None:
        super().__init__()
        self.network = network
        self.classes = classes
        self.digest = digest
        self.rows = rows
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W) float32 in [0, 1].

        Every forward has the channels-last layout and holds at least two images (a lone one goes with a copy of
        itself): kernels for other layouts and for single images round differently, and where a gradient sits on
        the kink of a ReLU such a difference is no longer small. Channels-last is also the quicker layout.
        """
        count = len(images)
        if count == 1:
            images = images.expand(2, -1, -1, -1)
        normalised = (images - self.mean) / self.std
        logits: Tensor = self.network(normalised.contiguous(memory_format=torch.channels_last))
        return logits[:count] if count == 1 else logits

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.mean.device
