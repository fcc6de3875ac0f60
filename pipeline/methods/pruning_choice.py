"""How many units to prune: a percentile found for a model on a validation split, or image by image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Calibration, Cost, Reduction, Setting
from pipeline.errors import FatalError
from pipeline.methods.pruning import (
    KEEP_ALL,
    Kept,
    PrunedOutput,
    grid_thresholds,
    percentile_thresholds,
    pruned_outputs,
    relative_change,
    unit_scores,
)
from pipeline.methods.pruning_objection import unit_objection
from pipeline.models.classifier import Classifier

NEAR_ZERO = 1e-4
"""Outputs nearer to 0 than this have no relative change to speak of."""


class PruningCalibration(Calibration):
    """The percentile at which pruning changes the explained output by the allowed amount on average.

    The mean of |f_pruned − f| / |f| over the images is measured at a grid of percentiles, and the percentile at which
    it first reaches the allowed change is read off between two of them, on a straight line.

    Source: Khakzar et al. 2019, Sec. 4.1 ("The pruning percentage (e.g., 60%) is chosen such that on average its
        effect on output change is equal to the allowed threshold"). The grid is ours. Images whose output is within
        1e-4 of 0 are left out of the mean, and counted. The output is that of the predicted class, whichever classes
        are explained afterwards: the percentile belongs to the model.
    """

    name: Literal["pruning"] = "pruning"
    allowed_change: float = Field(0.15, gt=0, lt=1, description="mean relative change of the output aimed at")
    step: float = Field(5.0, gt=0, le=50, description="distance of the grid, in percent of the units")
    output: PrunedOutput = Field("logit", description="what is explained")

    def percentiles(self) -> list[float]:
        """The grid, above 0 and up to 100."""
        return [min(100.0, self.step * number) for number in range(1, math.ceil(100 / self.step) + 1)]

    def cost(self, setting: Setting) -> Cost:
        """A forward and a backward for the scores and at most one forward a percentile.

        It is less where some percentiles prune no more than the units that have no effect anyway.
        """
        return Cost(1 + len(self.percentiles()), 1)

    def __call__(self, model: Classifier, batches: Iterable[Batch]) -> dict[str, float]:
        """What was found on the images; each batch is asked for once.

        Returns:
            `percentile`; `change_below` and `change_above`, the mean change at the percentiles of the grid on both
            sides; `images` in the mean, and those `left_out`.

        Raises:
            FatalError: there is no image to measure on, or the change stays below the one aimed at.
        """
        grid = self.percentiles()
        total = torch.zeros(len(grid), dtype=torch.float64)
        images = left_out = 0
        for batch in batches:
            for pixels, targets in pieces(model, batch):
                outputs, changes = self._changes(model, pixels, targets)
                measured = outputs.abs() > NEAR_ZERO
                total += changes[:, measured].double().sum(1).cpu()
                images += int(measured.sum())
                left_out += int((~measured).sum())
        if images == 0:
            raise FatalError(
                f"pruning: no image to find the percentile with ({left_out} have an output of nearly 0); take another"
                " validation split, or give the percentile"
            )
        found = _first_reached([0.0, *grid], [0.0, *(total / images).tolist()], self.allowed_change)
        return {**found, "images": float(images), "left_out": float(left_out)}

    def _changes(self, model: Classifier, pixels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs (N,), and their relative change (P, N) at each percentile; several share a forward."""
        scores = unit_scores(model, pixels, targets, self.output)
        thresholds = grid_thresholds(scores, self.percentiles())
        # Low percentiles often prune the same units: those without effect.
        same = [False, *(bool(torch.equal(one, other)) for one, other in zip(thresholds[1:], thresholds, strict=False))]
        places = torch.tensor([not one for one in same]).cumsum(0) - 1
        distinct = thresholds[torch.tensor([not one for one in same], device=thresholds.device)]
        changes = []
        for some in torch.split(distinct, max(1, model.rows // len(pixels))):
            outputs = pruned_outputs(
                model,
                pixels.repeat(len(some), 1, 1, 1),
                targets.repeat(len(some)),
                self.output,
                _stacked([scores.above(one) for one in some]),
            )
            changes.append(relative_change(scores.outputs, outputs.view(len(some), -1)))
        return scores.outputs, torch.cat(changes)[places.to(thresholds.device)]


def _stacked(several: Sequence[Kept]) -> Kept:
    """What is kept in the rows of several, one after the other."""
    if len(several) == 1:
        return several[0]
    calls = zip(*several, strict=True)
    return [None if call[0] is None else torch.cat([one for one in call if one is not None]) for call in calls]


def _first_reached(percentiles: Sequence[float], changes: Sequence[float], allowed: float) -> dict[str, float]:
    """Where the change first reaches what is allowed, on straight lines between the percentiles."""
    above = next((place for place, change in enumerate(changes) if change >= allowed), None)
    if above is None:
        raise FatalError(
            f"pruning: the mean output change stays below {allowed} (at most {max(changes):.3g}); allow less change,"
            " or give the percentile"
        )
    share = (allowed - changes[above - 1]) / (changes[above] - changes[above - 1])
    percentile = percentiles[above - 1] + share * (percentiles[above] - percentiles[above - 1])
    return {"percentile": percentile, "change_below": changes[above - 1], "change_above": changes[above]}


def pieces(model: Classifier, batch: Batch) -> zip[tuple[Tensor, Tensor]]:
    """Images and targets in pieces of at most `model.rows`."""
    return zip(torch.split(batch.images, model.rows), torch.split(batch.targets, model.rows), strict=True)


class PruningMethod(AttributionMethod):
    """A method that explains an image with the network pruned to the units that matter for it."""

    percentile: float | None = Field(
        None, ge=0, le=100, description="units pruned, percent of all units of an image; default: found by calibration"
    )
    mode: Literal["percentile", "per_image"] = Field(
        "percentile",
        description="one percentile for all images, or for each image as much as the allowed change lets go",
    )
    allowed_change: float = Field(0.15, gt=0, lt=1, description="relative change of the output that pruning may cause")
    calibration_images: int = Field(1000, ge=1, description="images of the validation split for the percentile")
    calibration_step: float = Field(5.0, gt=0, le=50, description="distance of the percentiles tried on them")
    step_percent: float = Field(1.0, gt=0, le=100, description="per_image: percent of all units removed at a time")
    rescore: bool = Field(True, description="per_image: score the units anew in the pruned network after each step")
    output: PrunedOutput = Field("logit", description="what is explained")
    reduction: Reduction = Field("max_abs", description="how channels become one map")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.mode == "per_image" and self.percentile is not None:
            raise ValueError("mode per_image finds how much to prune by itself; leave percentile out")
        return self

    def objection(self, model: Classifier, setting: Setting) -> str | None:
        """A network without activation functions, or with one that mixes the images."""
        found = unit_objection(model, setting.height, setting.width)
        return found and f"{self.name}: {found}"

    def calibration(self) -> PruningCalibration | None:
        """The search for the percentile, where none is given."""
        if self.percentile is not None or self.mode == "per_image":
            return None
        return PruningCalibration(
            samples=self.calibration_images,
            allowed_change=self.allowed_change,
            step=self.calibration_step,
            output=self.output,
        )

    def calibrated(self, found: Mapping[str, float]) -> Self:
        """The method with the percentile found."""
        return self.model_copy(update={"percentile": found["percentile"]})

    def choice_cost(self) -> Cost:
        """What it takes to know which units are kept; an upper bound with `per_image`."""
        if self.mode == "percentile":
            return Cost(1, 1)
        # Each step removes at least its percentage; the units without effect are a step of their own.
        steps = math.ceil(100 / self.step_percent) + 1
        return Cost(1 + steps, 1 + steps if self.rescore else 1)

    def kept(self, model: Classifier, images: Tensor, targets: Tensor) -> Kept:
        """The units kept for each of at most `model.rows` images.

        Raises:
            FatalError: it is not known how much to prune.
        """
        if self.mode == "per_image":
            return kept_within(
                model, images, targets, self.output, self.allowed_change, self.step_percent, self.rescore
            )
        if self.percentile is None:
            raise FatalError(
                f"{self.name}: it is not known how much to prune of this model. Give `percentile`, take mode per_image,"
                " or find it:\n  found = method.calibration()(model, batches)\n  method = method.calibrated(found)"
            )
        scores = unit_scores(model, images, targets, self.output)
        return scores.above(percentile_thresholds(scores, self.percentile))


def kept_within(
    model: Classifier,
    images: Tensor,
    targets: Tensor,
    output: PrunedOutput,
    allowed: float,
    step_percent: float,
    rescore: bool,
) -> Kept:
    """What is left of each image's units when no more can go without changing the output too much.

    First go the units without effect, if any, then in each step the lowest `step_percent` of all units (rounded up),
    and with them what has no effect any more. An image is done before the step that would change its output by more
    than is allowed.
    All images take their steps together; those that are done leave.

    Args:
        model: the classifier.
        images: (N, 3, H, W), at most `model.rows`.
        targets: (N,) int64.
        output: f.
        allowed: largest |f_pruned − f| / |f|.
        step_percent: units a step, percent of all.
        rescore: score again in the pruned network after each step, or go by the first scores.

    Source: Khakzar et al. 2019, Sec. 4.1 ("iteratively remove a certain percentage of neurons (e.g., 1%) based on
        their importance scores until the output changes more than the allowed threshold"). The paper counts these
        steps against the steps of integrated gradients, so each has a gradient: scores are taken anew, as in the
        group's later code. The other reading is `rescore=False`.
    """
    scores = unit_scores(model, images, targets, output)
    units, before = scores.units.shape[1], scores.outputs
    step = max(1, math.ceil(units * step_percent / 100))
    kept = scores.above(torch.full_like(before, KEEP_ALL))
    idle = scores.without_effect()
    ranks = torch.where(idle > 0, idle, step).clamp(max=units)
    going = torch.arange(len(images), device=images.device)
    while len(going):
        tried = scores.above(scores.lowest(ranks.tolist()))
        pixels, classes = images[going], targets[going]
        if rescore:
            scores = unit_scores(model, pixels, classes, output, tried)
            after = scores.outputs
        else:
            after = pruned_outputs(model, pixels, classes, output, tried)
        within = relative_change(before[going], after) <= allowed
        for old, new in zip(kept, tried, strict=True):
            if old is not None and new is not None:
                old[going[within]] = new[within]
        more = within & (ranks < units)
        going, scores = going[more], scores[more]
        ranks = (torch.maximum(ranks[more], scores.without_effect()) + step).clamp(max=units)
    return kept
