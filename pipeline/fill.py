"""What stands where pixels are taken away: the fills of metrics and the baselines of methods."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.classifier import Classifier

Fill = Literal["black", "white", "mean", "blur"]

BLUR_KERNEL = 11
BLUR_SIGMA = 5.0


def filled(fill: Fill, model: Classifier, images: Tensor) -> Tensor:
    """Images with everything taken away.

    Args:
        fill: `black` is pixel 0, `white` pixel 1, `mean` the model's mean colour (zero after normalisation),
            `blur` the image behind a Gaussian.
        model: whose mean colour `mean` and the border of `blur` take.
        images: (B, 3, H, W) float32 in [0, 1].

    Returns:
        (B, 3, H, W) float32; a broadcast view for the constant fills.
    """
    if fill == "blur":
        return blurred(model, images)
    constants = {
        "black": torch.zeros_like(model.mean),
        "white": torch.ones_like(model.mean),
        "mean": model.mean,
    }
    return constants[fill].expand_as(images)


def blurred(model: Classifier, images: Tensor) -> Tensor:
    """Images behind RISE's Gaussian: kernel 11, sigma 5; beyond the border lies the model's mean colour.

    Args:
        model: whose mean colour lies beyond the border.
        images: (B, 3, H, W) float32 in [0, 1].

    Returns:
        (B, 3, H, W) float32.

    Source: Petsiuk et al. 2018 (RISE), published evaluation code: the kernel is SciPy's Gaussian filter of a
        unit impulse on an 11 × 11 grid, applied to the normalised image with zero padding.
    """
    kernel = _kernel().to(images).expand(3, 1, -1, -1)
    centred = images - model.mean
    return F.conv2d(centred, kernel, padding=BLUR_KERNEL // 2, groups=3) + model.mean


@cache
def _kernel() -> Tensor:
    # SciPy's filters take a third of a second to import, for this kernel alone.
    from scipy.ndimage import gaussian_filter  # noqa: PLC0415

    impulse = np.zeros((BLUR_KERNEL, BLUR_KERNEL))
    impulse[BLUR_KERNEL // 2, BLUR_KERNEL // 2] = 1.0
    return torch.from_numpy(gaussian_filter(impulse, BLUR_SIGMA)).float().view(1, 1, BLUR_KERNEL, BLUR_KERNEL)
