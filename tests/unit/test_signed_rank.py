"""The signed-rank test is Wilcoxon's, the correction Holm's."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import rankdata, wilcoxon

from pipeline.noise import Noise
from pipeline.stages.signed_rank import EXACT, holm, signed_rank_p


def drawn(count: int, shift: float = 0.3, draw: int = 0) -> np.ndarray:
    return Noise(1).generator("differences", "a", draw).normal(shift, 1, count)


def p_of_all_signs(differences: np.ndarray) -> float:
    """Every choice of signs is as likely as any other: count those whose sum lies as far out."""
    rest = [one for one in differences if one != 0]
    ranks = rankdata(np.abs(rest))
    seen = sum(rank for rank, one in zip(ranks, rest, strict=True) if one > 0)
    sums = [sum(r for r, plus in zip(ranks, signs, strict=True) if plus) for signs in product([0, 1], repeat=len(rest))]
    above = sum(one >= seen for one in sums) / len(sums)
    below = sum(one <= seen for one in sums) / len(sums)
    return min(1.0, 2 * min(above, below))


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_differences_of_one_sign_have_the_smallest_p_there_is(count: int) -> None:
    assert signed_rank_p(np.arange(1.0, count + 1)) == pytest.approx(min(1.0, 2 / 2**count), rel=1e-12)


@pytest.mark.parametrize("draw", range(5))
def test_with_ties_and_zeros_it_is_the_count_over_all_signs(draw: int) -> None:
    differences = np.round(2 * drawn(12, draw=draw)) / 2
    assert (differences == 0).any() and len(set(np.abs(differences))) < 10
    assert signed_rank_p(differences) == pytest.approx(p_of_all_signs(differences), rel=1e-12)


@pytest.mark.parametrize("count", [8, 30, EXACT])
def test_without_ties_it_is_scipys_exact_p(count: int) -> None:
    differences = drawn(count)
    assert signed_rank_p(differences) == pytest.approx(wilcoxon(differences, method="exact").pvalue, rel=1e-9)


@pytest.mark.parametrize("decimals", [8, 1])
def test_of_many_differences_it_is_scipys_normal_p(decimals: int) -> None:
    differences = np.round(drawn(300, 0.1), decimals)
    assert decimals == 8 or (differences == 0).sum() > 2
    expected = wilcoxon(differences, method="asymptotic", correction=False).pvalue
    assert 0.001 < expected < 0.5
    assert signed_rank_p(differences) == pytest.approx(expected, rel=1e-9)


def test_zeros_do_not_count_towards_the_exact_limit() -> None:
    differences = np.concatenate([drawn(20), np.zeros(100)])
    assert signed_rank_p(differences) == pytest.approx(signed_rank_p(drawn(20)), rel=1e-12)


def test_the_sign_of_all_differences_does_not_matter() -> None:
    for count in (20, 200):
        assert signed_rank_p(-drawn(count)) == pytest.approx(signed_rank_p(drawn(count)), rel=1e-9)


@pytest.mark.parametrize("differences", [np.zeros(30), np.empty(0)])
def test_without_a_difference_p_is_one(differences: np.ndarray) -> None:
    assert signed_rank_p(differences) == 1.0


def holm_in_loops(p: list[float]) -> list[float]:
    """The smallest times m, the next times m − 1, and so on; none below one before it, none above 1."""
    corrected, largest = [0.0] * len(p), 0.0
    for step, place in enumerate(sorted(range(len(p)), key=lambda one: p[one])):
        largest = max(largest, (len(p) - step) * p[place])
        corrected[place] = min(1.0, largest)
    return corrected


def test_holm_multiplies_by_the_number_of_hypotheses_left() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])


def test_holm_is_the_same_in_loops() -> None:
    p = Noise(2).generator("p", "a").random(40) ** 3
    p[5] = p[6]
    np.testing.assert_allclose(holm(p), holm_in_loops(p.tolist()), rtol=1e-12)
    assert (holm(p) == 1).any()


def test_holm_leaves_one_hypothesis_as_it_is() -> None:
    assert holm(np.array([0.03])).tolist() == [0.03] and holm(np.empty(0)).tolist() == []
