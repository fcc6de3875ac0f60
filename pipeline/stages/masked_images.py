"""The images of a split as a network of the benchmark sees them: masked by a method's ranks, or clean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import ShardError
from pipeline.retrain import Cell, masked
from pipeline.stages.image_cache import ImageCache
from pipeline.stages.rank import stored_ranks
from pipeline.store import Output

STRETCH_BYTES = 128 * 2**20
"""Of images read at a time."""


@dataclass(frozen=True, slots=True)
class Masked:
    """Masked images of a range of positions.

    Attributes:
        images: (n, 3, H, W) uint8.
        labels: (n,) int64, −1 where unknown.
        positions, ids: n each.
    """

    images: Tensor
    labels: Tensor
    positions: tuple[int, ...]
    ids: tuple[str, ...]


class MaskedImages:
    """A split behind the masks of one cell. Nothing is held: every range is masked when it is read.

    A sample that cannot be decoded, or that has no map, is left out.
    """

    def __init__(
        self, output: Output, cache: ImageCache, total: int, cell: Cell, ranks: str | None, fill: Tensor
    ) -> None:
        """Say what is masked by what.

        Args:
            output: where the ranks lie.
            cache: the split's images.
            total: positions of the split.
            cell: how it is masked.
            ranks: the variant of the ranks; None for clean images.
            fill: (3,) uint8.
        """
        self._output, self._cache, self._total = output, cache, total
        self._cell, self._ranks, self._fill = cell, ranks, fill

    def __len__(self) -> int:
        return self._total

    def read(self, start: int, stop: int) -> Masked:
        """The images at positions start to stop − 1."""
        samples = self._cache.get(start, stop)
        if self._ranks is None:
            return Masked(samples.images, samples.labels, samples.positions, samples.ids)
        positions, ranks = stored_ranks(self._output, self._ranks, start, stop)
        row_of = {position: row for row, position in enumerate(positions.tolist())}
        kept = [row for row, position in enumerate(samples.positions) if position in row_of]
        rows = torch.tensor([row_of[samples.positions[row]] for row in kept], dtype=torch.long)
        images = samples.images[torch.tensor(kept, dtype=torch.long)]
        return Masked(
            masked(images, ranks[rows], self._cell.fraction, self._cell.kind, self._fill),
            samples.labels[torch.tensor(kept, dtype=torch.long)],
            tuple(samples.positions[row] for row in kept),
            tuple(samples.ids[row] for row in kept),
        )


def channel_statistics(cache: ImageCache, total: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over a split, in [0, 1], from exact counts of the pixel values.

    Raises:
        ShardError: none of its images can be decoded.
    """
    counts = torch.zeros(3, 256, dtype=torch.float64)
    blocks = max(1, min(16, STRETCH_BYTES // (3 * cache.size[0] * cache.size[1] * cache.BLOCK)))
    stretch = blocks * cache.BLOCK
    for start in range(0, total, stretch):
        images = cache.get(start, min(start + stretch, total)).images
        for channel in range(3):
            counts[channel] += torch.bincount(images[:, channel].flatten().int(), minlength=256)
    if not counts.sum():
        raise ShardError("no image of the training split can be decoded")
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts * values).sum(1) / counts.sum(1)
    variance = (counts * (values - mean[:, None]) ** 2).sum(1) / counts.sum(1)
    # A channel of one colour has no deviation, and dividing by it would give nothing but NaN.
    return mean.tolist(), variance.sqrt().clamp(min=1 / 255).tolist()


def fill_colour(cell: Cell, mean: list[float]) -> Tensor:
    """(3,) uint8: what takes a pixel's place."""
    colour = torch.tensor(mean if cell.fill == "mean" else [0.0, 0.0, 0.0])
    return (255 * colour).round().to(torch.uint8)
