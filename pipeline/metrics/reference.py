"""What a perturbation curve starts from and goes to, shared by all methods and metrics of a sample."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pipeline.contracts import Batch, Calibration, Cost, Setting, SharedWork
from pipeline.fill import filled
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise

CurveFill = Literal["black", "white", "mean", "blur", "noise", "value", "dataset"]
Colour = tuple[float, float, float]


class Reference(SharedWork):
    """The logits of an image, or of what stands where all of its pixels are taken away.

    Parameters: `fill` is what stands there, None for the image itself; `value` the colour of the fill `value`.
    """

    name: Literal["reference"] = "reference"
    fill: CurveFill | None = None
    value: Colour | None = None

    @torch.no_grad()
    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """`logits` (B, classes), and for `blur` and `noise`, where each sample has its own, `images` (B, 3, H, W)."""
        images = reference_images(self.fill, self.value, model, batch, noise)
        logits = torch.cat([model(piece.contiguous()) for piece in torch.split(images, model.rows)])
        return {"logits": logits, "images": images} if self.fill in ("blur", "noise") else {"logits": logits}


def reference_images(
    fill: CurveFill | None, value: Colour | None, model: Classifier, batch: Batch, noise: Noise
) -> Tensor:
    """The batch's images with every pixel taken away.

    Args:
        fill: as for `pipeline.fill.filled`; and `noise`, uniform in [0, 1] for each pixel and channel; `value`, one
            colour; None: the images themselves.
        value: the colour of `value`, in [0, 1].
        model, batch: whose images.
        noise: draws keyed by sample, for `noise`.

    Returns:
        (B, 3, H, W) float32 in [0, 1].

    Raises:
        ValueError: `dataset` before its colour is known, or `value` without a colour.
    """
    if fill is None:
        return batch.images
    if fill == "noise":
        return noise.uniform("fill", batch.ids, tuple(batch.images.shape[1:])).to(batch.images)
    if fill == "value" or fill == "dataset":
        if value is None:
            hint = "calibrate the metric first" if fill == "dataset" else "say which colour"
            raise ValueError(f"fill '{fill}' has no colour; {hint}")
        return batch.images.new_tensor(value).view(1, 3, 1, 1).expand_as(batch.images)
    return filled(fill, model, batch.images)


class DatasetColour(Calibration):
    """The mean colour of a data set, over a sample of its training split where it has one."""

    revision: ClassVar[int] = 1
    name: Literal["dataset_colour"] = "dataset_colour"

    def cost(self, setting: Setting) -> Cost:
        """No pass through the model."""
        del setting
        return Cost()

    def __call__(self, model: Classifier, batches: Iterable[Batch]) -> dict[str, float]:
        """`red`, `green` and `blue` in [0, 1]."""
        total, count = torch.zeros(3, dtype=torch.float64), 0
        for batch in batches:
            total += batch.images.double().mean((2, 3)).sum(0).cpu()
            count += len(batch)
        return dict(zip(("red", "green", "blue"), (total / count).tolist(), strict=True))
