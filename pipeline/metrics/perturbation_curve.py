"""The perturbation curve with everything in the spec's hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from pipeline.contracts import Calibration, Setting
from pipeline.metrics.curve import Score
from pipeline.metrics.curve_metric import TOLERANCE, Area, CurveMetric, CurveProtocol, Order, Start, check_fractions
from pipeline.metrics.reference import CurveFill, DatasetColour

_Share = Annotated[float, Field(ge=0, le=1)]


class PerturbationCurve(CurveMetric):
    """Area under a curve of the target's output while pixels change; every part of the protocol is a parameter.

    `deletion`, `insertion`, `insertion_accuracy`, `morf`, `lerf` and `pixel_perturbation` are published settings of it.
    A map is better where the score stays high while the least relevant pixels change, or falls with the most relevant.

    Source: Samek et al. 2017, "Evaluating the visualization of what a deep neural network has learned", made general.
    """

    curve_over: ClassVar[str] = "pixels changed, in the order of the protocol (%)"
    reading: ClassVar[str] = "pixels change in the map's order by a protocol of the spec"
    name: Literal["perturbation_curve"] = "perturbation_curve"
    order: Order = Field("most_relevant_first", description="which pixels change first; ties: the lower index")
    start: Start = Field("image", description="`image`: pixels go to the fill; `fill`: the image's pixels are put in")
    fill: CurveFill = Field(
        "mean",
        description="what stands where pixels are taken away; mean: the model's mean colour; dataset: the mean colour "
        "of the training split; value: the colour `value`",
    )
    value: tuple[_Share, _Share, _Share] | None = Field(None, description="red, green and blue in [0, 1], for `value`")
    step: PositiveInt | None = Field(None, description="pixels from point to point; default: one image row")
    fractions: Annotated[tuple[float, ...], AfterValidator(check_fractions)] | None = Field(
        None, min_length=1, description="shares of the pixels changed, in place of a step"
    )
    output: Score = Field(
        "probability", description="what is watched; ratios and changes are relative to the clean image"
    )
    area: Area = Field(
        "trapezoid", description="how points become one number; a trapezoid over fractions is divided by their range"
    )
    tolerance: float | None = TOLERANCE

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.fill == "value") != (self.value is not None):
            raise ValueError("fill: value and a colour under value go together")
        if self.fractions is not None and (self.step is not None or self.tolerance is not None):
            raise ValueError("fractions take the place of step and tolerance")
        return self

    @property
    def higher_is_better(self) -> bool:
        """By order, start and output."""
        falls = (self.order == "most_relevant_first") == (self.start == "image")
        return falls == self.output.endswith("change")

    def calibration(self) -> Calibration | None:
        """The data set's colour, where it is the fill."""
        return DatasetColour() if self.fill == "dataset" else None

    def calibrated(self, found: Mapping[str, float]) -> Self:
        """The metric with the data set's colour."""
        return self.model_copy(update={"value": (found["red"], found["green"], found["blue"])})

    def protocol_at(self, setting: Setting) -> CurveProtocol:
        """As the parameters say."""
        return CurveProtocol(
            order=self.order,
            start=self.start,
            fill=self.fill,
            value=self.value,
            score=self.output,
            area=self.area,
            step=self.step or setting.width,
            fractions=self.fractions,
            tolerance=self.tolerance,
        )
