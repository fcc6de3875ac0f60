"""Summarise: means with intervals and mean curves, from the per-sample rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.contracts import Metric
from pipeline.noise import Noise
from pipeline.stages.variant import Variant
from pipeline.store import Output

RESAMPLES = 1000
LARGE = 20_000  # from here on the mean's distribution is normal for all purposes


@dataclass(frozen=True, slots=True)
class Summary:
    """One measure of one method and model over the samples, or over repeats of a training.

    Attributes:
        model, method, metric, measure: what is summarised.
        higher_is_better: which way the measure points.
        n: samples with a value; `missing`: samples without one.
        mean, low, high: the mean and its 95 % interval; None when n is 0. One repeat has a mean and no interval.
        axis: the curve's horizontal axis: shares of pixels in [0, 1], or names; empty without a curve.
        curve: the mean curve.
        vertical, horizontal: what the curve's axes show, in words.
        by_sample: whether samples can be compared one by one.
        against_chance: whether the random control is a yardstick for this measure.
        over: what is counted and averaged: `samples`, or `repeats` of a training.
    """

    model: str
    method: str
    metric: str
    measure: str
    higher_is_better: bool
    n: int
    missing: int
    mean: float | None
    low: float | None
    high: float | None
    axis: tuple[float, ...] | tuple[str, ...]
    curve: tuple[float, ...]
    vertical: str = Metric.curve_of
    horizontal: str = Metric.curve_over
    by_sample: bool = True
    against_chance: bool = True
    over: Literal["samples", "repeats"] = "samples"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def bootstrap_interval(values: NDArray[np.float64], generator: np.random.Generator) -> tuple[float, float]:
    """95 % interval of the mean: percentiles of 1,000 bootstrap means; the normal interval from 20,000 values on.

    Args:
        values: (n,), n at least 1.
        generator: for the resampling.

    Returns:
        Lower and upper end.

    Source: Efron 1979; percentile method.
    """
    if len(values) >= LARGE:
        half = 1.959964 * float(values.std(ddof=1)) / len(values) ** 0.5
        return float(values.mean()) - half, float(values.mean()) + half
    # In pieces, so that 1,000 × n numbers are never in memory at once.
    piece = max(1, 4_000_000 // len(values))
    means = np.concatenate(
        [
            values[generator.integers(0, len(values), (min(piece, RESAMPLES - first), len(values)))].mean(axis=1)
            for first in range(0, RESAMPLES, piece)
        ]
    )
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def summarise(output: Output, variant: Variant, noise: Noise) -> list[Summary]:
    """Each measure of an `evaluate` variant over the committed samples."""
    metric = variant.metric_config
    table = output.read(variant.path, 0, variant.total, ["measure", "value"])
    if table is None or metric is None:
        return []
    measures = table["measure"].cast("string")
    curves = _mean_curves(output, variant)
    found = []
    for measure in measures.unique().to_pylist():
        rows = table.filter(pc.equal(measures, measure))
        values = rows["value"].drop_null().to_numpy().astype(np.float64)
        # The same resamples for every method, so that equal scores get equal intervals.
        generator = noise.generator("bootstrap", "samples")
        interval = bootstrap_interval(values, generator) if len(values) else (None, None)
        curve = curves.get(measure, ())
        found.append(
            Summary(
                model=variant.model,
                method=str(variant.method),
                metric=str(variant.metric),
                measure=measure,
                higher_is_better=metric.higher_is_better,
                n=len(values),
                missing=rows.num_rows - len(values),
                mean=float(values.mean()) if len(values) else None,
                low=interval[0],
                high=interval[1],
                axis=variant.axis if curve else (),
                curve=curve,
                vertical=metric.curve_of,
                horizontal=metric.curve_over,
                by_sample=metric.by_sample,
                against_chance=metric.against_chance,
            )
        )
    return found


def _mean_curves(output: Output, variant: Variant) -> dict[str, tuple[float, ...]]:
    """By measure, the mean of each point of its curves over the samples that have them all. Curves are streamed.

    A sample without one of the points has no measure either, so that the curve is that of the mean beside it.
    """
    dataset = output.dataset(variant.path) if variant.axis else None
    if dataset is None:
        return {}
    totals: dict[str, NDArray[np.float64]] = {}
    counts: Counter[str] = Counter()
    wanted = (pc.field("position") < variant.total) & pc.field("curve").is_valid()
    with output.reading_rows(variant.path):
        for batch in dataset.to_batches(columns=["measure", "curve"], filter=wanted):
            measures = batch["measure"].cast("string")
            for measure in measures.unique().to_pylist():
                curves = batch["curve"].filter(pc.equal(measures, measure))
                points = curves.flatten().to_numpy(zero_copy_only=False).reshape(len(curves), len(variant.axis))
                whole = points[np.isfinite(points).all(axis=1)]
                totals[measure] = totals.get(measure, np.zeros(len(variant.axis))) + whole.sum(axis=0, dtype=np.float64)
                counts[measure] += len(whole)
    return {measure: tuple((total / counts[measure]).tolist()) for measure, total in totals.items() if counts[measure]}
