"""Rectified gradient: a ReLU hands back the gradient of its most important units alone."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Cost, ExplainedOutput, Reduction, Setting
from pipeline.methods.guided_backprop import rectified_gradient
from pipeline.models.activation import RECTIFIERS, unruled
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise

Interpolation = Literal["nearest", "linear"]

# Rows shorter than this are ranked at once; of longer ones the large values are picked first.
LONG = 1 << 15
# One value in so many tells about where the percentile lies. A prime, so that all channels and places take part.
STRIDE = 61


class RectGrad(AttributionMethod):
    """The gradient, of which a ReLU hands back what arrives at its most important units; times the input.

    R_in = 1[a·R_out > τ] · R_out, with a the ReLU's output and τ the q-th percentile of a·R_out over the sample's
    layer. The last layer starts with the gradient of the explained output. Where τ is negative (q is low) units that
    are off hand back too, as in the formula; a saturated ReLU6 never does.

    Source: Kim et al. 2019, "Why are saliency maps noisy?", Sec. 4, without its two tricks for looks (borders of padded
        convolutions, pooling). The paper does not say how a percentile between two values is taken: the default is the
        published code's (the nearest value). The map is multiplied by the input as there, here by pixels in [0, 1], and
        its positive part is kept (the paper's final threshold) by the default reduction.
    """

    name: Literal["rectgrad"] = "rectgrad"
    percentile: float = Field(98.0, ge=0, lt=100, description="q, of the importance a·R in a layer")
    interpolation: Interpolation = Field("nearest", description="how a percentile between two values is taken")
    multiply_by_input: bool = Field(True, description="multiply the result by the pixels")
    output: ExplainedOutput = Field("logit", description="what is explained")
    reduction: Reduction = Field("positive_sum", description="how channels become one map")

    def cost(self, setting: Setting) -> Cost:
        """One forward, one backward."""
        return Cost(1, 1)

    def objection(self, model: Classifier, setting: Setting) -> str | None:
        """The rule is defined for ReLU and ReLU6."""
        return unruled(self.name, model, setting.height, setting.width, RECTIFIERS)

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """Signed, (B, 3, H, W)."""
        maps = rectified_gradient(model, batch.images, batch.targets, self.output, self._backward)
        return batch.images * maps if self.multiply_by_input else maps

    def _backward(self, activations: Tensor, gradient: Tensor, limit: float) -> Tensor:
        onwards = torch.empty_like(activations)
        # On a CPU large layers go one sample at a time, whose values then stay in its cache.
        alone = activations.device.type == "cpu" and activations[0].numel() > LONG
        together = 1 if alone else len(activations)
        for a, received, passed in zip(
            *(torch.split(values, together) for values in (activations, gradient, onwards)), strict=True
        ):
            importance = a * received
            rows = _rows(importance)
            above = self._above(rows.shape[1])
            threshold = _picked(rows[0], above) if alone else _largest(rows, above)
            # A difference of floats is above zero exactly where the first is the larger.
            importance -= threshold.view(-1, *[1] * (importance.dim() - 1))
            torch.ops.aten.threshold_backward.grad_input(received, importance, 0, grad_input=passed)
        return onwards.mul_(activations < limit) if limit < math.inf else onwards

    def _above(self, count: int) -> int:
        """How many of so many values lie above the percentile."""
        last = count - 1
        if self.interpolation == "nearest":
            return round(last * (1 - self.percentile / 100))
        # No value lies between two neighbours: what is above a mean of them, however weighted, is above the lower.
        return last - math.floor(last * self.percentile / 100)


def _rows(values: Tensor) -> Tensor:
    """(N, M), each sample's values in the order in which they lie in memory."""
    if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
        values = values.permute(0, 2, 3, 1)
    return values.flatten(1)


def _largest(values: Tensor, above: int) -> Tensor:
    """The value of the last axis with `above` values before it, in falling order."""
    return values.topk(above + 1, dim=-1, sorted=False).values.amin(-1)


def _picked(values: Tensor, above: int) -> Tensor:
    """As `_largest`, for one long row on the CPU: a sample of it tells which values cannot be the one.

    NumPy compares and gathers several times quicker than PyTorch here.
    """
    few = values[::STRIDE]
    expected = above * len(few) / len(values)
    guess = _largest(few, min(len(few) - 1, math.ceil(expected + 4 * math.sqrt(expected) + 1)))
    plain, least = values.numpy(), guess.item()
    larger = plain > least
    if np.count_nonzero(larger) > above:
        return _largest(torch.from_numpy(plain[np.flatnonzero(larger)]), above)
    # Many equal values, as a rule zeros, where little of a gradient arrives.
    return guess if np.count_nonzero(plain >= least) > above else _largest(values, above)
