"""Wilcoxon's signed-rank test and Holm's correction."""

from __future__ import annotations

from math import erfc, sqrt

import numpy as np
from numpy.typing import NDArray

EXACT = 50  # differences up to which the exact distribution is used, as in SciPy


def signed_rank_p(differences: NDArray[np.float64]) -> float:
    """Two-sided p that paired differences lie evenly about zero.

    Differences of zero say nothing of a direction and are left out, as Wilcoxon did; equal sizes share their mean
    rank. Up to 50 differences the p is exact, given the ranks as they are: each sign is a fair coin. With more it is
    the normal approximation with the correction for ties and none for continuity.

    Args:
        differences: (n,), finite.

    Returns:
        In [0, 1]; 1 where all differences are zero, or there are none.

    Source: Wilcoxon 1945. SciPy's `wilcoxon` agrees where it is exact or asymptotic. Between 14 and 50 differences with
        ties among them SciPy (1.17) takes the normal approximation, and other versions do otherwise; here such a p is
        exact, and does not change with the version.
    """
    differences = differences[differences != 0]
    count = len(differences)
    if not count:
        return 1.0
    size = np.abs(differences)
    order = np.argsort(size)
    size = size[order]
    starts = np.flatnonzero(np.concatenate([[True], size[1:] != size[:-1]]))
    ends = np.append(starts[1:], count)
    positive = np.add.reduceat(differences[order] > 0, starts, dtype=np.int64)
    # Twice the ranks, so that mean ranks are whole numbers.
    ranks, ties = starts + 1 + ends, (ends - starts).astype(np.float64)
    statistic = int((ranks * positive).sum())
    if count <= EXACT:
        return _exact(statistic, np.repeat(ranks, ends - starts))
    mean = count * (count + 1) / 2
    variance = (count * (count + 1.0) * (2.0 * count + 1) - ((ties**3 - ties) / 2).sum()) / 6
    return erfc(abs(statistic - mean) / sqrt(2 * variance))


def _exact(statistic: int, ranks: NDArray[np.int64]) -> float:
    """Twice the smaller tail of the sum of the ranks whose fair coin fell on heads."""
    chance = np.zeros(int(ranks.sum()) + 1)
    chance[0] = 1.0
    for rank in ranks:
        heads = np.zeros_like(chance)
        heads[rank:] = chance[:-rank]
        chance = (chance + heads) / 2
    tail = min(chance[: statistic + 1].sum(), chance[statistic:].sum())
    return min(1.0, 2 * float(tail))


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p values corrected for their number: with them, the chance of one false finding or more is kept.

    Args:
        p: (m,), one a comparison of the family.

    Returns:
        (m,) in [0, 1], in the order of `p`.

    Source: Holm 1979.
    """
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(steps, 1)
    return corrected
