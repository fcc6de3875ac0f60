"""PrunePGD: the small perturbation that raises the output of the pruned network most."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.contracts import Batch, Cost, Setting
from pipeline.methods.pruning import Kept, pruned_gradient
from pipeline.methods.pruning_choice import PruningMethod, pieces
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise


class PrunePGD(PruningMethod):
    """The perturbation δ, ‖δ‖₂ ≤ Δ, that projected gradient ascent finds for the output of the pruned network.

    Units are pruned as in PruneGrad, once, at the image; they stay pruned while the image changes.

    Source: Khakzar et al. 2019, Eq. 3 and Sec. 4.1 (20 iterations, step 0.01, bound 0.1), with the ascent of Madry et
        al. 2017 in the L2 norm: steps along the gradient divided by its norm, each followed by the projection onto the
        ball. The paper does not give the scale, the start or a clip: here lengths are in pixel scale, δ starts at 0,
        and x + δ is not clipped, since a clip would give 0 to every saturated pixel (`clip` does so).
    """

    name: Literal["prune_pgd"] = "prune_pgd"
    steps: PositiveInt = Field(20, description="steps of the ascent")
    step_size: float = Field(0.01, gt=0, description="L2 length of a step, in pixel scale [0, 1]")
    bound: float = Field(0.1, gt=0, description="Δ, largest L2 norm of δ over pixels and channels")
    clip: bool = Field(False, description="keep x + δ in [0, 1]")

    def cost(self, setting: Setting) -> Cost:
        """Forward and backward for the scores (as far as the first activation) and for each step."""
        return self.choice_cost() + Cost(self.steps, self.steps)

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """δ, (B, 3, H, W)."""
        return torch.cat(
            [
                self._perturbation(model, images, targets, self.kept(model, images, targets))
                for images, targets in pieces(model, batch)
            ]
        )

    def _perturbation(self, model: Classifier, images: Tensor, targets: Tensor, kept: Kept) -> Tensor:
        """δ of at most `model.rows` images (N, 3, H, W)."""
        delta = torch.zeros_like(images)
        tiny = torch.finfo(delta.dtype).tiny
        for _ in range(self.steps):
            gradient = pruned_gradient(model, images + delta, targets, self.output, kept)
            delta += self.step_size * _direction(gradient)
            delta *= (self.bound / _norm(delta).clamp(min=tiny)).clamp(max=1)
            if self.clip:
                delta = (images + delta).clamp(0, 1) - images
        return delta


def _direction(gradient: Tensor) -> Tensor:
    """Each row of (N, 3, H, W) divided by its norm; 0 where it is 0."""
    # The squares of a small gradient, as of a saturated probability, would be 0 in float32.
    tiny = torch.finfo(gradient.dtype).tiny
    scaled = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp(min=tiny)
    return scaled / _norm(scaled).clamp(min=tiny)


def _norm(values: Tensor) -> Tensor:
    """(N, 1, 1, 1) L2 norm of each row of (N, 3, H, W)."""
    norms: Tensor = torch.linalg.vector_norm(values, dim=(1, 2, 3), keepdim=True)
    return norms
