"""Occlusion: how much the output drops when a patch is covered."""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Cost, ExplainedOutput, Setting
from pipeline.errors import FatalError
from pipeline.fill import Fill, filled
from pipeline.methods.masked_score import masked_scores
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise


class Occlusion(AttributionMethod):
    """A square patch slides over the image; a pixel gets the mean drop of the output over the patches that cover it.

    The defaults are for images of 224 × 224. On small ones take a smaller patch: on 32 × 32, `patch: 4, stride: 2`.

    Source: Zeiler and Fergus 2014, Sec. 4.2 and Fig. 6: a grey square and the probability of the class. Grey is the
        model's mean colour, zero after normalisation. The paper shows the output at every place of the square and
        names no size; patch 15 and stride 8, the drop and its mean over patches are as in Captum. `edge: partial`
        is Captum's as well: the last patch of a row may reach over the border, so that every pixel is covered.
    """

    name: Literal["occlusion"] = "occlusion"
    patch: PositiveInt = Field(15, description="side of the square, in pixels")
    stride: PositiveInt = Field(8, description="pixels from one place to the next, at most the side of the square")
    edge: Literal["partial", "inside"] = Field(
        "partial", description="patches over the border, or only whole ones; pixels that none covers then get 0"
    )
    fill: Fill = Field("mean", description="what covers the patch")
    output: ExplainedOutput = Field("probability", description="what is explained")

    @model_validator(mode="after")
    def _no_gaps(self) -> Self:
        if self.stride > self.patch:
            raise ValueError(f"stride {self.stride} is more than patch {self.patch}, which leaves pixels uncovered")
        return self

    def cost(self, setting: Setting) -> Cost:
        """One forward a place, and one of the image itself."""
        return Cost(1 + self._places(setting.height) * self._places(setting.width))

    def objection(self, model: Classifier, setting: Setting) -> str | None:
        """A patch larger than the image."""
        if self.patch > min(setting.height, setting.width):
            return f"occlusion: patch {self.patch} is larger than the image, {setting.height} × {setting.width}"
        return None

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """Signed drops, (B, 1, H, W)."""
        images = batch.images
        height, width = images.shape[2:]
        reason = self.objection(model, Setting(model.classes, height, width))
        if reason is not None:
            raise FatalError(reason)
        device = images.device
        down, across = (self._covered(side, device) for side in (height, width))

        def shown(_: Tensor, places: Tensor) -> Tensor:
            # Place 0 covers nothing.
            patches = (places - 1).clamp(min=0)
            rows, columns = down[patches // len(across)], across[patches % len(across)]
            covered = rows[:, :, None] & columns[:, None, :] & (places > 0).view(-1, 1, 1)
            return (~covered)[:, None].to(images.dtype)

        fill = filled(self.fill, model, images)
        count = 1 + len(down) * len(across)
        scores = masked_scores(model, images, batch.targets, fill, count, shown, self.output)
        drops = (scores[:, :1] - scores[:, 1:]).view(-1, len(down), len(across))
        return mean_over_patches(drops, down, across)

    def _places(self, side: int) -> int:
        inside = (side - self.patch) / self.stride
        return 1 + (math.ceil(inside) if self.edge == "partial" else math.floor(inside))

    def _covered(self, side: int, device: torch.device) -> Tensor:
        """Which pixels of an axis each place covers, (places, side) bool."""
        first = torch.arange(self._places(side), device=device)[:, None] * self.stride
        pixel = torch.arange(side, device=device)
        return (first <= pixel) & (pixel < first + self.patch)


def mean_over_patches(values: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """For each pixel the mean value of the patches that cover it.

    Args:
        values: (B, P, Q), one a patch.
        down: (P, H) bool, the rows that a patch covers.
        across: (Q, W) bool, the columns that a patch covers.

    Returns:
        (B, 1, H, W); 0 where no patch lies.
    """
    # Pixels under the same patches share one value, so that they are ties in a ranking and not ordered by rounding.
    rows, row_of = torch.unique(down, dim=1, return_inverse=True)
    columns, column_of = torch.unique(across, dim=1, return_inverse=True)
    rows, columns = rows.to(values.dtype), columns.to(values.dtype)
    total = rows.mT @ values @ columns
    patches = (rows.sum(0)[:, None] * columns.sum(0)).clamp(min=1)
    means: Tensor = (total / patches)[:, row_of][:, :, column_of]
    return means[:, None]
