"""Images in pieces of one forward each."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.models.classifier import Classifier


def in_pieces(model: Classifier, images: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (N, 3, H, W) and their targets (N,), `model.rows` at a time; the last piece may have fewer."""
    return zip(torch.split(images, model.rows), torch.split(targets, model.rows), strict=True)
