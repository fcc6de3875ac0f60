"""Channels to one value a pixel, values to ranks."""

import pytest
import torch

from pipeline.contracts import Reduction
from pipeline.reduction import pixel_ranks, reduce_channels

MAPS = torch.tensor([[[[1.0, -4.0]], [[2.0, 1.0]], [[-3.0, 1.0]]]])


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("sum", [0.0, -2.0]),
        ("mean", [0.0, -2 / 3]),
        ("abs_sum", [6.0, 6.0]),
        ("max_abs", [3.0, 4.0]),
        ("positive_sum", [0.0, 0.0]),
    ],
)
def test_reduction_gives(reduction: Reduction, expected: list[float]) -> None:
    assert reduce_channels(MAPS, reduction).flatten().tolist() == pytest.approx(expected)


def test_rank_zero_is_the_most_relevant_pixel() -> None:
    assert pixel_ranks(torch.tensor([[[[0.1, 0.9], [-2.0, 0.5]]]])).flatten().tolist() == [2, 0, 3, 1]


def test_ties_go_to_the_lower_pixel_index() -> None:
    assert pixel_ranks(torch.zeros(1, 1, 3, 3)).flatten().tolist() == list(range(9))
    assert pixel_ranks(torch.tensor([[[[1.0, 2.0, 1.0, 2.0, -0.0, 0.0]]]])).flatten().tolist() == [
        2,
        0,
        3,
        1,
        4,
        5,
    ]


def test_each_row_is_a_permutation() -> None:
    ranks = pixel_ranks(torch.rand(4, 1, 7, 5, generator=torch.Generator().manual_seed(0)))
    assert (ranks.flatten(1).sort(1).values == torch.arange(35)).all()
