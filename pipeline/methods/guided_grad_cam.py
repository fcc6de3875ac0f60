"""Guided Grad-CAM: guided backpropagation where Grad-CAM finds the class."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Cost, ExplainedOutput, Reduction, Setting
from pipeline.methods.grad_cam import GradCam
from pipeline.methods.guided_backprop import GuidedBackprop
from pipeline.models.activation import RECTIFIERS, unruled
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise


class GuidedGradCam(AttributionMethod):
    """Guided backpropagation times the enlarged Grad-CAM map, pixel by pixel.

    Source: Selvaraju et al. 2017, Sec. 3.2, with the bilinear enlargement and the final ReLU of its Grad-CAM.
    """

    name: Literal["guided_grad_cam"] = "guided_grad_cam"
    layer: str | None = Field(None, description="dotted module name; default: the last layer with a spatial map")
    output: ExplainedOutput = Field("logit", description="what is explained")
    reduction: Reduction = Field("max_abs", description="how channels become one map")

    def cost(self, setting: Setting) -> Cost:
        """Those of its two parts; Grad-CAM's backward ends at the layer (an upper bound: a whole one)."""
        return Cost(2, 2)

    def objection(self, model: Classifier, setting: Setting) -> str | None:
        """A model without a spatial layer, or with activations that have no guided backward."""
        reason = self._grad_cam.objection(model, setting)
        if reason is not None:
            return f"{self.name}: {reason.removeprefix('grad_cam: ')}"
        return unruled(self.name, model, setting.height, setting.width, RECTIFIERS)

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """Signed, (B, 3, H, W)."""
        return GuidedBackprop(output=self.output)(model, batch, noise) * self._grad_cam(model, batch, noise)

    @property
    def _grad_cam(self) -> GradCam:
        return GradCam(layer=self.layer, output=self.output)
