"""Meaningful perturbation: the smallest smooth blur that takes the evidence for a class away."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Cost, ExplainedOutput, Setting
from pipeline.methods.gradient import input_gradient
from pipeline.methods.masked_score import masked_scores
from pipeline.methods.smooth_mask import PAPER_SIDE, blur_matrix, gaussian_blurred, in_proportion
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise

# The circles that a mask may begin with: radii in pixels at 224 × 224, the last covers the image.
_RADII = tuple(range(5, 175, 5))
_CIRCLE_BLUR = 10.0
_SUPPRESSED = 0.01

_ADAM_DECAYS = (0.9, 0.999)
_ADAM_EPSILON = 1e-8


class MeaningfulPerturbation(AttributionMethod):
    """One minus a mask m that blurs as little of the image as makes the explained output small.

    The mask is a coarse grid, enlarged in blocks and blurred. Adam minimises
    f(m·x + (1 − m)·blurred x) + λ1·‖1 − m‖₁ + λ2·Σ‖∇m‖^β_β; both sums run over the grid. In each iteration the image
    moves under the mask by a random whole number of pixels (jitter), drawn by sample.

    Lengths in pixels (`blur`, `mask_blur`, `jitter`) are the paper's for 224 × 224 images and shrink or grow with the
    shorter side unless they are given; the grid has 28 cells along the shorter side of any image.

    Source: Fong and Vedaldi 2017, Eq. 4 and Sec. 4.3: f is the class's probability; 300 iterations at rate 0.1,
        λ1 = 1e-4, λ2 = 1e-2, β = 3, a grid 8 times coarser than the image, blurs 10 (image) and 5 (mask), jitter
        below 4 pixels, and as the start the smallest centred circle that takes 99 % of what a full blur takes. The
        authors' code has ‖∇m‖₂^β for the paper's ‖∇m‖^β_β, leaves the mask's blur out of the gradient, and
        jitters inside an image enlarged by 4 pixels; here the border's pixels go on.
    """

    name: Literal["meaningful_perturbation"] = "meaningful_perturbation"
    iterations: PositiveInt = Field(300, description="steps of Adam")
    learning_rate: float = Field(0.1, gt=0, description="of Adam")
    l1: float = Field(1e-4, ge=0, description="λ1, weight of the blurred area")
    tv: float = Field(1e-2, ge=0, description="λ2, weight of the mask's variation")
    tv_power: float = Field(3.0, ge=1, description="β, power of the variation")
    cells: PositiveInt = Field(28, description="cells of the grid along the shorter side; at most its pixels")
    blur: float | None = Field(None, gt=0, description="sigma of the blurred image; default: 10 at 224 × 224")
    mask_blur: float | None = Field(None, ge=0, description="sigma of the mask's blur; default: 5 at 224 × 224")
    jitter: PositiveInt | None = Field(
        None, description="different shifts along an axis, 1 for none; default: 4 at 224 × 224, and at least 2"
    )
    start: Literal["circle", "ones"] = Field("circle", description="the first mask: a blurred circle, or none at all")
    output: ExplainedOutput = Field("probability", description="f")

    def cost(self, setting: Setting) -> Cost:
        """One forward and one backward an iteration, and a forward for the image and each circle at the start."""
        circles = len(_RADII) + 1 if self.start == "circle" else 0
        return Cost(self.iterations + circles, self.iterations)

    @torch.no_grad()
    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """(B, 1, H, W) in [0, 1]."""
        height, width = batch.images.shape[-2:]
        jitter = self.jitter or max(2, round(in_proportion(4, height, width)))
        shifts = np.stack(
            [noise.generator(self.name, sample).integers(0, jitter, (self.iterations, 2)) for sample in batch.ids]
        )
        offsets = torch.from_numpy(shifts).to(batch.images.device)
        pieces = []
        for first in range(0, len(batch), model.rows):
            rows = slice(first, first + model.rows)
            pieces.append(self._optimised(model, batch.images[rows], batch.targets[rows], offsets[rows], jitter))
        return 1 - torch.cat(pieces)[:, None]

    def _optimised(self, model: Classifier, images: Tensor, targets: Tensor, offsets: Tensor, jitter: int) -> Tensor:
        """The masks of one piece, (N, H, W).

        Args:
            model: the classifier.
            images: (N, 3, H, W).
            targets: (N,) their classes.
            offsets: (N, iterations, 2) whole numbers below `jitter`: where the shown window begins.
            jitter: how many different windows there are along an axis.
        """
        height, width = images.shape[-2:]
        rows, columns = self._enlargement(height, width, images)
        removed = gaussian_blurred(images, self.blur or in_proportion(10, height, width), "edge")
        grid = self._first_grid(model, images, removed, targets, (rows.shape[1], columns.shape[1]))
        windows = _Windows(images, removed, jitter)
        first, second = torch.zeros_like(grid), torch.zeros_like(grid)
        for iteration in range(self.iterations):
            mask = rows @ grid @ columns.T
            kept, gone = windows.at(offsets[:, iteration])
            with torch.enable_grad():
                uphill = input_gradient(model, gone + mask[:, None] * kept, targets, self.output)
            gradient = rows.T @ (uphill * kept).sum(1) @ columns
            gradient += self.tv * _variation_gradient(grid, self.tv_power) - self.l1 * (grid < 1)
            first = _ADAM_DECAYS[0] * first + (1 - _ADAM_DECAYS[0]) * gradient
            second = _ADAM_DECAYS[1] * second + (1 - _ADAM_DECAYS[1]) * gradient**2
            scale = (second / (1 - _ADAM_DECAYS[1] ** (iteration + 1))).sqrt() + _ADAM_EPSILON
            move = first / (1 - _ADAM_DECAYS[0] ** (iteration + 1)) / scale
            grid = (grid - self.learning_rate * move).clamp_(0, 1)
        return rows @ grid @ columns.T

    def _enlargement(self, height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Matrices (H, cells) and (W, cells) that enlarge a grid in blocks and blur it."""
        sigma = in_proportion(5, height, width) if self.mask_blur is None else self.mask_blur
        matrices = []
        for size in (height, width):
            cells = min(size, round(self.cells * size / min(height, width)))
            block = torch.arange(size, device=like.device) * cells // size
            blocks = (block[:, None] == torch.arange(cells, device=like.device)).to(like)
            matrices.append(blur_matrix(size, sigma, "edge", like) @ blocks)
        return matrices[0], matrices[1]

    def _first_grid(
        self, model: Classifier, images: Tensor, removed: Tensor, targets: Tensor, cells: tuple[int, int]
    ) -> Tensor:
        """The grids to begin with, (N, *cells)."""
        if self.start == "ones":
            return images.new_ones(len(images), *cells)
        height, width = images.shape[-2:]
        masks = torch.stack([torch.ones_like(images[0, 0]), *_circles(height, width, images)])
        score = masked_scores(
            model, images, targets, removed, len(masks), lambda row, mask: masks[mask][:, None], self.output
        )
        whole, least = score[:, :1], score[:, -1:]
        # The last circle is the full blur, so that there is always one.
        enough = (score[:, 1:] - least) * (whole - least).sign() <= _SUPPRESSED * (whole - least).abs()
        chosen = masks[1:][enough.to(torch.int8).argmax(1)]
        rows, columns = (
            (torch.arange(count, device=images.device) * 2 + 1) * size // (2 * count)
            for count, size in zip(cells, (height, width), strict=True)
        )
        return chosen[:, rows][:, :, columns]


