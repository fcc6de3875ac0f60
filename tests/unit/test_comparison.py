"""Differences between methods are taken sample by sample, and called clear only where all signs agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import bootstrap, wilcoxon

from pipeline.noise import Noise
from pipeline.stages.comparison import LARGE, Comparison, compare, paired_intervals
from pipeline.stages.sample_score import SampleScores

NAN = float("nan")


def scores(higher: bool = True, **columns: list[float] | np.ndarray) -> SampleScores:
    values = np.stack([np.asarray(one, np.float32) for one in columns.values()], axis=1)
    return SampleScores("net", "metric", "measure", higher, tuple(columns), np.arange(len(values)), values)


def drawn(count: int, draw: int = 0) -> np.ndarray:
    return Noise(4).generator("values", "a", draw).normal(size=count).astype(np.float32)


def only(found: list[Comparison]) -> Comparison:
    (one,) = found
    return one


def test_the_difference_is_of_means_and_equal_samples_count_half() -> None:
    one = only(compare(scores(a=[1, 2, 3, 4], b=[0, 2, 5, 1]), None, Noise()))
    assert (one.first, one.second, one.n, one.difference, one.share) == ("a", "b", 4, 0.5, (2 + 0.5) / 4)


def test_where_lower_is_better_the_difference_keeps_its_sign_and_the_share_turns() -> None:
    one = only(compare(scores(False, a=[1, 2, 3, 4], b=[0, 2, 5, 1]), None, Noise()))
    assert (one.difference, one.share) == (0.5, (1 + 0.5) / 4)


def test_only_samples_that_both_have_are_paired() -> None:
    found = compare(scores(a=[NAN, 2, 3, 9], b=[7, 1, 2, NAN], c=[1, 1, 1, 1]), None, Noise())
    pairs = {(one.first, one.second): (one.n, one.difference) for one in found}
    assert pairs == {
        ("a", "b"): (2, 1.0),
        ("a", "c"): (3, pytest.approx(11 / 3)),
        ("b", "c"): (3, pytest.approx(7 / 3)),
    }


def test_p_is_that_of_scipys_signed_rank_test() -> None:
    a, b = drawn(40) + np.float32(0.3), drawn(40, 1)
    one = only(compare(scores(a=a, b=b), None, Noise()))
    assert one.p == pytest.approx(wilcoxon(a.astype(float) - b, method="exact").pvalue, rel=1e-9)


def test_the_interval_is_scipys_paired_bootstrap() -> None:
    a, b = drawn(80) ** 2, drawn(80, 1)
    one = only(compare(scores(a=a, b=b), None, Noise()))
    resampled = bootstrap((a.astype(float) - b,), np.mean, method="percentile", n_resamples=20_000, rng=0)
    low, high = resampled.confidence_interval
    assert (one.low, one.high) == (
        pytest.approx(low, abs=0.08 * (high - low)),
        pytest.approx(high, abs=0.08 * (high - low)),
    )


def test_the_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    covered = 0
    for draw in range(300):
        values = Noise(5).generator("values", "a", draw).exponential(size=(60, 2)) + np.array([0.2, 0.0])
        ((low, high),) = paired_intervals(values, [(0, 1)], Noise(6).generator("b", "a", draw))
        covered += low <= 0.2 <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_shared_samples_make_the_interval_narrow() -> None:
    base = drawn(100)
    one = only(compare(scores(a=base + 0.1 + 0.01 * drawn(100, 1), b=base), None, Noise()))
    assert one.low is not None and one.high is not None
    assert 0.09 < one.low < 0.1 < one.high < 0.11 and base.std() > 0.5


def test_the_interval_of_many_samples_is_the_normal_one() -> None:
    values = np.stack([drawn(LARGE), drawn(LARGE, 1)], axis=1).astype(np.float64)
    ((low, high),) = paired_intervals(values, [(0, 1)], Noise().generator("b", "a"))
    differences = values[:, 0] - values[:, 1]
    assert (low + high) / 2 == pytest.approx(differences.mean(), abs=1e-12)
    assert high - low == pytest.approx(2 * 1.959964 * differences.std(ddof=1) / LARGE**0.5)


def test_the_interval_of_samples_just_below_that_is_nearly_the_normal_one() -> None:
    values = np.stack([drawn(LARGE - 1), drawn(LARGE - 1, 1)], axis=1).astype(np.float64)
    ((low, high),) = paired_intervals(values, [(0, 1)], Noise().generator("b", "a"))
    assert high - low == pytest.approx(2 * 1.96 * (values[:, 0] - values[:, 1]).std() / LARGE**0.5, rel=0.1)


def test_equal_methods_differ_by_exactly_nothing() -> None:
    columns = {name: drawn(33) for name in "abcdefg"}
    for one in compare(scores(**columns), None, Noise()):
        assert (one.difference, one.low, one.high, one.p, one.share, one.better) == (0, 0, 0, 1, 0.5, None)


def test_a_pair_does_not_depend_on_the_other_methods() -> None:
    a, b, c = drawn(50), drawn(50, 1), drawn(50, 2)
    c[3] = NAN
    alone = only(compare(scores(a=a, b=b), None, Noise()))
    among = next(one for one in compare(scores(a=a, c=c, b=b), None, Noise()) if (one.first, one.second) == ("a", "b"))
    assert replace(among, corrected=None) == replace(alone, corrected=None)


def test_methods_and_control_are_families_of_their_own() -> None:
    columns = {name: drawn(30, place) + 0.25 * place for place, name in enumerate(("random", "a", "b", "c"))}
    found = compare(scores(**columns), "random", Noise())
    pairs = [(one.family, one.first, one.second) for one in found]
    assert pairs == [
        *[("methods", *pair) for pair in (("a", "b"), ("a", "c"), ("b", "c"))],
        *[("control", method, "random") for method in "abc"],
    ]
    for family in ("methods", "control"):
        p = sorted((one.p, one.corrected) for one in found if one.family == family and one.p and one.corrected)
        largest = 0.0
        for place, (raw, corrected) in enumerate(p):
            largest = max(largest, min(1.0, raw * (3 - place)))
            assert corrected == pytest.approx(largest)


def test_a_control_that_was_not_run_leaves_the_pairs() -> None:
    found = compare(scores(a=drawn(9), b=drawn(9, 1)), "random", Noise())
    assert [one.family for one in found] == ["methods"]


def test_without_a_common_sample_nothing_is_said_and_nothing_corrected_for() -> None:
    found = compare(scores(a=[1, 2, NAN, NAN], b=[NAN, NAN, 1, 2], c=[0, 1, 0, 2]), None, Noise())
    empty = next(one for one in found if one.n == 0)
    assert (empty.first, empty.second) == ("a", "b")
    assert {empty.difference, empty.low, empty.high, empty.p, empty.corrected, empty.share, empty.better} == {None}
    rest = [one for one in found if one.n]
    assert [one.corrected for one in rest] == [min(1.0, 2 * float(one.p or 0)) for one in rest]


CLEAR = Comparison("net", "m", "m", True, "methods", "a", "b", 40, 0.2, 0.1, 0.3, 0.001, 0.01, 0.8)


def test_a_clear_difference_names_the_better_method() -> None:
    assert CLEAR.better == "a" and CLEAR.seen_from("b").better == "a"
    assert replace(CLEAR, higher_is_better=False, share=0.2).better == "b"


@pytest.mark.parametrize(
    "change",
    [{"corrected": 0.05}, {"low": -0.01}, {"low": 0.0}, {"share": 0.5}, {"share": 0.4}],
    ids=["p", "interval", "interval at zero", "half of the samples", "fewer samples"],
)
def test_a_difference_is_not_clear_where_one_of_three_disagrees(change: dict[str, float]) -> None:
    assert replace(CLEAR, **change).better is None  # type: ignore[arg-type]


def test_seen_from_the_second_everything_turns() -> None:
    turned = CLEAR.seen_from("b")
    assert (turned.first, turned.second, turned.difference, turned.low, turned.high) == ("b", "a", -0.2, -0.3, -0.1)
    assert turned.share == pytest.approx(0.2) and turned.p == CLEAR.p
