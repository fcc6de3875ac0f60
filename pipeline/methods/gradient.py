"""The gradient of the explained output with respect to the pixels, and what is built on it alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.contracts import Batch, Cost, ExplainedOutput, Reduction, Setting, SharedWork, SharingMethod
from pipeline.methods.piece import in_pieces
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise


def explained(logits: Tensor, targets: Tensor, output: ExplainedOutput) -> Tensor:
    """The explained output of each row.

    Args:
        logits: (N, classes) float32.
        targets: (N,) int64.
        output: `logit`, `probability` (softmax) or `log_probability`.

    Returns:
        (N,) float32.
    """
    if output == "probability":
        logits = F.softmax(logits, dim=1)
    elif output == "log_probability":
        logits = F.log_softmax(logits, dim=1)
    return logits.gather(1, targets[:, None])[:, 0]


def input_gradient(model: Classifier, images: Tensor, targets: Tensor, output: ExplainedOutput) -> Tensor:
    """Gradient of each image's explained output with respect to its pixels.

    Args:
        model: left untouched.
        images: (N, 3, H, W) float32; cut into pieces of `model.rows`.
        targets: (N,) int64.
        output: which output of the target class.

    Returns:
        (N, 3, H, W) float32, detached.
    """
    pieces = []
    for piece, target in in_pieces(model, images, targets):
        pixels = piece.detach().requires_grad_(True)
        score = explained(model(pixels), target, output).sum()
        pieces.append(torch.autograd.grad(score, pixels)[0])
    return torch.cat(pieces)


class InputGradient(SharedWork):
    """The gradient that `gradient` and `gradient_x_input` have in common."""

    name: Literal["input_gradient"] = "input_gradient"
    output: ExplainedOutput = "logit"

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """`gradient`, (B, 3, H, W), with respect to the pixels."""
        return {"gradient": input_gradient(model, batch.images, batch.targets, self.output)}


class Gradient(SharingMethod):
    """The gradient of the explained output with respect to the pixels ("saliency").

    Source: Simonyan et al. 2013, Sec. 3: the largest magnitude over the colour channels (the default
        reduction) of the class score's gradient. The signed gradient is returned; the reduction comes after.
    """

    name: Literal["gradient"] = "gradient"
    output: ExplainedOutput = Field("logit", description="what is explained")
    reduction: Reduction = Field("max_abs", description="how channels become one map")

    def cost(self, setting: Setting) -> Cost:
        """One forward, one backward."""
        return Cost(1, 1)

    def shared_work(self) -> InputGradient:
        """The gradient itself."""
        return InputGradient(output=self.output)

    def finish(self, batch: Batch, work: Mapping[str, Tensor]) -> Tensor:
        """Signed gradient, (B, 3, H, W)."""
        return work["gradient"]


class GradientXInput(SharingMethod):
    """The gradient times the pixel values.

    Source: Shrikumar et al. 2016, "Not just a black box". The input is the image in pixel scale [0, 1], so a
        black pixel gets zero whatever the model's normalisation.
    """

    name: Literal["gradient_x_input"] = "gradient_x_input"
    output: ExplainedOutput = Field("logit", description="what is explained")

    def cost(self, setting: Setting) -> Cost:
        """One forward, one backward."""
        return Cost(1, 1)

    def shared_work(self) -> InputGradient:
        """The gradient, before it is multiplied."""
        return InputGradient(output=self.output)

    def finish(self, batch: Batch, work: Mapping[str, Tensor]) -> Tensor:
        """Signed products, (B, 3, H, W)."""
        return batch.images * work["gradient"]
