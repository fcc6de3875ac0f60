"""Whether the units of a model can be told apart by image, asked before anything is pruned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.errors import FatalError
from pipeline.methods.pruning import refuse_changed
from pipeline.models.activation import Activation, activation_kinds, replaced_activations
from pipeline.models.classifier import Classifier
from pipeline.models.probe import asked_once, probe_images, same_values


@asked_once
def unit_objection(model: Classifier, height: int, width: int) -> str | None:
    """Why units cannot be told apart by image, in one line, or None; four forwards of two drawn images.

    The units of the image that is second in one forward and first in another, beside a third image, must be the same.
    """
    try:
        kinds = activation_kinds(model, height, width)
    except FatalError as error:
        return str(error)
    if not kinds:
        return "no activation function is seen in the model's forward, so there are no units to prune"
    images = probe_images(model, 3, height, width)
    try:
        as_second = _own_units(model, images[:2], 1)
        as_first = _own_units(model, images[1:], 0)
    except FatalError as error:
        return str(error).removeprefix("pruning: ")
    if _shapes(as_second) != _shapes(as_first):
        return "the model's forward calls other activation functions for other images, so its units cannot be compared"
    for index, (one, other) in enumerate(zip(as_second, as_first, strict=True)):
        if one is not None and other is not None and not same_values(one, other):
            return (
                f"the units of activation {index} that would be an image's depend on its place in the batch or on other"
                " images; the images have to be its first dimension, image after image"
            )
    return None


def _shapes(units: Sequence[Tensor | None]) -> list[tuple[int, ...] | None]:
    return [None if one is None else tuple(one.shape) for one in units]


def _own_units(model: Classifier, images: Tensor, place: int) -> list[Tensor | None]:
    """One image's units (k, …) of each activation call, None where it does not depend on the images."""
    found: list[Tensor | None] = []
    outcomes: list[tuple[Tensor, int] | None] = []

    def note(activation: Activation, features: Tensor) -> Tensor:
        result = activation.function(features)
        if not result.requires_grad:
            found.append(None)
            outcomes.append(None)
        elif len(result) % len(images):
            raise FatalError(
                f"activation {activation.index} has not the images in its first dimension ({len(result)} long with"
                f" {len(images)} images), so its units belong to no image"
            )
        else:
            found.append(result.detach().chunk(len(images))[place].clone())
            outcomes.append((result, result._version))
        return result

    with torch.enable_grad(), replaced_activations(note):
        model(images.requires_grad_(True))
    refuse_changed(outcomes)
    return found
