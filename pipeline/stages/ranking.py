"""Ranks of methods: by a measure's mean, sample by sample, and over metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from pipeline.stages.sample_score import SampleScores
from pipeline.stages.summarise import Summary


@dataclass(frozen=True, slots=True)
class Rank:
    """Where a method of a model stands by one measure; 1 is the best, equal ones share their mean rank.

    Attributes:
        model, method, metric, measure: who, and by what.
        control: whether the method is the random control, which is ranked like any other.
        rank: by the mean; None without one.
        among: methods that have a mean.
        sample_rank: mean over samples of the rank on the sample; None where no sample has a value of all of them.
        samples: those samples.
        mean_rank: of the method, over metrics; the same in each of its entries.
    """

    model: str
    method: str
    metric: str
    measure: str
    control: bool
    rank: float | None
    among: int
    sample_rank: float | None
    samples: int
    mean_rank: float | None


def rank_methods(
    summary: Sequence[Summary], scores: Mapping[tuple[str, str, str], SampleScores], control: str | None
) -> list[Rank]:
    """The rank of every method by every measure.

    The mean rank weighs metrics equally: measures of one metric are averaged first. It leaves out measures in which
    chance is no yardstick (`Summary.against_chance`), such as time, and measures that only some methods have at all,
    such as a benchmark of a few of them; a method without a value in one of the others has none. It is a description:
    metrics share their samples and resemble each other, so that a test over them, which takes them for independent,
    would promise too much.

    Args:
        summary: the means.
        scores: by model, metric and measure, the samples behind them; what is missing has no sample rank.
        control: the random control; None where there is none.

    Returns:
        In the order of the summary.

    Source: average ranks as in Demšar 2006, Sec. 3.2.2, with measures, or samples, in the place of data sets.
    """
    by_mean, by_sample = {}, {}
    for key in dict.fromkeys((one.model, one.metric, one.measure) for one in summary):
        mine = [one for one in summary if (one.model, one.metric, one.measure) == key]
        by_mean[key] = _ranks_by_mean(mine)
        by_sample[key] = _ranks_by_sample(scores.get(key), list(by_mean[key]))
    mean_ranks = {
        (model, method): _mean_rank([one for one in summary if one.model == model], method, by_mean)
        for model, method in dict.fromkeys((one.model, one.method) for one in summary)
    }
    found = []
    for one in summary:
        key = (one.model, one.metric, one.measure)
        ranks, (samples, sample_ranks) = by_mean[key], by_sample[key]
        found.append(
            Rank(
                model=one.model,
                method=one.method,
                metric=one.metric,
                measure=one.measure,
                control=one.method == control,
                rank=ranks.get(one.method),
                among=len(ranks),
                sample_rank=sample_ranks.get(one.method),
                samples=samples,
                mean_rank=mean_ranks[one.model, one.method],
            )
        )
    return found


def _ranks_by_mean(summary: Sequence[Summary]) -> dict[str, float]:
    """By method, of those that have a mean."""
    # SciPy's statistics take a second to import, which a job with nothing to do shall not wait for.
    from scipy.stats import rankdata  # noqa: PLC0415

    losses = {one.method: -one.mean if one.higher_is_better else one.mean for one in summary if one.mean is not None}
    ranks = rankdata(list(losses.values())).tolist() if losses else []
    return dict(zip(losses, ranks, strict=True))


def _ranks_by_sample(scores: SampleScores | None, methods: list[str]) -> tuple[int, dict[str, float]]:
    """How many samples have a value of all the methods, and by method its mean rank over them."""
    from scipy.stats import rankdata  # noqa: PLC0415

    if scores is None or not methods or not set(methods) <= set(scores.methods):
        return 0, {}
    _, gains = scores.complete(methods)
    if not len(gains):
        return 0, {}
    ranks = rankdata(-gains, axis=1).mean(axis=0, dtype=np.float64)
    return len(gains), dict(zip(methods, ranks.tolist(), strict=True))


def _mean_rank(
    summary: Sequence[Summary], method: str, ranks: Mapping[tuple[str, str, str], Mapping[str, float]]
) -> float | None:
    """Of one method of one model."""
    metrics: dict[str, list[float]] = {}
    everyone = {one.method for one in summary}
    for model, metric, measure in dict.fromkeys(
        (one.model, one.metric, one.measure) for one in summary if one.against_chance
    ):
        of_metric = [one for one in summary if one.metric == metric]
        # What only some methods tell of themselves, such as a mask of their own, ranks nobody; nor does retraining
        # where only some are asked for.
        asked = everyone if of_metric[0].over == "repeats" else {one.method for one in of_metric}
        if asked != {one.method for one in of_metric if one.measure == measure}:
            continue
        rank = ranks[model, metric, measure].get(method)
        if rank is None:
            # A measure that nobody has a value of says nothing of this method.
            if ranks[model, metric, measure]:
                return None
            continue
        metrics.setdefault(metric, []).append(rank)
    return fmean(fmean(own) for own in metrics.values()) if metrics else None
