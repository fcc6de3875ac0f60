"""RISE: random masks, each weighted by what the model still says of the image behind it."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Cost, ExplainedOutput, Setting
from pipeline.fill import Fill, filled
from pipeline.methods.masked_score import Masks, masked_scores
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise


class Rise(AttributionMethod):
    """Mean of random smooth masks, each weighted by the target's score on the image behind it.

    A mask is a grid of s × s cells, each 1 with probability p, enlarged bilinearly to (s + 1)·⌈H/s⌉ rows and
    (s + 1)·⌈W/s⌉ columns and cropped at a random shift of less than one cell. The map is Σ f(x ∘ m)·m / (N·p).

    All images of a job see the same masks, keyed by the seed: as in the published code, which makes them once, and
    they cost nothing beside the forwards. Maps of different images thus share their sampling error.

    Source: Petsiuk et al. 2018, Eq. 6 and Sec. 3.2; N = 8000 is what Sec. 4 takes for ResNet50 (4000 for VGG16). Masks
        are those of the published code (enlarged by scikit-image with its mode `reflect`, shifts 0 … ⌈H/s⌉ − 1).
        The default fill is the paper's: a masked pixel is multiplied by 0, so it is black. The published code
        multiplies the normalised image instead, so there it gets the mean colour: `fill: mean`.
    """

    name: Literal["rise"] = "rise"
    masks: PositiveInt = Field(8000, description="random masks (N)")
    cells: PositiveInt = Field(7, description="cells of a mask along each side (s)")
    keep: float = Field(0.5, gt=0, le=1, description="probability that a cell is kept (p)")
    fill: Fill = Field("black", description="what shows where a mask hides the image")
    output: ExplainedOutput = Field("probability", description="the score of a masked image")

    def cost(self, setting: Setting) -> Cost:
        """One forward a mask."""
        return Cost(self.masks)

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """(B, 1, H, W); zero or more where the output is a probability."""
        images = batch.images
        size = (images.shape[2], images.shape[3])
        fill = filled(self.fill, model, images)
        grids, shifts = self._draws(noise, size)
        # As few masks at a time as fill whole forwards; each is made once for all images.
        together = model.rows // math.gcd(model.rows, len(batch))
        total = images.new_zeros(len(batch), size[0] * size[1])
        for first in range(0, self.masks, together):
            part = slice(first, first + together)
            masks = random_masks(grids[part].to(images.device), shifts[part].to(images.device), size).to(images)
            scores = masked_scores(model, images, batch.targets, fill, len(masks), _of_all_images(masks), self.output)
            total.addmm_(scores, masks.flatten(1))
        return total.view(len(batch), 1, *size) / (self.masks * self.keep)

    def _draws(self, noise: Noise, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Grids (N, s, s) float32 of 0 and 1, and shifts (N, 2) int64 in pixels, of all masks."""
        cells = self.cells
        grids = noise.uniform("rise", ["grids"], (self.masks, cells, cells))[0] < self.keep
        sides = torch.tensor([math.ceil(side / cells) for side in size])
        shifts = (noise.uniform("rise", ["shifts"], (self.masks, 2))[0] * sides).long()
        return grids.float(), shifts.minimum(sides - 1)


def _of_all_images(masks: Tensor) -> Masks:
    return lambda rows, places: masks[places]


def random_masks(grids: Tensor, shifts: Tensor, size: tuple[int, int]) -> Tensor:
    """Small grids enlarged bilinearly, and cropped to the image at a shift.

    Args:
        grids: (K, s, s) float32.
        shifts: (K, 2) int64, first row and column of the crop, from 0 to ⌈H/s⌉ − 1 and ⌈W/s⌉ − 1.
        size: height and width of the image.

    Returns:
        (K, 1, H, W) float32, between the smallest and the largest value of the grid.
    """
    across = [
        _weights(grids.shape[axis + 1], size[axis], grids.device)[
            shifts[:, axis, None] + torch.arange(size[axis], device=grids.device)
        ]
        for axis in (0, 1)
    ]
    masks: Tensor = across[0] @ grids @ across[1].mT
    return masks[:, None]


def _weights(cells: int, side: int, device: torch.device) -> Tensor:
    """Share of each cell in each place of the enlarged axis, ((s + 1)·⌈side/s⌉, s)."""
    length = (cells + 1) * math.ceil(side / cells)
    place = (torch.arange(length, device=device) + 0.5) * (cells / length) - 0.5
    # Mirrored at the centres of the outer cells: -0.3 is where 0.3 is. A lone cell has no neighbour.
    place = place.abs()
    place = ((cells - 1) - ((cells - 1) - place).abs()).clamp(min=0)
    distance = place[:, None] - torch.arange(cells, device=device)
    return (1 - distance.abs()).clamp(min=0)
