"""Means over a few repeats, and what may be said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Standing = Literal["better", "worse", "not told apart"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over repeats.

    Attributes:
        n: repeats.
        mean: over them.
        low, high: its 95 % interval; None with one repeat.
    """

    n: int
    mean: float
    low: float | None
    high: float | None

    @property
    def half(self) -> float | None:
        """Half the interval's length."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def estimate(values: Sequence[float], least: float = 0.0) -> Estimate:
    """Mean and 95 % interval of one or more values, by Student's t with n − 1 degrees of freedom.

    Args:
        values: one a repeat.
        least: standard deviation that a value has in any case, such as that of rounding; theirs is taken for no less.

    Source: Student 1908. Values are taken for normal, which of a few repeats nobody can check.
    """
    count, mean = len(values), float(np.mean(values, dtype=np.float64))
    if count < 2:
        return Estimate(count, mean, None, None)
    half = student(count) * max(float(np.std(values, ddof=1, dtype=np.float64)), least) / count**0.5
    return Estimate(count, mean, mean - half, mean + half)


def student(count: int) -> float:
    """How many standard errors the 95 % interval of so many repeats, two or more, reaches to each side."""
    # SciPy takes a moment to import, which a job with nothing to do shall not wait for.
    from scipy.special import stdtrit  # noqa: PLC0415

    return float(stdtrit(count - 1, 0.975))


def standing(gain: Estimate | None) -> Standing | None:
    """What a gain over random says; None where there is none.

    It is told apart from random where its interval leaves out zero, which takes two repeats. That speaks of other
    trainings on the same images and maps, and is not corrected for the number of methods.
    """
    if gain is None:
        return None
    if gain.low is not None and gain.low > 0:
        return "better"
    if gain.high is not None and gain.high < 0:
        return "worse"
    return "not told apart"
