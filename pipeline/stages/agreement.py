"""How far metrics agree on which methods are better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pipeline.stages.sample_score import SampleScores
from pipeline.stages.summarise import Summary

FEWEST = 3  # methods; two can only agree wholly or not at all


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two measures of one model, each turned so that higher is better: 1 where they order the methods alike.

    Attributes:
        model: whose maps.
        first_metric, first_measure, second_metric, second_measure: the measures.
        methods: how many methods have a mean of both, the control left out.
        spearman, kendall: rank correlation of the methods' means (Kendall's tau-b); None where all means are equal.
        samples: samples on which all these methods have both values, and neither measure finds them all equal.
        sample_spearman: mean over these samples of the rank correlation of the methods' values; None without any.
    """

    model: str
    first_metric: str
    first_measure: str
    second_metric: str
    second_measure: str
    methods: int
    spearman: float | None
    kendall: float | None
    samples: int
    sample_spearman: float | None


def agree(
    summary: Sequence[Summary], scores: Mapping[tuple[str, str, str], SampleScores], control: str | None
) -> list[Agreement]:
    """Every pair of measures of a model that three methods or more have in common.

    The control is left out: that all metrics find a map worst that knows nothing would pass for agreement.

    Args:
        summary: the means.
        scores: by model, metric and measure, the samples behind them; what is missing has no correlation by sample.
        control: the random control; None where there is none.

    Returns:
        Pairs in the order of the summary.

    Source: Tomsett et al. 2020, "Sanity checks for saliency metrics", inter-metric reliability: the mean over images of
        Spearman's correlation over methods. The correlation of means is added.
    """
    means: dict[tuple[str, str, str], dict[str, float]] = {}
    for one in summary:
        if one.mean is not None and one.method != control:
            mean = one.mean if one.higher_is_better else -one.mean
            means.setdefault((one.model, one.metric, one.measure), {})[one.method] = mean
    ranked = _Ranks(scores)
    found = []
    for first, second in combinations(means, 2):
        methods = tuple(method for method in means[first] if method in means[second])
        if first[0] != second[0] or len(methods) < FEWEST:
            continue
        spearman, kendall = _of_means([means[first][one] for one in methods], [means[second][one] for one in methods])
        samples, sample_spearman = _by_sample(ranked.of(first, methods), ranked.of(second, methods))
        found.append(Agreement(*first, *second[1:], len(methods), spearman, kendall, samples, sample_spearman))
    return found


class _Ranks:
    """Ranks of methods on every sample, kept: most pairs of measures have the same methods."""

    def __init__(self, scores: Mapping[tuple[str, str, str], SampleScores]) -> None:
        self._scores = scores
        self._kept: dict[object, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}

    def of(
        self, measure: tuple[str, str, str], methods: tuple[str, ...]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Positions (n,) and standardised ranks (n, k): rows of length 1 about 0, the product of two is Spearman's."""
        from scipy.stats import rankdata  # noqa: PLC0415

        if (measure, methods) not in self._kept:
            scores = self._scores.get(measure)
            if scores is None or not set(methods) <= set(scores.methods):
                return np.empty(0, np.int64), np.empty((0, len(methods)))
            positions, gains = scores.complete(methods)
            ranks = rankdata(gains, axis=1) - (len(methods) + 1) / 2
            length = np.sqrt((ranks**2).sum(axis=1))
            told = length > 0
            self._kept[measure, methods] = positions[told], ranks[told] / length[told, None]
        return self._kept[measure, methods]


def _by_sample(
    first: tuple[NDArray[np.int64], NDArray[np.float64]], second: tuple[NDArray[np.int64], NDArray[np.float64]]
) -> tuple[int, float | None]:
    common, mine, other = np.intersect1d(first[0], second[0], assume_unique=True, return_indices=True)
    if not len(common):
        return 0, None
    return len(common), float((first[1][mine] * second[1][other]).sum(axis=1).mean())


def _of_means(first: Sequence[float], second: Sequence[float]) -> tuple[float | None, float | None]:
    # SciPy's statistics take a second to import, which a job with nothing to do shall not wait for.
    from scipy.stats import kendalltau, spearmanr  # noqa: PLC0415

    if len(set(first)) == 1 or len(set(second)) == 1:
        return None, None
    return float(spearmanr(first, second).statistic), float(kendalltau(first, second).statistic)
