"""Ablation-CAM: feature maps of a late layer, each weighted by how much the output drops without it."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.contracts import Batch, ExplainedOutput
from pipeline.methods.cam_layer import Features, cam_layer, changed_output, features
from pipeline.methods.channel_cam import ChannelCam
from pipeline.methods.enlarge import enlarged
from pipeline.methods.gradient import explained
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise


class AblationCam(ChannelCam):
    """Feature maps of a layer, each weighted by the drop of the output when that map is set to zero.

    A map that is zero already has weight 0 and needs no forward.

    Source: Desai and Ramaswamy 2020: w_k = (y − y_k) / y and the ReLU of the weighted sum, enlarged to the image as
        in Grad-CAM. y is the class score before the softmax. We divide by |y|, which is the same where the score is
        positive; a negative one would turn the map over.
    """

    name: Literal["ablation_cam"] = "ablation_cam"
    relu: bool = Field(True, description="keep positive evidence alone, as the paper does")
    output: ExplainedOutput = Field("logit", description="what is explained")

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """(B, 1, H, W), zero or more when `relu` is set."""
        height, width = batch.images.shape[-2:]
        found = features(self.name, model, self.layer, batch.images, self.channels)
        clean = explained(found.logits, batch.targets, self.output)[:, None]
        drops = clean - self._without_each(model, batch, found, clean)
        weights = drops / torch.where(clean == 0, 1, clean.abs())
        cam = (weights[:, :, None, None] * found.maps).sum(1, keepdim=True)
        return enlarged(F.relu(cam) if self.relu else cam, height, width)

    def _without_each(self, model: Classifier, batch: Batch, found: Features, clean: Tensor) -> Tensor:
        """The explained output without each channel, (B, C), from the clean one, (B, 1)."""
        layer = cam_layer(self.name, model, self.layer, batch.images.shape[2], batch.images.shape[3])
        scores = clean.repeat(1, found.maps.shape[1])
        living = (found.maps != 0).flatten(2).any(2).nonzero()
        with torch.no_grad():
            for pairs in torch.split(living, model.rows):
                rows, places = pairs.unbind(1)
                kept = torch.ones(len(pairs), scores.shape[1], 1, 1, device=scores.device)
                kept[torch.arange(len(pairs), device=scores.device), places] = 0
                ablate = _AtLastCall(kept, found.calls)
                with changed_output(layer, ablate):
                    logits = model(batch.images[rows])
                scores[rows, places] = explained(logits, batch.targets[rows], self.output)
        return scores


class _AtLastCall:
    """Takes channels away from a layer's last output of a forward; a module that is used twice has two."""

    def __init__(self, kept: Tensor, calls: int) -> None:
        self._kept = kept
        self._left = calls

    def __call__(self, output: Tensor) -> Tensor | None:
        self._left -= 1
        return None if self._left else output * self._kept
