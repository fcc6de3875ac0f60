"""MoRF, LeRF and pixel perturbation: what is left of the class's output while pixels are taken away."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from pipeline.contracts import Setting
from pipeline.metrics.curve import Output, Score
from pipeline.metrics.curve_metric import CurveMetric, CurveProtocol, Order, check_fractions

_Fill = Literal["black", "white", "mean", "blur", "noise"]
_Fractions = Annotated[tuple[float, ...], AfterValidator(check_fractions)]
_Relation = Literal["ratio", "change"]
_SCORES: dict[tuple[Output, _Relation], Score] = {
    ("probability", "ratio"): "probability_ratio",
    ("probability", "change"): "probability_change",
    ("logit", "ratio"): "logit_ratio",
    ("logit", "change"): "logit_change",
}


class _ActivationCurve(CurveMetric):
    """The target's output at small shares of pixels taken away, relative to that of the clean image."""

    measures: ClassVar[tuple[str, ...]] = ("ratio",)
    fractions: _Fractions = Field(
        (0.0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.045, 0.05),
        min_length=1,
        description="shares of the pixels taken away",
    )
    fill: _Fill = Field("black", description="what stands where pixels are taken away")
    output: Output = Field("logit", description="which output of the target is watched")

    def _removal(self, order: Order, relation: _Relation, measure: str) -> CurveProtocol:
        return CurveProtocol(
            order=order,
            start="image",
            fill=self.fill,
            score=_SCORES[self.output, relation],
            area="mean",
            measure=measure,
            fractions=self.fractions,
        )


class MoRF(_ActivationCurve):
    """Mean ratio f(x′)/f(x) while up to 5 % of the pixels are taken away, the most relevant first; lower is better.

    An image whose clean output is not above 0 has no ratio: null.

    Source: learned propagation rules, Sec. 4 and Fig. 5 ("most relevant first"; the paper averages 1,000 samples and
        does not say which output the activation is: the logit here, `output: probability` for the other, nor the
        fill: black here).
    """

    higher_is_better: ClassVar[bool] = False
    curve_of: ClassVar[str] = "output relative to the clean image"
    curve_over: ClassVar[str] = "pixels taken away, most relevant first (%)"
    reading: ClassVar[str] = (
        "a few of the most relevant pixels are taken away, and the output should fall (lower is better)"
    )
    name: Literal["morf"] = "morf"

    def protocol_at(self, setting: Setting) -> CurveProtocol:
        """From the image, the most relevant first."""
        del setting
        return self._removal("most_relevant_first", "ratio", "ratio")


class LeRF(_ActivationCurve):
    """Mean ratio f(x′)/f(x) while up to 5 % of the pixels are taken away, the least relevant first; higher is better.

    Pixels that speak against the class go first: above 1 the map knows them. Null as for `morf`.

    Source: learned propagation rules, Sec. 4 and Fig. 5; as `morf` else.
    """

    higher_is_better: ClassVar[bool] = True
    curve_of: ClassVar[str] = "output relative to the clean image"
    curve_over: ClassVar[str] = "pixels taken away, least relevant first (%)"
    reading: ClassVar[str] = (
        "a few of the least relevant pixels are taken away, and the output should stay or rise (higher is better)"
    )
    name: Literal["lerf"] = "lerf"

    def protocol_at(self, setting: Setting) -> CurveProtocol:
        """From the image, the least relevant first."""
        del setting
        return self._removal("least_relevant_first", "ratio", "ratio")


class PixelPerturbation(_ActivationCurve):
    """Mean |f(x′) − f(x)| / |f(x)| while the least relevant pixels are taken away; lower is better.

    Source: PruneGrad, Sec. 4.4 and Fig. 4a ("absolute fractional change", the least important pixels first); the
        fractions are our choice, the figure goes on to nearly all of them.
    """

    higher_is_better: ClassVar[bool] = False
    measures: ClassVar[tuple[str, ...]] = ("change",)
    curve_of: ClassVar[str] = "relative change of the output"
    curve_over: ClassVar[str] = "pixels taken away, least relevant first (%)"
    reading: ClassVar[str] = (
        "the least relevant pixels are taken away, and the output should not change (lower is better)"
    )
    name: Literal["pixel_perturbation"] = "pixel_perturbation"
    fractions: _Fractions = Field(
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), min_length=1, description="shares of the pixels taken away"
    )

    def protocol_at(self, setting: Setting) -> CurveProtocol:
        """From the image, the least relevant first."""
        del setting
        return self._removal("least_relevant_first", "change", "change")
