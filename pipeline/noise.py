"""Random numbers that belong to a sample, not to a process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Noise:
    """Draws keyed by (seed, stream, sample id, draw) from a counter-based generator.

    The same key gives the same numbers whatever the batch, shard, worker, device or number of tries, and no
    global state is read or moved.

    Attributes:
        seed: the job's seed.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox), as in NumPy.
    """

    seed: int = 0

    def generator(self, stream: str, sample: str, draw: int = 0) -> np.random.Generator:
        """A NumPy generator of its own for this key."""
        text = f"{self.seed}\x1f{stream}\x1f{sample}\x1f{draw}".encode()
        key = np.frombuffer(hashlib.sha256(text).digest()[:16], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key))

    def uniform(self, stream: str, ids: Sequence[str], shape: tuple[int, ...], draw: int = 0) -> Tensor:
        """Uniform numbers in [0, 1), (B, *shape) float32 on the CPU, one independent draw a sample."""
        rows = [self.generator(stream, sample, draw).random(shape, dtype=np.float32) for sample in ids]
        return torch.from_numpy(np.stack(rows)) if rows else torch.empty((0, *shape))

    def normal(self, stream: str, ids: Sequence[str], shape: tuple[int, ...], draw: int = 0) -> Tensor:
        """Standard normal numbers, (B, *shape) float32 on the CPU, one independent draw a sample."""
        rows = [self.generator(stream, sample, draw).standard_normal(shape, dtype=np.float32) for sample in ids]
        return torch.from_numpy(np.stack(rows)) if rows else torch.empty((0, *shape))

    def choice(self, stream: str, sample: str, population: Sequence[int], size: int, draw: int = 0) -> list[int]:
        """`size` distinct members of `population`, in the order drawn."""
        picked = self.generator(stream, sample, draw).choice(len(population), size=size, replace=False)
        return [population[int(index)] for index in picked]
