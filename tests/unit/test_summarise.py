"""Means, intervals and mean curves from per-sample rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import bootstrap

from pipeline.contracts import Cost
from pipeline.metrics import Deletion
from pipeline.noise import Noise
from pipeline.stages.summarise import bootstrap_interval, summarise
from pipeline.stages.variant import Variant
from pipeline.store import open_output


def test_the_interval_is_scipy_s_percentile_bootstrap() -> None:
    values = Noise(3).generator("values", "a").exponential(size=80)
    low, high = bootstrap_interval(values, Noise().generator("b", "a"))
    expected = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=0).confidence_interval
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.08 * width) and high == pytest.approx(
        expected.high, abs=0.08 * width
    )


def test_the_interval_of_many_values_is_the_normal_one() -> None:
    values = Noise(3).generator("values", "a").normal(size=20_000)
    low, high = bootstrap_interval(values, Noise().generator("b", "a"))
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20_000**0.5, rel=1e-3)


def test_the_same_rows_give_the_same_interval() -> None:
    values = np.linspace(0, 1, 30)
    first, second = (bootstrap_interval(values, Noise().generator("b", "a")) for _ in range(2))
    assert first == second


def rows(
    positions: list[int],
    values: list[float | None],
    curves: list[list[float] | None],
    measures: list[str] | None = None,
) -> pa.Table:
    return pa.table(
        {
            "position": positions,
            "id": [f"s{one}" for one in positions],
            "measure": pa.array(measures or ["auc"] * len(positions)).dictionary_encode(),
            "value": pa.array(values, pa.float32()),
            "curve": pa.array(curves, pa.list_(pa.float32())),
        }
    )


def variant(total: int, axis: tuple[float, ...] | tuple[str, ...]) -> Variant:
    return Variant(
        "scores/x", "evaluate", "f", total, 2, Cost(), (), "m", "a", "deletion", metric_config=Deletion(), axis=axis
    )


def test_samples_without_a_value_are_counted_and_not_averaged(tmp_path: Path) -> None:
    output = open_output(tmp_path / "out", create=True)
    first = rows([0, 1], [0.5, None], [[1.0, 0.0], None])
    output.commit("scores/x", 0, 2, first, [], ["s0", "s1"])
    # The last position lies past the selection's end: an earlier run had a larger limit.
    output.commit("scores/x", 2, 4, rows([2, 3], [0.25, 9.0], [[0.5, 0.5], [9.0, 9.0]]), [], ["s2", "s3"])
    (found,) = summarise(output, variant(3, (0.0, 1.0)), Noise())
    assert (found.n, found.missing, found.mean) == (2, 1, 0.375)
    assert found.curve == (0.75, 0.25) and found.higher_is_better is False


def test_every_measure_has_the_mean_of_its_own_curves(tmp_path: Path) -> None:
    output = open_output(tmp_path / "out", create=True)
    names = ["spearman", "ssim", "time"]
    first = rows([0, 0, 0], [1, 2, 3], [[1.0, 0.5], [0.0, 0.25], None], names)
    output.commit("scores/x", 0, 1, first, [], ["s0"])
    second = rows([1, 1, 1], [1, 2, 3], [[0.5, 0.25], None, [0.5, 0.5]], ["ssim", "time", "spearman"])
    output.commit("scores/x", 1, 2, second, [], ["s1"])
    found = {one.measure: one for one in summarise(output, variant(2, ("conv1", "fc")), Noise())}
    assert {name: one.curve for name, one in found.items()} == {
        "spearman": (0.75, 0.5),
        "ssim": (0.25, 0.25),
        "time": (),
    }
    assert {name: one.axis for name, one in found.items()} == {
        "spearman": ("conv1", "fc"),
        "ssim": ("conv1", "fc"),
        "time": (),
    }


def test_the_summary_says_what_the_metric_says_of_itself(tmp_path: Path) -> None:
    output = open_output(tmp_path / "out", create=True)
    output.commit("scores/x", 0, 1, rows([0], [0.5], [[1.0, 0.0]]), [], ["s0"])
    (found,) = summarise(output, variant(1, (0.0, 1.0)), Noise())
    assert (found.vertical, found.horizontal) == (Deletion.curve_of, Deletion.curve_over)
    assert (found.by_sample, found.against_chance) == (Deletion.by_sample, Deletion.against_chance)
