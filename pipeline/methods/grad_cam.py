"""Grad-CAM: feature maps of a late layer, weighted by their mean gradient."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Cost, ExplainedOutput, Setting
from pipeline.errors import FatalError
from pipeline.methods.cam_layer import Change, cam_layer, changed_output, checked_map
from pipeline.methods.enlarge import enlarged
from pipeline.methods.gradient import explained
from pipeline.methods.piece import in_pieces
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise


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
        layer = cam_layer("grad_cam", model, self.layer, height, width)
        pieces = []
        for images, targets in in_pieces(model, batch.images, batch.targets):
            leaves: list[Tensor] = []
            with changed_output(layer, _leaf_into(leaves)):
                score = explained(model(images), targets, self.output).sum()
            features = checked_map("grad_cam", self.layer, leaves)
            # A lone image travels with a copy of itself; see `Classifier.forward`.
            gradient = torch.autograd.grad(score, features)[0][: len(images)]
            cam = (gradient.mean(dim=(2, 3), keepdim=True) * features.detach()[: len(images)]).sum(1, keepdim=True)
            cam = F.relu(cam) if self.relu else cam
            pieces.append(enlarged(cam, height, width))
        return torch.cat(pieces)


def _leaf_into(leaves: list[Tensor]) -> Change:
    """Makes a layer's output a leaf of the graph and keeps it, so that a backward stops there.

    What goes on is a copy, since the next operation may work in place.
    """

    def cut(output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_(True)
        leaves.append(leaf)
        return leaf.clone()

    return cut
