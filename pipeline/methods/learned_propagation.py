"""Learned propagation rules: the backward pass is trained, image by image, until its map masks well."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.contracts import AttributionMethod, Batch, Cost, ExplainedOutput, Setting
from pipeline.errors import FatalError
from pipeline.fill import filled
from pipeline.methods.gradient import input_gradient
from pipeline.methods.propagation_rule import Adam, LearnedRules, Plugin, activation_inputs
from pipeline.methods.pruning_objection import unit_objection
from pipeline.models.activation import replaced_activations
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise

# Units that are explained at a time. Each takes about 40 bytes: the weight, its gradient and two moments, the
# feature, and the graph of the backward. VGG16 at 224 has 13.6 million units an image.
UNITS_TOGETHER = 64_000_000


class LearnedPropagation(AttributionMethod):
    """Gradient × input, with a learnable rule in the place of every activation's derivative.

    For each image the weights of the rules are trained with Adam so that taking away what the map calls positive
    lowers the target's output, and taking away what it calls negative raises it.

    Source: Yang et al. 2020, "Learning propagation rules for attribution map generation": rules Eq. 2 and
        Sec. 4.2, map Eq. 3, masks Eq. 4 to 6, loss Eq. 7 to 10. Where the paper leaves room:
        - The rule tanh(W ∘ g) (`reading` gradient) is G(∂L/∂f_out) of Eq. 2; g ∘ tanh(W ∘ (f − f_ref)) (gate) is
          "the Hadamard product between its parameter matrix and the input feature map", and the only one that the
          reference has a place in. On networks with batch norm both do well. In SqueezeNet, whose features are in
          the hundreds, 95 to 100 % of the gates are saturated before the first step, so little can be learnt: hence
          the default.
        - The backward starts with one at the target's logit (Sec. 3.1). `output` is what the loss compares: the
          "pre-softmax output" of Fig. 3, not the "predicted possibility" below Eq. 7, which hardly moves
          where the model is sure.
        - First weights are not told: ones, with which `gradient` lets every gradient through, as if there were no
          activations. With `derivative` it begins as the plain gradient (nearly: gradients are small).
        - The map is scaled by its extremes over all elements of the image (`scaling`), and the masks have its three
          channels (`mask_channels`), as Eq. 3 to 8 are written. α and β lie symmetrically about where zero comes
          to lie with `magnitude`, and pixels, not colours, are ranked later: `magnitude` and `joint` give better
          MoRF and LeRF curves.
        - Eq. 6 gives the smoothed map as M^p, which would hide what is *not* relevant. In the sense of Eq. 4
          and 5, M^p is one minus the smoothed map here, and M^n is the smoothed map.
        - |·| in Eq. 9 is the mean, so that λ does not depend on the image's size.
        - Without the sign-aware loss (Fig. 9), L^p and its mask alone are left.
        - 50 iterations: Table 2 is flat from 40 to 60.
        Adam's first steps are as long for the least gradient as for the largest, so rounding grows from step to step.
        Where a network's layers round differently for one image than for many (fully connected ones do), two runs
        of an image in different batches do not agree in every digit (in double precision they do).
    """

    name: Literal["learned_propagation"] = "learned_propagation"
    reading: Literal["gate", "gradient"] = Field(
        "gradient", description="`gradient`: tanh(W ∘ gradient); `gate`: gradient ∘ tanh(W ∘ feature)"
    )
    architecture: Literal["position", "channel"] = Field(
        "position", description="one weight a unit (the paper's second architecture), or one a channel (the first)"
    )
    placement: Literal["every", "maps"] = Field(
        "every", description="which activations have a rule: all, or those of feature maps (N, C, H, W)"
    )
    initial: Annotated[float, Field(gt=0)] | Literal["derivative"] = Field(
        1.0, description="first value of every weight; `derivative`: the activation's own derivative"
    )
    iterations: PositiveInt = Field(50, description="steps of Adam")
    learning_rate: float = Field(0.2, gt=0, description="of Adam")
    mask: Literal["sigmoid", "gaussian"] = Field("sigmoid", description="Eq. 4 and 5, or Eq. 6")
    mask_channels: Literal["each", "joint"] = Field(
        "each", description="a mask for each colour channel, or one from the map's sum over channels"
    )
    scaling: Literal["extremes", "magnitude"] = Field(
        "extremes",
        description="the map's least value to 0 and its largest to 1, or 0 to ½ and the farthest from it to 0 or 1",
    )
    alpha: float = Field(0.75, ge=0, le=1, description="centre of the positive mask (α)")
    beta: float = Field(0.25, ge=0, le=1, description="centre of the negative mask (β)")
    gamma: float = Field(10.0, gt=0, description="sharpness of the masks (γ)")
    sigma: float = Field(0.02, gt=0, le=1, description="of Eq. 6, as a share of the image's shorter side")
    mask_loss: float = Field(0.1, ge=0, description="weight of the masks' size in the loss (λ)")
    sign_aware: bool = Field(True, description="the loss has its negative term (off: the ablation of Fig. 9)")
    reference: bool = Field(
        True, description="features less those of an all-zero image (off: Fig. 9); `gate` alone looks at features"
    )
    zero: Literal["black", "mean"] = Field(
        "black", description="what an all-zero image is: pixel 0, or the mean colour (zero after normalisation)"
    )
    output: ExplainedOutput = Field("logit", description="what the loss compares (F_t)")

    @property
    def _plugin(self) -> Plugin:
        return Plugin(
            reading=self.reading, architecture=self.architecture, initial=self.initial, placement=self.placement
        )

    def cost(self, setting: Setting) -> Cost:
        """For T iterations 2T + 2 forwards, 3T + 1 backwards (without the sign-aware loss T + 2, 2T + 1).

        One forward is the image's, one the all-zero image's, which a batch shares (so this is an upper bound). To
        differentiate the backward takes about one forward's time more an iteration, which is not counted.
        """
        masks = 2 if self.sign_aware else 1
        return Cost(masks * self.iterations + 2, (masks + 1) * self.iterations + 1)

    @model_validator(mode="after")
    def _reference_has_a_place(self) -> Self:
        if not self.reference and self.reading == "gradient":
            raise ValueError("reference: false changes nothing under reading: gradient; set reading: gate beside it")
        return self

    def objection(self, model: Classifier, setting: Setting) -> str | None:
        """A model without an activation that could be given a rule, or whose features are not an image's own."""
        black = torch.zeros(1, 3, setting.height, setting.width, device=model.device)
        if trouble := self._without_rules(activation_inputs(model, black)):
            return trouble
        mixed = unit_objection(model, setting.height, setting.width)
        return None if mixed is None else f"learned_propagation: {mixed}"

    def _without_rules(self, inputs: list[Tensor]) -> str | None:
        """Why nothing can be learnt, given what the activations see, or None."""
        if not inputs:
            return "learned_propagation: no activation function is seen in the model's forward"
        if self.placement == "maps" and all(features.dim() != 4 for features in inputs):
            return "learned_propagation: no activation of a feature map (N, C, H, W); set placement: every"
        return None

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """Signed attributions, (B, 3, H, W)."""
        zero = filled(self.zero, model, batch.images[:1])
        references = activation_inputs(model, zero)
        problem = self._without_rules(references)
        if problem is not None:
            raise FatalError(problem)
        units = sum(features.numel() for features in references)
        # Both masked images of a piece go through one forward.
        together = max(1, min(model.rows // 2, UNITS_TOGETHER // units))
        pieces = zip(torch.split(batch.images, together), torch.split(batch.targets, together), strict=True)
        return torch.cat([self._learned(model, images, targets, zero, references) for images, targets in pieces])

    def _learned(
        self, model: Classifier, images: Tensor, targets: Tensor, zero: Tensor, references: list[Tensor]
    ) -> Tensor:
        """The maps of a few images, (N, 3, H, W), each with weights of its own.

        Neither the weights of the model nor the image change, so one forward is kept and only its backward, which
        holds the rules, is run again in each iteration.
        """
        rules = LearnedRules(self._plugin, references if self.reference else None)
        pixels = images.detach().requires_grad_(True)
        # Fused attention cannot be differentiated twice.
        with replaced_activations(rules), sdpa_kernel(SDPBackend.MATH):
            score = model(pixels).gather(1, targets[:, None]).sum()
        contrast = images - zero
        weights = list(rules.weights.values())
        optimiser = Adam(weights, self.learning_rate)
        for _ in range(self.iterations):
            gradient = torch.autograd.grad(score, pixels, create_graph=True)[0]
            masks = self.masks(contrast * gradient)
            pull = self._pull(model, zero, contrast, masks.detach(), targets)
            # Of a sum: PyTorch loads a whole computer algebra system where it is given the outer gradient instead.
            optimiser.step(torch.autograd.grad((masks * pull).sum(), weights, allow_unused=True))
        return contrast * torch.autograd.grad(score, pixels)[0]

    def masks(self, attribution: Tensor) -> Tensor:
        """M^p and M^n of Eq. 4 and 5, or of Eq. 6: 0 takes an element away, 1 leaves it.

        Args:
            attribution: A, (N, 3, H, W).

        Returns:
            (2, N, 3, H, W) in [0, 1]; (1, N, 3, H, W), M^p alone, without the sign-aware loss.
        """
        if self.mask_channels == "joint":
            attribution = attribution.sum(1, keepdim=True)
        if self.scaling == "extremes":
            low = attribution.amin((1, 2, 3), keepdim=True)
            extent = attribution.amax((1, 2, 3), keepdim=True) - low
        else:
            low = -attribution.abs().amax((1, 2, 3), keepdim=True)
            extent = -2 * low
        # An image that is zero everywhere has a map without extent.
        scaled = (attribution - low) / extent.clamp_min(torch.finfo(extent.dtype).tiny)
        if self.mask == "gaussian":
            negative = smoothed(scaled, self.sigma * min(scaled.shape[-2:]))
            positive = 1 - negative
        else:
            positive = 1 - torch.sigmoid(self.gamma * (scaled - self.alpha))
            negative = torch.sigmoid(self.gamma * (scaled - self.beta))
        kept = torch.stack([positive, negative]) if self.sign_aware else positive[None]
        return kept.expand(-1, -1, 3, -1, -1)

    def _pull(self, model: Classifier, zero: Tensor, contrast: Tensor, masks: Tensor, targets: Tensor) -> Tensor:
        """Gradient of each image's loss (Eq. 10) with respect to its masks, of their shape (M, N, 3, H, W).

        F_t(I) is the same whatever the masks are, so Eq. 7 and 8 leave F_t(I∘M^p) − F_t(I∘M^n) to differentiate.
        """
        masked = (zero + contrast * masks).flatten(0, 1)
        slopes = input_gradient(model, masked, targets.repeat(len(masks)), self.output).view_as(masks)
        signs = masks.new_tensor([1.0, -1.0][: len(masks)]).view(-1, 1, 1, 1, 1)
        # All masks are at most 1, so the mean of |1 − M| has the slope −1 over the number of elements.
        return signs * slopes * contrast - self.mask_loss / masks[0, 0].numel()


def smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Maps behind a Gaussian whose weights sum to one within the image.

    Args:
        maps: (N, C, H, W).
        sigma: in pixels; the kernel ends at four sigma.

    Returns:
        (N, C, H, W).

    Source: Yang et al. 2020, Eq. 6.
    """
    reach = max(1, math.ceil(4 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype) / sigma) ** 2)
    single = torch.cat([maps.flatten(0, 1)[:, None], torch.ones_like(maps[:1, :1])])
    across = F.conv2d(single, kernel.view(1, 1, 1, -1), padding=(0, reach))
    both = F.conv2d(across, kernel.view(1, 1, -1, 1), padding=(reach, 0))
    return (both[:-1] / both[-1:]).view_as(maps)
