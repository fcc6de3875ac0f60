"""Score-CAM: feature maps of a late layer, each weighted by what the model says of the image behind it."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.contracts import Batch, ExplainedOutput
from pipeline.fill import Fill, filled
from pipeline.methods.cam_layer import features
from pipeline.methods.channel_cam import ChannelCam
from pipeline.methods.enlarge import enlarged
from pipeline.methods.masked_score import masked_scores
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise


class ScoreCam(ChannelCam):
    """Feature maps of a layer, each used as a mask on the image and weighted by the target's score behind it.

    A map is enlarged to the image and scaled to [0, 1]; a flat one hides everything. The ReLU is applied after the
    enlargement, as in the published code.

    Source: Wang et al. 2020, Algorithm 1 (protocol `paper`): weights are the softmax over channels of
        f(x ∘ m_k) − f(baseline). The baseline's score is the same for every channel and drops out of that softmax,
        so it is not computed. f is the softmax probability (Sec. 4.4 of the paper, "post-softmax value"). Protocol
        `official` is the published code: the weight is the probability itself, and flat maps are left out; its
        final scaling to [0, 1] is not done. Both multiply the image by the mask (fill black); the published code
        does so after normalisation, so what it hides has the mean colour: `fill: mean`.
    """

    name: Literal["score_cam"] = "score_cam"
    protocol: Literal["paper", "official"] = Field("paper", description="Algorithm 1, or the published code")
    fill: Fill = Field("black", description="what shows where a mask hides the image")
    output: ExplainedOutput = Field("probability", description="the score of a masked image")

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """(B, 1, H, W), zero or more."""
        height, width = batch.images.shape[-2:]
        maps = features(self.name, model, self.layer, batch.images, self.channels).maps

        def masks(rows: Tensor, places: Tensor) -> Tensor:
            large = enlarged(maps[rows, places][:, None], height, width)
            low, high = large.amin((2, 3), keepdim=True), large.amax((2, 3), keepdim=True)
            return (large - low) / torch.where(high > low, high - low, 1)

        fill = filled(self.fill, model, batch.images)
        scores = masked_scores(model, batch.images, batch.targets, fill, maps.shape[1], masks, self.output)
        if self.protocol == "paper":
            weights = F.softmax(scores, dim=1)
        else:
            weights = scores * (maps.amax((2, 3)) > maps.amin((2, 3)))
        cam = (weights[:, :, None, None] * maps).sum(1, keepdim=True)
        return F.relu(enlarged(cam, height, width))
