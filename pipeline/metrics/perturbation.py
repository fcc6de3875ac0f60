"""Random changes of images: squares that are taken away, and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.contracts import Batch
from pipeline.noise import Noise

STREAM = "infidelity"


def squares(noise: Noise, ids: Sequence[str], draws: int, largest: float, height: int, width: int) -> Tensor:
    """Squares drawn evenly from all that lie inside an image and are not too large.

    Args:
        noise: draws keyed by sample; more draws begin with the same squares.
        ids: B samples.
        draws: D squares a sample.
        largest: side of the largest, as a share of the image's shorter side; it has at least one pixel.
        height, width: of the images.

    Returns:
        (B, D, 4) int64 on the CPU: the rows at which a square begins and ends, and the columns; an end lies outside.
    """
    # A share such as 0.29 of 100 pixels is just below 29 in floating point.
    sides = torch.arange(1, max(1, math.floor(largest * min(height, width) + 1e-9)) + 1)
    places = (height - sides + 1) * (width - sides + 1)
    drawn = noise.uniform(STREAM, ids, (draws, 3)).double()
    chosen = torch.searchsorted(places.cumsum(0).double(), drawn[..., 0] * places.sum(), right=True)
    side = sides[chosen]
    top = (drawn[..., 1] * (height - side + 1)).long()
    left = (drawn[..., 2] * (width - side + 1)).long()
    return torch.stack([top, top + side, left, left + side], dim=-1)


def squares_inside(edges: Tensor, height: int, width: int) -> Tensor:
    """Which pixels lie inside a square.

    Args:
        edges: (N, 4) int64, see `squares`.
        height, width: of the image.

    Returns:
        (N, 1, height, width) bool, true inside.
    """
    top, bottom, left, right = (edge.view(-1, 1, 1, 1) for edge in edges.unbind(-1))
    row = torch.arange(height, device=edges.device).view(-1, 1)
    column = torch.arange(width, device=edges.device)
    return (row >= top) & (row < bottom) & (column >= left) & (column < right)


def sums_inside(maps: Tensor, edges: Tensor) -> Tensor:
    """Sum of each map inside each of its squares.

    Args:
        maps: (B, 1, H, W).
        edges: (B, D, 4) int64, see `squares`.

    Returns:
        (B, D) float64.
    """
    height, width = maps.shape[-2:]
    integral = maps.new_zeros((len(maps), height + 1, width + 1), dtype=torch.float64)
    integral[:, 1:, 1:] = maps[:, 0].double().cumsum(1).cumsum(2)
    top, bottom, left, right = edges.unbind(-1)

    def corner(row: Tensor, column: Tensor) -> Tensor:
        return integral.flatten(1).gather(1, row * (width + 1) + column)

    return corner(bottom, right) - corner(top, right) - corner(bottom, left) + corner(top, left)


def gaussian_changes(noise: Noise, batch: Batch, copies: Tensor, draws: int, sigma: float) -> Tensor:
    """Normal noise, one value a pixel.

    Args:
        noise: draws keyed by sample and draw.
        batch: B images.
        copies: (N,) int64 on the CPU, which of the B · draws copies: copy // draws is the image, the rest the draw.
        draws: of each image.
        sigma: standard deviation.

    Returns:
        (N, 1, H, W) float32 on the images' device.
    """
    drawn = np.empty((len(copies), 1, *batch.images.shape[-2:]), dtype=np.float32)
    for place, copy in enumerate(copies.tolist()):
        generator = noise.generator(STREAM, batch.ids[copy // draws], copy % draws)
        generator.standard_normal(out=drawn[place], dtype=np.float32)
    return torch.from_numpy(drawn).to(batch.images.device) * sigma
