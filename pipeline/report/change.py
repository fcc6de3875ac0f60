"""By how much a figure moved between two runs, how sure that is, and whether it matters."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from typing import Literal

Verdict = Literal["better", "same", "worse", "unclear"]
Pairing = Literal["same rows", "paired", "unpaired"]

ROUNDING = 1e-5
"""Share of a mean that other hardware or another batch may change by rounding alone; it is never called a change."""

FEWEST = 6
"""Samples from which on a change can be told: of five, all in one direction are no surprise (sign test, p = 0.06)."""


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

    @property
    def verdict(self) -> Verdict:
        """What the whole interval says, turned so that higher is better.

        `better` or `worse`: all of it lies past the tolerance. `same`: all of it lies within, or the rows or the means
        are the same. Else `unclear`, as it is without an interval, without a tolerance, or with fewer samples than can
        tell.
        """
        if self.pairing == "same rows" or self.low == self.high == 0:
            return "same"
        rounding = ROUNDING * max(abs(self.before or 0), abs(self.after or 0))
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
