"""Which units of a network matter for an image, and the network without the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import FatalError
from pipeline.methods.gradient import explained
from pipeline.models.activation import Activation, Rule, replaced_activations
from pipeline.models.classifier import Classifier

# A log-probability is near 0 where the prediction is sure: its relative change would say nothing.
PrunedOutput = Literal["logit", "probability"]

# For each activation call which units are kept: (N, k, …) bool. k is 1 unless the call has k parts of an image in its
# first dimension. None where the call does not depend on the image.
Kept = Sequence[Tensor | None]

KEEP_ALL = -1.0  # a threshold below every score
_HIGH_BITS = 16


@dataclass(frozen=True, slots=True)
class _Call:
    """Where the units of one activation call are in a row of scores.

    Attributes:
        start, end: its units in the row.
        shape: (k, …), of one image's units.
        order: the dimensions of `shape` from the outermost in memory to the innermost. Scores lie in memory as the
            activation does, so that nothing has to be rearranged.
    """

    start: int
    end: int
    shape: tuple[int, ...]
    order: tuple[int, ...]

    def view(self, units: Tensor) -> Tensor:
        """Its part of (N, U) as (N, k, …)."""
        part = units[:, self.start : self.end].view(-1, *(self.shape[axis] for axis in self.order))
        return part.permute(0, *(1 + self.order.index(axis) for axis in range(len(self.order))))


@dataclass(frozen=True, slots=True)
class Scores:
    """How much each unit matters for each of N images.

    Attributes:
        outputs: (N,) the explained output.
        units: (N, U) float32, not negative: the score of every unit, activation call after activation call.
        calls: where the units of each call are; None for a call that does not depend on the image.
    """

    outputs: Tensor
    units: Tensor
    calls: tuple[_Call | None, ...]

    def __getitem__(self, rows: Tensor) -> Scores:
        return Scores(self.outputs[rows], self.units[rows], self.calls)

    def without_effect(self) -> Tensor:
        """(N,) int64, how many units score 0: those that are not active, and those that lead nowhere."""
        return self.units.shape[1] - self.units.count_nonzero(1)

    def above(self, thresholds: Tensor) -> list[Tensor | None]:
        """The units that are kept when those of at most this score are pruned; thresholds (N,)."""
        return [
            None if call is None else call.view(self.units) > thresholds.view(-1, *(1,) * len(call.shape))
            for call in self.calls
        ]

    def lowest(self, ranks: Sequence[int]) -> Tensor:
        """(N,) each row's score of this rank, 1 the lowest; below every score where the rank is 0."""
        if self.units.is_cuda and min(ranks) == max(ranks) > 0:
            return self.units.kthvalue(ranks[0], dim=1).values
        found = [_lowest(row, rank) for row, rank in zip(self.units, ranks, strict=True)]
        return torch.stack(found)


def pruned_count(units: int, percentile: float) -> int:
    """How many units of an image are below a percentile, were all scores different.

    The percentile is NumPy's (linear interpolation), as in the group's later code; 0 prunes nothing.
    """
    return math.floor((units - 1) * percentile / 100) + 1 if percentile > 0 else 0


def percentile_thresholds(scores: Scores, percentile: float) -> Tensor:
    """(N,) the highest score that is pruned in each image.

    Units of equal score are pruned together. So units without effect go all or not at all: to prune some of them
    would wake others, since one that is inactive may be held down by one that leads only there.
    """
    return scores.lowest([pruned_count(scores.units.shape[1], percentile)] * len(scores.units))


def grid_thresholds(scores: Scores, percentiles: Sequence[float]) -> Tensor:
    """(P, N) the same for several percentiles, with one sort."""
    if scores.units.device.type == "cpu":
        # NumPy sorts with vector instructions, several times as fast as PyTorch does.
        ordered = torch.from_numpy(np.sort(scores.units.numpy(), axis=1))
    else:
        ordered = scores.units.sort(dim=1).values
    ranks = [pruned_count(ordered.shape[1], percentile) for percentile in percentiles]
    keep_all = ordered.new_full((len(ordered),), KEEP_ALL)
    return torch.stack([ordered[:, rank - 1] if rank else keep_all for rank in ranks])


def _lowest(row: Tensor, rank: int) -> Tensor:
    """The score of this rank in a row (U,). Exact, and on a CPU several times as fast as `kthvalue`."""
    if rank == 0:
        return row.new_tensor(KEEP_ALL)
    # Floats that are not negative have the order of their bits: count the high ones, then search among the few scores
    # that share them.
    high = row.view(torch.int32) >> _HIGH_BITS
    counts = torch.bincount(high, minlength=1 << (31 - _HIGH_BITS)).cumsum(0)
    place = int(torch.searchsorted(counts, rank))
    below = int(counts[place - 1]) if place else 0
    if place == 0 and rank <= row.numel() - int(row.count_nonzero()):
        return row.new_zeros(())
    return row[high == place].kthvalue(rank - below).values


