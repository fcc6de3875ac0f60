"""By how much a figure moved between two runs, how sure that is, and whether it matters."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, sqrt
from typing import Literal

Verdict = Literal["better", "same", "worse", "unclear"]
Pairing = Literal["same rows", "paired", "unpaired"]

ROUNDING = 1e-5
"""Share of a value that other hardware or another batch may change by rounding alone; it is never called a change."""

FEWEST = 6
"""Samples from which on a change can be told: of five, all in one direction are no surprise (sign test, p = 0.06)."""


MISSING = 0.01
"""Share of the samples that may have no value any more without mattering."""


@dataclass(frozen=True, slots=True)
class Change:
    """One measure of one method and model in two runs.

    Attributes:
        model, method, metric, measure: what was measured.
        higher_is_better: which way the measure points.
        over: what is counted: `samples`, or `repeats` of a training.
        control: whether the method is the random control, whose figures are no regression of anything.
        before, after: the runs' own means; None where a run has no value.
        before_n, after_n: samples or repeats behind them.
        pairing: `same rows`: nothing was computed anew between the runs; `paired`: sample by sample; `unpaired`: from
            the means' intervals.
        pairs: samples that both have; 0 where unpaired.
        difference: after − before over the pairs, or of the means; in the measure's own direction.
        low, high: its 95 % interval; None where there is none.
        tolerance: by how much it may move without mattering; None where it belongs to the machine as much as to the
            job, and nobody has said.
        retargeted: pairs of which another class is explained in the second run.
        note: why it is not paired, where that may surprise.
        shared: samples that both runs looked at, with a value or without; 0 where that cannot be told.
        before_missing, after_missing: samples without a value: of the shared ones, else of the runs' own.
        scale: mean size of the pairs' values, whatever their sign; 0 where unpaired.
        lost: whether the second run has no value where the first had one, or clearly fewer (`clear_loss`).
    """

    model: str
    method: str
    metric: str
    measure: str
    higher_is_better: bool
    over: Literal["samples", "repeats"]
    control: bool
    before: float | None
    after: float | None
    before_n: int
    after_n: int
    pairing: Pairing
    pairs: int
    difference: float | None
    low: float | None
    high: float | None
    tolerance: float | None
    retargeted: int = 0
    note: str = ""
    shared: int = 0
    before_missing: int = 0
    after_missing: int = 0
    scale: float = 0.0
    lost: bool = False

    @property
    def verdict(self) -> Verdict:
        """What the whole interval says, turned so that higher is better.

        `better` or `worse`: all of it lies past the tolerance. `same`: all of it lies within, or the rows or the means
        are the same. Else `unclear`, as it is without an interval, without a tolerance, or with fewer samples than can
        tell. Whatever the mean of those that are left, it is `worse` where the values of the others are lost.
        """
        if self.pairing == "same rows":
            return "same"
        if self.lost:
            return "unclear" if self.tolerance is None else "worse"
        if self.low == self.high == 0:
            return "same"
        rounding = ROUNDING * max(abs(self.before or 0), abs(self.after or 0), self.scale)
        if self.pairing == "unpaired" and self.difference is not None and abs(self.difference) <= rounding:
            return "same"
        if self.low is None or self.high is None or self.tolerance is None:
            return "unclear"
        if self.over == "samples" and self._counted < FEWEST:
            return "unclear"
        margin = max(self.tolerance, rounding)
        low, high = (self.low, self.high) if self.higher_is_better else (-self.high, -self.low)
        if low > margin:
            return "better"
        if high < -margin:
            return "worse"
        return "same" if -margin <= low and high <= margin else "unclear"

    @property
    def regression(self) -> bool:
        """Whether a method got clearly worse than is tolerated."""
        return self.verdict == "worse" and not self.control

    @property
    def _counted(self) -> int:
        return self.pairs if self.pairing == "paired" else min(self.before_n, self.after_n)


def clear_loss(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether clearly more samples have no value than before.

    So it is where the share of such samples rose by more than `MISSING`, the whole 95 % interval of the rise, and by at
    least `FEWEST` samples. The interval takes the shares as independent: of the same samples it is too wide.

    Args:
        before, after: samples without a value, and all samples.

    Source: Wald's interval of the difference of two shares.
    """
    (old, old_samples), (new, new_samples) = before, after
    if not old_samples or not new_samples:
        return False
    first, second = old / old_samples, new / new_samples
    spread = sqrt(first * (1 - first) / old_samples + second * (1 - second) / new_samples)
    return (second - first) * new_samples >= FEWEST and second - first - 1.959964 * spread > MISSING


def unpaired_interval(before: tuple[float, float, float], after: tuple[float, float, float]) -> tuple[float, float]:
    """95 % interval of the difference of two independent means, from the interval of each.

    Of means over the same samples it is too wide.

    Args:
        before, after: mean, lower and upper end.

    Returns:
        Lower and upper end of after − before.

    Source: Zou and Donner 2008, "Construction of confidence limits about effect measures", the method of variance
        estimates recovery; of symmetric intervals it is the root of the sum of squares.
    """
    (first, first_low, first_high), (second, second_low, second_high) = before, after
    difference = second - first
    return (
        difference - hypot(second - second_low, first_high - first),
        difference + hypot(second_high - second, first - first_low),
    )
