"""What training does to images before the network sees them: random shifts and mirror images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.models.config import TrainingConfig


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How the images of one epoch are moved: by their place in the epoch, whatever batches they come in.

    Attributes:
        rows, columns: (N,) int64, pixels down and to the right.
        flips: (N,) bool, true where the image is mirrored, left to right.
        idle: nothing is done to any image.
    """

    rows: Tensor
    columns: Tensor
    flips: Tensor
    idle: bool

    @classmethod
    def draw(
        cls,
        config: TrainingConfig,
        count: int,
        size: tuple[int, int],
        generator: torch.Generator,
        device: torch.device,
    ) -> Augmentation:
        """Random moves for one epoch.

        Args:
            config: which augmentation, and how far.
            count: images of the epoch.
            size: height and width.
            generator: on the CPU; it moves on by as much with every augmentation.
            device: where the images are.
        """
        shift = config.shift if config.augmentation != "none" else 0.0
        down, right = round(shift * size[0]), round(shift * size[1])
        rows = torch.randint(-down, down + 1, (count,), generator=generator)
        columns = torch.randint(-right, right + 1, (count,), generator=generator)
        flipped = config.augmentation == "flip_and_shift"
        flips = torch.rand(count, generator=generator) < (0.5 if flipped else 0.0)
        return cls(rows.to(device), columns.to(device), flips.to(device), not (flipped or down or right))

    def __call__(self, images: Tensor, start: int) -> Tensor:
        """The images at places start, start + 1, … of the epoch, moved; (B, C, H, W), any type."""
        if self.idle:
            return images
        part = slice(start, start + len(images))
        return moved_images(images, self.rows[part], self.columns[part], self.flips[part])


def moved_images(images: Tensor, rows: Tensor, columns: Tensor, flips: Tensor | None = None) -> Tensor:
    """Mirrors images, then moves them down and to the right; what comes in is black.

    Args:
        images: (B, C, H, W), any type; quickest with the channels last in memory.
        rows: (B,) int64, pixels down; negative is up.
        columns: (B,) int64, pixels to the right.
        flips: (B,) bool, true where the image is mirrored; default: none.

    Returns:
        (B, C, H, W), with the channels last in memory.
    """
    count, channels, height, width = images.shape
    device = images.device
    row = torch.arange(height, device=device) - rows.view(-1, 1)
    column = torch.arange(width, device=device) - columns.view(-1, 1)
    inside = ((row >= 0) & (row < height)).view(count, height, 1, 1)
    inside = inside & ((column >= 0) & (column < width)).view(count, 1, width, 1)
    if flips is not None:
        column = torch.where(flips.view(-1, 1), width - 1 - column, column)
    # One look-up of whole pixels, mirrored and moved at once, in place of one for each.
    image = torch.arange(count, device=device).view(count, 1, 1) * (height * width)
    pixel = image + row.clamp(0, height - 1).view(count, height, 1) * width
    pixel = pixel + column.clamp(0, width - 1).view(count, 1, width)
    table = images.permute(0, 2, 3, 1).reshape(-1, channels)
    moved = table.index_select(0, pixel.view(-1)).view(count, height, width, channels)
    return (moved * inside).permute(0, 3, 1, 2)