class _Windows:
    """What a mask keeps and what it does not, of images that move by whole pixels; edge pixels go on outside."""

    def __init__(self, images: Tensor, removed: Tensor, jitter: int) -> None:
        self._size = images.shape[-2:]
        before = jitter // 2
        edges = (before, jitter - 1 - before, before, jitter - 1 - before)
        pair = torch.cat([removed, images - removed], 1)
        padded = F.pad(pair, edges, mode="replicate").permute(0, 2, 3, 1)
        self._pitch = padded.shape[1:3]
        self._lines = padded.flatten(0, 2)

    def at(self, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Windows that begin at these (N, 2) places: image minus blurred image, and blurred image, (N, 3, H, W)."""
        device = offsets.device
        number = torch.arange(len(offsets), device=device)[:, None, None]
        down = offsets[:, 0, None, None] + torch.arange(self._size[0], device=device)[:, None]
        across = offsets[:, 1, None, None] + torch.arange(self._size[1], device=device)
        index = (number * self._pitch[0] + down) * self._pitch[1] + across
        lines = self._lines.index_select(0, index.flatten()).view(*index.shape, 6).permute(0, 3, 1, 2)
        gone, kept = lines.chunk(2, 1)
        return kept, gone


def _variation_gradient(grid: Tensor, power: float) -> Tensor:
    """Gradient of Σ |difference of neighbours|^β over both axes, (N, h, w)."""
    gradient = torch.zeros_like(grid)
    for axis in (1, 2):
        if grid.shape[axis] < 2:
            continue
        steps = grid.diff(dim=axis)
        slope = power * steps.sign() * steps.abs() ** (power - 1)
        ahead, behind = (slice(None),) * axis + (slice(1, None),), (slice(None),) * axis + (slice(None, -1),)
        gradient[ahead] += slope
        gradient[behind] -= slope
    return gradient


def _circles(height: int, width: int, like: Tensor) -> list[Tensor]:
    """Masks that are 0 in blurred centred circles of growing radius, (H, W) each; the last is 0 throughout."""
    unit = min(height, width) / PAPER_SIDE
    down = torch.arange(height, device=like.device)[:, None] - height // 2
    across = torch.arange(width, device=like.device) - width // 2
    distance = (down**2 + across**2).sqrt()
    circles = [(distance <= radius * unit).to(like) for radius in _RADII[:-1]]
    outside = [1 - gaussian_blurred(circle, _CIRCLE_BLUR * unit, "edge") for circle in circles]
    return [*outside, torch.zeros_like(like[0, 0])]
