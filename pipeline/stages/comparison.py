"""Paired differences between methods: by how much, how sure, on how many samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.noise import Noise
from pipeline.stages.sample_score import SampleScores
from pipeline.stages.signed_rank import holm, signed_rank_p
from pipeline.stages.summarise import RESAMPLES

LEVEL = 0.05
LARGE = 5000  # from here on the mean difference's distribution is normal for all purposes
_PIECE = 4_000_000  # numbers in memory at once, while resampling

Family = Literal["methods", "control"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two methods on the samples of which both have a value.

    Attributes:
        model, metric, measure: what was measured.
        higher_is_better: which way the measure points.
        family: what the p is corrected for: `methods`, all pairs of methods of this model and measure without the
            control; or `control`, every method against the control.
        first, second: the methods; of the family `control` the second is the control.
        n: samples.
        difference: mean of first − second, in the measure's own direction; this and the rest are None where n is 0.
        low, high: its 95 % interval, over samples.
        p: two-sided, of the signed-rank test.
        corrected: p after Holm's correction over the family.
        share: of the samples, on how many the first is better; equals count half.
    """

    model: str
    metric: str
    measure: str
    higher_is_better: bool
    family: Family
    first: str
    second: str
    n: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    corrected: float | None = None
    share: float | None = None

    @property
    def better(self) -> str | None:
        """The method that is clearly better, or None where chance may have made the difference.

        Clear is what mean and signs agree on: the corrected p is below 0.05, the interval of the mean difference
        leaves out zero, and the method is better on more than half of the samples.
        """
        if self.corrected is None or self.low is None or self.high is None or self.share is None:
            return None
        low, high = (self.low, self.high) if self.higher_is_better else (-self.high, -self.low)
        if self.corrected < LEVEL and low > 0 and self.share > 0.5:
            return self.first
        if self.corrected < LEVEL and high < 0 and self.share < 0.5:
            return self.second
        return None

    def seen_from(self, method: str) -> Comparison:
        """The same comparison with `method`, one of the two, as the first."""
        if method == self.first:
            return self
        turned = replace(self, first=self.second, second=self.first)
        if self.difference is None or self.low is None or self.high is None or self.share is None:
            return turned
        return replace(turned, difference=-self.difference, low=-self.high, high=-self.low, share=1 - self.share)


def compare(scores: SampleScores, control: str | None, noise: Noise) -> list[Comparison]:
    """Every pair of methods, then every method against the control.

    Args:
        scores: one measure of the methods of one model.
        control: the method that knows nothing of image or model; None where there is none.
        noise: for the resampling; all pairs of the same samples get the same resamples.

    Returns:
        Pairs in the order of the methods. The interval is that of `paired_intervals`.

    Source: Wilcoxon's signed-rank test for two methods over samples and Holm's correction for several, as Demšar 2006
        recommends for classifiers over data sets (Sec. 3.1.3 and 3.2.2); comparisons with a control are a family
        of their own there too.
    """
    controls = [(method, control) for method in scores.methods if control in scores.methods and method != control]
    pairs = list(combinations([method for method in scores.methods if method != control], 2))
    return [
        *_corrected(_compare(scores, "methods", pairs, noise)),
        *_corrected(_compare(scores, "control", controls, noise)),
    ]


def paired_intervals(
    values: NDArray[np.float64], pairs: Sequence[tuple[int, int]], generator: np.random.Generator
) -> Iterator[tuple[float, float]]:
    """95 % intervals of mean differences: percentiles over 1,000 resamples of the samples; normal from 5,000 on.

    Args:
        values: (n, k), n at least 1.
        pairs: columns a and b, of whose a − b the interval is wanted.
        generator: for the resampling.

    Returns:
        Lower and upper end, one a pair.

    Source: Efron 1979; percentile method.
    """
    count = len(values)
    if count >= LARGE:
        for first, second in pairs:
            differences = values[:, first] - values[:, second]
            half = 1.959964 * float(differences.std(ddof=1)) / count**0.5
            yield float(differences.mean()) - half, float(differences.mean()) + half
        return
    means = _resampled_means(values, generator)
    for first, second in pairs:
        low, high = np.percentile(means[first] - means[second], [2.5, 97.5])
        yield float(low), float(high)


def _resampled_means(values: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """(k, 1000) means of each column over the same resamples."""
    count, columns = values.shape
    means = np.empty((columns, RESAMPLES))
    rows = max(1, _PIECE // count)
    for start in range(0, RESAMPLES, rows):
        piece = min(rows, RESAMPLES - start)
        drawn = generator.integers(0, count, (piece, count)) + count * np.arange(piece)[:, None]
        times = np.bincount(drawn.reshape(-1), minlength=piece * count).reshape(piece, count)
        # Not a matrix product: its rounding depends on the number of threads, and differs between equal columns.
        for column in range(columns):
            means[column, start : start + piece] = (times * values[:, column]).sum(axis=1) / count
    return means


def _compare(scores: SampleScores, family: Family, pairs: Sequence[tuple[str, str]], noise: Noise) -> list[Comparison]:
    """The comparisons, not yet corrected. Pairs that have the same samples are done together."""
    there = {method: ~np.isnan(scores.values[:, place]) for place, method in enumerate(scores.methods)}
    groups: dict[bytes, list[tuple[str, str]]] = {}
    for first, second in pairs:
        groups.setdefault((there[first] & there[second]).tobytes(), []).append((first, second))
    found: dict[tuple[str, str], Comparison] = {}
    for samples, members in groups.items():
        rows = np.frombuffer(samples, dtype=bool)
        names = list(dict.fromkeys(method for pair in members for method in pair))
        columns = [scores.methods.index(method) for method in names]
        values = scores.values[rows][:, columns].astype(np.float64)
        places = [(names.index(first), names.index(second)) for first, second in members]
        generator = noise.generator("bootstrap", "pairs")
        intervals = paired_intervals(values, places, generator) if len(values) else iter(())
        for (first, second), (a, b) in zip(members, places, strict=True):
            one = Comparison(
                scores.model, scores.metric, scores.measure, scores.higher_is_better, family, first, second, len(values)
            )
            if len(values):
                differences = values[:, a] - values[:, b]
                low, high = next(intervals)
                wins = differences > 0 if scores.higher_is_better else differences < 0
                one = replace(
                    one,
                    difference=float(differences.mean()),
                    low=low,
                    high=high,
                    p=signed_rank_p(differences),
                    share=float(wins.mean() + (differences == 0).mean() / 2),
                )
            found[first, second] = one
    return [found[pair] for pair in pairs]


def _corrected(family: Sequence[Comparison]) -> list[Comparison]:
    """With Holm's correction over those that have a p."""
    known = [one.p for one in family if one.p is not None]
    corrected = iter(holm(np.array(known)).tolist())
    return [one if one.p is None else replace(one, corrected=next(corrected)) for one in family]
