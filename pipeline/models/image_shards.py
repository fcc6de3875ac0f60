"""Labelled images that are read a range at a time, the next one while one is in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from pipeline.errors import FatalError, ShardError
from pipeline.models.image_order import ImageOrder, shards_within
from pipeline.models.processes import ALONE, Processes

Read = Callable[[int, int], tuple[Tensor, Tensor]]
"""Images and labels of the positions start to stop − 1: (n, 3, H, W) uint8 and (n,) integers; n may be less than
stop − start where samples are left out, but is the same at every call. It is called in a thread of its own."""

_LARGEST_SHARD = 256
_SHARD_BYTES = 32 * 2**20


class ImageShards:
    """Labelled images that are read a range of positions at a time.

    Attributes:
        total: positions; samples left out are among them.
        size: height and width.
        classes: labels are in [0, classes).
        shard: positions that are read at a time.
        buffer: shards that are shuffled among each other.
    """

    def __init__(
        self,
        read: Read,
        total: int,
        size: tuple[int, int],
        classes: int,
        shard: int | None = None,
        counts: Sequence[int] | None = None,
        buffer: int | None = None,
        processes: Processes = ALONE,
    ) -> None:
        """Say what is read.

        Args:
            read: gives a range.
            total: positions.
            size: height and width.
            classes: how many.
            shard: positions at a time; default: 256, and less of large images, so that a shard is at most 32 MiB.
            counts: how many images each shard gives; default: they are counted by reading all once, where it matters.
            buffer: shards that are shuffled among each other; default: 64 MiB of them, and no fewer than 32.
            processes: each of them reads its part of what is visited, and gets all of it from the others.

        Raises:
            ValueError: there are no positions, or not one count a shard.
        """
        self.total, self.size, self.classes = total, size, classes
        self.shard = shard or max(1, min(_LARGEST_SHARD, _SHARD_BYTES // (3 * size[0] * size[1])))
        if total < 1:
            raise ValueError(f"{total} positions, expected one or more")
        if counts is not None and len(counts) != len(self):
            raise ValueError(f"{len(counts)} counts for {len(self)} shards of {self.shard} positions")
        self.buffer = buffer or shards_within(self.shard_bytes)
        self._read, self._processes = read, processes
        self._counts = list(counts) if counts is not None else None

    def __len__(self) -> int:
        """Shards."""
        return -(-self.total // self.shard)

    @property
    def bytes(self) -> int:
        """Of all images, none left out."""
        return self.total * 3 * self.size[0] * self.size[1]

    @property
    def shard_bytes(self) -> int:
        """Of the images of a shard."""
        return self.shard * 3 * self.size[0] * self.size[1]

    def counts(self) -> list[int]:
        """How many images each shard gives."""
        if self._counts is None:
            self._counts = [len(labels) for _, labels in self.visited(range(len(self)))]
        return self._counts

    def order(self) -> ImageOrder:
        """The order in which a training sees the images, held or not."""
        return ImageOrder(tuple(self.counts()), self.buffer)

    def visited(self, numbers: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Shards by their numbers, (n, H, W, 3) uint8 and (n,) int64; the next one is read while one is in use.

        Where several processes train together, all of them have to go through the same numbers.

        Raises:
            ShardError: what is read has another shape or type, or is not as much as before.
            FatalError: a label is outside the classes.
        """
        return self._processes.dealt(numbers, self._visited)

    def _visited(self, numbers: Iterable[int]) -> Iterator[tuple[Tensor, Tensor]]:
        with ThreadPoolExecutor(1, "training-images") as reader:
            ahead: Future[tuple[Tensor, Tensor]] | None = None
            for number in numbers:
                last, ahead = ahead, reader.submit(self._shard, number)
                if last is not None:
                    yield last.result()
            if ahead is not None:
                yield ahead.result()

    def _shard(self, number: int) -> tuple[Tensor, Tensor]:
        start, stop = number * self.shard, min((number + 1) * self.shard, self.total)
        images, labels = self._read(start, stop)
        count = len(labels) if self._counts is None else self._counts[number]
        if images.dtype != torch.uint8 or images.shape != (count, 3, *self.size) or labels.shape != (count,):
            raise ShardError(
                f"images at positions {start} to {stop - 1} are {images.dtype} {tuple(images.shape)} with labels "
                f"{tuple(labels.shape)}, expected uint8 {(count, 3, *self.size)} with labels ({count},)"
            )
        if count:
            check_labels(labels, self.classes)
        return images.permute(0, 2, 3, 1).contiguous(), labels.to(torch.int64)


def check_labels(labels: Tensor, classes: int) -> None:
    """Refuses labels, one or more, that are not in [0, classes).

    Raises:
        FatalError: with the range that they are in.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise FatalError(f"labels run from {low} to {high}, expected 0 to {classes - 1}")
