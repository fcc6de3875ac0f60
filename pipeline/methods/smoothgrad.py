"""SmoothGrad and its square: what the gradients of noisy copies of an image have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.contracts import Batch, Cost, ExplainedOutput, Reduction, Setting, SharedWork, SharingMethod
from pipeline.methods.gradient import input_gradient
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise

SigmaOf = Literal["range", "absolute"]

PAPER_SAMPLES = 50
# The middle of the 10 to 20 % that the paper finds best, and the default of its published code.
PAPER_SIGMA = 0.15


class NoisyGradients(SharedWork):
    """Mean and mean square of the gradients of noisy copies of an image.

    A draw belongs to the sample and its number, so 50 samples begin with the same copies as 10 do. The copies are
    not clipped to [0, 1], as in the published code.

    Source: Smilkov et al. 2017, Sec. 2.1.
    """

    name: Literal["noisy_gradients"] = "noisy_gradients"
    samples: PositiveInt = PAPER_SAMPLES
    sigma: float = Field(PAPER_SIGMA, ge=0)
    sigma_of: SigmaOf = "range"
    output: ExplainedOutput = "logit"

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """`mean` and `mean_square`, each (B, 3, H, W)."""
        images = batch.images
        deviation = self._deviation(images)
        mean, mean_square = torch.zeros_like(images), torch.zeros_like(images)
        # Copies of one image are neighbours, and a forward takes them wherever it stands: also the copies of one
        # image alone fill it, and only the last one of a batch can be short.
        copies = len(batch) * self.samples
        for first in range(0, copies, model.rows):
            rows = range(first, min(first + model.rows, copies))
            owners = torch.tensor([row // self.samples for row in rows], device=images.device)
            noisy = images[owners] + deviation[owners] * self._draws(batch, noise, rows)
            gradients = input_gradient(model, noisy, batch.targets[owners], self.output)
            for owner in range(rows[0] // self.samples, rows[-1] // self.samples + 1):
                start = max(owner * self.samples - first, 0)
                own = gradients[start : (owner + 1) * self.samples - first]
                mean[owner] += own.sum(0)
                mean_square[owner] += own.square().sum(0)
        return {"mean": mean / self.samples, "mean_square": mean_square / self.samples}

    def _deviation(self, images: Tensor) -> Tensor:
        """Standard deviation of the noise, (B, 1, 1, 1), in pixel scale."""
        if self.sigma_of == "absolute":
            return torch.full((len(images), 1, 1, 1), self.sigma, device=images.device)
        spread = images.amax(dim=(1, 2, 3), keepdim=True) - images.amin(dim=(1, 2, 3), keepdim=True)
        return self.sigma * spread

    def _draws(self, batch: Batch, noise: Noise, rows: range) -> Tensor:
        """Standard normal noise of the copies, (len(rows), 3, H, W): row // samples is the image, the rest the draw."""
        draws = np.empty((len(rows), *batch.images.shape[1:]), dtype=np.float32)
        for place, row in enumerate(rows):
            generator = noise.generator("smoothgrad", batch.ids[row // self.samples], row % self.samples)
            generator.standard_normal(out=draws[place], dtype=np.float32)
        return torch.from_numpy(draws).to(batch.images.device)


class _Smoothed(SharingMethod):
    """What SmoothGrad and its square have in common."""

    samples: PositiveInt = Field(PAPER_SAMPLES, description="noisy copies of an image (n)")
    sigma: float = Field(PAPER_SIGMA, ge=0, description="standard deviation of the noise, of what `sigma_of` says")
    sigma_of: SigmaOf = Field(
        "range",
        description="range: a share of the image's own brightest minus darkest value; absolute: in pixel scale [0, 1]",
    )
    output: ExplainedOutput = Field("logit", description="what is explained")

    def cost(self, setting: Setting) -> Cost:
        """One forward and one backward a noisy copy."""
        return Cost(self.samples, self.samples)

    def shared_work(self) -> NoisyGradients:
        """The gradients of the noisy copies."""
        return NoisyGradients(samples=self.samples, sigma=self.sigma, sigma_of=self.sigma_of, output=self.output)


class SmoothGrad(_Smoothed):
    """The gradient averaged over noisy copies of the image.

    The noise is a share of each image's own range, as in the paper. The range is that of its pixels, over all
    channels; with `sigma_of: absolute` (Captum's reading) a pale image is disturbed as much as a contrasty one.

    Source: Smilkov et al. 2017, Sec. 2.1: 50 samples; noise of 10 to 20 % of the range, here 15 % as in the
        published code. The mean of signed gradients is returned; the magnitude is taken after it (the default
        reduction, as for the gradient), which the paper does for ImageNet (Sec. 2).
    """

    name: Literal["smoothgrad"] = "smoothgrad"
    reduction: Reduction = Field("max_abs", description="how channels become one map")

    def finish(self, batch: Batch, work: Mapping[str, Tensor]) -> Tensor:
        """Signed mean gradient, (B, 3, H, W)."""
        return work["mean"]


class SmoothGradSquared(_Smoothed):
    """The squared gradient averaged over noisy copies of the image ("SQ_SG"); nowhere negative.

    Source: Hooker et al. 2019 (ROAR), Sec. 4: the gradients are squared before they are averaged. Draws and
        defaults are SmoothGrad's, and both are computed from the same gradients.
    """

    name: Literal["smoothgrad_squared"] = "smoothgrad_squared"

    def finish(self, batch: Batch, work: Mapping[str, Tensor]) -> Tensor:
        """Mean squared gradient, (B, 3, H, W), zero or more."""
        return work["mean_square"]
