"""Deletion and insertion: presets of the perturbation curve."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from pipeline.contracts import Setting
from pipeline.metrics.curve_metric import TOLERANCE, Area, CurveMetric, CurveProtocol

Protocol = Literal["rise", "agi"]


class _GameMetric(CurveMetric):
    """Area under a curve of the target's probability while the most relevant pixels change."""

    curve_of: ClassVar[str] = "probability of the class"
    protocol: Protocol = Field("rise", description="whose fills and whose area")
    step: PositiveInt | None = Field(
        None, description="pixels changed from point to point; default: one image row (224 at 224 × 224)"
    )
    tolerance: float | None = TOLERANCE

    @property
    def _area(self) -> Area:
        return "trapezoid" if self.protocol == "rise" else "mean"


class Deletion(_GameMetric):
    """Area under the target's probability while the most relevant pixels are taken away; lower is better.

    Source: protocol `rise`: Petsiuk et al. 2018, published evaluation: pixels go to the model's mean colour (zero
        after normalisation), trapezoid over ⌈HW/step⌉ + 1 equally spaced points. Protocol `agi`: Pan et al. 2021,
        published code: pixels go to black, mean of the scores. Ties: the lower pixel index goes first (RISE's
        sort is unstable).
    """

    higher_is_better: ClassVar[bool] = False
    reading: ClassVar[str] = (
        "the most relevant pixels are taken away, and the probability should fall early (lower is better)"
    )
    name: Literal["deletion"] = "deletion"

    def protocol_at(self, setting: Setting) -> CurveProtocol:
        """From the image to the fill."""
        return CurveProtocol(
            order="most_relevant_first",
            start="image",
            fill="mean" if self.protocol == "rise" else "black",
            score="probability",
            area=self._area,
            step=self.step or setting.width,
            tolerance=self.tolerance,
        )


class Insertion(_GameMetric):
    """Area under the target's probability while the most relevant pixels are put in; higher is better.

    Source: protocol `rise`: Petsiuk et al. 2018, published evaluation: the start is the image behind a Gaussian
        (kernel 11, sigma 5). Protocol `agi`: Pan et al. 2021, published code: the start is black, mean of the scores.
    """

    higher_is_better: ClassVar[bool] = True
    reading: ClassVar[str] = (
        "the most relevant pixels are put into a blurred or empty image, and the probability should rise early "
        "(higher is better)"
    )
    name: Literal["insertion"] = "insertion"

    def protocol_at(self, setting: Setting) -> CurveProtocol:
        """From the fill to the image."""
        return CurveProtocol(
            order="most_relevant_first",
            start="fill",
            fill="blur" if self.protocol == "rise" else "black",
            score="probability",
            area=self._area,
            step=self.step or setting.width,
            tolerance=self.tolerance,
        )
