"""The processes that train one network together, and what they tell each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import FatalError, RetryableError, ShardError

Made = TypeVar("Made")
Pair = tuple[Tensor, Tensor]

_TOLD = (FatalError, ShardError, RetryableError)
"""Errors of one process that all of them raise: the others would wait for it for ever."""


@dataclass(frozen=True, slots=True)
class Share:
    """One process's part of a batch.

    Attributes:
        rows: the places of its images in the batch, one or more.
        counted: how much each of them counts; less than 1 where other processes have it as well.
    """

    rows: slice
    counted: float


class Processes:
    """This process alone, or those of PyTorch's default group, each with a copy of the network on a device of its own.

    Every method but `share` is to be called by all of them, in the same order.

    Attributes:
        rank: which of them this is, from 0.
        count: how many they are.
        device: where this one trains, and where what they tell each other passes.
    """

    def __init__(self, rank: int = 0, count: int = 1, device: str | torch.device = "cpu") -> None:
        self.rank, self.count, self.device = rank, count, torch.device(device)

    @classmethod
    def of_group(cls, device: str | torch.device) -> Processes:
        """Those of the default group, which has been set up."""
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def lead(self) -> bool:
        """Whether this is the one that reads and writes for all."""
        return self.rank == 0

    def share(self, images: int) -> Share:
        """What this process takes of a batch. Of fewer images than there are processes each takes all."""
        if images < self.count:
            return Share(slice(0, images), 1 / self.count)
        start, stop = (images * rank // self.count for rank in (self.rank, self.rank + 1))
        return Share(slice(start, stop), 1.0)

    def summed(self, value: Tensor) -> Tensor:
        """The sum of all processes' values, in place."""
        if self.count > 1:
            dist.all_reduce(value)
        return value

    def least(self, value: int) -> int:
        """The smallest of all processes' values."""
        if self.count == 1:
            return value
        found = torch.tensor(value, dtype=torch.int64, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MIN)
        return int(found)

    def collected(self, value: Tensor) -> list[Tensor]:
        """All processes' values, by rank; on the CPU."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def by_lead(self, make: Callable[[], Made]) -> Made:
        """What the lead makes, for all.

        Raises:
            FatalError, ShardError, RetryableError: in every process, where the lead met one.
        """
        if self.count == 1:
            return make()
        said: Any = None
        if self.lead:
            try:
                said = (make(), None)
            except _TOLD as error:
                said = (None, error)
        made, failure = self._told(said, 0)
        if failure is not None:
            raise failure
        return made  # type: ignore[no-any-return]

    def dealt(self, numbers: Sequence[int], read: Callable[[Sequence[int]], Iterator[Pair]]) -> Iterator[Pair]:
        """What `read` gives for each number, in order. Each process reads its part of them, and gets all.

        Raises:
            FatalError, ShardError, RetryableError: in every process, where one met it in reading.
        """
        if self.count == 1:
            return read(numbers)
        return self._dealt(len(numbers), read(numbers[self.rank :: self.count]))

    def _dealt(self, count: int, own: Iterator[Pair]) -> Iterator[Pair]:
        for place in range(count):
            owner = place % self.count
            pair: Pair | None = None
            said: Any = None
            if owner == self.rank:
                try:
                    first, second = next(own)
                    pair = first.to(self.device), second.to(self.device)
                    said = [(one.shape, one.dtype) for one in pair]
                except _TOLD as error:
                    said = error
            said = self._told(said, owner)
            if isinstance(said, Exception):
                raise said
            if pair is None:
                first, second = (torch.empty(shape, dtype=dtype, device=self.device) for shape, dtype in said)
                pair = first, second
            for one in pair:
                if len(one):
                    dist.broadcast(one, owner)
            yield pair

    def _told(self, value: Any, owner: int) -> Any:
        values = [value]
        dist.broadcast_object_list(values, owner, device=self.device)
        return values[0]

    def replicated(self, network: nn.Module) -> nn.Module:
        """The network for forwards whose gradients are the mean over all processes."""
        if self.count == 1:
            return network
        # Parameters that no forward uses are found in the first step; the statistics of batch norm are alike in all.
        return DistributedDataParallel(network, broadcast_buffers=False, static_graph=True)


ALONE = Processes()
"""Training in this process alone."""
