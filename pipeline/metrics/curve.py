"""The perturbation curve engine: pixels change in order of relevance, the model's output is watched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.classifier import Classifier

Output = Literal["probability", "logit"]
Score = Literal[
    "probability", "logit", "correct", "probability_ratio", "logit_ratio", "probability_change", "logit_change"
]

COARSE_INTERVALS = 16
"""Intervals that an adaptive curve starts with."""


def pixel_counts(pixels: int, step: int) -> list[int]:
    """Pixels changed at each point: 0, step, 2·step, … and all; ⌈pixels / step⌉ + 1 points."""
    return [min(point * step, pixels) for point in range(math.ceil(pixels / step) + 1)]


def share_counts(pixels: int, shares: Sequence[float]) -> list[int]:
    """Pixels that each share of an image comes to, rounded to the nearest, halves up."""
    return [math.floor(pixels * share + 0.5) for share in shares]


class CurvePoints:
    """Scores of a batch at points of its perturbation curves: any points of any images, together in full forwards.

    A point is a number of pixels changed. The first and the last image are the same for all methods, so that their
    logits may be given.
    """

    def __init__(
        self,
        model: Classifier,
        targets: Tensor,
        ranks: Tensor,
        before: Tensor,
        after: Tensor,
        score: Score = "probability",
        *,
        clean: Tensor | None = None,
        known: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> None:
        """Say what changes into what.

        Args:
            model: the classifier.
            targets: (B,) int64.
            ranks: (B, 1, H, W) int32, 0 for the pixel that changes first.
            before: (B, 3, H, W), the images with no pixel changed.
            after: (B, 3, H, W), the images with every pixel changed.
            score: see `scored`.
            clean: (B, classes), logits of the unchanged image, which ratios and changes are relative to.
            known: (B, classes) logits of `before` and of `after`, where they are known.
        """
        self._model, self._targets, self._ranks = model, targets, ranks
        self._before, self._after = before, after
        self._score: Score = score
        self._clean, self._known = clean, known
        self._pixels = ranks[0].numel() if len(ranks) else 0

    @torch.no_grad()
    def at(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Scores of images at numbers of changed pixels.

        Args:
            rows: (N,) int64, which image of the batch.
            counts: (N,) int32, how many of its pixels are changed.

        Returns:
            (N,) float32.
        """
        scores = torch.empty(len(rows), device=self._ranks.device)
        todo = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        for end, logits in zip((0, self._pixels), self._known, strict=True):
            if logits is not None:
                place = (counts == end).nonzero()[:, 0]
                scores[place] = self._scored(logits[rows[place]], rows[place])
                todo[place] = False
        for piece in torch.split(todo.nonzero()[:, 0], self._model.rows):
            image = rows[piece]
            changed = self._ranks[image] < counts[piece].view(-1, 1, 1, 1)
            logits = self._model(torch.where(changed, self._after[image], self._before[image]))
            scores[piece] = self._scored(logits, image)
        return scores

    def _scored(self, logits: Tensor, image: Tensor) -> Tensor:
        clean = None if self._clean is None else self._clean[image]
        return scored(logits, self._targets[image], self._score, clean)


def perturbation_curve(points: CurvePoints, samples: int, counts: Sequence[int], device: torch.device) -> Tensor:
    """Every point of the curve of every image.

    Args:
        points: what changes.
        samples: B, the images of the batch.
        counts: pixels changed at each of P points.
        device: the images' device.

    Returns:
        (B, P) float32.

    Source: Petsiuk et al. 2018 (RISE), Sec. 4.1; deletion has the image `before`, insertion `after`.
    """
    rows = torch.arange(samples, device=device).repeat_interleave(len(counts))
    limits = torch.tensor(counts, device=device, dtype=torch.int32).repeat(samples)
    return points.at(rows, limits).view(samples, len(counts))


