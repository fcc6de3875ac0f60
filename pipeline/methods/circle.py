"""Circles that walk over an image, and the superpixels or pixels that they cover."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Circles:
    """k circles for each of N masks, in pixel units; the image is the rectangle [0, H] × [0, W].

    Attributes:
        row, column: (N, k) float64, the centres.
        radius: (N, k) float64, at least 0.
    """

    row: Tensor
    column: Tensor
    radius: Tensor

    @classmethod
    def drawn(cls, draws: Tensor, height: int, width: int) -> Self:
        """Where a walk starts: centres uniform in the image, radii uniform up to one circle of the image's area.

        Args:
            draws: (N, 3, k) uniform in [0, 1).
            height, width: of the image.
        """
        row, column, radius = draws.double().unbind(1)
        return cls(row * height, column * width, radius * math.sqrt(height * width / math.pi))

    def of(self, walks: Tensor) -> Self:
        """The circles of some walks, (M,) indices."""
        return type(self)(self.row[walks], self.column[walks], self.radius[walks])

    def put(self, walks: Tensor, circles: Circles) -> None:
        """Replace the circles of some walks, (M,) indices, in place."""
        self.row[walks], self.column[walks], self.radius[walks] = circles.row, circles.column, circles.radius

    def moved(self, draws: Tensor, area: Tensor, step: float, height: int, width: int) -> Self:
        """A random step, after which the circles have the given area.

        Centres that would leave the image stay on its border; radii that would be negative are 0.

        Args:
            draws: (N, 3, k) uniform in [0, 1).
            area: (N,) float64, what the areas of the circles sum to, overlaps and parts outside counted.
            step: size of the step; 1 is as wide as the image, and for radii as one circle of the whole area.
            height, width: of the image.

        Source: An et al. 2022, Algorithm 1, lines 5 to 8; line 7 read as r + U(−R, R)·α with R = sqrt(S/π).
        """
        row, column, radius = (step * (2 * draws.double() - 1)).unbind(1)
        largest = (area / math.pi).sqrt()[:, None]
        radius = (self.radius + radius * largest).clamp(min=0)
        squares = radius.square().sum(1, keepdim=True)
        # Circles that all shrank to nothing have no proportions left: they become equal.
        equal = largest / math.sqrt(radius.shape[1])
        radius = torch.where(squares > 0, radius * (largest / squares.sqrt()), equal)
        row, column = self.row + row * height, self.column + column * width
        return type(self)(row.clamp(0, height), column.clamp(0, width), radius)


@dataclass(frozen=True, slots=True)
class Regions:
    """What of an image is shown or hidden as one: its superpixels, or its pixels.

    R stands for the regions of an image: (K,) superpixels or (H, W) pixels.

    Attributes:
        shape: R.
        row, column: where they lie, float64, (B, K) or (1, H, 1) and (1, 1, W); the first pixel lies at 0.5, 0.5.
            An image with fewer superpixels than another has the rest at infinity.
        size: their pixels, int64, (B, K) or (1, 1, 1).
        labels: (B, H, W) int64, the superpixel of each pixel; None where the regions are the pixels.
    """

    shape: tuple[int, ...]
    row: Tensor
    column: Tensor
    size: Tensor
    labels: Tensor | None

    @classmethod
    def pixels(cls, height: int, width: int, device: torch.device) -> Self:
        """Every pixel by itself, for images of one size."""
        row = torch.arange(height, device=device, dtype=torch.float64).view(1, -1, 1) + 0.5
        column = torch.arange(width, device=device, dtype=torch.float64).view(1, 1, -1) + 0.5
        return cls((height, width), row, column, torch.ones(1, 1, 1, device=device, dtype=torch.int64), None)

    @classmethod
    def superpixels(cls, labels: Tensor) -> Self:
        """Superpixels at the mean of their pixels' coordinates.

        Args:
            labels: (B, H, W) integers, the superpixels of each image numbered from 0.

        Source: An et al. 2022, Sec. "Complexity Optimization".
        """
        labels = labels.long()
        count, height, width = labels.shape
        number = int(labels.max()) + 1
        flat = labels.flatten(1)
        pixels = cls.pixels(height, width, labels.device)
        size = torch.zeros(count, number, dtype=torch.int64, device=labels.device)
        size.scatter_add_(1, flat, torch.ones_like(flat))

        def mean(coordinate: Tensor) -> Tensor:
            total = torch.zeros(size.shape, dtype=torch.float64, device=labels.device)
            total.scatter_add_(1, flat, coordinate.expand(count, height, width).flatten(1))
            return (total / size).nan_to_num(nan=float("inf"))

        return cls((number,), mean(pixels.row), mean(pixels.column), size, labels)

    def covered(self, images: Tensor, circles: Circles) -> Tensor:
        """Which regions lie in any of the circles, the edge included.

        Args:
            images: (N,) int64, the image of each mask.
            circles: N times k of them.

        Returns:
            (N, *R) bool.

        Source: An et al. 2022, Eq. 3.
        """
        # Pixels lie alike in every image; so do the superpixels of one image.
        own = images if len(self.row) > 1 else torch.zeros_like(images[:1])
        row, column = self.row[own], self.column[own]
        each = (-1, *[1] * len(self.shape))
        found = torch.zeros((len(images), *self.shape), dtype=torch.bool, device=images.device)
        for y, x, r in zip(circles.row.T, circles.column.T, circles.radius.T, strict=True):
            distance = (row - y.view(each)).square() + (column - x.view(each)).square()
            found |= distance <= r.square().view(each)
        return found

    def share(self, images: Tensor, covered: Tensor) -> Tensor:
        """Share of the image's pixels that lie in covered regions.

        Args:
            images: (N,) int64, the image of each mask.
            covered: (N, *R) bool.

        Returns:
            (N,) float64 in [0, 1].
        """
        if self.labels is None:
            return covered.flatten(1).double().mean(1)
        size = self.size[images]
        total: Tensor = (covered * size).sum(1) / size.sum(1).double()
        return total

    def spread(self, images: Tensor, values: Tensor) -> Tensor:
        """A value for every pixel from a value for every region.

        Args:
            images: (N,) int64, the image of each row of values.
            values: (N, *R).

        Returns:
            (N, H, W), the values' dtype.
        """
        if self.labels is None:
            return values
        labels = self.labels[images]
        return values.gather(1, labels.flatten(1)).view(labels.shape)
