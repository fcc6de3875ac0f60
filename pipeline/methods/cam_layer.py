"""The layer whose feature maps a class activation map is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pipeline.errors import FatalError
from pipeline.models.classifier import Classifier
from pipeline.models.layers import last_spatial_layer

# The layer is found by a traced forward, once a model and size.
_LAST_LAYERS: WeakKeyDictionary[Classifier, dict[tuple[int, int], str]] = WeakKeyDictionary()

Change = Callable[[Tensor], Tensor | None]
"""What a layer gave (N, C, h, w) in; what goes on instead out, or None where that is the same."""


def cam_layer(method: str, model: Classifier, name: str | None, height: int, width: int) -> nn.Module:
    """The named layer, or the model's last one with a spatial map.

    Args:
        method: whose layer it is, to begin an error with.
        model: left untouched.
        name: dotted module name, or None.
        height, width: of the images.

    Raises:
        FatalError: there is no such layer.
    """
    if name is None:
        found = _LAST_LAYERS.setdefault(model, {})
        if (height, width) not in found:
            try:
                found[height, width] = last_spatial_layer(model.network, height, width)
            except FatalError as error:
                raise FatalError(f"{method}: {error}") from error
        name = found[height, width]
    try:
        return model.network.get_submodule(name)
    except AttributeError:
        raise FatalError(f"{method}: the model has no layer '{name}'") from None


@contextmanager
def changed_output(layer: nn.Module, change: Change) -> Iterator[None]:
    """Inside the block every output of the layer is what `change` makes of it."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        return change(output)

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def checked_map(method: str, name: str | None, outputs: list[Tensor]) -> Tensor:
    """The last of a layer's outputs in one forward, (N, C, h, w).

    Raises:
        FatalError: there is none, or it is no map.
    """
    if not outputs:
        raise FatalError(f"{method}: layer '{name}' is not used by the model's forward")
    if outputs[-1].dim() != 4:
        raise FatalError(f"{method}: layer '{name}' gives {tuple(outputs[-1].shape)}, expected a map (N, C, H, W)")
    return outputs[-1]


@dataclass(frozen=True, slots=True)
class Features:
    """What a forward found at a layer.

    Attributes:
        maps: (B, C, h, w) float32.
        logits: (B, classes) float32.
        calls: how often the layer runs in one forward; the maps are those of its last call.
    """

    maps: Tensor
    logits: Tensor
    calls: int


def features(method: str, model: Classifier, name: str | None, images: Tensor, most: int) -> Features:
    """The maps of a layer, and the logits, from one forward an image.

    Args:
        method: whose layer it is, to begin an error with.
        model: left untouched.
        name: dotted module name, or None for the last layer with a spatial map.
        images: (B, 3, H, W) float32.
        most: channels that the layer may have.

    Raises:
        FatalError: there is no such layer, it gives no map, or it has more channels.
    """
    layer = cam_layer(method, model, name, images.shape[2], images.shape[3])
    maps, logits, calls = [], [], 0
    with torch.no_grad():
        for piece in torch.split(images, model.rows):
            outputs: list[Tensor] = []
            with changed_output(layer, _copy_into(outputs)):
                logits.append(model(piece))
            calls = len(outputs)
            # A lone image travels with a copy of itself; see `Classifier.forward`.
            maps.append(checked_map(method, name, outputs)[: len(piece)])
    channels = maps[0].shape[1]
    if channels > most:
        raise FatalError(
            f"{method}: the layer has {channels} channels, each one forward, and `channels` allows {most}; "
            f"set `channels: {channels}`"
        )
    return Features(torch.cat(maps), torch.cat(logits), calls)


def _copy_into(outputs: list[Tensor]) -> Change:
    def copy(output: Tensor) -> None:
        # The next operation may work in place.
        outputs.append(output.clone())

    return copy


def objection_of(method: str, model: Classifier, name: str | None, height: int, width: int, most: int) -> str | None:
    """Why `features` cannot be had from images of this size, or None. One forward."""
    try:
        features(method, model, name, torch.zeros(1, 3, height, width, device=model.device), most)
    except FatalError as error:
        return str(error)
    return None
