"""Summarise: means with intervals and mean curves, from the per-sample rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.noise import Noise
from pipeline.stages.variant import Variant
from pipeline.store import Output

RESAMPLES = 1000
LARGE = 20_000  # from here on the mean's distribution is normal for all purposes


@dataclass(frozen=True, slots=True)
class Summary:
    """One measure of one method and model over the samples.

    Attributes:
        model, method, metric, measure: what is summarised.
        higher_is_better: which way the measure points.
        n: samples with a value; `missing`: samples without one.
        mean, low, high: the mean and its 95 % interval; None when n is 0.
        fractions: the curve's horizontal axis; empty without a curve.
        curve: the mean curve.
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
    fractions: tuple[float, ...]
    curve: tuple[float, ...]

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
    table = output.read(variant.path, 0, variant.total, ["measure", "value"])
    if table is None or variant.metric_config is None:
        return []
    curve = _mean_curve(output, variant)
    found = []
    for measure in dict.fromkeys(table["measure"].to_pylist()):
        rows = table.filter(pc.equal(table["measure"].cast("string"), measure))
        values = rows["value"].drop_null().to_numpy().astype(np.float64)
        # The same resamples for every method, so that equal scores get equal intervals.
        generator = noise.generator("bootstrap", "samples")
        interval = bootstrap_interval(values, generator) if len(values) else (None, None)
        found.append(
            Summary(
                model=variant.model,
                method=str(variant.method),
                metric=str(variant.metric),
                measure=measure,
                higher_is_better=variant.metric_config.higher_is_better,
                n=len(values),
                missing=rows.num_rows - len(values),
                mean=float(values.mean()) if len(values) else None,
                low=interval[0],
                high=interval[1],
                fractions=variant.fractions,
                curve=curve,
            )
        )
        curve = ()  # it stands with the first measure alone, as in the rows
    return found


def _mean_curve(output: Output, variant: Variant) -> tuple[float, ...]:
    """The mean over samples of each point of the curve; empty where there are no curves. Curves are streamed."""
    dataset = output.dataset(variant.path) if variant.fractions else None
    if dataset is None:
        return ()
    total, count = np.zeros(len(variant.fractions)), 0
    for batch in dataset.to_batches(columns=["curve"], filter=pc.field("position") < variant.total):
        curves = batch["curve"].drop_null()
        if len(curves):
            points = curves.flatten().to_numpy(zero_copy_only=False).reshape(len(curves), -1)
            total += points.sum(axis=0, dtype=np.float64)
            count += len(curves)
    return tuple(float(value) for value in total / count) if count else ()
