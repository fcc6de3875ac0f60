"""Ranks of maps, and how they correlate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.metrics.by_row import by_rows

_ROWS_ON_DEVICE = 64


@dataclass(frozen=True, slots=True)
class Ranks:
    """Ranks in ascending order, doubled and moved so that their mean is zero; ties have their average rank.

    Attributes:
        values: 2 r − (P − 1) for the rank r from 0 of P values, whole also where r is a half; (B, P) int32.
        squares: their sum of squares, (B,) float64; NaN where a value was NaN.
    """

    values: Tensor
    squares: Tensor


def centred_ranks(flat: Tensor) -> Ranks:
    """The ranks of each row.

    Args:
        flat: (B, P) float32.

    Returns:
        Ranks of (B, P) on the same device, the same on every device.
    """
    if flat.device.type != "cpu":
        pieces = [_sorted_ranks(rows) for rows in torch.split(flat.detach(), _ROWS_ON_DEVICE)]
        return Ranks(torch.cat([one.values for one in pieces]), torch.cat([one.squares for one in pieces]))
    numbers = flat.detach().float().contiguous().numpy()
    ranks = np.empty(numbers.shape, dtype=np.int32)
    squares = by_rows(lambda rows: [_radix_ranks(numbers[row], ranks[row]) for row in rows], len(numbers))
    return Ranks(torch.from_numpy(ranks), squares)


def _radix_ranks(numbers: NDArray[np.float32], ranks: NDArray[np.int32]) -> float:
    """Writes the centred ranks of one map and returns their sum of squares.

    NumPy sorts 16-bit numbers by counting, ten times as fast as floats. Two such passes, low half and then high half,
    sort the bits of a float32, which are first changed so that they rise with the number.
    """
    # Adding zero turns -0.0, whose bits differ, into 0.0.
    count, bits = len(numbers), (numbers + np.float32(0)).view(np.int32)
    keys = (bits ^ ((bits >> 31) | np.int32(-(2**31)))).view(np.uint32)
    low, high = keys.astype(np.uint16), (keys >> np.uint32(16)).astype(np.uint16)
    by_low = np.argsort(low, kind="stable")
    by_high = np.argsort(high.take(by_low, mode="clip"), kind="stable")
    # Half as wide, the first order stays in the cache while it is put into the second.
    order = by_low.astype(np.int32).take(by_high, mode="clip").astype(np.intp)
    # Numbers that are not any have the largest keys, or with a sign the smallest.
    if np.isnan(numbers[order[0]]) or np.isnan(numbers[order[-1]]):
        return np.nan
    ordered = keys.take(order, mode="clip")
    spread = np.arange(1 - count, count, 2, dtype=np.int32)
    squares = (count**3 - count) / 3
    tied = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(tied):
        gaps = np.flatnonzero(np.diff(tied) > 1)
        starts, lasts = tied[np.append(0, gaps + 1)], tied[np.append(gaps, -1)] + 1
        lengths = lasts - starts + 1
        within = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
        spread[np.repeat(starts, lengths) + within] = np.repeat(starts + lasts - (count - 1), lengths)
        squares -= float(((lengths.astype(np.float64) ** 3 - lengths) / 3).sum())
    ranks[order] = spread
    return squares


def _sorted_ranks(flat: Tensor) -> Ranks:
    """Centred ranks by the device's own sort."""
    count = flat.shape[1]
    ordered, order = flat.sort(dim=1)
    places = torch.arange(count, device=flat.device, dtype=torch.int32).expand_as(order)
    differs = ordered[:, 1:] != ordered[:, :-1]
    edge = torch.ones(len(flat), 1, dtype=torch.bool, device=flat.device)
    first = torch.where(torch.cat([edge, differs], 1), places, 0).cummax(1).values
    last = torch.where(torch.cat([differs, edge], 1), places, count).flip(1).cummin(1).values.flip(1)
    values = torch.empty_like(first).scatter_(1, order, first + last - (count - 1))
    squares = values.double().square().sum(1)
    return Ranks(values, torch.where(flat.isnan().any(1), torch.nan, squares))


def rank_correlation(first: Ranks, flat: Tensor) -> Tensor:
    """Pearson correlation of ranks with those of as many other rows.

    Args:
        first: ranks of (B, P).
        flat: (B, P) float32, not ranked yet.

    Returns:
        (B,) float32 in [-1, 1]; NaN where a row is constant or holds NaN.
    """
    if flat.device.type != "cpu":
        rows = range(0, max(1, len(flat)), _ROWS_ON_DEVICE)
        return torch.cat([_device_correlation(first, flat, slice(row, row + _ROWS_ON_DEVICE)) for row in rows])
    ranks, numbers = first.values.numpy(), flat.detach().float().contiguous().numpy()
    squares = first.squares.tolist()

    def correlations(rows: range) -> list[float]:
        # The ranks of one row after the other lie in the same memory, which stays in the cache.
        others, found = np.empty(numbers.shape[1], dtype=np.int32), []
        for row in rows:
            product = squares[row] * _radix_ranks(numbers[row], others)
            covariance = float(np.multiply(ranks[row], others, dtype=np.float64).sum())
            found.append(covariance / product**0.5 if product else np.nan)
        return found

    return by_rows(correlations, len(numbers)).float()


def _device_correlation(first: Ranks, flat: Tensor, rows: slice) -> Tensor:
    second = _sorted_ranks(flat[rows].detach())
    covariance = (first.values[rows].double() * second.values.double()).sum(1)
    return (covariance / (first.squares[rows] * second.squares).sqrt()).float()