def adaptive_curve(
    points: CurvePoints, samples: int, counts: Sequence[int], device: torch.device, tolerance: float
) -> Tensor:
    """The curve with points left out where it is straight: they are put on the line between their neighbours.

    It starts with `COARSE_INTERVALS` intervals. An interval whose trapezoid may be wrong by more than half of the
    tolerance × √width, by the change of slope towards its neighbours, is halved, again and again; all images of the
    batch go on together. Errors of either sign, as those of a rough curve, then add up to half of the tolerance in root
    mean square. That this bounds the error of the area is measured (README), not proved: a bend narrower than an
    interval is not seen. Which points are looked at hangs on the values: two batches whose scores differ by rounding
    may differ by up to the tolerance.

    Args:
        points, samples, counts, device: as for `perturbation_curve`; the counts are equally spaced but for the last.
        tolerance: of the area under the curve, its width taken as 1.

    Returns:
        (B, P) float32.
    """
    last = len(counts) - 1
    limits = torch.tensor(counts, device=device, dtype=torch.int32)
    coarse = sorted({round(last * place / COARSE_INTERVALS) for place in range(COARSE_INTERVALS + 1)})
    wanted = torch.zeros(samples, last + 1, dtype=torch.bool, device=device)
    wanted[:, coarse] = True
    known = torch.zeros_like(wanted)
    curve = torch.zeros(samples, last + 1, device=device)
    while True:
        rows, places = (wanted & ~known).nonzero(as_tuple=True)
        if not len(rows):
            return curve
        curve[rows, places] = points.at(rows, limits[places])
        known |= wanted
        left, right = _neighbours(known)
        curve = _straight(curve, left, right)
        wanted = known | _bends(curve, known, left, right, tolerance)


def _neighbours(known: Tensor) -> tuple[Tensor, Tensor]:
    """Of each place, the nearest known place at or before it, and at or after it; (B, P) int64 each."""
    places = torch.arange(known.shape[1], device=known.device).expand_as(known)
    left = torch.where(known, places, 0).cummax(1).values
    right = torch.where(known, places, known.shape[1] - 1).flip(1).cummin(1).values.flip(1)
    return left, right


def _straight(curve: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The curve with each place on the line between its known neighbours."""
    places = torch.arange(curve.shape[1], device=curve.device).expand_as(left)
    share = (places - left) / (right - left).clamp(min=1)
    low, high = curve.gather(1, left), curve.gather(1, right)
    return low + share * (high - low)


def _bends(curve: Tensor, known: Tensor, left: Tensor, right: Tensor, tolerance: float) -> Tensor:
    """The middles of the intervals that have to be halved, (B, P) bool."""
    last = curve.shape[1] - 1
    # An interval is looked at from its left end: its right end is the next place's right neighbour.
    ends = F.pad(right[:, 1:], (0, 1), value=last)
    width = (ends - left).clamp(min=1) / last
    slope = (curve.gather(1, ends) - curve) / width
    # Slopes of the intervals before and after; the outer ones have one neighbour alone.
    before = (left - 1).clamp(min=0)
    before = slope.gather(1, left.gather(1, before))
    after = slope.gather(1, ends.clamp(max=last))
    jump = torch.maximum(
        torch.where(left > 0, (slope - before).abs(), 0.0), torch.where(ends < last, (slope - after).abs(), 0.0)
    )
    # The trapezoid's error is width³/12 × the second derivative, which is about the jump of the slope over the width.
    error = width.square() * jump / 12
    halved = known & (ends - left > 1) & (error > tolerance * width.sqrt() / 2)
    halved[:, last] = False
    rows, places = halved.nonzero(as_tuple=True)
    found = torch.zeros_like(known)
    found[rows, (left[rows, places] + ends[rows, places]) // 2] = True
    return found


def scored(logits: Tensor, targets: Tensor, score: Score, clean: Tensor | None = None) -> Tensor:
    """Score of each row.

    Args:
        logits: (N, classes).
        targets: (N,) int64.
        score: softmax `probability`; `logit`; `correct`, 1 where the target is predicted; `…_ratio`, the output over
            that of the clean image; `…_change`, the size of the change over the size of the clean image's output.
        clean: (N, classes), logits of the clean image, for ratios and changes.

    Returns:
        (N,) float32. NaN for a ratio to an output that is not above 0, and for a change of one that is 0.

    Raises:
        ValueError: a ratio or change without `clean`.
    """
    if score == "correct":
        return (logits.argmax(1) == targets).float()
    output: Output = "probability" if score.startswith("probability") else "logit"
    values = _output(logits, targets, output)
    if score in ("probability", "logit"):
        return values
    if clean is None:
        raise ValueError(f"score '{score}' is relative to the clean image; its logits are missing")
    reference = _output(clean, targets, output)
    if score.endswith("ratio"):
        return values / torch.where(reference > 0, reference, torch.nan)
    return (values - reference).abs() / torch.where(reference != 0, reference, torch.nan).abs()


def _output(logits: Tensor, targets: Tensor, output: Output) -> Tensor:
    values = F.softmax(logits, dim=1) if output == "probability" else logits
    return values.gather(1, targets[:, None])[:, 0]
