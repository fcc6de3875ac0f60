"""Pointing and localization against loops over pixels and closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import small_classifier
from torch import Tensor

from pipeline.contracts import Batch, Cost, Metric, Setting
from pipeline.metrics import Localization, Pointing
from pipeline.noise import Noise

HEIGHT, WIDTH = 9, 13
MODEL = small_classifier()


def batch_of(regions: Tensor, name: str = "object") -> Batch:
    """Images of nothing, with these regions, (B, 1, H, W) bool."""
    count, _, height, width = regions.shape
    ids = tuple(str(number) for number in range(count))
    return Batch(
        torch.zeros(count, 3, height, width), torch.zeros(count, dtype=torch.long), ids, regions={name: regions}
    )


def scored(metric: Metric, regions: Tensor, maps: Tensor) -> dict[str, Tensor]:
    return dict(metric(MODEL, batch_of(regions), maps).measures)


def place(height: int, width: int, *pixels: tuple[int, int]) -> Tensor:
    """(1, 1, H, W) with ones at some pixels."""
    found = torch.zeros(1, 1, height, width)
    for row, column in pixels:
        found[0, 0, row, column] = 1
    return found


@pytest.fixture(scope="module")
def case() -> tuple[Tensor, Tensor]:
    """Thirty regions, one of them empty, and maps with many ties."""
    ids = [str(number) for number in range(30)]
    regions = Noise(0).uniform("region", ids, (1, HEIGHT, WIDTH)) < 0.04
    regions[0] = False
    maps = (4 * Noise(1).normal("map", ids, (1, HEIGHT, WIDTH))).round()
    return regions, maps


def slow_hit(region: np.ndarray, relevance: np.ndarray, tolerance: float) -> float:
    """The pointing game, pixel by pixel."""
    height, width = region.shape
    best = (0, 0)
    for row in range(height):
        for column in range(width):
            if relevance[row, column] > relevance[best]:
                best = (row, column)
    distances = [
        math.dist(best, (row, column)) for row in range(height) for column in range(width) if region[row, column]
    ]
    if not distances:
        return math.nan
    return float(min(distances) == 0 or min(distances) < tolerance)


def slow_shares(region: np.ndarray, relevance: np.ndarray) -> tuple[float, float]:
    """Relevance mass and rank accuracy, pixel by pixel."""
    pixels = [(row, column) for row in range(region.shape[0]) for column in range(region.shape[1])]
    inside = [pixel for pixel in pixels if region[pixel]]
    if not inside:
        return math.nan, math.nan
    positive = {pixel: max(0.0, float(relevance[pixel])) for pixel in pixels}
    total = sum(positive.values())
    mass = sum(positive[pixel] for pixel in inside) / total if total else math.nan
    top = sorted(pixels, key=lambda pixel: (-relevance[pixel], pixel))[: len(inside)]
    return mass, len(set(top) & set(inside)) / len(inside)


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2, 3, 5, 100])
def test_pointing_is_the_slow_game(case: tuple[Tensor, Tensor], tolerance: float) -> None:
    regions, maps = case
    hits = scored(Pointing(tolerance=tolerance), regions, maps)["hit"]
    expected = [
        slow_hit(region, relevance, tolerance)
        for region, relevance in zip(regions[:, 0].numpy(), maps[:, 0].numpy(), strict=True)
    ]
    np.testing.assert_array_equal(hits.numpy(), expected)
    # Between the extremes some hit and some miss.
    assert tolerance in (0, 1, 100) or {0.0, 1.0} <= set(hits.tolist())


def test_a_hit_lies_less_than_the_tolerance_away() -> None:
    # 9² + 12² = 15²; (8, 12) is nearer, (10, 12) farther.
    region = place(40, 40, (20, 20)).bool().expand(3, 1, 40, 40)
    maps = torch.cat([place(40, 40, (20 - rows, 20 + 12)) for rows in (8, 9, 10)])
    assert scored(Pointing(), region, maps)["hit"].tolist() == [1, 0, 0]
    assert scored(Pointing(tolerance=15.001), region, maps)["hit"].tolist() == [1, 1, 0]


def test_of_several_largest_pixels_the_lower_index_points() -> None:
    maps = place(6, 6, (1, 4), (3, 0)).expand(2, 1, 6, 6)
    regions = torch.cat([place(6, 6, (1, 4)), place(6, 6, (3, 0))]).bool()
    assert scored(Pointing(tolerance=0), regions, maps)["hit"].tolist() == [1, 0]


def test_localization_is_the_slow_one(case: tuple[Tensor, Tensor]) -> None:
    regions, maps = case
    # One without positive relevance: a rank, but no mass.
    maps = torch.cat([maps[:-1], -1 - maps[-1:].abs()])
    regions = torch.cat([regions[:-1], place(HEIGHT, WIDTH, (2, 3), (8, 12)).bool()])
    found = scored(Localization(), regions, maps)
    slow = [
        slow_shares(region, relevance)
        for region, relevance in zip(regions[:, 0].numpy(), maps[:, 0].numpy(), strict=True)
    ]
    np.testing.assert_allclose(found["mass"].numpy(), [mass for mass, _ in slow], rtol=1e-6)
    np.testing.assert_allclose(found["rank"].numpy(), [rank for _, rank in slow], rtol=1e-6)
    assert found["mass"][-1].isnan() and not found["rank"][-1].isnan()
    assert found["rank"].isnan().nonzero().tolist() == [[0]]


def test_a_map_of_the_region_itself_has_all_its_mass_and_rank_there() -> None:
    region = torch.zeros(1, 1, 8, 8)
    region[..., 2:6, 1:4] = 1
    known = region.bool()
    both = torch.cat([region, 1 - region, 3 * region + 1])
    found = scored(Localization(), known.expand(3, 1, 8, 8), both)
    torch.testing.assert_close(found["mass"], torch.tensor([1, 0, 12 * 4 / (12 * 4 + 52)]))
    assert found["rank"].tolist() == [1, 0, 1]


def test_negative_relevance_takes_nothing_from_the_mass() -> None:
    maps = torch.tensor([[[[3.0, -5.0], [1.0, -2.0]]]])
    region = torch.tensor([[[[True, True], [False, False]]]])
    found = scored(Localization(), region, maps)
    assert found["mass"].item() == 0.75
    assert found["rank"].item() == 0.5


def test_rank_ties_go_to_the_lower_pixel() -> None:
    maps = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]]).expand(2, 1, 2, 2)
    regions = torch.tensor([[[[True, True], [False, False]]], [[[False, True], [True, False]]]])
    assert scored(Localization(), regions, maps)["rank"].tolist() == [1, 0.5]


@pytest.mark.parametrize("metric", [Pointing(), Localization()], ids=["pointing", "localization"])
def test_without_an_object_or_with_a_constant_map_there_is_no_score(metric: Metric) -> None:
    regions = torch.zeros(3, 1, 6, 6, dtype=torch.bool)
    regions[1:, :, 2:4] = True
    maps = torch.cat([Noise().normal("m", ["a"], (1, 6, 6)), torch.ones(1, 1, 6, 6), place(6, 6, (2, 2))])
    for values in metric(MODEL, batch_of(regions), maps).measures.values():
        assert values.dtype == torch.float32
        assert values.isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("kind", [Pointing, Localization])
def test_the_region_is_chosen_by_name(kind: type[Pointing] | type[Localization]) -> None:
    regions = place(6, 6, (1, 1)).bool()
    maps = place(6, 6, (1, 1))
    both = replace(batch_of(regions), regions={"object": ~regions, "shortcut": regions})
    planted = kind(region_name="shortcut")
    assert (kind().region(), planted.region()) == ("object", "shortcut")
    assert all(values.item() == 1 for values in planted(MODEL, both, maps).measures.values())
    if kind is Localization:
        assert kind()(MODEL, both, maps).measures["mass"].item() == 0
    assert planted.cost(Setting(6, 6, 6), Cost(9, 9)) == Cost()
    with pytest.raises(ValueError, match="no region 'shortcut'; known: object"):
        planted(MODEL, batch_of(regions), maps)
