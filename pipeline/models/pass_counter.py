"""How many images go through a classifier, forwards and backwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.models.classifier import Classifier


@dataclass(slots=True)
class PassCount:
    """Passes so far.

    Attributes:
        forwards: images that the classifier was given.
        backwards: images whose gradient arrived at their pixels.
    """

    forwards: int = 0
    backwards: int = 0


@contextmanager
def counting(model: Classifier) -> Iterator[PassCount]:
    """Counts the images that go through the model inside the block.

    What counts:
    - A forward is an image that the classifier is called with, after what hooks make of its arguments. It counts whole,
      also where a method changes something on the way (Ablation-CAM takes a channel away: a forward a channel) or
      stops half-way. The copy that a lone image travels with is none.
    - A backward is an image's gradient that arrives at its pixels, each time that it does. One that ends at an inner
      layer, as Grad-CAM's, is none.
    - Parts of the network that are called without the classifier are not seen, such as the forward that looks for the
      last spatial layer.

    Names of submodules, hooks and the identity of the model are as without it. Blocks may lie inside each other. A copy
    of the model that is made inside the block is counted with it.

    Args:
        model: as it was after the block, also after an exception.
    """
    count = PassCount()
    uncounted = type(model)

    def forward(self: Classifier, images: Tensor) -> Tensor:
        count.forwards += len(images)
        passed: Tensor = _Passing.apply(images, count)
        return uncounted.forward(self, passed)

    # A subclass, and no hook: what the hooks of others (Captum's DeepLift adds the baselines to the images) do comes
    # after one that is there already. And no module around the model: layers would have other names.
    model.__class__ = type(uncounted.__name__, (uncounted,), {"forward": forward})
    try:
        yield count
    finally:
        model.__class__ = uncounted


class _Passing(torch.autograd.Function):
    """The images themselves; counts the gradients that come back."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, count: PassCount) -> Tensor:
        ctx.count = count
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.count.backwards += len(gradient)
        return gradient, None
