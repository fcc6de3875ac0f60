"""Grad-CAM: feature maps of a late layer, weighted by their mean gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.contracts import AttributionMethod, Batch, Cost, ExplainedOutput, Setting
from pipeline.errors import FatalError
from pipeline.methods.enlarge import enlarged
from pipeline.methods.gradient import explained
from pipeline.models.classifier import Classifier
from pipeline.models.layers import last_spatial_layer
from pipeline.noise import Noise

# The layer is found by a traced forward, once a model and size.
_LAST_LAYERS: WeakKeyDictionary[Classifier, dict[tuple[int, int], str]] = WeakKeyDictionary()


@contextmanager
def _leaf_at(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Inside the block the layer's output is a leaf of the graph, so a backward stops there.

    The list holds the leaves of the forwards run inside. What goes on is a copy, since the next operation may
    work in place.
    """
    leaves: list[Tensor] = []

    def cut(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_(True)
        leaves.append(leaf)
        return leaf.clone()

    handle = layer.register_forward_hook(cut)
    try:
        yield leaves
    finally:
        handle.remove()


class GradCam(AttributionMethod):
    """Feature maps of the last spatial layer, weighted by the mean gradient of the explained output.

    Source: Selvaraju et al. 2017, Eq. 1 and 2, with the final ReLU; enlarged to the image bilinearly
        (corners not aligned), as in published code.
    """

    name: Literal["grad_cam"] = "grad_cam"
    layer: str | None = Field(None, description="dotted module name; default: the last layer with a spatial map")
    relu: bool = Field(True, description="keep positive evidence alone, as the paper does")
    output: ExplainedOutput = Field("logit", description="what is explained")

    def cost(self, setting: Setting) -> Cost:
        """One forward, and one backward from the output to the layer (an upper bound: a whole one)."""
        return Cost(1, 1)

    def objection(self, model: Classifier, setting: Setting) -> str | None:
        """A model without a spatial layer, or without the named one, cannot be explained."""
        image = torch.zeros(1, 3, setting.height, setting.width, device=model.device)
        try:
            with torch.enable_grad():
                self(model, Batch(image, torch.zeros(1, dtype=torch.long, device=model.device), ("",)), Noise())
        except FatalError as error:
            return str(error)
        return None

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """(B, 1, H, W), zero or more when `relu` is set."""
        height, width = batch.images.shape[-2:]
        layer = self._layer(model, (height, width))
        pieces = []
        for images, targets in zip(
            torch.split(batch.images, model.rows), torch.split(batch.targets, model.rows), strict=True
        ):
            with _leaf_at(layer) as leaves:
                score = explained(model(images), targets, self.output).sum()
            if not leaves:
                raise FatalError(f"grad_cam: layer '{self.layer}' is not used by the model's forward")
            features = leaves[-1]
            if features.dim() != 4:
                raise FatalError(
                    f"grad_cam: layer '{self.layer}' gives {tuple(features.shape)}, expected a map (N, C, H, W)"
                )
            # A lone image travels with a copy of itself; see `Classifier.forward`.
            gradient = torch.autograd.grad(score, features)[0][: len(images)]
            cam = (gradient.mean(dim=(2, 3), keepdim=True) * features.detach()[: len(images)]).sum(1, keepdim=True)
            cam = F.relu(cam) if self.relu else cam
            pieces.append(enlarged(cam, height, width))
        return torch.cat(pieces)

    def _layer(self, model: Classifier, size: tuple[int, int]) -> nn.Module:
        name = self.layer
        if name is None:
            found = _LAST_LAYERS.setdefault(model, {})
            if size not in found:
                found[size] = last_spatial_layer(model.network, *size)
            name = found[size]
        try:
            return model.network.get_submodule(name)
        except AttributeError:
            raise FatalError(f"grad_cam: the model has no layer '{name}'") from None
