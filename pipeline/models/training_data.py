"""Images to train on and to test on: held on the device, or read again for every pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from pipeline.errors import FatalError
from pipeline.models.device_memory import device_memory
from pipeline.models.image_shards import ImageShards, check_labels

BUFFER = 32
"""Shards that are shuffled among each other."""


class Images(ABC):
    """Labelled images that are gone through in a random order, or in their own.

    Batches are (B, 3, H, W) uint8, with the channels last in memory, and (B,) int64, on the device.

    Attributes:
        device: where batches come out.
        size: height and width.
        classes: labels are in [0, classes).
        arrangement: what the random order depends on beside the generator, one word or a few.
    """

    device: torch.device
    size: tuple[int, int]
    classes: int
    arrangement: str

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
        """Put images on the device.

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
        count = 0
        for some, targets in shards.visited(range(len(shards))):
            pixels[count : count + len(some)] = some.to(device)
            labels[count : count + len(some)] = targets.to(device)
            count += len(some)
        held = cls.__new__(cls)
        held._hold(pixels[:count], labels[:count], shards.classes, torch.device(device))
        return held

    def _hold(self, pixels: Tensor, labels: Tensor, classes: int, device: torch.device) -> None:
        self._pixels, self._labels = pixels.to(device).contiguous(), labels.to(device, torch.int64)
        self.device, self.size, self.classes = device, (pixels.shape[1], pixels.shape[2]), classes
        self.arrangement = "held"

    def __len__(self) -> int:
        return len(self._labels)

    def epoch(self, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once, in an order that the generator gives at the call; the last batch may be smaller."""
        order = torch.randperm(len(self), generator=generator).to(self.device)
        return (_picked(self._pixels, self._labels, some) for some in torch.split(order, batch))

    def in_order(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once, by position; the last batch may be smaller."""
        for start in range(0, len(self), batch):
            yield self._pixels[start : start + batch].permute(0, 3, 1, 2), self._labels[start : start + batch]


class StreamedImages(Images):
    """Images that are read anew for every pass, of which the device holds no more than the buffer.

    The shards of an epoch are read in a random order. As many as the buffer holds are shuffled among each other; as
    many images as make room for the next shard are trained on, and it is shuffled in among what is left. Neighbours
    in the source may so come close to each other in the epoch, and where the source is sorted by class, a batch has
    about as many classes as the buffer has shards: small shards and a large buffer mix better. Images that the buffer
    holds all come in the order that `HeldImages` gives them.
    """

    def __init__(self, shards: ImageShards, device: str | torch.device = "cpu", buffer: int = BUFFER) -> None:
        """Say what is read.

        Args:
            shards: the images.
            device: where the buffer is, and where batches come out.
            buffer: shards that are shuffled among each other.
        """
        self.shards, self.device, self.buffer = shards, torch.device(device), buffer
        self.size, self.classes = shards.size, shards.classes
        self.arrangement = f"{len(shards)} shards of {shards.shard}, {buffer} in the buffer"

    def __len__(self) -> int:
        return sum(self.shards.counts())

    def epoch(self, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once, in an order that the generator gives at the call; the last batch may be smaller."""
        numbers = list(range(len(self.shards)))
        if len(numbers) > self.buffer:
            numbers = torch.randperm(len(numbers), generator=generator).tolist()
        plan = _slots([self.shards.counts()[number] for number in numbers], self.buffer, generator)
        return _in_batches(self._pieces(numbers, plan), batch)

    def in_order(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once, by position; the last batch may be smaller."""
        pieces = (
            (pixels.to(self.device).permute(0, 3, 1, 2), labels.to(self.device))
            for pixels, labels in self.shards.visited(range(len(self.shards)))
        )
        return _in_batches(pieces, batch)

    def _pieces(self, numbers: list[int], plan: list[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images of an epoch: for each shard what leaves the buffer before it comes in, then what is left there."""
        slots = 1 + max(int(filled.max()) for _, filled in plan if len(filled))
        buffer = torch.empty((slots, *self.size, 3), dtype=torch.uint8, device=self.device)
        targets = torch.empty(slots, dtype=torch.int64, device=self.device)
        for (left, filled), (pixels, labels) in zip(plan, self.shards.visited(numbers), strict=False):
            if len(left):
                yield _picked(buffer, targets, left.to(self.device))
            places = filled.to(self.device)
            buffer[places], targets[places] = pixels.to(self.device), labels.to(self.device)
        for left in torch.split(plan[-1][0], self.shards.shard):
            yield _picked(buffer, targets, left.to(self.device))


def _slots(counts: Sequence[int], buffer: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Which slots of the buffer are emptied before each shard comes in, and which it fills; at the end, what is left.

    Args:
        counts: images of each shard, in the order in which they come in.
        buffer: shards that it holds.
        generator: gives the order.
    """
    room = min(buffer, len(counts)) * max(counts)
    free, occupied = torch.arange(room), torch.empty(0, dtype=torch.int64)
    plan = []
    for count in counts:
        left = free[:0]
        if count > len(free):
            shuffled = occupied[torch.randperm(len(occupied), generator=generator)]
            left, occupied = shuffled.tensor_split((count - len(free),))
            free = torch.cat([free, left])
        filled, free = free[:count], free[count:]
        occupied = torch.cat([occupied, filled])
        plan.append((left, filled))
    return [*plan, (occupied[torch.randperm(len(occupied), generator=generator)], free[:0])]


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


def choose_images(
    shards: ImageShards,
    device: str | torch.device = "cpu",
    *,
    held: bool | None = None,
    share: float = 1.0,
    buffer: int = BUFFER,
) -> tuple[Images, str]:
    """Images held on the device where they fit, else streamed.

    They fit if they take no more than half of what is free, and of the share of the device: the other half is for the
    network, its activations and what else comes.

    Args:
        shards: the images.
        device: where to train.
        held: True holds and False streams them, whatever fits.
        share: the part of the device that is for this training, in (0, 1].
        buffer: of `StreamedImages`.

    Returns:
        The images, and which it was and why, one line.

    Raises:
        ShardError, FatalError: as `ImageShards.visited`.
    """
    device = torch.device(device)
    memory = device_memory(device)
    room = int(min(memory.free, share * memory.total) / 2)
    wanted = f"{shards.bytes / 1e6:,.1f} MB of images"
    why = f"half of what {device} has free for them is {room / 1e6:,.1f} MB" if held is None else "as asked for"
    if held if held is not None else shards.bytes <= room:
        return HeldImages.read(shards, device), f"held: {wanted}, {why}"
    return StreamedImages(shards, device, buffer), f"streamed: {wanted}, {why}"
