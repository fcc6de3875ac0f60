"""Two runs are compared sample by sample where their samples are the same, and it is said where they are not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap
from synthetic_rerun import FIRST, SECOND, commit_scores, compared, figures, only, two, values, write_rerun

from pipeline.stages.summarise import Summary


def test_the_difference_is_of_samples_with_the_same_id_wherever_they_stand(tmp_path: Path) -> None:
    old = {"a": 0.1, "b": 0.4, "c": None, "d": 0.9, "e": 0.2}
    new = {"d": 0.8, "x": 0.0, "a": 0.5, "c": 0.3, "b": None}
    one = only(compared(*two(tmp_path, old, new)))
    assert (one.pairing, one.pairs, one.before_n, one.after_n) == ("paired", 2, 4, 4)
    assert one.difference == pytest.approx(((0.5 - 0.1) + (0.8 - 0.9)) / 2, abs=1e-7)
    assert (one.before, one.after) == (pytest.approx(1.6 / 4), pytest.approx(1.6 / 4))


def test_the_interval_is_scipys_paired_bootstrap(tmp_path: Path) -> None:
    old, new = values(80), values(80, shift=-0.05, spread=0.1)
    one = only(compared(*two(tmp_path, old, new)))
    differences = np.array(list(new.values())) - np.array(list(old.values()))
    found = bootstrap((differences,), np.mean, method="percentile", n_resamples=20_000, rng=0).confidence_interval
    length = found.high - found.low
    assert one.low == pytest.approx(found.low, abs=0.08 * length)
    assert one.high == pytest.approx(found.high, abs=0.08 * length)
    assert one.difference == pytest.approx(differences.mean())


def test_pairs_find_what_the_intervals_of_means_cannot(tmp_path: Path) -> None:
    before, after = two(tmp_path, values(100), values(100, shift=-0.01, spread=0.01))
    one = only(compared(before, after))
    assert one.verdict == "worse" and one.regression
    after.forget("scores/model=net/method=agi/metric=deletion-f0")
    assert only(compared(before, after)).verdict == "unclear"


def test_runs_of_one_output_that_share_their_rows_have_not_moved(tmp_path: Path) -> None:
    scores = {("agi", "deletion"): values(9)}
    output = write_rerun(tmp_path / "a", scores)
    write_rerun(tmp_path / "a", scores, run=SECOND)
    # Nothing has to be read for that.
    output.forget("scores/model=net/method=agi/metric=deletion-f0")
    one = only(compared(output, output))
    assert (one.pairing, one.pairs, one.difference, one.low, one.high) == ("same rows", 9, 0, 0, 0)
    assert one.verdict == "same"


def test_runs_of_one_output_with_other_settings_are_paired(tmp_path: Path) -> None:
    output = write_rerun(tmp_path / "a", {("agi", "deletion"): values(9)})
    write_rerun(tmp_path / "a", {("agi", "deletion"): values(9, shift=0.25)}, run=SECOND, fingerprint="f1")
    one = only(compared(output, output))
    assert (one.pairing, one.verdict) == ("paired", "better")
    assert one.difference == pytest.approx(0.25, abs=1e-6)


def test_more_samples_of_the_same_rows_differ_by_nothing(tmp_path: Path) -> None:
    many = values(9)
    few = dict(list(many.items())[:7])
    output = write_rerun(tmp_path / "a", {("agi", "deletion"): few}, committed=False)
    write_rerun(tmp_path / "a", {("agi", "deletion"): many}, run=SECOND)
    one = only(compared(output, output))
    assert (one.pairing, one.pairs, one.difference, one.verdict) == ("paired", 7, 0, "same")


def test_equal_rows_of_two_outputs_differ_by_exactly_nothing(tmp_path: Path) -> None:
    one = only(compared(*two(tmp_path, values(30), values(30))))
    assert (one.pairing, one.difference, one.low, one.high, one.verdict) == ("paired", 0, 0, 0, "same")


def test_rows_that_were_computed_again_are_not_taken_for_the_first_runs(tmp_path: Path) -> None:
    path = "scores/model=net/method=agi/metric=deletion-f0"
    output = write_rerun(tmp_path / "a", {("agi", "deletion"): values(40)})
    output.forget(path)
    write_rerun(tmp_path / "a", {("agi", "deletion"): values(40, shift=-0.5)}, run=SECOND)
    one = only(compared(output, output))
    assert (one.pairing, one.pairs) == ("unpaired", 0)
    assert one.note == "the rows of the first run were computed again since"
    old, new = figures("agi", "deletion", values(40)), figures("agi", "deletion", values(40, shift=-0.5))
    assert old.mean is not None and new.mean is not None and old.high is not None and new.low is not None
    assert one.difference == pytest.approx(new.mean - old.mean)
    assert one.low == pytest.approx(new.mean - old.mean - np.hypot(new.mean - new.low, old.high - old.mean))
    assert one.verdict == "worse"


def test_rows_that_are_gone_cannot_be_paired_which_is_said(tmp_path: Path) -> None:
    one = only(compared(*two(tmp_path, values(20), values(20), committed=False)))
    assert (one.pairing, one.note) == ("unpaired", "the rows of the second run are gone")


def test_samples_of_which_another_class_is_explained_are_counted(tmp_path: Path) -> None:
    assert only(compared(*two(tmp_path, values(20), values(20), target=1))).retargeted == 20
    assert only(compared(*two(tmp_path / "c", values(20), values(20)))).retargeted == 0


def spec(metric: Mapping[str, Any], method: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {
        "metrics": [{"id": "deletion", "config": {"name": "deletion", **metric}}],
        "methods": [{"id": "agi", "config": {"name": "agi", **(method or {})}}],
    }


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (
            spec({"step": 1, "fill": "mean"}),
            spec({"step": 2, "fill": "black"}),
            "deletion is set otherwise: fill, step",
        ),
        (
            spec({}, {"target": "predicted"}),
            spec({}, {"target": "label"}),
            "agi explains another class: target label, before predicted",
        ),
    ],
)
def test_figures_that_do_not_measure_the_same_are_set_aside(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], reason: str
) -> None:
    before = write_rerun(tmp_path / "a", {("agi", "deletion"): values(9)}, spec=first)
    after = write_rerun(tmp_path / "b", {("agi", "deletion"): values(9)}, run=SECOND, spec=second)
    rerun = compared(before, after)
    assert rerun.changes == ()
    assert rerun.incomparable == ((("net", "agi", "deletion", "auc"), reason),)


def test_a_measure_that_was_turned_round_is_set_aside(tmp_path: Path) -> None:
    ((_, reason),) = compared(*two(tmp_path, values(9), values(9), higher=False)).incomparable
    assert reason == "the measure points the other way"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (spec({"samples": 16}), spec({"samples": 64})),
        (spec({"step": 1}), spec({"step": 1, "added_since": 3})),
        (spec({}, {"steps": 5, "target": "label"}), spec({}, {"steps": 50, "target": "label"})),
    ],
    ids=["more samples", "a setting of a later version", "another setting of the method"],
)
def test_what_does_not_change_the_measure_is_compared(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    before = write_rerun(tmp_path / "a", {("agi", "deletion"): values(9)}, spec=first)
    after = write_rerun(tmp_path / "b", {("agi", "deletion"): values(9)}, run=SECOND, spec=second)
    assert only(compared(before, after)).pairing == "paired"


def test_what_the_machine_has_a_part_in_needs_a_tolerance_of_its_own(tmp_path: Path) -> None:
    before = write_rerun(tmp_path / "a", {("agi", "runtime"): values(20)}, by_sample=False, higher=False)
    slower = {("agi", "runtime"): values(20, shift=5)}
    after = write_rerun(tmp_path / "b", slower, run=SECOND, by_sample=False, higher=False)
    assert only(compared(before, after, {"default": 1.0})).verdict == "unclear"
    assert only(compared(before, after, {"runtime": 1.0})).verdict == "worse"
    one = only(compared(before, after, {"runtime auc": 9.0, "runtime": 1.0}))
    assert (one.verdict, one.pairing, one.tolerance) == ("same", "unpaired", 9.0)


def test_the_nearest_tolerance_counts(tmp_path: Path) -> None:
    before, after = two(tmp_path, values(9), values(9))
    told = {"default": 1.0, "deletion": 2.0, "deletion auc": 3.0}
    found = []
    for name in ("deletion auc", "deletion", "default", ""):
        found.append(only(compared(before, after, told)).tolerance)
        told.pop(name, None)
    assert found == [3.0, 2.0, 1.0, 0.0]


def retrained(method: str, mean: float, half: float | None, n: int = 3) -> Summary:
    ends = (None, None) if half is None else (mean - half, mean + half)
    return Summary("net", method, "roar", "accuracy", False, n, 0, mean, *ends, (), (), by_sample=False, over="repeats")


def cell(method: str | None, fingerprint: str) -> dict[str, Any]:
    told = {"kind": "roar", "fill": "mean", "network": "cnn", "method": method, "fraction": 0.5, "repeat": 0}
    path = f"retrain/{method}-{fingerprint}"
    entry = {"path": path, "stage": "retrain", "model": "net", "method": method, "metric": None, "total": 1}
    return {**entry, "fingerprint": fingerprint, "cell": told}


def test_retrained_networks_are_compared_by_the_intervals_of_their_repeats(tmp_path: Path) -> None:
    before = write_rerun(tmp_path / "a", {}, further=[retrained("agi", 0.3, 0.03)])
    after = write_rerun(tmp_path / "b", {}, run=SECOND, further=[retrained("agi", 0.4, 0.04)])
    one = only(compared(before, after))
    assert (one.over, one.pairing, one.note) == ("repeats", "unpaired", "")
    assert (one.low, one.high, one.verdict) == (pytest.approx(0.05), pytest.approx(0.15), "worse")
    assert only(compared(before, after, {"roar": 0.16})).verdict == "same"


def test_one_repeat_has_no_interval_and_no_verdict(tmp_path: Path) -> None:
    before = write_rerun(tmp_path / "a", {}, further=[retrained("agi", 0.3, None, 1)])
    after = write_rerun(tmp_path / "b", {}, run=SECOND, further=[retrained("agi", 0.9, None, 1)])
    one = only(compared(before, after))
    assert (one.difference, one.low, one.verdict) == (pytest.approx(0.6), None, "unclear")


@pytest.mark.parametrize(("clean", "pairing"), [("c0", "same rows"), ("c1", "unpaired")])
def test_the_same_trainings_are_the_same_rows_the_clean_arm_included(tmp_path: Path, clean: str, pairing: str) -> None:
    figure = retrained("agi", 0.3, 0.03)
    output = write_rerun(tmp_path / "a", {}, further=[figure], variants=[cell(None, "c0"), cell("agi", "f0")])
    variants = [cell(None, clean), cell("agi", "f0")]
    write_rerun(tmp_path / "a", {}, run=SECOND, further=[figure], variants=variants)
    assert only(compared(output, output)).pairing == pairing


def test_figures_of_one_run_alone_are_listed(tmp_path: Path) -> None:
    before = write_rerun(tmp_path / "a", {("agi", "mar"): values(9), ("gone", "mar"): values(9)})
    after = write_rerun(tmp_path / "b", {("new", "mar"): values(9), ("agi", "mar"): values(9)}, run=SECOND)
    rerun = compared(before, after)
    assert [one.method for one in rerun.changes] == ["agi"]
    assert rerun.only_before == (("net", "gone", "mar", "auc"),)
    assert rerun.only_after == (("net", "new", "mar", "auc"),)


def test_the_control_comes_last_and_is_no_regression(tmp_path: Path) -> None:
    before = write_rerun(tmp_path / "a", {("random", "mar"): values(9), ("agi", "mar"): values(9)})
    worse = {("random", "mar"): values(9, shift=-1), ("agi", "mar"): values(9, shift=-1)}
    rerun = compared(before, write_rerun(tmp_path / "b", worse, run=SECOND))
    assert [(one.method, one.verdict) for one in rerun.changes] == [("agi", "worse"), ("random", "worse")]
    assert [one.method for one in rerun.regressions] == ["agi"]


def test_several_measures_of_a_metric_are_each_their_own(tmp_path: Path) -> None:
    before, after = two(tmp_path, values(9), values(9, shift=1))
    for output, run in ((before, FIRST), (after, SECOND)):
        record = output.run(run)
        (row,) = record["summary"]
        record["summary"] = [{**row, "measure": "other"}, row]
        output.write_bytes(f"runs/{run}.json", json.dumps(record).encode())
    other, auc = compared(before, after).changes
    # The rows hold one measure alone; of the other the records' figures are left.
    assert (other.measure, other.pairing) == ("other", "unpaired")
    assert (auc.measure, auc.pairing, auc.difference) == ("auc", "paired", pytest.approx(1))


def test_the_same_runs_give_the_same_comparison(tmp_path: Path) -> None:
    before, after = two(tmp_path, values(40), values(40, shift=0.1, spread=0.1))
    again = compared(before, after)
    assert compared(before, after).changes == again.changes


def test_how_rows_are_parted_does_not_change_the_comparison(tmp_path: Path) -> None:
    old, new = values(20), values(20, shift=0.1, spread=0.1)
    whole = only(compared(*two(tmp_path, old, new)))
    before, after = two(tmp_path / "parts", old, new, committed=False)
    path = "scores/model=net/method=agi/metric=deletion-f0"
    for start, stop in ((0, 8), (8, 20)):
        commit_scores(after, path, "agi", "deletion", dict(list(new.items())[start:stop]), start=start)
    assert only(compared(before, after)) == whole


def test_a_record_without_fingerprints_is_paired(tmp_path: Path) -> None:
    scores = {("agi", "mar"): values(9)}
    output = write_rerun(tmp_path / "a", scores)
    write_rerun(tmp_path / "a", scores, run=SECOND)
    for run in (FIRST, SECOND):
        record = output.run(run)
        del record["variants"][0]["fingerprint"]
        output.write_bytes(f"runs/{run}.json", json.dumps(record).encode())
    assert only(compared(output, output)).pairing == "paired"
