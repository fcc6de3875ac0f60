"""Sanity check by parameters: does a map change when what the model has learned is taken away?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.contracts import Batch, Context, Cost, Scores, Setting
from pipeline.metrics.map_change import MapChange
from pipeline.metrics.similarity import Comparison
from pipeline.models.block import PartKind
from pipeline.models.classifier import Classifier
from pipeline.models.randomise import Randomisation, RandomisedModels


class SanityParameters(MapChange):
    """Similarity of the map to those of the model with its blocks drawn anew, from the output on; lower is better.

    One step a block or layer, in the order in which they run backwards (`pipeline.models.block`). A curve has the
    similarity at each step, the measure is its mean, both over all repeats. A map that hardly changes does not depend
    on what was learned. All samples and methods of a job meet the same random models.

    A step at which the randomised model has no map, or a constant one, has no value, and its sample no measure. So it
    is on deep networks, where `normal` draws the scales of batch norms too and gradients underflow: take
    `initialiser: own` for MobileNetV2, Inception or a VGG with batch norm. With `target: fixed` it happens where the
    class's logit became constant, as a ReLU after the last layer (SqueezeNet) makes it for about half of the classes.
    Null too where the map itself is constant.

    Source: Adebayo et al. 2018, "Sanity checks for saliency maps", Sec. 3.1 and 4: cascading and independent, the
        layers' own initialisers (`initialiser: own`), the class predicted by the unchanged model. Khakzar et al. 2019
        (PruneGrad), Sec. 4.2: cascading, N(0, 0.01²) (the default), maps scaled to [-1, 1]; the published code of the
        same group has N(0, 0.1²), takes the class that the randomised model predicts (`target: argmax`), randomises in
        the order of registration, and compares windows of 5 × 5.
    """

    by_blocks: ClassVar[bool] = True
    curve_of: ClassVar[str] = "similarity to the model's own map"
    curve_over: ClassVar[str] = "drawn anew, from the output on"
    reading: ClassVar[str] = "the map should change when the model's blocks are drawn anew (lower is better)"
    name: Literal["sanity_parameters"] = "sanity_parameters"
    order: Literal["cascading", "independent"] = Field(
        "cascading", description="a step draws all blocks from the output to its own anew, or its own alone"
    )
    by: PartKind = Field("block", description="a step is a block, as people name a network's parts, or a single layer")
    initialiser: Literal["normal", "own"] = Field(
        "normal", description="N(0, deviation²) for every parameter, or each layer's own initialiser"
    )
    deviation: float = Field(0.01, gt=0, description="standard deviation of `normal`")
    statistics: Literal["keep", "reset"] = Field(
        "keep", description="what becomes of the running statistics of batch norms whose block is drawn anew"
    )
    target: Literal["fixed", "argmax"] = Field(
        "fixed", description="the class explained: the map's own, or the one that the randomised model predicts"
    )
    repeats: PositiveInt = Field(1, description="independent draws of the whole cascade, averaged")

    def cost(self, setting: Setting, method: Cost = Cost()) -> Cost:
        """A map a step and repeat, and with `argmax` a forward."""
        each = method + Cost(forwards=1) if self.target == "argmax" else method
        return each * (len(self.curve_axis(setting)) * self.repeats)

    def curve_axis(self, setting: Setting) -> tuple[str, ...]:
        """The blocks or layers, the one at the output first."""
        return (setting.blocks if self.by == "block" else setting.layers)[::-1]

    def randomisation(self, repeat: int) -> Randomisation:
        """How one of the repeats draws."""
        return Randomisation(
            order=self.order,
            by=self.by,
            initialiser=self.initialiser,
            deviation=self.deviation,
            statistics=self.statistics,
            repeat=repeat,
        )

    def score(self, model: Classifier, batch: Batch, maps: Tensor, context: Context) -> Scores:
        """For each similarity its mean (B,) in [-1, 1], and its curve (B, steps).

        Raises:
            ValueError: only the maps are known, not the method; or they are too small for `ssim`.
            FatalError: the network cannot be cut into parts, or copied.
        """
        comparison = Comparison(maps, self.similarity)
        repeats = [
            torch.stack(
                [self._step(one, batch, comparison, context) for one in self._models(model, repeat, batch, context)]
            )
            for repeat in range(self.repeats)
        ]
        # (similarities, B, steps)
        curves = torch.stack(repeats).mean(0).permute(1, 2, 0)
        return Scores(
            dict(zip(self.similarity, curves.mean(2), strict=True)), dict(zip(self.similarity, curves, strict=True))
        )

    def _models(self, model: Classifier, repeat: int, batch: Batch, context: Context) -> Sequence[Classifier]:
        if context.randomised is not None:
            return context.randomised(model, self.randomisation(repeat))
        height, width = batch.images.shape[-2:]
        return RandomisedModels(model, self.randomisation(repeat), context.noise, height, width)

    def _step(self, model: Classifier, batch: Batch, comparison: Comparison, context: Context) -> Tensor:
        """(similarities, B) of the maps with those of one randomised model."""
        if self.target == "argmax":
            batch = replace(batch, targets=_predicted(model, batch.images))
        found = self.similarities(model, batch, comparison, context)
        return torch.stack([found[kind] for kind in self.similarity])


@torch.no_grad()
def _predicted(model: Classifier, images: Tensor) -> Tensor:
    return torch.cat([model(piece).argmax(1) for piece in torch.split(images, model.rows)])
