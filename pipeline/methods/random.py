"""The control: a map that knows nothing of the image or the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Cost, Setting
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise


class Random(AttributionMethod):
    """Uniform noise in [0, 1): the control that every method has to beat.

    Source: the random arm of Hooker et al. 2019 (ROAR); here with one draw a pixel, keyed by the sample.
    """

    name: Literal["random"] = "random"

    def cost(self, setting: Setting) -> Cost:
        """No pass through the model."""
        return Cost()

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """(B, 1, H, W) in [0, 1)."""
        height, width = batch.images.shape[-2:]
        return random_maps(batch.ids, height, width, noise).to(batch.images.device)


def random_maps(ids: Sequence[str], height: int, width: int, noise: Noise) -> Tensor:
    """The maps of `Random`, (B, 1, H, W) float32 in [0, 1): by the job's seed and the samples' ids alone."""
    return noise.uniform("random", ids, (1, height, width))
