"""Images without their most relevant pixels, or with nothing else."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.retrain.config import RetrainKind


def masked(images: Tensor, ranks: Tensor, fraction: float, kind: RetrainKind, fill: Tensor) -> Tensor:
    """Images with a share of their pixels replaced, all channels of a pixel together.

    Args:
        images: (N, 3, H, W) uint8.
        ranks: (N, H, W) integers, 0 for the most relevant pixel of an image.
        fraction: the top share, in (0, 1]; ⌊fraction · HW + ½⌋ pixels.
        kind: `roar` replaces the top share, `kar` everything else.
        fill: (3,) uint8, what a pixel is replaced by.

    Returns:
        (N, 3, H, W) uint8, a new tensor.

    Source: Hooker et al. 2019, Sec. 3: the value of a removed pixel is the mean of its channel over the training set.
    """
    top = ranks < top_count(fraction, ranks[0].numel() if len(ranks) else 1)
    replaced = top if kind == "roar" else ~top
    return torch.where(replaced[:, None], fill.view(1, 3, 1, 1), images)


def top_count(fraction: float, pixels: int) -> int:
    """How many pixels a share of an image is."""
    return math.floor(fraction * pixels + 0.5)
