"""The images of a split as a network of the benchmark sees them: masked by a method's ranks, or clean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.methods.random import random_maps
from pipeline.noise import Noise
from pipeline.reduction import pixel_ranks
from pipeline.retrain import Cell, masked
from pipeline.stages.image_cache import ImageCache, Samples
from pipeline.stages.rank import stored_ranks
from pipeline.store import Output


@dataclass(frozen=True, slots=True)
class Masked:
    """Masked images of a range of positions.

    Attributes:
        images: (n, 3, H, W) uint8.
        labels: (n,) int64, −1 where unknown.
        positions, ids: n each.
        ranked: (n,) bool, whether the method's ranks decided which pixels; false for clean images.
    """

    images: Tensor
    labels: Tensor
    positions: tuple[int, ...]
    ids: tuple[str, ...]
    ranked: Tensor


class MaskedImages:
    """A split behind the masks of one cell. Nothing is held: every range is masked when it is read.

    A sample that cannot be decoded is left out, of every cell alike. One that the method has no ranks of is masked as
    the random arm masks it, so that all arms of a benchmark have the same images.
    """

    def __init__(
        self, output: Output, cache: ImageCache, cell: Cell, ranks: str | None, fill: Tensor, noise: Noise
    ) -> None:
        """Say what is masked by what.

        Args:
            output: where the ranks lie.
            cache: the split's images.
            cell: how it is masked.
            ranks: the variant of the ranks; None for clean images.
            fill: (3,) uint8.
            noise: of the job, whose seed decides the random arm.
        """
        self._output, self._cache = output, cache
        self._cell, self._ranks, self._fill, self._noise = cell, ranks, fill, noise

    def read(self, start: int, stop: int) -> Masked:
        """The images at positions start to stop − 1."""
        samples = self._cache.get(start, stop)
        images, ranked = samples.images, torch.zeros(len(samples.positions), dtype=torch.bool)
        if self._ranks is not None:
            ranks, ranked = self._ranks_of(samples, self._ranks, start, stop)
            images = masked(images, ranks, self._cell.fraction, self._cell.kind, self._fill)
        return Masked(images, samples.labels, samples.positions, samples.ids, ranked)

    def _ranks_of(self, samples: Samples, variant: str, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """(n, H, W) int32, the method's ranks where it has some and random ones elsewhere; (n,) bool, where it has."""
        positions, stored = stored_ranks(self._output, variant, start, stop)
        wanted = np.asarray(samples.positions, dtype=np.int64)
        ranked = torch.from_numpy(np.isin(wanted, positions))
        if ranked.all():
            return stored[torch.from_numpy(np.searchsorted(positions, wanted))], ranked
        lacking = [name for name, has in zip(samples.ids, ranked.tolist(), strict=True) if not has]
        ranks = torch.empty((len(wanted), *self._cache.size), dtype=torch.int32)
        ranks[ranked] = stored[torch.from_numpy(np.searchsorted(positions, wanted[ranked.numpy()]))]
        ranks[~ranked] = pixel_ranks(random_maps(lacking, *self._cache.size, self._noise))[:, 0]
        return ranks, ranked


def fill_colour(cell: Cell, mean: Sequence[float]) -> Tensor:
    """(3,) uint8: what takes a pixel's place."""
    colour = torch.tensor(mean if cell.fill == "mean" else [0.0, 0.0, 0.0])
    return (255 * colour).round().to(torch.uint8)
