"""Smooth masks over an image: the Gaussian blur, and the smooth max-convolution of a coarse grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

PAPER_SIDE = 224
"""The image side that the papers' lengths in pixels are given for."""

Border = Literal["zero", "edge"]

# Numbers that a pass over a mask's neighbourhoods holds at once: on the CPU what stays in the cache.
_CPU_CHUNK = 2**19
_DEVICE_CHUNK = 2**27


def in_proportion(pixels: float, height: int, width: int) -> float:
    """A length that a paper gives for 224 × 224 images, on images of this size (by the shorter side)."""
    return pixels * min(height, width) / PAPER_SIDE


def blur_matrix(size: int, sigma: float, border: Border, like: Tensor) -> Tensor:
    """The Gaussian filter along one axis as a matrix, (size, size); the identity for sigma 0.

    Args:
        size: pixels along the axis.
        sigma: standard deviation in pixels; the kernel ends at ⌈4·sigma⌉ and sums to 1.
        border: what lies outside: `zero`, or the outermost pixel (`edge`, rows sum to 1).
        like: a tensor of the wanted device and type.
    """
    reach = math.ceil(4 * sigma)
    places = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2) if reach else torch.ones(1, dtype=torch.float64)
    kernel /= kernel.sum()
    source = torch.arange(size)[:, None] + places.long()
    weight = kernel.expand(size, -1)
    if border == "zero":
        weight = weight * ((source >= 0) & (source < size))
    matrix = torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, source.clamp(0, size - 1), weight)
    return matrix.to(like)


def gaussian_blurred(images: Tensor, sigma: float, border: Border) -> Tensor:
    """Images behind a Gaussian of `sigma` pixels, (…, H, W) as given; see `blur_matrix`."""
    rows = blur_matrix(images.shape[-2], sigma, border, images)
    columns = blur_matrix(images.shape[-1], sigma, border, images)
    return rows @ images @ columns.T


