"""Minimum attribution ratio: how little of the image keeps the prediction."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.contracts import Batch, Context, Cost, Metric, Scores, Setting
from pipeline.fill import Fill, filled
from pipeline.models.classifier import Classifier
from pipeline.reduction import pixel_ranks


class MAR(Metric):
    """The smallest top share of a map's pixels that, alone on the fill, is still predicted as the target.

    The shares are 1/grid, 2/grid, … 1. `search: scan` tries them in ascending order and an image stops at its first
    success, so the value is the smallest on the grid also where the prediction comes and goes. `search: bisection`
    takes ⌈log₂ grid⌉ + 1 forwards at most and finds a share that keeps the prediction while the next smaller one does
    not: the smallest only where the prediction, once there, stays.

    An image whose target is not predicted on any share tried has no ratio: null. Where the method has found a mask of
    its own, as dynamic ablation does, `own` is that mask's share of the image, whatever the map: where no smaller mask
    was found the map is constant and the mask the whole image, and without its 1 a mean would be too small.

    Source: An et al. 2022 (dynamic ablation), Sec. "Minimum Attribution Ratio", there for the mask of dynamic
        ablation; here for the top pixels of any map.
    """

    higher_is_better: ClassVar[bool] = False
    measures: ClassVar[tuple[str, ...]] = ("mar", "own")
    columns: ClassVar[tuple[str, ...]] = ("mar",)
    reading: ClassVar[str] = (
        "the smallest share of pixels, most relevant first, that alone keeps the prediction (lower is better)"
    )
    name: Literal["mar"] = "mar"
    grid: PositiveInt = Field(100, description="shares tried: 1/grid to 1")
    fill: Fill = Field("black", description="what stands where pixels are not kept")
    search: Literal["scan", "bisection"] = Field("scan", description="try every share in turn, or halve the range")

    def cost(self, setting: Setting, method: Cost = Cost()) -> Cost:
        """At most one forward a share, or a halving."""
        del setting, method
        return Cost(forwards=self.grid if self.search == "scan" else math.ceil(math.log2(self.grid)) + 1)

    def __call__(self, model: Classifier, batch: Batch, maps: Tensor, context: Context = Context()) -> Scores:
        """As for any metric; beside it `own` (B,) in [0, 1] where the method found masks, of constant maps too."""
        scores, own = super().__call__(model, batch, maps, context), context.columns.get("mar")
        return scores if own is None else Scores({**scores.measures, "own": own.float()})

    @torch.no_grad()
    def score(self, model: Classifier, batch: Batch, maps: Tensor, context: Context) -> Scores:
        """`mar` (B,) in (0, 1], NaN where no share tried is predicted as the target."""
        del context
        pixels = maps[0].numel() if len(maps) else 1
        limits = torch.tensor(
            [math.ceil(pixels * share / self.grid) for share in range(1, self.grid + 1)], device=maps.device
        )
        trial = _Trial(model, batch, pixel_ranks(maps), filled(self.fill, model, batch.images), limits)
        place = trial.scan() if self.search == "scan" else trial.bisect()
        ratio = torch.where(place < self.grid, limits[place.clamp(max=self.grid - 1)].float() / pixels, torch.nan)
        return Scores({"mar": ratio})


class _Trial:
    """Shares of the images of a batch, shown to the model alone."""

    def __init__(self, model: Classifier, batch: Batch, ranks: Tensor, rest: Tensor, limits: Tensor) -> None:
        self._model, self._batch, self._ranks, self._rest, self._limits = model, batch, ranks, rest, limits

    def scan(self) -> Tensor:
        """Place of the first limit that holds, (B,) int64; the number of limits where none does."""
        grid = len(self._limits)
        place = torch.full((len(self._batch),), grid, device=self._limits.device)
        searching = torch.arange(len(self._batch), device=self._limits.device)
        tried = 0
        while len(searching) and tried < grid:
            # With few images left, several shares of each go through the model together; the first that holds counts.
            together = min(max(1, self._model.rows // len(searching)), grid - tried)
            places = torch.arange(tried, tried + together, device=searching.device).repeat(len(searching))
            held = self._holds(searching.repeat_interleave(together), places).view(len(searching), together)
            found = held.any(1)
            place[searching[found]] = tried + held.int().argmax(1)[found]
            searching = searching[~found]
            tried += together
        return place

    def bisect(self) -> Tensor:
        """Place of a limit that holds while the one before it does not, as `scan`; the last is tried first."""
        grid = len(self._limits)
        every = torch.arange(len(self._batch), device=self._limits.device)
        whole = self._holds(every, torch.full_like(every, grid - 1))
        low, high = torch.full_like(every, -1), torch.full_like(every, grid - 1)
        while (open_rows := (whole & (high - low > 1)).nonzero()[:, 0]).numel():
            middle = (low[open_rows] + high[open_rows]) // 2
            held = self._holds(open_rows, middle)
            high[open_rows] = torch.where(held, middle, high[open_rows])
            low[open_rows] = torch.where(held, low[open_rows], middle)
        return torch.where(whole, high, grid)

    def _holds(self, rows: Tensor, places: Tensor) -> Tensor:
        """Whether the images are predicted as their targets with these shares shown, (N,) bool."""
        images = self._batch.images
        held = []
        for row, place in zip(torch.split(rows, self._model.rows), torch.split(places, self._model.rows), strict=True):
            kept = self._ranks[row] < self._limits[place].view(-1, 1, 1, 1)
            predicted = self._model(torch.where(kept, images[row], self._rest[row])).argmax(1)
            held.append(predicted == self._batch.targets[row])
        return torch.cat(held) if held else torch.zeros(0, dtype=torch.bool, device=rows.device)
