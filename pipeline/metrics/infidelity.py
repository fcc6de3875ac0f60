"""Infidelity: how well a map foretells what a change of the image does to the output."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.contracts import Batch, Context, Cost, Metric, Scores, Setting, SharedWork
from pipeline.fill import Fill, filled
from pipeline.metrics.curve import Output, scored
from pipeline.metrics.perturbation import gaussian_changes, squares, squares_inside, sums_inside
from pipeline.metrics.reference import Reference
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise

Perturbation = Literal["square", "gaussian"]

PAPER_LARGEST = 0.36
"""Squares of side 1 to 10 on images of 28 × 28."""


class PerturbedOutputs(SharedWork):
    """The target's output for changed copies of an image: the same for all maps of it.

    Parameters as for `Infidelity`.
    """

    name: Literal["perturbed_outputs"] = "perturbed_outputs"
    perturbation: Perturbation = "square"
    largest: float = PAPER_LARGEST
    fill: Fill = "black"
    sigma: float = 0.1
    draws: int = 50
    output: Output = "logit"

    @torch.no_grad()
    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """`outputs` (B, draws) float32."""
        images, device = batch.images, batch.images.device
        height, width = images.shape[-2:]
        is_square = self.perturbation == "square"
        edges = squares(noise, batch.ids, self.draws, self.largest, height, width).to(device) if is_square else None
        fill = filled(self.fill, model, images)
        pieces = []
        # Copies of one image are neighbours, and a forward takes them wherever it stands.
        for copies in torch.split(torch.arange(len(batch) * self.draws), model.rows):
            owners = (copies // self.draws).to(device)
            if edges is not None:
                inside = squares_inside(edges.flatten(0, 1)[copies.to(device)], height, width)
                changed = torch.where(inside, fill[owners], images[owners])
            else:
                changed = images[owners] - gaussian_changes(noise, batch, copies, self.draws, self.sigma)
            pieces.append(scored(model(changed), batch.targets[owners], self.output))
        return {"outputs": torch.cat(pieces).view(len(batch), self.draws)}


class Infidelity(Metric):
    """E[(Iᵀ Φ − (f(x) − f(x − I)))²] over random changes I of the image; lower is better.

    - `square`: a square of the image is replaced by the fill, and Iᵀ Φ is the sum of the map inside it. So the map is
      read as what each pixel contributes to the output, compared with the fill: as gradient × input, integrated
      gradients, LRP, occlusion and masks mean it. The square is drawn evenly from all that lie inside the image with a
      side from 1 pixel to the largest.
    - `gaussian`: normal noise is taken from the image, one value a pixel and the same for its three channels, and Iᵀ Φ
      is the sum of noise × map. So the map is read as a gradient, as `gradient` and `smoothgrad` mean it where their
      reduction is the sum. The copies are not clipped to [0, 1], which would give the channels values of their own.

    For a map that is the sum of its channels (the reduction `sum`) Iᵀ Φ is exactly that of the map with channels.

    With `normalize`, the default, Iᵀ Φ is multiplied by the β that makes the sample's infidelity smallest: maps of
    different methods have different units, and without it the scale of a map would decide. β is not negative, since
    which way a map points is not arbitrary: one that is wrong about it scores as a map of zeros does, E[(f(x) − f(x −
    I))²], the worst. Without `normalize` there is no upper bound.

    The same changes are used for all maps of an image, and the outputs are computed once for them.

    Source: Yeh et al. 2019, explanation infidelity (INFD) and square removal. As in the published code: the squares,
        black and with sides up to 10 of 28 pixels, read with contributions, and β. It goes through every square, where
        we draw some; its β may be negative, as is Captum's. Its "Gaussian" is another change, to a black image with
        noise, which needs a map with channels; ours is that of Captum's documentation.
    """

    higher_is_better: ClassVar[bool] = False
    measures: ClassVar[tuple[str, ...]] = ("infidelity",)
    orders: ClassVar[bool] = False
    reading: ClassVar[str] = (
        "what the map foretells of random changes of the image should be what the model does (lower is better)"
    )
    name: Literal["infidelity"] = "infidelity"
    perturbation: Perturbation = Field("square", description="a square replaced by the fill, or normal noise")
    largest: float = Field(
        PAPER_LARGEST, gt=0, le=1, description="side of the largest square, as a share of the image's shorter side"
    )
    fill: Fill = Field("black", description="what stands where a square is taken away")
    sigma: float = Field(0.1, gt=0, description="standard deviation of gaussian noise, in pixel scale [0, 1]")
    draws: PositiveInt = Field(50, description="changes of an image; more begin with the same")
    output: Output = Field("logit", description="which output of the target is watched (f)")
    normalize: bool = Field(True, description="scale each map by the factor that fits best; see above")

    def cost(self, setting: Setting, method: Cost = Cost()) -> Cost:
        """One forward a draw and one of the image itself; what is shared counts too."""
        del setting, method
        return Cost(forwards=self.draws + 1)

    @torch.no_grad()
    def score(self, model: Classifier, batch: Batch, maps: Tensor, context: Context) -> Scores:
        """`infidelity` (B,), zero or more, in squares of the output."""
        perturbed = PerturbedOutputs(
            perturbation=self.perturbation,
            largest=self.largest,
            fill=self.fill,
            sigma=self.sigma,
            draws=self.draws,
            output=self.output,
        )
        logits = context.shared(Reference(), model, batch)["logits"]
        clean = scored(logits, batch.targets, self.output).double()
        drops = clean[:, None] - context.shared(perturbed, model, batch)["outputs"].double()
        foretold = self._foretold(model, batch, maps, context.noise)
        if self.normalize:
            magnitude = foretold.square().mean(1)
            fitting = (foretold * drops).mean(1).clamp(min=0)
            foretold = foretold * torch.where(magnitude > 0, fitting / magnitude, 0.0)[:, None]
        return Scores({"infidelity": (drops - foretold).square().mean(1).float()})

    def _foretold(self, model: Classifier, batch: Batch, maps: Tensor, noise: Noise) -> Tensor:
        """Iᵀ Φ of each change, (B, draws) float64."""
        height, width = maps.shape[-2:]
        if self.perturbation == "square":
            edges = squares(noise, batch.ids, self.draws, self.largest, height, width)
            return sums_inside(maps, edges.to(maps.device))
        pieces = []
        for copies in torch.split(torch.arange(len(batch) * self.draws), model.rows):
            change = gaussian_changes(noise, batch, copies, self.draws, self.sigma)
            owners = (copies // self.draws).to(maps.device)
            pieces.append((change * maps[owners]).sum((1, 2, 3), dtype=torch.float64))
        return torch.cat(pieces).view(len(batch), self.draws)
