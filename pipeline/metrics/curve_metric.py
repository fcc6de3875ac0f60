"""What all perturbation-curve metrics share: a protocol in, a curve and its area out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.contracts import Batch, Context, Cost, Metric, Scores, Setting
from pipeline.metrics.curve import (
    CurvePoints,
    Score,
    adaptive_curve,
    perturbation_curve,
    pixel_counts,
    share_counts,
)
from pipeline.metrics.reference import Colour, CurveFill, Reference, reference_images
from pipeline.models.classifier import Classifier
from pipeline.reduction import pixel_ranks

Order = Literal["most_relevant_first", "least_relevant_first"]
Start = Literal["image", "fill"]
Area = Literal["trapezoid", "mean"]


@dataclass(frozen=True, slots=True)
class CurveProtocol:
    """How a perturbation curve is drawn and what is made of it.

    Attributes:
        order: which pixels change first.
        start: what the curve starts from: the `image`, whose pixels go to the fill, or the `fill`, into which the
            image's pixels are put.
        fill: what stands where a pixel is taken away; `value` its colour, where it is one.
        score: what is watched (`pipeline.metrics.curve.scored`).
        area: `trapezoid`: points a step apart are taken as equally spaced, fractions as where they lie, and the area is
            divided by their range; or `mean` of the points.
        measure: what the area is called.
        step: pixels changed from point to point.
        fractions: shares of the pixels changed, in place of a step; ascending in [0, 1].
        tolerance: of the area, where points may be left out; None: every point is looked at.
    """

    order: Order
    start: Start
    fill: CurveFill
    score: Score
    area: Area
    measure: str = "auc"
    value: Colour | None = None
    step: int | None = None
    fractions: tuple[float, ...] | None = None
    tolerance: float | None = None

    def counts(self, pixels: int) -> list[int]:
        """Pixels changed at each point."""
        if self.fractions is not None:
            return share_counts(pixels, self.fractions)
        return pixel_counts(pixels, self.step or 1)

    def needed_ends(self, counts: Sequence[int], pixels: int) -> tuple[bool, bool]:
        """Whether the model has to see the image itself, and the fill alone: on the curve, or beside it."""
        image_at, fill_at = (0, pixels) if self.start == "image" else (pixels, 0)
        # A blurred image is made once for all methods, together with its logits.
        return image_at in counts or self.relative, fill_at in counts or self.fill in ("blur", "noise")

    @property
    def relative(self) -> bool:
        """Whether the score is relative to that of the clean image."""
        return self.score.endswith(("ratio", "change"))


class CurveMetric(Metric):
    """A metric that is the area under a perturbation curve."""

    measures: ClassVar[tuple[str, ...]] = ("auc",)

    @abstractmethod
    def protocol_at(self, setting: Setting) -> CurveProtocol:
        """The protocol for images of this size."""

    def cost(self, setting: Setting, method: Cost = Cost()) -> Cost:
        """A forward a point, and one for each end that is needed beside the curve; what is shared counts too."""
        del method
        pixels = setting.height * setting.width
        protocol = self.protocol_at(setting)
        counts = protocol.counts(pixels)
        image, fill = protocol.needed_ends(counts, pixels)
        between = [count for count in counts if count not in (0, pixels)]
        return Cost(forwards=len(between) + image + fill)

    def curve_axis(self, setting: Setting) -> tuple[float, ...]:
        """Share of the pixels changed at each point."""
        pixels = setting.height * setting.width
        return tuple(count / pixels for count in self.protocol_at(setting).counts(pixels))

    def score(self, model: Classifier, batch: Batch, maps: Tensor, context: Context) -> Scores:
        """The area (B,), and the curve (B, P) under its name."""
        height, width = maps.shape[-2:]
        protocol = self.protocol_at(Setting(model.classes, height, width))
        counts = protocol.counts(height * width)
        curve = protocol_curve(protocol, model, batch, maps, context)
        if protocol.area == "mean" or len(counts) == 1:
            area = curve.mean(1)
        elif protocol.fractions is None:
            # RISE takes the trapezoid over equally spaced points, also where the last step is shorter.
            area = torch.trapezoid(curve, dx=1 / (len(counts) - 1), dim=1)
        else:
            shares = curve.new_tensor(protocol.fractions)
            area = torch.trapezoid(curve, shares, dim=1) / (shares[-1] - shares[0])
        return Scores({protocol.measure: area}, {protocol.measure: curve})


def protocol_curve(protocol: CurveProtocol, model: Classifier, batch: Batch, maps: Tensor, context: Context) -> Tensor:
    """The curves of a batch of maps, (B, P); arguments as for a metric."""
    # A map is turned round, not its ranks: ties go to the lower pixel index in either order.
    ranks = pixel_ranks(maps if protocol.order == "most_relevant_first" else -maps)
    pixels = batch.images.shape[-2] * batch.images.shape[-1]
    counts = protocol.counts(pixels)
    needs_image, needs_fill = protocol.needed_ends(counts, pixels)
    fill = Reference(fill=protocol.fill, value=protocol.value)
    gone = context.shared(fill, model, batch) if needs_fill else {}
    clean = context.shared(Reference(), model, batch)["logits"] if needs_image else None
    away = gone.get("images")
    if away is None:
        away = reference_images(protocol.fill, protocol.value, model, batch, context.noise)
    from_image = protocol.start == "image"
    before, after = (batch.images, away) if from_image else (away, batch.images)
    known = (clean, gone.get("logits")) if from_image else (gone.get("logits"), clean)
    points = CurvePoints(model, batch.targets, ranks, before, after, protocol.score, clean=clean, known=known)
    device = batch.images.device
    if protocol.tolerance is not None and protocol.fractions is None:
        return adaptive_curve(points, len(batch), counts, device, protocol.tolerance)
    return perturbation_curve(points, len(batch), counts, device)


def check_fractions(fractions: tuple[float, ...]) -> tuple[float, ...]:
    """The fractions, where they are ascending and in [0, 1].

    Raises:
        ValueError: they are not.
    """
    if any(not 0 <= share <= 1 for share in fractions):
        raise ValueError("expected shares of the pixels in [0, 1]")
    if any(second <= first for first, second in pairwise(fractions)):
        raise ValueError("expected ascending shares")
    return fractions


TOLERANCE = Field(
    None,
    gt=0,
    lt=1,
    description="look only at the points where the curve bends, for an area right to this; default: at every point",
)
