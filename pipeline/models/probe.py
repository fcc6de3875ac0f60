"""Drawn images to try a model on before anything runs, and the comparison of what it makes of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.classifier import Classifier
from pipeline.noise import Noise

ROUNDING = 1e-3
"""Largest difference that counts as rounding, relative to the largest value; TF32 rounds to about this."""


Found = TypeVar("Found")


def asked_once(ask: Callable[[Classifier, int, int], Found]) -> Callable[[Classifier, int, int], Found]:
    """Remember what is found of a model and a size of images: several methods ask the same before a job runs.

    Args:
        ask: depends on the model, whose parameters do not change meanwhile, and on height and width alone.
    """
    answers: WeakKeyDictionary[Classifier, dict[tuple[int, int], Found]] = WeakKeyDictionary()

    @wraps(ask)
    def remembering(model: Classifier, height: int, width: int) -> Found:
        known = answers.setdefault(model, {})
        if (height, width) not in known:
            known[height, width] = ask(model, height, width)
        return known[height, width]

    return remembering


def probe_images(model: Classifier, count: int, height: int, width: int) -> Tensor:
    """(N, 3, H, W) drawn images in [0, 1), each with patches and grain of its own: pooling does not make them equal."""
    ids = [str(number) for number in range(count)]
    patches = Noise(0).uniform("probe", ids, (3, 4, 4))
    grain = Noise(0).uniform("probe", ids, (3, height, width), draw=1)
    return ((F.interpolate(patches, (height, width)) + grain) / 2).to(model.device)


def same_values(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors of one shape are equal but for rounding; NaN equals NaN."""
    limit = ROUNDING * float(expected.nan_to_num().abs().max())
    return torch.allclose(found, expected, rtol=0, atol=limit, equal_nan=True)
