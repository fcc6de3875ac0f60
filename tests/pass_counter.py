"""How many images go through a network, forwards and backwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipeline.models import Classifier


@contextmanager
def counting(model: Classifier) -> Iterator[dict[str, int]]:
    """Images that go through the network forwards and backwards."""
    counts = {"forwards": 0, "backwards": 0}

    class Count(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, images: Tensor) -> Tensor:
            counts["forwards"] += len(images)
            return images.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            counts["backwards"] += len(gradient)
            return gradient

    original = model.network

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = original

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.inner(Count.apply(images))
            return logits

        def get_submodule(self, target: str) -> nn.Module:
            return self.inner.get_submodule(target)

    model.network = Counted()
    try:
        yield counts
    finally:
        model.network = original
