"""PruneGrad: the input gradient of the network without the units that do not matter for the image."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pipeline.contracts import Batch, Cost, Setting
from pipeline.methods.pruning import pruned_gradient
from pipeline.methods.pruning_choice import PruningMethod, pieces
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise


class PruneGrad(PruningMethod):
    """The gradient with respect to the pixels after pruning the units of least effect on the explained output.

    A unit is one output of an activation function (channel and position); its effect is |a · ∂f/∂a|. All units of an
    image at or below one percentile are 0 in the second forward and in its backward. The percentile is found on a
    validation split, where pruning changes the output by 15 % on average; it can be given, or the pruning can go image
    by image (mode `per_image`).

    Source: Khakzar et al. 2019, "Explaining neural networks via perturbing important learned features", Sec. 3, Eq. 2
        and 3, Sec. 4.1. Scores at the percentile are pruned, as in the group's later code (PathwayGrad); so ties go
        together. That code's map has the channel of largest magnitude (`max_abs`, here without its sign).
    """

    name: Literal["prune_grad"] = "prune_grad"

    def cost(self, setting: Setting) -> Cost:
        """Forward and backward for the scores (as far as the first activation) and for the gradient."""
        return self.choice_cost() + Cost(1, 1)

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """Signed gradient of the pruned network, (B, 3, H, W)."""
        return torch.cat(
            [
                pruned_gradient(model, images, targets, self.output, self.kept(model, images, targets))
                for images, targets in pieces(model, batch)
            ]
        )
