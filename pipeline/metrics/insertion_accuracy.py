"""Insertion accuracy: how often the top of a map, alone, is still predicted."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from pipeline.contracts import Setting
from pipeline.metrics.curve_metric import CurveMetric, CurveProtocol, check_fractions
from pipeline.metrics.reference import CurveFill

_Fill = Literal["black", "white", "mean", "blur", "noise"]


class InsertionAccuracy(CurveMetric):
    """Share of the fractions at which the most relevant pixels, the rest black, are predicted as the target.

    Its mean curve over the samples is the accuracy at each fraction.

    Source: An et al. 2022 (dynamic ablation), Fig. 5, where the accuracy is against the label of images of all kinds;
        here against the target, which is the label with `target: label`.
    """

    higher_is_better: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...]] = ("accuracy",)
    curve_of: ClassVar[str] = "predicted as the target"
    curve_over: ClassVar[str] = "pixels kept, most relevant first (%)"
    reading: ClassVar[str] = (
        "the most relevant pixels alone should be predicted as the whole image is (higher is better)"
    )
    name: Literal["insertion_accuracy"] = "insertion_accuracy"
    fractions: Annotated[tuple[float, ...], AfterValidator(check_fractions)] = Field(
        (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5), min_length=1, description="shares of the pixels kept"
    )
    fill: _Fill = Field("black", description="what stands where pixels are not kept")

    def protocol_at(self, setting: Setting) -> CurveProtocol:
        """From the fill, at the fractions."""
        del setting
        fill: CurveFill = self.fill
        return CurveProtocol(
            order="most_relevant_first",
            start="fill",
            fill=fill,
            score="correct",
            area="mean",
            measure="accuracy",
            fractions=self.fractions,
        )
