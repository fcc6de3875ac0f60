"""Minimum attribution ratio: how little of the image keeps the prediction."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.contracts import Batch, Cost, Metric, Setting
from pipeline.fill import Fill, filled
from pipeline.models.classifier import Classifier
from pipeline.reduction import pixel_ranks


class MAR(Metric):
    """The smallest top share of a map's pixels that, alone on the fill, is still predicted as the target.

    Shares 1/grid, 2/grid, … 1 are tried in ascending order and an image stops at its first success, so the value is
    the smallest on the grid also where the prediction comes and goes (bisection would miss that). An image whose
    target is not predicted even when the whole image is shown has no ratio: its value is NaN, stored as null.

    Source: An et al. 2022 (dynamic ablation), Sec. "Minimum Attribution Ratio", there for the mask of dynamic
        ablation; here for the top pixels of any map.
    """

    higher_is_better: ClassVar[bool] = False
    name: Literal["mar"] = "mar"
    grid: PositiveInt = Field(100, description="shares tried: 1/grid to 1")
    fill: Fill = Field("black", description="what stands where pixels are not kept")

    def cost(self, setting: Setting) -> Cost:
        """At most one forward a share."""
        return Cost(forwards=self.grid)

    @torch.no_grad()
    def __call__(self, model: Classifier, batch: Batch, maps: Tensor) -> dict[str, Tensor]:
        """`mar` (B,) in (0, 1], NaN where even the whole image is not predicted as the target."""
        ranks, rest = pixel_ranks(maps), filled(self.fill, model, batch.images)
        pixels = ranks[0].numel()
        limits = torch.tensor(
            [math.ceil(pixels * share / self.grid) for share in range(1, self.grid + 1)], device=maps.device
        )
        ratio = torch.full((len(batch),), float("nan"), device=maps.device)
        searching = torch.arange(len(batch), device=maps.device)
        tried = 0
        while len(searching) and tried < self.grid:
            # With few images left, several shares of each go through the model together; the first that holds counts.
            together = min(max(1, model.rows // len(searching)), self.grid - tried)
            limit = limits[tried : tried + together]
            holds = []
            for image in torch.split(searching, max(1, model.rows // together)):
                kept = ranks[image][:, None] < limit.view(1, -1, 1, 1, 1)
                shown = torch.where(kept, batch.images[image][:, None], rest[image][:, None])
                predicted = model(shown.flatten(0, 1)).argmax(1).view(len(image), together)
                holds.append(predicted == batch.targets[image][:, None])
            held = torch.cat(holds)
            found = held.any(1)
            first = held.int().argmax(1)
            ratio[searching[found]] = limit[first[found]].float() / pixels
            searching = searching[~found]
            tried += together
        return {"mar": ratio}
