"""What class activation maps share that take a forward a channel of their layer."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from pipeline.contracts import AttributionMethod, Cost, Setting
from pipeline.methods.cam_layer import objection_of
from pipeline.models.classifier import Classifier


class ChannelCam(AttributionMethod):
    """A class activation map whose weights come from the model's answers to one changed forward a channel."""

    layer: str | None = Field(None, description="dotted module name; default: the last layer with a spatial map")
    channels: PositiveInt = Field(2048, description="most channels that the layer may have; the declared cost")

    def cost(self, setting: Setting) -> Cost:
        """One forward for the maps, and one a channel: an upper bound, for a layer of `channels` channels."""
        return Cost(1 + self.channels)

    def objection(self, model: Classifier, setting: Setting) -> str | None:
        """A model without a spatial layer or without the named one, or a layer of more channels than declared."""
        return objection_of(self.name, model, self.layer, setting.height, setting.width, self.channels)
