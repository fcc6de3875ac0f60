"""Dynamic ablation: circles shrink around what the model needs for its decision."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Cost, Explanation, Segmentation, Setting
from pipeline.fill import Fill, filled
from pipeline.methods.circle import Circles, Regions
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise
from pipeline.superpixel import superpixels

Rule = Literal["positive", "negative"]

NO_CLASS = -1
# A proposal is evaluated ahead of its turn where a forward has room and it will be needed with this probability.
NEEDED = 0.8
# At most one proposal of so many iterations is evaluated in vain.
ITERATIONS_PER_DISCARDED = 10
# Weight of the newest decision in the running share of accepted proposals.
NEWEST = 0.05


class DynamicAblation(AttributionMethod):
    """Circles walk over the image and shrink while a rule holds; the map is the sum of the masks that met it.

    `positive` (Pos-R) holds where the model predicts the target from the covered part alone; `negative` (Neg-R)
    where it no longer does once the covered part is taken away. An accepted proposal shrinks the circles' area by
    `shrinkage`; a rejected one leaves everything as it was.

    Columns beside the map (values in [0, 1]): `kept` (1 = shown to the model; `positive`) or `removed` (1 = taken
    away; `negative`), (H, W) bool, the smallest accepted mask, the later of equals; `mar`, its share of the image;
    `areas`, the share of every accepted mask, in order; `accepted_at`, its iteration, the first is 1; `forwards`,
    the images that went through the model for it, those evaluated in vain included, whose number depends on the batch;
    `premise`, whether the target is predicted for the whole image and not for the fill alone.

    An image that is not predicted as its target fails. One of which nothing less than the whole is found to do keeps
    its row, with MAR 1 and a map of zeros: without it a mean MAR would be too small. Where the fill alone is predicted
    as the target, `premise` is false: any mask will do for `positive`, whose map then says little, and `negative`
    fails unless the walk finds a mask that disturbs all the same.

    The proposals of iterations t, t + 1, … from one state may share a forward: the first that holds is accepted and
    those after it are discarded, and each keeps the draws of its iteration, so the chain is that of the algorithm.

    Source: An et al. 2022, Algorithm 1. Our readings: line 7 is r + U(−R, R)·α with R = sqrt(S/π), as the printed
        text is incomplete; radii stay at least 0, centres in the image; radii start uniform in [0, R]. The paper
        returns the last accepted mask and calls it the optimal one; here it is the smallest accepted, which can be
        an earlier one, since circles overlap and reach over the border.
    """

    name: Literal["dynamic_ablation"] = "dynamic_ablation"
    rule: Rule = Field("positive", description="what a mask has to do: suffice (Pos-R) or disturb (Neg-R)")
    iterations: PositiveInt = Field(500, description="proposals judged")
    circles: PositiveInt = Field(4, description="circles (k)")
    step: float = Field(0.2, ge=0, le=1, description="step rate (α) of centres and radii")
    shrinkage: float = Field(0.95, gt=0, le=1, description="what an accepted proposal leaves of the area (f_c)")
    superpixels: int | None = Field(500, ge=0, description="superpixels aimed at; 0 or null: single pixels")
    fill: Fill = Field("black", description="what stands where pixels are taken away")

    def cost(self, setting: Setting) -> Cost:
        """A forward an iteration and at most a tenth discarded; one for the whole image and one for the fill."""
        return Cost(self.iterations + self.iterations // ITERATIONS_PER_DISCARDED + 2)

    def segmentation(self) -> Segmentation | None:
        """SLIC, unless single pixels are asked for."""
        return Segmentation(count=self.superpixels) if self.superpixels else None

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """Maps (B, 1, H, W) in [0, 1]; NaN in a row that failed."""
        return self.explain(model, batch, noise).maps

    @torch.no_grad()
    def explain(self, model: Classifier, batch: Batch, noise: Noise) -> Explanation:
        """The maps, and the columns named above."""
        rest = filled(self.fill, model, batch.images)
        whole = _predicted(model, batch.images)
        # A fill of one colour is the same for every image of the batch.
        empty = _predicted(model, rest if self.fill == "blur" else rest[:1])
        met = whole == batch.targets
        premise = met & (empty != batch.targets)
        walk = _Walk(self, batch, rest, self._regions(batch), noise)
        waiting = met.cpu()
        while turn := walk.turn(model.rows, waiting):
            walk.judge(model, *turn)
        forwards = walk.forwards + (2 if self.fill == "blur" else 1)
        failed = {row: self._failure(int(whole[row]), int(batch.targets[row])) for row in _rows(~met)}
        if self.rule == "negative":
            stuck = met & ~premise & ~walk.accepted_share.isfinite().any(1)
            failed |= {row: self._stuck() for row in _rows(stuck)}
        maps = walk.maps()
        maps[list(failed)] = float("nan")
        areas, accepted_at = walk.accepted()
        columns: dict[str, Tensor | list[list[float]]] = {
            "kept" if self.rule == "positive" else "removed": walk.smallest_mask(),
            "mar": walk.smallest.float(),
            "areas": areas,
            "accepted_at": accepted_at,
            "forwards": forwards,
            "premise": premise,
        }
        return Explanation(maps, columns, failed)

    def _regions(self, batch: Batch) -> Regions:
        """What the circles cover: superpixels that the batch brought or that are found here, or pixels."""
        segmentation = self.segmentation()
        if segmentation is None:
            height, width = batch.images.shape[-2:]
            return Regions.pixels(height, width, batch.images.device)
        labels = batch.superpixels
        if labels is None:
            labels = torch.stack([superpixels(image, segmentation) for image in batch.images.cpu()])
        return Regions.superpixels(labels.to(batch.images.device))

    def _failure(self, predicted: int, target: int) -> str:
        if predicted == NO_CLASS:
            return "the logits of the whole image are not finite"
        return (
            f"the whole image is predicted as class {predicted}, not as the explained class {target}; "
            f"the {self.rule} rule explains a class that is predicted"
        )

    def _stuck(self) -> str:
        return (
            f"none of {self.iterations} proposals met the negative rule; with the whole image filled with {self.fill} "
            "the explained class is still predicted"
        )


class _Walk:
    """The state of all the walks of a batch, one an image.

    Attributes:
        smallest: (B,) float64, share of the smallest accepted mask; 1 before any.
        accepted_share: (B, iterations) float64, share of the mask accepted there; NaN where rejected.
        forwards: (B,) int64, proposals evaluated.
    """

    def __init__(self, method: DynamicAblation, batch: Batch, rest: Tensor, regions: Regions, noise: Noise) -> None:
        self.method, self.batch, self.rest, self.regions = method, batch, rest, regions
        count, device = len(batch), batch.images.device
        self.height, self.width = batch.images.shape[-2:]
        # Iteration t of a sample has the t-th of its draws, whatever it is evaluated with.
        first = noise.uniform(method.name, batch.ids, (3, method.circles))
        self.draws = noise.uniform(method.name, batch.ids, (method.iterations, 3, method.circles), draw=1).to(device)
        self.circles = Circles.drawn(first.to(device), self.height, self.width)
        self.area = torch.full((count,), float(self.height * self.width), dtype=torch.float64, device=device)
        self.times_accepted = torch.zeros((count, *regions.shape), dtype=torch.int32, device=device)
        self.smallest_regions = torch.ones((count, *regions.shape), dtype=torch.bool, device=device)
        self.smallest = torch.ones(count, dtype=torch.float64, device=device)
        self.accepted_share = torch.full((count, method.iterations), float("nan"), dtype=torch.float64, device=device)
        # What plans the turns stays on the CPU.
        self.done = torch.zeros(count, dtype=torch.long)
        self.forwards = torch.zeros(count, dtype=torch.long)
        self.accept_rate = torch.ones(count, dtype=torch.float64)

    def turn(self, rows: int, walking: Tensor) -> tuple[Tensor, Tensor] | None:
        """The proposals that fill the next forward: those needed now, then those most likely to be needed.

        Args:
            rows: images that a forward holds.
            walking: (B,) bool on the CPU, the images that walk at all.

        Returns:
            walk (N,) and how many iterations ahead (N,), both int64 on the CPU; in each walk from 0 without gaps.
            None when every walk has had its iterations.
        """
        method = self.method
        left = method.iterations - self.done
        walks = (walking & (left > 0)).nonzero()[:, 0]
        if not len(walks):
            return None
        # The least advanced first, so that more walks than rows finish together and forwards stay full.
        walks = walks[self.done[walks].argsort(stable=True)]
        ahead = torch.arange(-(-rows // len(walks)))[:, None]
        spare = method.iterations // ITERATIONS_PER_DISCARDED - (self.forwards - self.done)[walks]
        needed = (1 - self.accept_rate[walks]) ** ahead
        needed[(ahead >= left[walks]) | (ahead > spare)] = 0
        order = needed.flatten().argsort(descending=True, stable=True)[:rows]
        order = order[needed.flatten()[order] >= NEEDED]
        return walks[order % len(walks)], order // len(walks)

    def judge(self, model: Classifier, walks: Tensor, ahead: Tensor) -> None:
        """One forward with these proposals, and what follows from it."""
        device = self.area.device
        image, iteration = walks.to(device), (self.done[walks] + ahead).to(device)
        circles = self.circles.of(image).moved(
            self.draws[image, iteration], self.area[image], self.method.step, self.height, self.width
        )
        covered = self.regions.covered(image, circles)
        mask = self.regions.spread(image, covered)[:, None]
        # A constant fill is that of the first image too, and not copied.
        pixels, rest = self.batch.images[image], self.rest[image if self.method.fill == "blur" else slice(1)]
        positive = self.method.rule == "positive"
        seen = torch.where(mask, pixels, rest) if positive else torch.where(mask, rest, pixels)
        found = _classes(model(seen))
        same = found == self.batch.targets[image]
        holds = same if positive else (found != NO_CLASS) & ~same
        first = self._book(holds.cpu(), walks, ahead).to(device)
        image, iteration, covered = image[first], iteration[first], covered[first]
        self.circles.put(image, circles.of(first))
        self.area[image] *= self.method.shrinkage
        self.times_accepted[image] += covered
        share = self.regions.share(image, covered)
        self.accepted_share[image, iteration] = share
        smaller = share <= self.smallest[image]
        self.smallest[image[smaller]] = share[smaller]
        self.smallest_regions[image[smaller]] = covered[smaller]

    def _book(self, holds: Tensor, walks: Tensor, ahead: Tensor) -> Tensor:
        """Count the iterations that were judged; the proposals accepted, as indices: the first that holds of a walk.

        Args:
            holds: (N,) bool, whether the rule held.
            walks, ahead: (N,), as of `turn`.
        """
        count, depth = len(self.done), int(ahead.max()) + 1
        never = torch.full((count,), depth)
        first = never.scatter_reduce(0, walks, torch.where(holds, ahead, depth), "amin")
        evaluated = torch.bincount(walks, minlength=count)
        judged = torch.minimum(first + 1, evaluated)
        self.done += judged
        self.forwards += evaluated
        self.accept_rate = self.accept_rate * (1 - NEWEST) ** judged + NEWEST * (first < evaluated)
        return (holds & (ahead == first[walks])).nonzero()[:, 0]

    def maps(self) -> Tensor:
        """(B, 1, H, W) float32: how often each pixel was in an accepted mask, the most often as 1."""
        times = self._times().float()[:, None]
        return times / times.amax((1, 2, 3), keepdim=True).clamp(min=1)

    def smallest_mask(self) -> Tensor:
        """(B, H, W) bool: the smallest accepted mask; all ones before any."""
        return self.regions.spread(torch.arange(len(self.area), device=self.area.device), self.smallest_regions)

    def accepted(self) -> tuple[list[list[float]], list[list[float]]]:
        """Of each image, the shares of the accepted masks and their iterations, counted from 1."""
        shares, iterations = [], []
        for row in self.accepted_share.cpu():
            at = row.isfinite().nonzero()[:, 0]
            shares.append(row[at].tolist())
            iterations.append((at + 1).double().tolist())
        return shares, iterations

    def _times(self) -> Tensor:
        return self.regions.spread(torch.arange(len(self.area), device=self.area.device), self.times_accepted)


def _predicted(model: Classifier, images: Tensor) -> Tensor:
    return torch.cat([_classes(model(piece)) for piece in torch.split(images, model.rows)])


def _classes(logits: Tensor) -> Tensor:
    """The predicted classes (N,); none where a logit is not finite, since the largest of NaNs means nothing."""
    return torch.where(logits.isfinite().all(1), logits.argmax(1), NO_CLASS)


def _rows(chosen: Tensor) -> list[int]:
    found: list[int] = chosen.nonzero()[:, 0].tolist()
    return found