class MaxConvolution:
    """Masks from coarse grids: each pixel is the smooth maximum of nearby parameters under a radial kernel.

    Parameter (i, j) sits at pixel (step·i, step·j). A pixel takes v = k(distance / sigma)·parameter of the
    (2r + 1)² grid points around it, r = 1 + ⌈sigma / step⌉, and of these the smooth maximum Σ v·e^(v/T) / Σ e^(v/T),
    so that every structure of the mask is at least about sigma wide.

    The kernel is the same in every cell of step × step pixels. So one table of weights does for all cells, and
    neither an enlarged grid nor a weight a pixel and neighbour is kept, as published code does; the gradient is
    written out, and computes the exponentials anew.

    Beyond the grid lie its outermost parameters, so that no place of the image is preferred. With a margin it is 0
    there, as in the authors' code. Without a margin, zeros would make the mask of a constant grid highest in the
    image's corners (fewer middling neighbours that draw the smooth maximum down), and the area would stay there.

    Source: Fong et al. 2019 (smooth max-convolution). Kernel k(z) = exp(−2·max(0, z − 0.5)²) and T = 1/20 as in the
        authors' code (TorchRay).
    """

    def __init__(self, height: int, width: int, step: int, sigma: float, margin: bool, device: torch.device) -> None:
        """Prepares the weights.

        Args:
            height, width: of the image.
            step: pixels from one parameter to the next.
            sigma: radius of the kernel in pixels.
            margin: whether masks go on beyond the image, by as much as TorchRay's do (about sigma a side), and the
                grid ends in zeros.
            device: where masks are made.
        """
        self.step = step
        self._margin = margin
        self.radius = 1 + math.ceil(sigma / step)
        self.grid = (math.ceil(height / step), math.ceil(width / step))
        self._coldness = 20.0
        more = math.ceil(2 * sigma / step) - math.ceil(sigma / step)
        before = round(sigma) if margin else 0
        sizes = [step * (cells + 2 * more) - step + 1 for cells in self.grid] if margin else [height, width]
        # The cells that these pixels lie in, and where the pixels begin in the first of them.
        self._first = math.floor(-before / step)
        self._cells = [math.floor((size - 1 - before) / step) - self._first + 1 for size in sizes]
        start = -before - self._first * step
        self._crop = (..., slice(start, start + sizes[0]), slice(start, start + sizes[1]))
        self.image = (..., slice(before, before + height), slice(before, before + width))
        offset = torch.arange(step)[None, :] - step * torch.arange(-self.radius, self.radius + 1)[:, None]
        square = (offset**2).to(torch.float32)
        distance = (square[:, None, :, None] + square[None, :, None, :]).sqrt().flatten(2)
        kernel = torch.exp(-2 * (distance / sigma - 0.5).clamp(min=0) ** 2)
        # (places in the window, pixels of a cell, 1)
        self._weights = kernel.flatten(0, 1)[..., None].to(device)

    def mask(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Masks, with the margin where asked for, and what their gradient needs.

        Args:
            parameters: (N, *grid) float32 in [0, 1].

        Returns:
            masks (N, H, W) in [0, 1], and sums over the neighbourhoods.
        """
        sums = torch.cat([self._sums(part) for part in self._parts(parameters)])
        total, weighted = sums.unbind(1)
        cells = (weighted / (self._coldness * total)).view(len(parameters), -1, *self._cells)
        return F.pixel_shuffle(cells, self.step)[:, 0][self._crop].clamp(0, 1), sums

    def gradient(self, parameters: Tensor, sums: Tensor, upstream: Tensor) -> Tensor:
        """Gradient with respect to the parameters, (N, *grid).

        Args:
            parameters: (N, *grid), those of the mask.
            sums: what came with the mask.
            upstream: gradient with respect to the mask, of its shape.
        """
        parts = self._parts(parameters)
        count = len(parts[0])
        pieces = zip(parts, torch.split(sums, count), torch.split(upstream, count), strict=True)
        return torch.cat([self._gradient(*piece) for piece in pieces])

    def _budget(self, parameters: Tensor) -> int:
        """Neighbours per mask pixel times masks that are worked on at once."""
        numbers = _CPU_CHUNK if parameters.device.type == "cpu" else _DEVICE_CHUNK
        return max(1, numbers // (self.step**2 * math.prod(self._cells)))

    def _parts(self, parameters: Tensor) -> tuple[Tensor, ...]:
        """Masks that go together: a row of the window of each fits."""
        return torch.split(parameters, max(1, self._budget(parameters) // (2 * self.radius + 1)))

    def _neighbours(self, parameters: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Block by block of the window: weights (k, pixels of a cell, 1), and parameters (N, k, 1, cells)."""
        padded = F.pad(parameters[:, None], self._padding(), mode="constant" if self._margin else "replicate")
        columns = F.unfold(padded, 2 * self.radius + 1)
        size = max(1, self._budget(parameters) // len(parameters))
        for weights, block in zip(torch.split(self._weights, size), torch.split(columns, size, 1), strict=True):
            yield weights, block[:, :, None]

    def _padding(self) -> tuple[int, int, int, int]:
        before = self.radius - self._first
        after = [cells + 2 * self.radius - before - size for cells, size in zip(self._cells, self.grid, strict=True)]
        return before, after[1], before, after[0]

    def _sums(self, parameters: Tensor) -> Tensor:
        """Σ e^(v/T) and Σ v/T·e^(v/T) over the neighbourhood, (N, 2, pixels of a cell, cells)."""
        shape = (len(parameters), 2, self.step**2, math.prod(self._cells))
        sums = parameters.new_zeros(shape)
        for weights, neighbours in self._neighbours(parameters):
            scaled = neighbours * (weights * self._coldness)
            share = scaled.exp()
            sums[:, 0] += share.sum(1)
            sums[:, 1] += scaled.mul_(share).sum(1)
        return sums

    def _gradient(self, parameters: Tensor, sums: Tensor, upstream: Tensor) -> Tensor:
        total, weighted = sums.unbind(1)
        whole = upstream.new_zeros(len(upstream), 1, *(self.step * size for size in self._cells))
        whole[:, 0][self._crop] = upstream
        outer = F.pixel_unshuffle(whole, self.step).flatten(2) / total
        # d mask / d v of a neighbour is e^(v/T)·(1 + v/T − mask/T) / Σ.
        constant = (outer * (1 - weighted / total))[:, None]
        outer = outer[:, None]
        found = []
        for weights, neighbours in self._neighbours(parameters):
            scaled = neighbours * (weights * self._coldness)
            share = scaled.exp()
            terms = scaled.mul_(outer).add_(constant).mul_(share)
            found.append((weights.transpose(1, 2) @ terms)[:, :, 0])
        left, right, top, bottom = self._padding()
        size = (self.grid[0] + top + bottom, self.grid[1] + left + right)
        return self._unpadded(F.fold(torch.cat(found, 1), size, 2 * self.radius + 1)[:, 0])

    def _unpadded(self, padded: Tensor) -> Tensor:
        """The gradient of a padded grid, gathered on the grid."""
        left, right, top, bottom = self._padding()
        for axis, before, after in ((1, top, bottom), (2, left, right)):
            first, inner, last = torch.split(padded, [before, padded.shape[axis] - before - after, after], axis)
            padded = inner.clone()
            if not self._margin:
                padded.select(axis, 0).add_(first.sum(axis))
                padded.select(axis, -1).add_(last.sum(axis))
        return padded