def unit_scores(
    model: Classifier, images: Tensor, targets: Tensor, output: PrunedOutput, kept: Kept | None = None
) -> Scores:
    """The effect of removing each unit, |a · ∂f/∂a|; one forward, and one backward as far as the first activation.

    Args:
        model: the classifier.
        images: (N, 3, H, W) float32, at most `model.rows`.
        targets: (N,) int64.
        output: f.
        kept: score the network without the other units; a pruned unit scores 0.

    Raises:
        FatalError: the forward calls no activation function, or changes the result of one in place.

    Source: Khakzar et al. 2019, Eq. 2 (first-order Taylor approximation, as in Molchanov et al. 2017). A unit is one
        output of an activation function, of whatever kind: channel and position.
    """
    outcomes: list[tuple[Tensor, int] | None] = []

    def note(activation: Activation, features: Tensor) -> Tensor:
        found = activation.function(features) if kept is None else _pruned(kept, activation, features)
        depends = found.requires_grad and len(found) % len(images) == 0
        outcomes.append((found, found._version) if depends else None)
        return found

    with torch.enable_grad(), replaced_activations(note):
        outputs = explained(model(images.detach().requires_grad_(True)), targets, output)
    refuse_changed(outcomes)
    activations = [None if one is None else one[0] for one in outcomes]
    units = [one for one in activations if one is not None]
    if not units:
        raise FatalError("pruning: no activation function is seen in the model's forward, so there are no units")
    gradients = torch.autograd.grad(outputs.sum(), units, allow_unused=True)
    return _gathered(outputs.detach(), activations, gradients)


def _gathered(outputs: Tensor, activations: Sequence[Tensor | None], gradients: Sequence[Tensor | None]) -> Scores:
    """Scores from activations (N k, …) and gradients of their shape, or None where the output does not depend."""
    rows = len(outputs)
    calls: list[_Call | None] = []
    own: list[Tensor] = []
    end = 0
    for activation in activations:
        if activation is None:
            calls.append(None)
            continue
        # A lone image goes through a classifier with a copy of itself.
        own_part = _first(activation.detach(), rows)
        one = own_part.view(rows, len(own_part) // rows, *own_part.shape[1:])
        shape, strides = tuple(one.shape[1:]), one.stride()[1:]
        start, end = end, end + math.prod(shape)
        calls.append(_Call(start, end, shape, tuple(sorted(range(len(shape)), key=lambda axis: -strides[axis]))))
        own.append(one)
    units = outputs.new_empty(rows, end)
    for call, one, gradient in zip([call for call in calls if call is not None], own, gradients, strict=True):
        if gradient is None:
            units[:, call.start : call.end] = 0
        else:
            torch.mul(one, _first(gradient, rows).reshape(one.shape), out=call.view(units))
    return Scores(outputs, units.abs_(), tuple(calls))


def _first(values: Tensor, rows: int) -> Tensor:
    """What belongs to the images, without the copy of a lone one."""
    return values[: len(values) // 2] if rows == 1 else values


def refuse_changed(outcomes: Sequence[tuple[Tensor, int] | None]) -> None:
    """Raise an error where an activation's result is no longer of the version that it had."""
    changed = [index for index, one in enumerate(outcomes) if one is not None and one[0]._version != one[1]]
    if changed:
        raise FatalError(
            f"pruning: the model changes what activation {changed[0]} returned in place, so its units cannot be"
            " scored; write that operation out of place"
        )


def pruned(kept: Kept) -> Rule:
    """A rule for `replaced_activations`: pruned units are 0, forwards and backwards, whatever goes in."""
    return lambda activation, features: _pruned(kept, activation, features)


def _pruned(kept: Kept, activation: Activation, features: Tensor) -> Tensor:
    found = activation.function(features)
    mask = kept[activation.index]
    if mask is None:
        return found
    mask = mask.flatten(0, 1)
    if len(mask) != len(found):
        mask = mask.repeat(len(found) // len(mask), *(1,) * (mask.dim() - 1))
    # A product with bytes is quicker than one with booleans.
    return found * mask.view(torch.uint8)


def pruned_outputs(model: Classifier, images: Tensor, targets: Tensor, output: PrunedOutput, kept: Kept) -> Tensor:
    """(N,) the explained output of images (N, 3, H, W), at most `model.rows`, in the pruned network; one forward."""
    with torch.no_grad(), replaced_activations(pruned(kept)):
        return explained(model(images), targets, output)


def pruned_gradient(model: Classifier, images: Tensor, targets: Tensor, output: PrunedOutput, kept: Kept) -> Tensor:
    """(N, 3, H, W) its gradient with respect to the pixels; one forward, one backward."""
    with torch.enable_grad(), replaced_activations(pruned(kept)):
        pixels = images.detach().requires_grad_(True)
        outputs = explained(model(pixels), targets, output)
    return torch.autograd.grad(outputs.sum(), pixels)[0]


def relative_change(before: Tensor, after: Tensor) -> Tensor:
    """|after − before| / |before|, (N,); infinite where only `before` is 0."""
    change = (after - before).abs()
    return torch.where(change == 0, 0.0, change / before.abs())
