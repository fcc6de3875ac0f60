"""Scores of several methods are put side by side by position."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.stages.sample_score import read_sample_scores
from pipeline.stages.summarise import Summary
from pipeline.store import Output, open_output

Rows = Mapping[int, Mapping[str, float | None]]


def entry(method: str, measure: str, model: str = "net", higher: bool = False) -> Summary:
    return Summary(model, method, "game", measure, higher, 1, 0, 0.0, 0.0, 0.0, (), ())


def commit(output: Output, path: str, start: int, stop: int, rows: Rows) -> None:
    flat = [(position, measure, value) for position, found in rows.items() for measure, value in found.items()]
    table = pa.table(
        {
            "position": [position for position, _, _ in flat],
            "id": [f"s{position}" for position, _, _ in flat],
            "measure": pa.array([measure for _, measure, _ in flat]).dictionary_encode(),
            "value": pa.array([value for _, _, value in flat], pa.float32()),
        }
    )
    output.commit(path, start, stop, table, [], [f"s{position}" for position in rows])


@pytest.fixture
def output(tmp_path: Path) -> Output:
    found = open_output(tmp_path / "out", create=True)
    # The two parts name their measures in another order, so that their dictionaries differ.
    commit(found, "scores/a", 0, 2, {0: {"auc": 0.1, "ratio": 10}, 1: {"auc": None, "ratio": 11}})
    commit(found, "scores/a", 2, 4, {2: {"ratio": 12, "auc": 0.3}, 3: {"ratio": 13, "auc": 0.4}})
    commit(found, "scores/b", 0, 4, {1: {"auc": 1.1, "ratio": None}, 3: {"auc": 1.3, "ratio": None}})
    return found


VARIANTS = {("net", "a", "game"): ("scores/a", 4), ("net", "b", "game"): ("scores/b", 4)}
SUMMARY = [entry(method, measure) for method in "ab" for measure in ("auc", "ratio")]


def test_values_of_several_parts_stand_beside_those_of_the_same_sample(output: Output) -> None:
    auc, ratio = read_sample_scores(output, SUMMARY, VARIANTS)
    assert (auc.measure, auc.methods, auc.positions.tolist()) == ("auc", ("a", "b"), [0, 1, 2, 3])
    nan = np.nan
    np.testing.assert_allclose(auc.values, [[0.1, nan], [nan, 1.1], [0.3, nan], [0.4, 1.3]], rtol=1e-6)
    np.testing.assert_allclose(ratio.values, [[10, nan], [11, nan], [12, nan], [13, nan]])


def test_positions_past_the_selections_end_do_not_count(output: Output) -> None:
    shorter = {key: (path, 3) for key, (path, _) in VARIANTS.items()}
    assert read_sample_scores(output, SUMMARY, shorter)[0].positions.tolist() == [0, 1, 2]


def test_methods_come_in_the_order_of_the_summary_and_measures_point_as_it_says(output: Output) -> None:
    turned = [entry(method, "auc", higher=True) for method in "ba"]
    (auc,) = read_sample_scores(output, turned, VARIANTS)
    assert auc.methods == ("b", "a") and auc.higher_is_better
    np.testing.assert_array_equal(auc.gains, auc.values)


def test_gains_are_better_the_higher_they_are(output: Output) -> None:
    auc, _ = read_sample_scores(output, SUMMARY, VARIANTS)
    np.testing.assert_array_equal(auc.gains, -auc.values)


def test_complete_samples_are_those_that_all_the_methods_have(output: Output) -> None:
    auc, _ = read_sample_scores(output, SUMMARY, VARIANTS)
    positions, gains = auc.complete(["b", "a"])
    assert positions.tolist() == [3]
    np.testing.assert_allclose(gains, [[-1.3, -0.4]], rtol=1e-6)


def test_a_method_whose_rows_are_gone_is_left_out(output: Output) -> None:
    output.forget("scores/b")
    auc, _ = read_sample_scores(output, SUMMARY, VARIANTS)
    assert auc.methods == ("a",)
    output.forget("scores/a")
    assert read_sample_scores(output, SUMMARY, VARIANTS) == []


def test_a_method_that_the_run_did_not_score_is_left_out(output: Output) -> None:
    summary = [*SUMMARY, entry("c", "auc"), entry("a", "auc", model="other")]
    found = read_sample_scores(output, summary, VARIANTS)
    assert [(one.model, one.measure, one.methods) for one in found] == [
        ("net", "auc", ("a", "b")),
        ("net", "ratio", ("a", "b")),
    ]
