"""Deletion and insertion: presets of the perturbation curve."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.contracts import Batch, Cost, Metric, Setting
from pipeline.fill import Fill, filled
from pipeline.metrics.curve import perturbation_curve, pixel_counts
from pipeline.models.classifier import Classifier
from pipeline.reduction import pixel_ranks

Protocol = Literal["rise", "agi"]


class _CurveScore(Metric):
    """Area under a curve of the target's probability while the most relevant pixels change."""

    protocol: Protocol = Field("rise", description="whose fills and whose area")
    step: PositiveInt | None = Field(
        None, description="pixels changed from point to point; default: one image row (224 at 224 × 224)"
    )

    def cost(self, setting: Setting) -> Cost:
        """One forward a point."""
        return Cost(forwards=len(self._counts(setting)))

    def curve_fractions(self, setting: Setting) -> list[float]:
        """Share of pixels changed at each point."""
        return [count / (setting.height * setting.width) for count in self._counts(setting)]

    def _counts(self, setting: Setting) -> list[int]:
        return pixel_counts(setting.height * setting.width, self.step or setting.width)

    def _scores(
        self, model: Classifier, batch: Batch, maps: Tensor, before: Tensor, after: Tensor
    ) -> dict[str, Tensor]:
        height, width = maps.shape[-2:]
        counts = self._counts(Setting(model.classes, height, width))
        curve = perturbation_curve(model, batch.targets, pixel_ranks(maps), counts, before, after)
        # RISE takes the trapezoid over equally spaced points, also where the last step is shorter.
        area = torch.trapezoid(curve, dx=1 / (len(counts) - 1), dim=1) if self.protocol == "rise" else curve.mean(1)
        return {"auc": area, "curve": curve}


class Deletion(_CurveScore):
    """Area under the target's probability while the most relevant pixels are taken away; lower is better.

    Source: protocol `rise`: Petsiuk et al. 2018, published evaluation: pixels go to the model's mean colour (zero
        after normalisation), trapezoid over ⌈HW/step⌉ + 1 equally spaced points. Protocol `agi`: Pan et al. 2021,
        published code: pixels go to black, mean of the scores. Ties: the lower pixel index goes first (RISE's
        sort is unstable).
    """

    higher_is_better: ClassVar[bool] = False
    name: Literal["deletion"] = "deletion"

    def __call__(self, model: Classifier, batch: Batch, maps: Tensor) -> dict[str, Tensor]:
        """`auc` (B,) in [0, 1] and `curve` (B, P)."""
        fill: Fill = "mean" if self.protocol == "rise" else "black"
        return self._scores(model, batch, maps, batch.images, filled(fill, model, batch.images))


class Insertion(_CurveScore):
    """Area under the target's probability while the most relevant pixels are put in; higher is better.

    Source: protocol `rise`: Petsiuk et al. 2018, published evaluation: the start is the image behind a Gaussian
        (kernel 11, sigma 5). Protocol `agi`: Pan et al. 2021, published code: the start is black, mean of the scores.
    """

    higher_is_better: ClassVar[bool] = True
    name: Literal["insertion"] = "insertion"

    def __call__(self, model: Classifier, batch: Batch, maps: Tensor) -> dict[str, Tensor]:
        """`auc` (B,) in [0, 1] and `curve` (B, P)."""
        fill: Fill = "blur" if self.protocol == "rise" else "black"
        return self._scores(model, batch, maps, filled(fill, model, batch.images), batch.images)
