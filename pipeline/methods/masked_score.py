"""What a model says of images with parts taken away."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.contracts import ExplainedOutput
from pipeline.methods.gradient import explained
from pipeline.models.classifier import Classifier

Masks = Callable[[Tensor, Tensor], Tensor]
"""The masks of N pairs: image numbers (N,) and mask numbers (N,) in; (N, 1, H, W) out, 1 where the image is kept."""


def masked_scores(
    model: Classifier,
    images: Tensor,
    targets: Tensor,
    fill: Tensor,
    count: int,
    masks: Masks,
    output: ExplainedOutput,
) -> Tensor:
    """The explained output of every image behind every one of its masks, one forward a pair.

    Images and masks share forwards, each of `model.rows` pairs but the last. Masks are made for one forward at a time.

    Args:
        model: left untouched.
        images: (B, 3, H, W) float32 in [0, 1].
        targets: (B,) int64.
        fill: (B, 3, H, W), what shows where a mask is 0; a value between shows a mixture.
        count: masks an image.
        masks: makes the masks of some pairs.
        output: which output of the target class.

    Returns:
        (B, count) float32.
    """
    device = images.device
    scores = []
    with torch.no_grad():
        for pairs in torch.split(torch.arange(len(images) * count, device=device), model.rows):
            rows, places = pairs // count, pairs % count
            mixture = torch.lerp(fill[rows], images[rows], masks(rows, places))
            scores.append(explained(model(mixture), targets[rows], output))
    return torch.cat(scores).view(len(images), count)
