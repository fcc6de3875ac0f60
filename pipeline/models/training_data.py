"""Images to train on and to test on: held on the device, or read again for every pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from pipeline.errors import FatalError
from pipeline.models.image_order import EpochPlan, ImageOrder, one_shuffle
from pipeline.models.image_shards import ImageShards, check_labels


class Images(ABC):
    """Labelled images that are gone through in a random order, or in their own.

    Batches are (B, 3, H, W) uint8, with the channels last in memory, and (B,) int64, on the device.

    Attributes:
        device: where batches come out.
        size: height and width.
        classes: labels are in [0, classes).
        order: how they are shuffled; the same for images held and streamed, so that the network is the same.
    """

    device: torch.device
    size: tuple[int, int]
    classes: int
    order: ImageOrder

    @abstractmethod
    def __len__(self) -> int:
        """How many images."""

    @abstractmethod
    def epoch(self, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once, in an order that the generator gives at the call; the last batch may be smaller."""

    @abstractmethod
    def in_order(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once, by position; the last batch may be smaller."""

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel in [0, 1], from exact counts of the 256 pixel values."""
        counts = torch.zeros(3, 256, dtype=torch.int64)
        for pixels, _ in self.in_order(max(1, 2**22 // (self.size[0] * self.size[1]))):
            for channel in range(3):
                counts[channel] += torch.bincount(pixels[:, channel].flatten().int(), minlength=256).cpu()
        values = torch.arange(256, dtype=torch.float64) / 255
        means, deviations = [], []
        for row in counts.double():
            mean = (row * values).sum() / row.sum()
            variance = (row * (values - mean) ** 2).sum() / row.sum()
            means.append(mean.item())
            # A channel of one colour has no deviation, and dividing by it would give nothing but NaN.
            deviations.append(max(variance.item() ** 0.5, 1 / 255))
        return means, deviations


class HeldImages(Images):
    """Images that are all on the device."""

    def __init__(self, images: Tensor, labels: Tensor, classes: int, device: str | torch.device = "cpu") -> None:
        """Put images on the device. They are shuffled as a whole.

        Args:
            images: (N, 3, H, W) uint8; they must not change any more.
            labels: (N,) integers in [0, classes).
            classes: how many.
            device: where to hold them.

        Raises:
            FatalError: images or labels do not fit.
        """
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
            raise FatalError(f"images are {images.dtype} {tuple(images.shape)}, expected uint8 (N, 3, H, W)")
        if labels.shape != (len(images),):
            raise FatalError(f"labels are {tuple(labels.shape)}, expected ({len(images)},)")
        if len(images):
            check_labels(labels, classes)
        self._hold(images.permute(0, 2, 3, 1), labels, classes, torch.device(device))

    @classmethod
    def read(cls, shards: ImageShards, device: str | torch.device = "cpu") -> HeldImages:
        """Hold what is read, without a second copy of it. Raises as `ImageShards.visited` does."""
        pixels = torch.empty((shards.total, *shards.size, 3), dtype=torch.uint8, device=device)
        labels = torch.empty(shards.total, dtype=torch.int64, device=device)
        counts: list[int] = []
        for some, targets in shards.visited(range(len(shards))):
            place = slice(sum(counts), sum(counts) + len(some))
            pixels[place], labels[place] = some.to(device), targets.to(device)
            counts.append(len(some))
        held = cls.__new__(cls)
        held._hold(pixels[: sum(counts)], labels[: sum(counts)], shards.classes, torch.device(device))
        held.order = ImageOrder(tuple(counts), shards.buffer)
        return held

    def _hold(self, pixels: Tensor, labels: Tensor, classes: int, device: torch.device) -> None:
        self._pixels, self._labels = pixels.to(device).contiguous(), labels.to(device, torch.int64)
        self.device, self.size, self.classes = device, (pixels.shape[1], pixels.shape[2]), classes
        self.order = one_shuffle(len(labels))

    def __len__(self) -> int:
        return len(self._labels)

    def epoch(self, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once, in an order that the generator gives at the call; the last batch may be smaller."""
        rows = self.order.rows(generator).to(self.device)
        return (_picked(self._pixels, self._labels, some) for some in torch.split(rows, batch))

    def in_order(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once, by position; the last batch may be smaller."""
        for start in range(0, len(self), batch):
            yield self._pixels[start : start + batch].permute(0, 3, 1, 2), self._labels[start : start + batch]


class StreamedImages(Images):
    """Images that are read anew for every pass, of which the device holds no more than the buffer of their order.

    They come in the order that `HeldImages.read` gives them: whether there is memory for all decides no result.
    """

    def __init__(self, shards: ImageShards, device: str | torch.device = "cpu") -> None:
        """Say what is read.

        Args:
            shards: the images.
            device: where the buffer is, and where batches come out.
        """
        self._shards, self.device = shards, torch.device(device)
        self.size, self.classes, self.order = shards.size, shards.classes, shards.order()

    def __len__(self) -> int:
        return sum(self.order.counts)

    def epoch(self, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once, in an order that the generator gives at the call; the last batch may be smaller."""
        return _in_batches(self._pieces(self.order.plan(generator)), batch)

    def in_order(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once, by position; the last batch may be smaller."""
        pieces = (
            (pixels.to(self.device).permute(0, 3, 1, 2), labels.to(self.device))
            for pixels, labels in self._shards.visited(range(len(self._shards)))
        )
        return _in_batches(pieces, batch)

    def _pieces(self, plan: EpochPlan) -> Iterator[tuple[Tensor, Tensor]]:
        """Images of an epoch: for each shard what leaves the buffer before it comes in, then what is left there."""
        buffer = torch.empty((plan.slots, *self.size, 3), dtype=torch.uint8, device=self.device)
        targets = torch.empty(plan.slots, dtype=torch.int64, device=self.device)
        for (left, filled), (pixels, labels) in zip(plan.moves, self._shards.visited(plan.numbers), strict=True):
            if len(left):
                yield _picked(buffer, targets, left.to(self.device))
            places = filled.to(self.device)
            buffer[places], targets[places] = pixels.to(self.device), labels.to(self.device)
        for left in torch.split(plan.rest, self._shards.shard):
            yield _picked(buffer, targets, left.to(self.device))


def _picked(pixels: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    return pixels.index_select(0, rows).permute(0, 3, 1, 2), labels.index_select(0, rows)


def _in_batches(pieces: Iterator[tuple[Tensor, Tensor]], batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The same images in batches of one size, whatever the pieces are."""
    rest: list[tuple[Tensor, Tensor]] = []
    for pixels, labels in pieces:
        lacking = batch - sum(len(targets) for _, targets in rest)
        bounds = [0, *range(lacking, len(labels), batch), len(labels)]
        for start, stop in pairwise(bounds if len(labels) else ()):
            rest.append((pixels[start:stop], labels[start:stop]))
            if sum(len(targets) for _, targets in rest) == batch:
                yield _joined(rest)
                rest = []
    if rest:
        yield _joined(rest)


def _joined(pieces: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(pieces) == 1:
        return pieces[0]
    return torch.cat([pixels for pixels, _ in pieces]), torch.cat([labels for _, labels in pieces])
