"""Maximum sensitivity: how much a map changes when its image hardly does."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.contracts import Batch, Context, Cost, Metric, Scores, Setting
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise


class MaxSensitivity(Metric):
    """Largest ‖Φ(x + δ) − Φ(x)‖ / ‖Φ(x)‖ over random δ with no value above the radius; lower is better.

    Norms are Euclidean, over the pixels of the map after its reduction. The largest of a few draws is a lower bound of
    the maximum over the ball, and grows with their number: compare at the same `draws` and `radius`. The class stays
    that of the unchanged image. A method that draws random numbers draws the same for x + δ as for x, and superpixels
    are made anew. x + δ is clipped to [0, 1], so that the method sees an image; it stays inside the ball.

    0 for a map that does not look at the image, so that it is no measure of quality by itself. Null where the map is
    zero everywhere, and where the method finds no finite map for one of the draws: the maximum over fewer would be
    lower.

    Source: Yeh et al. 2019, SENS_MAX; as in the published code and Captum divided by the norm of the map, and with
        draws uniform in the ball. Radius 0.02 and 10 draws are Captum's; the published code takes 0.1 and 0.2 on MNIST,
        and 50. Neither clips. The published code divides the maximum so far by the norm again at every draw, a slip.
    """

    higher_is_better: ClassVar[bool] = False
    measures: ClassVar[tuple[str, ...]] = ("sensitivity",)
    explains: ClassVar[bool] = True
    orders: ClassVar[bool] = False
    against_chance: ClassVar[bool] = False
    reading: ClassVar[str] = "a barely changed image should get about the same map (lower is better)"
    name: Literal["max_sensitivity"] = "max_sensitivity"
    samples: int | None = Field(
        64, ge=1, description="images looked at, drawn with the job's seed; each takes `draws` maps. null: all"
    )
    radius: float = Field(0.02, gt=0, le=1, description="largest change of a pixel's channel, in pixel scale [0, 1]")
    draws: PositiveInt = Field(10, description="changed copies of an image; more begin with the same")

    def cost(self, setting: Setting, method: Cost = Cost()) -> Cost:
        """A map a draw."""
        del setting
        return method * self.draws

    def score(self, model: Classifier, batch: Batch, maps: Tensor, context: Context) -> Scores:
        """`sensitivity` (B,), zero or more.

        Raises:
            ValueError: only the maps are known, not the method.
        """
        if context.explain is None:
            raise ValueError("max_sensitivity: explains changed images; only the maps are known, not their method")
        size = _norm(maps)
        largest = torch.zeros_like(size)
        # The copies of a small batch go to the method together, as many as one forward holds.
        together = max(1, model.rows // max(1, len(batch)))
        for draws in torch.split(torch.arange(self.draws), together):
            found = context.explain(model, self._changed(batch, draws.tolist(), context.noise)).detach()
            change = _norm(found - maps.repeat(len(draws), 1, 1, 1)).view(len(draws), len(batch))
            # NaN stays: `maximum` hands it on.
            largest = torch.maximum(largest, change.amax(0))
        ratio = torch.where((size > 0) & largest.isfinite(), largest / size, torch.nan)
        return Scores({"sensitivity": ratio.float()})

    def _changed(self, batch: Batch, draws: list[int], noise: Noise) -> Batch:
        """The batch's images under each of the draws, one draw after the other, with their names and targets."""
        shape = tuple(batch.images.shape[1:])
        changes = torch.cat([noise.uniform("max_sensitivity", batch.ids, shape, draw) for draw in draws])
        changes = (2 * changes - 1).mul_(self.radius).to(batch.images)
        images = (batch.images.repeat(len(draws), 1, 1, 1) + changes).clamp_(0, 1)
        # The superpixels are those of the unchanged images.
        targets = batch.targets.repeat(len(draws))
        return replace(batch, images=images, targets=targets, ids=batch.ids * len(draws), superpixels=None, regions={})


def _norm(maps: Tensor) -> Tensor:
    """(N, 1, H, W) → (N,) float64."""
    norm: Tensor = torch.linalg.vector_norm(maps.double(), dim=(1, 2, 3))
    return norm
