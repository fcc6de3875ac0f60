"""Extremal perturbation: the smooth mask of a given area that keeps (or destroys) the most evidence."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Cost, ExplainedOutput, Explanation, Setting
from pipeline.methods.gradient import input_gradient
from pipeline.methods.smooth_mask import MaxConvolution, gaussian_blurred, in_proportion
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise

Variant = Literal["preserve", "delete", "dual"]

# Mask values that differ by less are equal: on paper they are, and rounding must not order them.
_TIE = 1e-5


class ExtremalPerturbation(AttributionMethod):
    """Smooth masks, each of a given area, optimised for the explained output; the map is their sum.

    A mask takes each pixel from a pyramid of blurred images: 1 is the image, 0 the strongest blur. The game
    `preserve` shows the mask's inside and makes the output large, `delete` blurs the inside and makes it small, and
    `dual` takes the difference of the two. In each the mask is high where the evidence is.

    Lengths in pixels (`step`, `sigma`, `blur`) are the paper's for 224 × 224 images and shrink or grow with the
    shorter side unless they are given. The map is that of the last iteration, as the model saw it.

    Source: Fong et al. 2019 and the authors' code (TorchRay), whose numbers these are: gradient steps with momentum
        (and dampening) 0.9, the area weight growing by 1.0035 an iteration, the image flipped in every other
        iteration, a Gaussian of 9 % of the shorter side over the summed masks as in the paper's pointing game.
        The output is the class's logit, as there; `log_probability` contrasts it with the other classes.
        TorchRay measures the area on the mask with a margin of about sigma around the image, and so gets another
        area in the image; it is `area_of: margin`. The paper constrains the area in the image, the default; the
        grid's outermost parameters then go on beyond the border (see `MaxConvolution`). Pixels of equal value share
        the area's template between them; TorchRay's unstable sort picks some of them.
    """

    name: Literal["extremal_perturbation"] = "extremal_perturbation"
    areas: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.1,), min_length=1, description="area of each mask, as a share of the image"
    )
    variant: Variant = Field("preserve", description="the game that is played")
    iterations: PositiveInt = Field(800, description="gradient steps")
    step: PositiveInt | None = Field(None, description="pixels between parameters; default: 7 at 224 × 224")
    sigma: float | None = Field(None, gt=0, description="smallest width of structures; default: 21 at 224 × 224")
    blur: float | None = Field(None, gt=0, description="strongest blur's sigma; default: 20 at 224 × 224")
    levels: int = Field(8, ge=2, description="levels of the pyramid, the image among them")
    learning_rate: float = Field(0.01, gt=0, description="of gradient descent")
    momentum: float = Field(0.9, ge=0, lt=1, description="of gradient descent, and its dampening")
    area_weight: float = Field(300.0, ge=0, description="weight of the area constraint at the start")
    growth: float = Field(1.0035, ge=1, description="what the weight grows by in each iteration")
    area_of: Literal["image", "margin"] = Field(
        "image", description="where the area is measured; margin: with TorchRay's margin around the image"
    )
    flip: bool = Field(True, description="mirror the masked image in every other iteration")
    smooth: float = Field(0.09, ge=0, description="sigma of the map's blur, as a share of the shorter side")
    output: ExplainedOutput = Field("logit", description="what is explained")

    def cost(self, setting: Setting) -> Cost:
        """One forward and one backward an iteration and area; two in the dual game."""
        passes = self.iterations * len(self.areas) * self._shown
        return Cost(passes, passes)

    def explain(self, model: Classifier, batch: Batch, noise: Noise) -> Explanation:
        """The maps (B, 1, H, W), and as `area` the share of the image that each mask really covers, (B, areas)."""
        masks = self._masks(model, batch)
        maps = masks.sum(1, keepdim=True)
        if self.smooth:
            maps = gaussian_blurred(maps, self.smooth * min(maps.shape[-2:]), "zero")
        return Explanation(maps, {"area": masks.mean((2, 3))})

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """(B, 1, H, W), zero or more."""
        return self.explain(model, batch, noise).maps

    @property
    def _shown(self) -> int:
        """Images that the model sees of each mask and iteration."""
        return 2 if self.variant == "dual" else 1

    @torch.no_grad()
    def _masks(self, model: Classifier, batch: Batch) -> Tensor:
        """(B, areas, H, W) in [0, 1]. Every mask is a row; images and areas go together."""
        owner = torch.arange(len(batch)).repeat_interleave(len(self.areas))
        areas = list(self.areas) * len(batch)
        together = max(1, model.rows // self._shown)
        pieces = []
        for first in range(0, len(owner), together):
            rows = owner[first : first + together]
            images = slice(int(rows[0]), int(rows[-1]) + 1)
            pieces.append(
                self._optimised(
                    model,
                    batch.images[images],
                    batch.targets[images],
                    (rows - rows[0]).to(batch.images.device),
                    areas[first : first + together],
                )
            )
        return torch.cat(pieces).view(len(batch), len(self.areas), *batch.images.shape[-2:])

    def _optimised(
        self, model: Classifier, images: Tensor, targets: Tensor, owner: Tensor, areas: list[float]
    ) -> Tensor:
        """The masks of one piece, (N, H, W).

        Args:
            model: the classifier.
            images: (B, 3, H, W).
            targets: (B,) their classes.
            owner: (N,) which image each mask is for.
            areas: of the N masks.
        """
        height, width = images.shape[-2:]
        step = self.step or max(1, round(in_proportion(7, height, width)))
        sigma = self.sigma or in_proportion(21, height, width)
        convolution = MaxConvolution(height, width, step, sigma, self.area_of == "margin", images.device)
        pyramid = _Pyramid(images - model.mean, self.levels, self.blur or in_proportion(20, height, width))
        parameters = images.new_ones(len(owner), *convolution.grid)
        velocity: Tensor | None = None
        weight = self.area_weight
        for iteration in range(self.iterations):
            mask, sums = convolution.mask(parameters)
            inside = mask[convolution.image]
            mirrored = self.flip and iteration % 2 == 0
            downhill = weight * _area_gradient(mask, areas)
            downhill[convolution.image] -= self._reward_gradient(model, pyramid, owner, targets, inside, mirrored)
            gradient = convolution.gradient(parameters, sums, downhill)
            # The first step is not dampened, as in PyTorch's SGD.
            velocity = gradient if velocity is None else self.momentum * velocity + (1 - self.momentum) * gradient
            parameters = (parameters - self.learning_rate * velocity).clamp_(0, 1)
            weight *= self.growth
        return inside.contiguous()

    def _reward_gradient(
        self, model: Classifier, pyramid: _Pyramid, owner: Tensor, targets: Tensor, mask: Tensor, mirrored: bool
    ) -> Tensor:
        """Gradient of the reward with respect to the mask, (N, H, W)."""
        # What is shown: the mask itself, its complement, or both; with the sign of its output in the reward.
        games = {"preserve": [1], "delete": [-1], "dual": [1, -1]}[self.variant]
        shown = torch.cat([mask if sign > 0 else 1 - mask for sign in games])
        owners = owner.repeat(len(games))
        pixels, slopes = pyramid.show(shown, owners)
        pixels = pixels + model.mean
        with torch.enable_grad():
            uphill = input_gradient(model, pixels.flip(3) if mirrored else pixels, targets[owners], self.output)
        uphill = uphill.flip(3) if mirrored else uphill
        # A complement moves against its mask, and its output counts negatively: the two signs cancel.
        return (uphill * slopes).sum(1).view(len(games), *mask.shape).sum(0)


class _Pyramid:
    """Each image at several strengths of blur, from which a mask takes every pixel at its own strength.

    Source: Fong et al. 2019, Sec. 3.2 ("perturbation pyramid"): sigma falls evenly from the strongest blur (mask 0) to
        none (mask 1), with linear interpolation in between.
    """

    def __init__(self, images: Tensor, levels: int, strongest: float) -> None:
        """Blurs the images.

        Args:
            images: (B, 3, H, W); beyond the border lies 0.
            levels: of the pyramid, the image among them.
            strongest: sigma of level 0 in pixels.
        """
        self._steps = levels - 1
        sigmas = [strongest * (1 - level / self._steps) for level in range(levels)]
        pyramid = torch.stack([gaussian_blurred(images, sigma, "zero") for sigma in sigmas]).permute(1, 3, 4, 0, 2)
        # One line a pixel and level, (value, difference to the next), so that one look-up finds both.
        self._lines = torch.cat([pyramid[..., :-1, :], pyramid.diff(dim=3)], 4).flatten(0, 3)

    def show(self, masks: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Images under masks.

        Args:
            masks: (N, H, W) in [0, 1].
            owner: (N,) which image is under each mask.

        Returns:
            pixels (N, 3, H, W), and their derivative with respect to the mask (N, 3, H, W).
        """
        count, height, width = masks.shape
        place = masks * self._steps
        level = place.floor().clamp_(max=self._steps - 1)
        pixel = owner[:, None] * (height * width) + torch.arange(height * width, device=masks.device)
        # A mask of NaN (where the model's output is) has no level; its pixels get NaN by `place`.
        line = level.nan_to_num().flatten(1).long()
        lines = self._lines.index_select(0, (pixel * self._steps + line).flatten())
        value, slope = lines.view(count, height, width, 6).permute(0, 3, 1, 2).chunk(2, 1)
        return value + (place - level)[:, None] * slope, self._steps * slope


def _area_gradient(masks: Tensor, areas: list[float]) -> Tensor:
    """Gradient of the area constraint with respect to the mask, (N, H, W).

    The constraint is the mean squared difference of the sorted mask and a template of ⌊(1 − a)·n⌋ zeros and then
    ones. Since only the rank of a pixel against the template's step counts, the step's value is enough. Where several
    pixels have this value, each gets their share of the template.

    Args:
        masks: (N, H, W).
        areas: N shares.

    Source: Fong et al. 2019, Eq. 4.
    """
    flat = masks.flatten(1)
    pixels = flat.shape[1]
    template = torch.empty_like(flat)
    for area in set(areas):
        rows = torch.tensor([number for number, other in enumerate(areas) if other == area], device=masks.device)
        of_area = flat[rows]
        zeros = int(pixels * (1 - area))
        height = of_area - of_area.kthvalue(zeros + 1, dim=1, keepdim=True).values
        above, at = height > _TIE, height.abs() <= _TIE
        share = (pixels - zeros - above.sum(1, keepdim=True)) / at.sum(1, keepdim=True)
        template[rows] = above + at * share
    return (2 / pixels * (flat - template)).view_as(masks)
