"""A change is called one only where its whole interval says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.report.change import FEWEST, ROUNDING, Change, unpaired_interval

CHANGE = Change(
    "net", "agi", "mar", "mar", True, "samples", False, 0.5, 0.4, 40, 40, "paired", 40, -0.1, -0.12, -0.08, 0.0
)


@pytest.mark.parametrize(
    ("low", "high", "tolerance", "verdict"),
    [
        (-0.12, -0.08, 0.0, "worse"),
        (-0.12, -0.08, 0.07, "worse"),
        (-0.12, -0.08, 0.08, "unclear"),
        (-0.12, -0.08, 0.11, "unclear"),
        (-0.12, -0.08, 0.12, "same"),
        (0.08, 0.12, 0.07, "better"),
        (0.08, 0.12, 0.1, "unclear"),
        (0.08, 0.12, 0.2, "same"),
        (-0.01, 0.01, 0.0, "unclear"),
        (-0.01, 0.01, 0.01, "same"),
        (-0.3, 0.3, 0.1, "unclear"),
        (0.0, 0.0, 0.0, "same"),
    ],
)
def test_the_whole_interval_is_held_against_the_tolerance(
    low: float, high: float, tolerance: float, verdict: str
) -> None:
    one = replace(CHANGE, difference=(low + high) / 2, low=low, high=high, tolerance=tolerance)
    assert one.verdict == verdict
    turned = replace(one, higher_is_better=False, low=-high, high=-low, difference=-(low + high) / 2)
    assert turned.verdict == verdict


def test_a_difference_that_rounding_makes_is_none() -> None:
    size = 0.5 * ROUNDING
    assert replace(CHANGE, low=-0.9 * size, high=-0.8 * size).verdict == "same"
    assert replace(CHANGE, low=-1.2 * size, high=-1.1 * size).verdict == "worse"


def test_rounding_is_of_the_values_where_their_mean_is_near_zero() -> None:
    one = replace(CHANGE, before=1e-4, after=1e-4, low=-5e-8, high=-1e-8)
    assert one.verdict == "worse"
    assert replace(one, scale=0.3).verdict == "same"


def test_five_samples_tell_nothing_and_six_do() -> None:
    assert replace(CHANGE, pairs=FEWEST - 1).verdict == "unclear"
    assert replace(CHANGE, pairs=FEWEST).verdict == "worse"
    assert replace(CHANGE, pairing="unpaired", pairs=0, after_n=FEWEST - 1).verdict == "unclear"


def test_two_repeats_tell_since_their_interval_counts_them() -> None:
    repeats = replace(CHANGE, over="repeats", pairing="unpaired", pairs=0, before_n=2, after_n=2)
    assert repeats.verdict == "worse"
    assert replace(repeats, low=None, high=None).verdict == "unclear"


def test_equal_means_are_the_same_also_where_samples_cannot_be_paired() -> None:
    unpaired = replace(CHANGE, pairing="unpaired", difference=1e-9, low=-0.1, high=0.1)
    assert unpaired.verdict == "same"
    assert replace(unpaired, pairing="paired").verdict == "unclear"


def test_without_a_tolerance_nothing_is_said_but_that_the_rows_are_the_same() -> None:
    assert replace(CHANGE, tolerance=None).verdict == "unclear"
    assert replace(CHANGE, tolerance=None, pairing="same rows", difference=0.0, low=0.0, high=0.0).verdict == "same"


def test_the_control_is_no_regression() -> None:
    assert CHANGE.regression
    control = replace(CHANGE, control=True)
    assert control.verdict == "worse" and not control.regression


def test_the_interval_of_independent_means_is_the_root_of_the_sum_of_squares() -> None:
    low, high = unpaired_interval((0.5, 0.47, 0.53), (0.7, 0.66, 0.74))
    assert (low, high) == (pytest.approx(0.2 - 0.05), pytest.approx(0.2 + 0.05))


def test_of_lopsided_intervals_the_ends_that_face_each_other_count() -> None:
    # The difference is least where the second mean is low and the first one high.
    low, high = unpaired_interval((0.5, 0.42, 0.53), (0.7, 0.66, 0.82))
    assert 0.2 - low == pytest.approx((0.04**2 + 0.03**2) ** 0.5)
    assert high - 0.2 == pytest.approx((0.12**2 + 0.08**2) ** 0.5)
