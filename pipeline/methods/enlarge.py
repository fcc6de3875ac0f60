"""Small maps enlarged to the image."""

from __future__ import annotations

import torch
from torch import Tensor


def enlarged(maps: Tensor, height: int, width: int, align_corners: bool = False) -> Tensor:
    """Bilinear interpolation that keeps flat places flat.

    Args:
        maps: (B, C, h, w).
        height, width: of the result.
        align_corners: whether the centres of the corner pixels, and not their outer edges, stay where they are.

    Returns:
        (B, C, height, width), what `torch.nn.functional.interpolate` gives up to rounding. Between two equal
        values the result is that value exactly, so that pixels which are equal on paper are ties in a ranking and
        not ordered by rounding.
    """
    return _along(_along(maps, 2, height, align_corners), 3, width, align_corners)


def _along(maps: Tensor, axis: int, size: int, align_corners: bool) -> Tensor:
    length = maps.shape[axis]
    pixel = torch.arange(size, device=maps.device, dtype=maps.dtype)
    aligned, spread = pixel * ((length - 1) / max(size - 1, 1)), (pixel + 0.5) * (length / size) - 0.5
    place = aligned if align_corners else spread
    place = place.clamp(0, length - 1)
    low = place.floor().long()
    shape = [1] * maps.dim()
    shape[axis] = size
    share = (place - low).view(shape)
    first = maps.index_select(axis, low)
    second = maps.index_select(axis, (low + 1).clamp(max=length - 1))
    return first + share * (second - first)
