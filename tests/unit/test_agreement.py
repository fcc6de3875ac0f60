"""Metrics agree where they order the methods alike, by their means and sample by sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from pipeline.noise import Noise
from pipeline.stages.agreement import Agreement, agree
from pipeline.stages.sample_score import SampleScores
from pipeline.stages.summarise import Summary

METHODS = ("a", "b", "c", "d", "random")


def means(metric: str, higher: bool, *values: float | None, model: str = "net") -> list[Summary]:
    return [
        Summary(model, method, metric, "auc", higher, 9, 0, mean, mean, mean, (), ())
        for method, mean in zip(METHODS, values, strict=False)
    ]


def samples(metric: str, higher: bool, count: int = 40, methods: tuple[str, ...] = METHODS) -> SampleScores:
    values = Noise(7).generator("values", metric).normal(size=(count, len(methods))) + np.arange(len(methods)) / 4
    return SampleScores("net", metric, "auc", higher, methods, np.arange(count), np.round(values, 1).astype(np.float32))


def only(found: list[Agreement]) -> Agreement:
    (one,) = found
    return one


def test_measures_that_order_alike_agree_whichever_way_they_point() -> None:
    up, down = means("up", True, 1, 2, 3, 4), means("down", False, 9, 5, 4, 0)
    one = only(agree([*up, *down], {}, None))
    assert (one.spearman, one.kendall, one.methods) == (pytest.approx(1), pytest.approx(1), 4)
    turned = only(agree([*up, *(replace(row, higher_is_better=True) for row in down)], {}, None))
    assert (turned.spearman, turned.kendall) == (pytest.approx(-1), pytest.approx(-1))


def test_the_agreement_of_means_is_scipys_with_ties() -> None:
    first, second = (0.3, 0.1, 0.1, 0.7), (0.2, 0.5, 0.1, 0.4)
    one = only(agree([*means("x", True, *first), *means("y", True, *second)], {}, None))
    assert one.spearman == pytest.approx(spearmanr(first, second).statistic)
    assert one.kendall == pytest.approx(kendalltau(first, second).statistic)


def test_the_control_and_methods_without_both_means_are_left_out() -> None:
    first, second = means("x", True, 1, 2, 3, None, -9), means("y", True, 3, 2, 1, 9, -9)
    one = only(agree([*first, *second], {}, "random"))
    assert (one.methods, one.spearman) == (3, pytest.approx(-1))


def test_two_methods_are_too_few() -> None:
    assert agree([*means("x", True, 1, 2), *means("y", True, 1, 2)], {}, None) == []


def test_measures_of_two_models_are_not_compared() -> None:
    assert agree([*means("x", True, 1, 2, 3), *means("y", True, 1, 2, 3, model="other")], {}, None) == []


def test_a_measure_that_tells_no_method_apart_has_no_correlation() -> None:
    one = only(agree([*means("x", True, 1, 1, 1), *means("y", True, 1, 2, 3)], {}, None))
    assert (one.spearman, one.kendall, one.methods) == (None, None, 3)


def test_by_sample_it_is_the_mean_of_spearmans_correlation_over_the_methods() -> None:
    x, y = samples("x", True), samples("y", False, methods=METHODS[::-1])
    x.values[4, 1] = y.values[9, 2] = np.nan
    x.values[11] = 3.0
    both = [*means("x", True, 1, 2, 3, 4, 0), *means("y", False, 1, 2, 3, 4, 0)]
    one = only(agree(both, {("net", "x", "auc"): x, ("net", "y", "auc"): y}, "random"))
    expected = []
    for row in range(40):
        first = [float(x.values[row, x.methods.index(method)]) for method in "abcd"]
        second = [-float(y.values[row, y.methods.index(method)]) for method in "abcd"]
        if not np.isnan([*first, *second]).any() and len(set(first)) > 1 and len(set(second)) > 1:
            expected.append(spearmanr(first, second).statistic)
    assert one.samples == len(expected) < 40
    assert one.sample_spearman == pytest.approx(np.mean(expected))


def test_samples_are_paired_by_position() -> None:
    x = samples("x", True)
    shifted = replace(x, metric="y", positions=x.positions + 5)
    both = [*means("x", True, 1, 2, 3, 4, 0), *means("y", True, 1, 2, 3, 4, 0)]
    one = only(agree(both, {("net", "x", "auc"): x, ("net", "y", "auc"): shifted}, None))
    expected = [spearmanr(x.values[row + 5], x.values[row]).statistic for row in range(35)]
    assert one.samples == 35 and one.sample_spearman == pytest.approx(np.mean(expected))


def test_without_rows_only_the_means_are_compared() -> None:
    one = only(agree([*means("x", True, 1, 2, 3), *means("y", True, 1, 2, 3)], {}, None))
    assert (one.samples, one.sample_spearman) == (0, None)
