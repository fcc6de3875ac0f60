"""Guided backpropagation: only positive evidence is handed back through a ReLU."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Cost, ExplainedOutput, Reduction, Setting
from pipeline.methods.gradient import explained
from pipeline.methods.piece import in_pieces
from pipeline.models.activation import RECTIFIERS, Backward, rectified, replaced_activations, unruled
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise


def rectified_gradient(
    model: Classifier, images: Tensor, targets: Tensor, output: ExplainedOutput, backward: Backward
) -> Tensor:
    """Gradient of each image's explained output with respect to its pixels, with a backward rule of one's own.

    Args:
        model: left untouched.
        images: (N, 3, H, W) float32; cut into pieces of `model.rows`.
        targets: (N,) int64.
        output: which output of the target class.
        backward: the rule of every ReLU and ReLU6.

    Returns:
        (N, 3, H, W) float32, detached.
    """
    pieces = []
    for piece, target in in_pieces(model, images, targets):
        pixels = piece.detach().requires_grad_(True)
        with torch.enable_grad():
            with replaced_activations(lambda activation, features: rectified(activation, features, backward)):
                logits = model(pixels)
            score = explained(logits, target, output).sum()
        pieces.append(torch.autograd.grad(score, pixels)[0])
    return torch.cat(pieces)


class GuidedBackprop(AttributionMethod):
    """The gradient, of which a ReLU hands back the positive part alone.

    Source: Springenberg et al. 2014, Sec. 3.4: R_in = 1[x > 0] · 1[R_out > 0] · R_out at every ReLU. A saturated
        ReLU6 hands back nothing, as its derivative is zero. The paper shows the signed gradient in colour; for one
        value a pixel the default takes the channel of largest magnitude, as for the plain gradient.
    """

    name: Literal["guided_backprop"] = "guided_backprop"
    output: ExplainedOutput = Field("logit", description="what is explained")
    reduction: Reduction = Field("max_abs", description="how channels become one map")

    def cost(self, setting: Setting) -> Cost:
        """One forward, one backward."""
        return Cost(1, 1)

    def objection(self, model: Classifier, setting: Setting) -> str | None:
        """An activation that is neither ReLU nor ReLU6 has no guided backward."""
        return unruled(self.name, model, setting.height, setting.width, RECTIFIERS)

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """Signed, (B, 3, H, W)."""
        return rectified_gradient(model, batch.images, batch.targets, self.output, guided)


def guided(activations: Tensor, gradient: Tensor, limit: float) -> Tensor:
    """The positive part of a gradient where the ReLU is neither off nor saturated."""
    onwards = torch.ops.aten.threshold_backward(gradient, activations, 0)
    if limit < float("inf"):
        onwards.mul_(activations < limit)
    return F.relu_(onwards)
