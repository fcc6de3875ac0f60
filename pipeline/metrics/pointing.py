"""The pointing game: whether a map's largest pixel lies on the object."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.contracts import Batch, Context, Cost, Scores, Setting
from pipeline.metrics.region_metric import RegionMetric
from pipeline.models.classifier import Classifier


class Pointing(RegionMetric):
    """Whether the largest pixel of a map lies on the object, or nearer to it than a tolerance.

    An image without the region has no score. Of several largest pixels the lower index counts.

    Source: Zhang et al. 2018 (excitation backprop), the pointing game with its margin of 15 pixels, as in TorchRay's
        code: a hit lies less than the tolerance away, in Euclidean distance. TorchRay enlarges maps to the stored size
        of the image, about 500 × 375 in PASCAL VOC, and measures 15 pixels there, whatever the size. Here pixels are
        those of the model's input: on small images 15 of them reach nearly everywhere. A tolerance of 0 asks for the
        region itself; in TorchRay it would miss always. TorchRay averages over the classes of an image, here each
        image has its one target.
    """

    higher_is_better: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...]] = ("hit",)
    reading: ClassVar[str] = "the map's highest pixel should lie on the object, or close to it (higher is better)"
    name: Literal["pointing"] = "pointing"
    tolerance: float = Field(15.0, ge=0, description="a hit is less than this many pixels from the region")

    def cost(self, setting: Setting, method: Cost = Cost()) -> Cost:
        """No pass."""
        del setting, method
        return Cost()

    @torch.no_grad()
    def score(self, model: Classifier, batch: Batch, maps: Tensor, context: Context) -> Scores:
        """`hit` (B,), 1 or 0; NaN without the region."""
        del model, context
        inside = self.inside(batch)[:, 0]
        height, width = inside.shape[-2:]
        largest = maps.flatten(1).argmax(1)[:, None, None]
        rows = torch.arange(height, device=maps.device)[None, :, None]
        columns = torch.arange(width, device=maps.device)[None, None]
        distance = (rows - largest // width) ** 2 + (columns - largest % width) ** 2
        near = (distance < self.tolerance**2) | (distance == 0)
        hit = (inside & near).flatten(1).any(1).float()
        return Scores({"hit": torch.where(inside.flatten(1).any(1), hit, torch.nan)})
