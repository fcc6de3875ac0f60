"""Retrained accuracies over repeats: intervals, differences repeat by repeat, areas, and what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.stats import t as student_t

from pipeline.retrain.estimate import estimate, standing, student
from pipeline.retrain.grid import GridCell
from pipeline.retrain.summary import Area, Benchmark, Point, area_under, benchmarks, retrain_summary

FRACTIONS = (0.1, 0.3, 0.9)
Accuracy = Callable[[str | None, float, int], float | None]


def cells(
    accuracy: Accuracy, *, kind: str = "roar", repeats: int = 3, methods: tuple[str, ...] = ("a", "random")
) -> list[GridCell]:
    arms = [(None, 0.0), *((method, fraction) for method in methods for fraction in FRACTIONS)]
    return [
        GridCell("net", "cnn", kind, method, fraction, repeat, accuracy(method, fraction, repeat))
        for method, fraction in arms
        for repeat in range(repeats)
    ]


def one(
    accuracy: Accuracy, *, kind: str = "roar", repeats: int = 3, methods: tuple[str, ...] = ("a", "random")
) -> Benchmark:
    (found,) = benchmarks(cells(accuracy, kind=kind, repeats=repeats, methods=methods), {"random"})
    return found


def point(found: Benchmark, method: str, fraction: float) -> Point:
    return next(one for one in found.points if (one.method, one.fraction) == (method, fraction))


def area(found: Benchmark, method: str) -> Area:
    return next(one for one in found.areas if one.method == method)


def falling(method: str | None, fraction: float, repeat: int) -> float:
    """Repeats differ by far more than methods; `a` lies 0.1 below random, a little less in later repeats."""
    level = {None: 0.9, "random": 0.7 - 0.2 * fraction, "a": 0.6 - 0.2 * fraction + 0.001 * repeat}[method]
    return level + 0.03 * repeat


def test_two_repeats_are_12_7_half_differences_apart_from_their_mean() -> None:
    found = estimate([0.5, 0.7])
    assert (found.n, found.mean) == (2, pytest.approx(0.6))
    # The standard error of two values is half their difference, and t with one degree of freedom is tan(0.475 π).
    assert found.half == pytest.approx(0.1 * np.tan(0.475 * np.pi))


def test_the_interval_is_scipy_s_student_interval() -> None:
    values = [0.61, 0.64, 0.58, 0.66, 0.6]
    found = estimate(values)
    error = np.std(values, ddof=1) / 5**0.5
    assert (found.low, found.high) == pytest.approx(student_t.interval(0.95, 4, np.mean(values), error))
    assert student(5) == pytest.approx(2.7764451)


def test_one_repeat_has_a_mean_and_no_interval() -> None:
    found = estimate([0.25])
    assert (found.n, found.mean, found.low, found.high, found.half) == (1, 0.25, None, None, None)


def test_equal_repeats_have_an_interval_of_no_length() -> None:
    found = estimate([0.5, 0.5, 0.5])
    assert (found.low, found.high) == (0.5, 0.5)


def test_repeats_that_agree_to_the_image_differ_by_rounding_all_the_same() -> None:
    # A value in steps of 0.01 has an error that is uniform over 0.01, of variance 0.01² / 12.
    step = 0.01 / 12**0.5
    assert estimate([0.5, 0.5], step).half == pytest.approx(student(2) * step / 2**0.5)
    assert estimate([0.4, 0.6], step) == estimate([0.4, 0.6])
    assert estimate([0.5], step).half is None


def test_the_rounding_of_an_interval_is_that_of_the_test_images_that_it_rests_on() -> None:
    def level(method: str | None, fraction: float, repeat: int) -> float:
        return {None: 0.9, "random": 0.7, "a": 0.5}[method]

    counted = [replace(cell, test_images=100) for cell in cells(level)]
    (found,) = benchmarks(counted, {"random"})
    error = 0.01 / 12**0.5 * student(3) / 3**0.5
    assert found.clean is not None and found.clean.half == pytest.approx(error)
    own = point(found, "a", 0.3)
    assert own.accuracy.half == pytest.approx(error)
    assert own.gain is not None and own.gain.half == pytest.approx(error * 2**0.5)
    # Of fractions 0.1, 0.3 and 0.9 the area weighs the first with 1/8, the second with 1/2 and the third with 3/8.
    weight = (1 / 64 + 1 / 4 + 9 / 64) ** 0.5
    whole = area(found, "a")
    assert whole.area is not None and whole.area.half == pytest.approx(error * weight)
    assert whole.gain is not None and whole.gain.half == pytest.approx(error * weight * 2**0.5)
    assert whole.drop is not None and whole.drop.half == pytest.approx(error * (weight**2 + 1) ** 0.5)


def test_the_area_of_a_straight_line_is_its_middle() -> None:
    assert area_under((0.2, 0.5, 0.9), (0.8, 0.5, 0.1)) == pytest.approx(0.45)


def test_the_area_is_the_trapezoid_over_the_range() -> None:
    fractions, accuracies = (0.1, 0.3, 0.5, 0.9), (0.8, 0.7, 0.75, 0.2)
    assert area_under(fractions, accuracies) == pytest.approx(trapezoid(accuracies, fractions) / 0.8)


def test_the_area_over_one_fraction_is_its_accuracy() -> None:
    assert area_under((0.5,), (0.37,)) == 0.37


def test_the_mean_at_a_fraction_is_over_repeats() -> None:
    found = point(one(falling), "random", 0.3)
    assert (found.accuracy.n, found.accuracy.mean) == (3, pytest.approx(0.64 + 0.03))


def test_the_drop_is_taken_repeat_by_repeat_so_that_common_luck_drops_out() -> None:
    found = point(one(falling), "random", 0.3)
    assert found.drop is not None and found.drop.mean == pytest.approx(0.9 - 0.64)
    assert found.drop.half == pytest.approx(0, abs=1e-12) and found.accuracy.half == pytest.approx(
        0.03 * student(3) / 3**0.5
    )


def test_the_gain_over_random_is_how_much_lower_the_accuracy_is() -> None:
    found = point(one(falling), "a", 0.9)
    assert found.gain is not None and found.gain.mean == pytest.approx(0.1 - 0.001)
    assert found.gain.half == pytest.approx(0.001 * student(3) / 3**0.5)
    assert point(one(falling), "random", 0.9).gain is None


def test_where_pixels_are_kept_the_gain_is_how_much_higher_it_is() -> None:
    found = one(falling, kind="kar")
    assert found.higher_is_better
    gain = area(found, "a").gain
    assert gain is not None and gain.mean == pytest.approx(-(0.1 - 0.001))
    assert area(found, "a").standing == "worse" and area(one(falling), "a").standing == "better"
    drop = area(found, "a").drop
    assert drop is not None and drop.mean == pytest.approx(area_drop())


def area_drop() -> float:
    """The clean arm − `a`, which falls straight from 0.58 to 0.42 in the first repeat."""
    return 0.9 - (0.58 + 0.42) / 2 - 0.001


def test_the_area_has_an_interval_over_repeats() -> None:
    found = area(one(falling), "random").area
    assert found is not None and found.mean == pytest.approx(0.6 + 0.03)
    assert found.half == pytest.approx(0.03 * student(3) / 3**0.5)


def test_a_method_is_better_than_random_only_where_the_interval_of_the_difference_leaves_out_zero() -> None:
    def wavering(method: str | None, fraction: float, repeat: int) -> float:
        return falling(method, fraction, repeat) + (0.2 * repeat if method == "a" else 0.0)

    found = area(one(wavering), "a")
    assert found.gain is not None and found.gain.low is not None and found.gain.low < 0 < (found.gain.high or 0)
    assert found.standing == "not told apart"


def test_nothing_is_told_from_random_with_one_repeat() -> None:
    found = area(one(falling, repeats=1), "a")
    assert found.gain is not None and found.gain.mean == pytest.approx(0.1) and found.standing == "not told apart"


def test_equal_accuracies_are_not_told_apart() -> None:
    assert area(one(lambda method, fraction, repeat: 1.0), "a").standing == "not told apart"


def test_without_a_random_arm_nothing_is_said_about_it() -> None:
    found = one(lambda method, fraction, repeat: 0.5, methods=("a", "b"))
    assert found.control is None and {area.standing for area in found.areas} == {None} and standing(None) is None


def test_differences_are_over_repeats_that_both_arms_have() -> None:
    def holes(method: str | None, fraction: float, repeat: int) -> float | None:
        gone = {("random", 0.3, 0), ("a", 0.3, 1), (None, 0.0, 2)}
        return None if (method, fraction, repeat) in gone else falling(method, fraction, repeat)

    found = point(one(holes), "a", 0.3)
    assert found.accuracy.n == 2 and found.accuracy.mean == pytest.approx(0.54 + (0.0 + 0.062) / 2)
    # Random has repeats 1 and 2, the method 0 and 2, the clean arm 0 and 1.
    assert found.gain is not None and (found.gain.n, found.gain.mean) == (1, pytest.approx(0.1 - 0.002))
    assert found.drop is not None and (found.drop.n, found.drop.mean) == (1, pytest.approx(0.9 - 0.54))


def test_an_area_is_over_repeats_that_have_every_planned_fraction() -> None:
    found = one(
        lambda method, fraction, repeat: (
            None if (method, fraction, repeat) == ("a", 0.9, 1) else falling(method, fraction, repeat)
        )
    )
    own = area(found, "a")
    assert own.area is not None and (own.area.n, own.incomplete) == (2, 1)
    assert own.area.mean == pytest.approx(0.5 + (0.0 + 0.062) / 2)


def test_a_fraction_that_nobody_has_trained_leaves_no_areas() -> None:
    found = one(lambda method, fraction, repeat: None if fraction == 0.9 else falling(method, fraction, repeat))
    assert found.fractions == FRACTIONS and {one.area for one in found.areas} == {None}
    assert len(found.points) == 4 and area(found, "a").standing is None


def test_without_a_clean_arm_there_is_no_drop() -> None:
    found = one(lambda method, fraction, repeat: None if method is None else falling(method, fraction, repeat))
    assert found.clean is None and point(found, "a", 0.1).drop is None and area(found, "a").gain is not None


def test_networks_and_models_are_benchmarks_of_their_own() -> None:
    first = cells(falling)
    second = [replace(cell, network="resnet") for cell in first]
    other = [replace(cell, model="other") for cell in first]
    found = benchmarks([*first, *second, *other], {"random"})
    assert [(one.model, one.network) for one in found] == [("net", "cnn"), ("net", "resnet"), ("other", "cnn")]
    assert list(dict.fromkeys(row.measure for row in retrain_summary(found))) == [
        "accuracy cnn",
        "accuracy resnet",
        "accuracy",
    ]


def test_the_summary_is_the_area_over_repeats() -> None:
    row = retrain_summary([one(falling)])[0]
    assert (row.model, row.method, row.metric, row.measure, row.over) == ("net", "a", "roar", "accuracy", "repeats")
    assert (row.n, row.missing, row.higher_is_better, row.by_sample, row.against_chance) == (3, 0, False, False, True)
    assert row.mean == pytest.approx(0.5 + 0.031) and row.axis == FRACTIONS
    assert row.curve == pytest.approx((0.58 + 0.031, 0.54 + 0.031, 0.42 + 0.031))
    assert retrain_summary([one(falling, kind="kar")])[0].higher_is_better


def test_a_method_without_an_area_is_in_the_summary_without_a_mean() -> None:
    rows = retrain_summary(
        [one(lambda method, fraction, repeat: None if method == "a" else falling(method, fraction, repeat))]
    )
    assert (rows[0].method, rows[0].n, rows[0].missing, rows[0].mean, rows[0].curve) == ("a", 0, 3, None, ())
