"""From signed maps over channels to one value a pixel, and from values to ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.contracts import Reduction


def reduce_channels(maps: Tensor, reduction: Reduction) -> Tensor:
    """One value a pixel.

    Args:
        maps: (B, C or 1, H, W) signed.
        reduction: `sum`, `mean`, `abs_sum` (sum of magnitudes), `max_abs` (largest magnitude), `positive_sum`
            (sum, then negatives to zero).

    Returns:
        (B, 1, H, W).
    """
    if reduction == "abs_sum":
        return maps.abs().sum(1, keepdim=True)
    if reduction == "max_abs":
        return maps.abs().amax(1, keepdim=True)
    if reduction == "mean":
        return maps.mean(1, keepdim=True)
    total = maps.sum(1, keepdim=True)
    return total.clamp(min=0) if reduction == "positive_sum" else total


def pixel_ranks(maps: Tensor) -> Tensor:
    """Place of each pixel in the order from most to least relevant; ties go to the lower pixel index.

    Args:
        maps: (B, 1, H, W) finite.

    Returns:
        (B, 1, H, W) int32, a permutation of 0 … HW − 1 in each row; 0 is the most relevant pixel.
    """
    order = maps.flatten(1).sort(dim=1, descending=True, stable=True).indices
    places = torch.arange(order.shape[1], device=maps.device, dtype=torch.int32).expand_as(order)
    return torch.empty_like(places, memory_format=torch.contiguous_format).scatter_(1, order, places).view(maps.shape)
