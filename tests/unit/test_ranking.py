"""Ranks are 1 for the best by each measure, and their mean weighs metrics equally."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.noise import Noise
from pipeline.stages.ranking import Rank, rank_methods
from pipeline.stages.sample_score import SampleScores
from pipeline.stages.summarise import Summary


def means(metric: str, measure: str, higher: bool, **values: float | None) -> list[Summary]:
    return [
        Summary("net", method, metric, measure, higher, 9, 0, mean, mean, mean, (), ())
        for method, mean in values.items()
    ]


def by_method(found: list[Rank], measure: str) -> dict[str, float | None]:
    return {one.method: one.rank for one in found if one.measure == measure}


LOW = means("deletion", "auc", False, a=0.1, b=0.3, c=0.2, random=0.9)
HIGH = means("insertion", "area", True, a=0.1, b=0.3, c=0.3, random=0.2)


def test_the_best_mean_is_first_whichever_way_the_measure_points() -> None:
    found = rank_methods([*LOW, *HIGH], {}, "random")
    assert by_method(found, "auc") == {"a": 1, "b": 3, "c": 2, "random": 4}
    assert by_method(found, "area") == {"a": 4, "b": 1.5, "c": 1.5, "random": 3}


def test_the_control_is_ranked_and_marked() -> None:
    found = rank_methods(LOW, {}, "random")
    assert [one.method for one in found if one.control] == ["random"] and found[-1].rank == 4


def test_the_mean_rank_weighs_a_metric_of_many_measures_as_one() -> None:
    second = [replace(one, measure="other") for one in HIGH]
    third = [replace(one, measure="third") for one in HIGH]
    found = rank_methods([*LOW, *HIGH, *second, *third], {}, "random")
    assert {one.method: one.mean_rank for one in found} == {"a": 2.5, "b": 2.25, "c": 1.75, "random": 3.5}


def test_measures_without_chance_as_a_yardstick_are_ranked_but_not_averaged() -> None:
    time = [replace(one, metric="runtime", measure="seconds", against_chance=False) for one in HIGH]
    found = rank_methods([*LOW, *time], {}, "random")
    assert by_method(found, "seconds")["b"] == 1.5
    assert {one.method: one.mean_rank for one in found} == {"a": 1, "b": 3, "c": 2, "random": 4}
    assert {one.mean_rank for one in rank_methods(time, {}, "random")} == {None}


def test_a_method_without_a_mean_has_no_rank_and_no_mean_rank() -> None:
    found = rank_methods([*means("deletion", "auc", False, a=None, b=0.3, c=0.2), *HIGH], {}, None)
    assert by_method(found, "auc") == {"a": None, "b": 2, "c": 1}
    assert {one.method: one.mean_rank for one in found}["a"] is None
    assert {one.among for one in found if one.measure == "auc"} == {2}


def test_a_measure_that_nobody_has_takes_no_mean_rank_away() -> None:
    found = rank_methods([*means("mar", "mar", False, a=None, b=None), *LOW], {}, None)
    assert {one.method: one.mean_rank for one in found}["a"] == 1


def test_models_are_ranked_apart() -> None:
    other = [replace(one, model="other", mean=-(one.mean or 0)) for one in LOW]
    found = rank_methods([*LOW, *other], {}, "random")
    ranks = {(one.model, one.method): one.rank for one in found}
    assert (ranks["net", "a"], ranks["other", "a"]) == (1, 4)


def test_the_rank_by_sample_is_the_mean_over_samples_that_all_methods_have() -> None:
    values = np.round(Noise(1).generator("values", "a").random((50, 4)) * 5).astype(np.float32)
    values[3, 1] = values[7] = np.nan
    scores = SampleScores("net", "deletion", "auc", False, ("random", "c", "b", "a"), np.arange(50), values)
    found = rank_methods(LOW, {("net", "deletion", "auc"): scores}, "random")
    places: dict[str, list[float]] = {method: [] for method in scores.methods}
    for row in values:
        if not np.isnan(row).any():
            for method, own in zip(scores.methods, row, strict=True):
                places[method].append(sum(row < own) + (sum(row == own) + 1) / 2)
    assert {one.samples for one in found} == {48}
    for one in found:
        assert one.sample_rank == pytest.approx(np.mean(places[one.method]))


def test_without_the_samples_of_a_method_there_is_no_rank_by_sample() -> None:
    scores = SampleScores("net", "deletion", "auc", False, ("a", "b"), np.arange(1), np.ones((1, 2), np.float32))
    found = rank_methods(LOW, {("net", "deletion", "auc"): scores}, "random")
    assert {(one.sample_rank, one.samples) for one in found} == {(None, 0)}


def test_a_measure_that_one_method_tells_of_itself_ranks_nobody() -> None:
    found = rank_methods([*LOW, *means("deletion", "own", False, a=0.05)], {}, "random")
    assert {one.method: one.mean_rank for one in found} == {"a": 1, "b": 3, "c": 2, "random": 4}
