"""Localization: how much of a map lies on the object."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from pipeline.contracts import Batch, Context, Cost, Scores, Setting
from pipeline.metrics.region_metric import RegionMetric
from pipeline.models.classifier import Classifier
from pipeline.reduction import pixel_ranks


class Localization(RegionMetric):
    """How much of a map's relevance, and of its most relevant pixels, lies on the object.

    `mass` is the positive relevance inside the region as a share of all positive relevance. `rank` is the share of the
    K most relevant pixels that lie inside, with K the pixels of the region; an order at random has the region's share
    of the image. An image without the region has neither; a map without positive relevance has no `mass`.

    Source: Arras et al. 2022 (CLEVR-XAI), relevance mass accuracy and relevance rank accuracy. Their maps are pooled to
        positive values first; here the method's own reduction stands, and for `mass` negative values count as zero
        (their pooling `sum,pos`). For `rank` negative values keep their order, and ties go to the lower pixel index
        (there: NumPy's unstable sort, reversed).
    """

    higher_is_better: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...]] = ("mass", "rank")
    reading: ClassVar[str] = "relevance should lie inside the object's mask (higher is better)"
    name: Literal["localization"] = "localization"

    def cost(self, setting: Setting, method: Cost = Cost()) -> Cost:
        """No pass."""
        del setting, method
        return Cost()

    @torch.no_grad()
    def score(self, model: Classifier, batch: Batch, maps: Tensor, context: Context) -> Scores:
        """`mass` and `rank` (B,) in [0, 1]; NaN without the region."""
        del model, context
        inside = self.inside(batch).flatten(1)
        size = inside.sum(1)
        # Summed in double precision, a share does not hang on how a device groups its additions.
        positive = maps.flatten(1).clamp(min=0).double()
        # Without positive relevance this is 0 / 0.
        mass = (positive * inside).sum(1) / positive.sum(1)
        top = pixel_ranks(maps).flatten(1) < size[:, None]
        rank = (top & inside).sum(1) / size
        known = size > 0
        return Scores(
            {"mass": torch.where(known, mass, torch.nan).float(), "rank": torch.where(known, rank, torch.nan).float()}
        )
