"""The order in which a training sees its images: the same whether they are held or read again in each epoch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.contracts import digest


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """One epoch of a training, as a buffer of a fixed number of images can give it.

    Attributes:
        numbers: the shards, in the order in which they come in.
        moves: for each of them the slots of the buffer that are emptied before it comes in, in the order in which their
            images are used, and the slots that it fills.
        rest: the slots that are full at the end, in the order in which their images are used.
        slots: how many slots the buffer has.
    """

    numbers: list[int]
    moves: list[tuple[Tensor, Tensor]]
    rest: Tensor
    slots: int


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """A random order that can be had without holding more images than a buffer does.

    The shards of an epoch come in a random order. As many as the buffer holds are shuffled among each other; as many
    images as make room for the next shard are used, and it takes their place. What is in the buffer is shuffled anew
    each time that half of it has been used. Neighbours in the source may so come close to each other in the epoch, and
    where the source is sorted by class, a batch has about as many classes as the buffer has shards. Images that the
    buffer holds all are shuffled as a whole.

    Attributes:
        counts: images of each shard.
        buffer: shards that are shuffled among each other, one or more.
    """

    counts: tuple[int, ...]
    buffer: int

    @property
    def name(self) -> str:
        """What tells this order from others: the numbers that a generator draws are used for the same images."""
        if len(self.counts) <= self.buffer:
            return f"{sum(self.counts)} in one"
        return f"{digest(list(self.counts))} in {self.buffer}"

    def plan(self, generator: torch.Generator) -> EpochPlan:
        """One epoch, as the generator gives it."""
        numbers = list(range(len(self.counts)))
        if len(numbers) > self.buffer:
            numbers = torch.randperm(len(numbers), generator=generator).tolist()
        # All that there are, where the buffer has room for all shards at their largest.
        slots = min(min(self.buffer, len(numbers)) * max(self.counts, default=0), sum(self.counts))
        free = torch.arange(slots)
        leaving, staying = free[:0], [free[:0]]
        moves = []
        for count in (self.counts[number] for number in numbers):
            lacking = max(count - len(free), 0)
            if lacking > len(leaving):
                held = torch.cat([leaving, *staying])
                shuffled = held[torch.randperm(len(held), generator=generator)]
                half = max(lacking, len(held) // 2)
                leaving, staying = shuffled[:half], [shuffled[half:]]
            left, leaving = leaving[:lacking], leaving[lacking:]
            free = torch.cat([free, left])
            filled, free = free[:count], free[count:]
            staying.append(filled)
            moves.append((left, filled))
        held = torch.cat([leaving, *staying])
        return EpochPlan(numbers, moves, held[torch.randperm(len(held), generator=generator)], slots)

    def rows(self, generator: torch.Generator) -> Tensor:
        """The same epoch as positions in all images, (N,) int64 on the CPU."""
        plan = self.plan(generator)
        starts = [0, *torch.tensor(self.counts, dtype=torch.int64).cumsum(0).tolist()]
        content = torch.empty(plan.slots, dtype=torch.int64)
        used = []
        for number, (left, filled) in zip(plan.numbers, plan.moves, strict=True):
            used.append(content[left])
            content[filled] = torch.arange(starts[number], starts[number + 1])
        return torch.cat([*used, content[plan.rest]])


def one_shuffle(count: int) -> ImageOrder:
    """The order of images that are shuffled as a whole."""
    return ImageOrder((count,), 1)


def shards_within(shard_bytes: int, least: int = 32, most_bytes: int = 64 * 2**20) -> int:
    """How many shards are shuffled among each other by default: 64 MiB of them, and no fewer than 32."""
    return max(least, most_bytes // max(shard_bytes, 1))
