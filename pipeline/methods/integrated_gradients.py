"""Integrated gradients: the gradient averaged along a straight line from a baseline."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Cost, ExplainedOutput, Setting
from pipeline.fill import Fill, filled
from pipeline.methods.gradient import input_gradient
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise

Quadrature = Literal["gauss_legendre", "riemann_right", "riemann_middle", "trapezoid"]


def quadrature(rule: Quadrature, steps: int) -> tuple[list[float], list[float]]:
    """Points in [0, 1] and weights that sum to 1, `steps` of each."""
    if rule == "gauss_legendre":
        points, weights = np.polynomial.legendre.leggauss(steps)
        return ((points + 1) / 2).tolist(), (weights / 2).tolist()
    if rule == "trapezoid":
        points = np.linspace(0.0, 1.0, steps)
        weights = np.full(steps, 1.0 / max(steps - 1, 1))
        if steps > 1:
            weights[[0, -1]] /= 2
        return points.tolist(), weights.tolist()
    offset = 0.5 if rule == "riemann_middle" else 1.0
    return ((np.arange(steps) + offset) / steps).tolist(), [1.0 / steps] * steps


class IntegratedGradients(AttributionMethod):
    """Path integral of the gradient on the straight line from a baseline to the image.

    The sum over pixels comes near f(x) − f(baseline) (completeness).

    Source: Sundararajan et al. 2017, Eq. 1 and 3. The paper's Eq. 3 is the right Riemann sum
        (`riemann_right`); the default is Gauss–Legendre, as in Captum, which meets completeness with fewer steps.
    """

    name: Literal["integrated_gradients"] = "integrated_gradients"
    steps: PositiveInt = Field(50, description="points on the line")
    baseline: Fill = Field("black", description="where the line starts")
    quadrature: Quadrature = Field("gauss_legendre", description="how the integral is summed")
    output: ExplainedOutput = Field("logit", description="what is explained")

    def cost(self, setting: Setting) -> Cost:
        """One forward and one backward a step."""
        return Cost(self.steps, self.steps)

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """Signed attributions, (B, 3, H, W)."""
        images = batch.images
        start = filled(self.baseline, model, images)
        points, weights = quadrature(self.quadrature, self.steps)
        total = torch.zeros_like(images)
        # Several steps share a forward when the batch is smaller than what the device takes at once.
        together = max(1, model.rows // len(batch))
        for first in range(0, self.steps, together):
            share = images.new_tensor(points[first : first + together]).view(-1, 1, 1, 1, 1)
            weight = images.new_tensor(weights[first : first + together]).view(-1, 1, 1, 1, 1)
            line = start + share * (images - start)
            targets = batch.targets.repeat(len(share))
            gradients = input_gradient(model, line.flatten(0, 1), targets, self.output)
            total += (weight * gradients.view_as(line)).sum(0)
        return (images - start) * total
