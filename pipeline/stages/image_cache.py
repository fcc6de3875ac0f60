"""Decoded images kept for the next unit: all methods and metrics of a shard look at the same ones."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.data import Dataset, Failure, Shard
from pipeline.errors import ShardError
from pipeline.part import Failed
from pipeline.stages.unreadable import UNREADABLE


@dataclass(frozen=True, slots=True)
class Samples:
    """Decoded samples of a range of positions; those that failed are named apart.

    Attributes:
        images: (n, 3, H, W) uint8.
        labels: (n,) int64, −1 where unknown.
        ids: n names.
        positions: n positions, ascending.
        failed: the samples of the range that could not be decoded.
    """

    images: Tensor
    labels: Tensor
    ids: tuple[str, ...]
    positions: tuple[int, ...]
    failed: tuple[Failed, ...]

    def at(self, positions: list[int]) -> Samples:
        """The samples at these positions, in their order, without the failures.

        Raises:
            ShardError: one of them could not be decoded.
        """
        if tuple(positions) == self.positions:
            return replace(self, failed=())
        place = {position: row for row, position in enumerate(self.positions)}
        for one in self.failed:
            if one.position in set(positions) - place.keys():
                raise ShardError(f"{one.id} could be decoded before and cannot now: {one.reason}")
        rows = [place[position] for position in positions]
        index = torch.tensor(rows, dtype=torch.long)
        return Samples(
            self.images[index], self.labels[index], tuple(self.ids[row] for row in rows), tuple(positions), ()
        )


class ImageCache:
    """The last decoded blocks of a data set, up to a number of bytes. Safe to use from several threads.

    Two threads that miss the same block both decode it: rare, and cheaper than waiting for each other. Where things are
    in the images is not read before somebody asks; from then on it is read along with every block.
    """

    BLOCK = 128

    def __init__(
        self,
        dataset: Dataset,
        limit_bytes: int,
        threads: int,
        *,
        block: int = BLOCK,
        unreadable: Set[int] = frozenset(),
    ) -> None:
        """Open a cache over a data set.

        Args:
            dataset: what is decoded.
            limit_bytes: decoded images that are kept, beside what is in use.
            threads: how many images are decoded at once.
            block: samples that are decoded together; 1: no other image is touched than those asked for.
            unreadable: positions that are failures and never decoded; looked up each time, so that it may grow.
        """
        self._dataset = dataset
        self._block = block
        self._unreadable = unreadable
        self._size = (dataset.height, dataset.width)
        self._threads = threads
        self._limit = limit_bytes
        self._with_regions = False
        self._blocks: OrderedDict[int, Shard] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Positions of the data set."""
        return len(self._dataset)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every image."""
        return self._dataset.height, self._dataset.width

    def get(self, start: int, stop: int) -> Samples:
        """The samples at positions start ≤ p < stop."""
        return _joined(self._held(range(start // self._block, -(-stop // self._block))), start, stop)

    def regions(self, positions: Sequence[int]) -> Mapping[str, Tensor]:
        """Where things are in the images at some positions.

        Args:
            positions: n positions whose images can be decoded, in any order.

        Returns:
            Each region that the data set knows of, by name, (n, 1, H, W) bool, in the order of the positions. It is all
            false where an image has no such thing, and where its regions cannot be known (`regionless`).

        Raises:
            ShardError: one of the images cannot be decoded.
        """
        if not positions:
            return {name: torch.zeros(0, 1, *self._size, dtype=torch.bool) for name in self._dataset.regions}
        blocks = self._marked(positions)
        place = {position: row for row, position in enumerate(at for block in blocks for at in block.positions)}
        if missing := [position for position in positions if position not in place]:
            raise ShardError(f"position {missing[0]} could be decoded before and cannot now")
        rows = torch.tensor([place[position] for position in positions], dtype=torch.long)
        return {name: torch.cat([block.regions[name] for block in blocks])[rows] for name in self._dataset.regions}

    def regionless(self, positions: Sequence[int]) -> tuple[Failed, ...]:
        """Those of some samples whose regions cannot be known, with the reason: a mask that is null, or corrupt."""
        asked = set(positions)
        return tuple(
            Failed(one.position, one.id, one.reason)
            for block in self._marked(positions)
            for one in block.regionless
            if one.position in asked
        )

    def _marked(self, positions: Sequence[int]) -> list[Shard]:
        """The blocks of some positions, with their regions."""
        self._with_regions = bool(self._dataset.regions)
        return self._held(sorted({position // self._block for position in positions}))

    def _held(self, wanted: Sequence[int]) -> list[Shard]:
        """Blocks, from memory as far as they are there."""
        regions = self._with_regions
        with self._lock:
            held = {block: self._blocks[block] for block in wanted if block in self._blocks}
        if regions:
            held = {block: shard for block, shard in held.items() if shard.regions}
        for first, last in _runs([block for block in wanted if block not in held]):
            held.update(self._load(first, last, regions))
        with self._lock:
            for block in wanted:
                self._blocks[block] = held[block]
                self._blocks.move_to_end(block)
            total = sum(_bytes(shard) for shard in self._blocks.values())
            while total > self._limit and len(self._blocks) > 1:
                total -= _bytes(self._blocks.popitem(last=False)[1])
        return [held[block] for block in wanted]

    def _load(self, first: int, last: int, regions: bool) -> dict[int, Shard]:
        """Blocks first … last, decoded in one call so that the source reads each of its files once."""
        wanted = range(first * self._block, min((last + 1) * self._block, len(self._dataset)))
        avoided = [position for position in wanted if position in self._unreadable]
        positions = [position for position in wanted if position not in avoided] if avoided else wanted
        shard = self._dataset.load(positions, self._threads, regions=regions)
        unread = [Failure(position, self._dataset.ids(position, position + 1)[0], UNREADABLE) for position in avoided]
        failures = sorted((*shard.failures, *unread), key=lambda one: one.position)
        blocks = {}
        for block in range(first, last + 1):
            rows = [row for row, position in enumerate(shard.positions) if position // self._block == block]
            low, high = (rows[0], rows[-1] + 1) if rows else (0, 0)
            blocks[block] = Shard(
                # A copy, so that a block that stays does not hold the whole shard's memory.
                images=shard.images[low:high].clone(),
                labels=shard.labels[low:high],
                ids=shard.ids[low:high],
                positions=shard.positions[low:high],
                failures=tuple(one for one in failures if one.position // self._block == block),
                regions={name: masks[low:high].clone() for name, masks in shard.regions.items()},
                regionless=tuple(one for one in shard.regionless if one.position // self._block == block),
            )
        return blocks


def _bytes(shard: Shard) -> int:
    return shard.images.numel() + sum(masks.numel() for masks in shard.regions.values())


def _runs(blocks: list[int]) -> list[tuple[int, int]]:
    """Ascending numbers as (first, last) of each unbroken run."""
    runs: list[tuple[int, int]] = []
    for block in blocks:
        if runs and runs[-1][1] == block - 1:
            runs[-1] = (runs[-1][0], block)
        else:
            runs.append((block, block))
    return runs


def _joined(blocks: list[Shard], start: int, stop: int) -> Samples:
    """The blocks' samples at positions start ≤ p < stop, in one."""
    pieces = []
    failed: list[Failed] = []
    for block in blocks:
        inside = [row for row, position in enumerate(block.positions) if start <= position < stop]
        pieces.append((block, slice(inside[0], inside[-1] + 1) if inside else slice(0, 0)))
        failed += [Failed(one.position, one.id, one.reason) for one in block.failures if start <= one.position < stop]
    images = [block.images[rows] for block, rows in pieces]
    return Samples(
        images=torch.cat(images) if len(images) > 1 else images[0],
        labels=torch.cat([block.labels[rows] for block, rows in pieces]),
        ids=tuple(name for block, rows in pieces for name in block.ids[rows]),
        positions=tuple(position for block, rows in pieces for position in block.positions[rows]),
        failed=tuple(failed),
    )
