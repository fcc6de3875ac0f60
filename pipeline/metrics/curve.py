"""The perturbation curve engine: pixels change in order of relevance, the model's output is watched."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.classifier import Classifier

Score = Literal["probability", "logit", "correct"]


def pixel_counts(pixels: int, step: int) -> list[int]:
    """Pixels changed at each point: 0, step, 2·step, … and all; ⌈pixels / step⌉ + 1 points."""
    return [min(point * step, pixels) for point in range(math.ceil(pixels / step) + 1)]


@torch.no_grad()
def perturbation_curve(
    model: Classifier,
    targets: Tensor,
    ranks: Tensor,
    counts: list[int],
    before: Tensor,
    after: Tensor,
    score: Score = "probability",
) -> Tensor:
    """The score of the target class while the top-ranked pixels change from one image to another.

    Args:
        model: the classifier.
        targets: (B,) int64.
        ranks: (B, 1, H, W) int32, 0 for the pixel that changes first.
        counts: pixels changed at each of P points.
        before: (B, 3, H, W), the images with no pixel changed.
        after: (B, 3, H, W), the images with every pixel changed.
        score: softmax `probability`, `logit`, or `correct` (1 where the target is predicted).

    Returns:
        (B, P) float32.

    Source: Petsiuk et al. 2018 (RISE), Sec. 4.1; deletion has `before` the image, insertion `after` the image.
    """
    points = len(counts)
    rows = len(targets) * points
    limits = torch.tensor(counts, device=ranks.device, dtype=torch.int32)
    scores = torch.empty(rows, device=ranks.device)
    for piece in torch.split(torch.arange(rows, device=ranks.device), model.rows):
        image, point = piece // points, piece % points
        changed = ranks[image] < limits[point].view(-1, 1, 1, 1)
        logits = model(torch.where(changed, after[image], before[image]))
        scores[piece] = scored(logits, targets[image], score)
    return scores.view(len(targets), points)


def scored(logits: Tensor, targets: Tensor, score: Score) -> Tensor:
    """Score of each row: logits (N, classes), targets (N,) → (N,) float32."""
    if score == "correct":
        return (logits.argmax(1) == targets).float()
    values = F.softmax(logits, dim=1) if score == "probability" else logits
    return values.gather(1, targets[:, None])[:, 0]
