"""Figures over other data are set aside: what differs between them is the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from synthetic_rerun import FIRST, compared, only, two, values, write_rerun

from jobs.cli import MISTAKE, main
from pipeline.stages.summarise import Summary
from pipeline.store import Output

Capture = pytest.CaptureFixture[str]
ELSEWHERE = {f"other/{name}": value for name, value in values(20, shift=0.5).items()}
SOURCES = "the runs are over different data: source shapes, before digits"
NO_SAMPLE = "the runs have no sample in common"


@pytest.mark.parametrize(
    ("second", "changes", "reason"),
    [
        (values(20, shift=0.5), {"source": "shapes"}, SOURCES),
        (ELSEWHERE, {"source": "shapes"}, SOURCES),
        (ELSEWHERE, {}, NO_SAMPLE),
        (values(20, shift=0.5), {"label": 3}, "samples of one name have other labels"),
        (
            values(20, shift=0.5),
            {"committed": False, "dataset_fingerprint": "other"},
            "the data sets differ, and the rows of the second run are gone",
        ),
    ],
)
def test_a_figure_over_other_data_has_no_verdict(
    second: dict[str, float], changes: dict[str, Any], reason: str, tmp_path: Path, capsys: Capture
) -> None:
    before, after = two(tmp_path, values(20), second, **changes)
    rerun = compared(before, after)
    assert rerun.changes == ()
    assert rerun.incomparable == ((("net", "agi", "deletion", "auc"), reason),)
    file = tmp_path / "a.xml"
    assert main(["compare", before.uri, after.uri, "--junit", str(file)]) == MISTAKE
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == [f"not compared, {reason}:", "  net agi: deletion auc", f"nothing compared: {reason}"]
    assert not any("better" in line or "paired" in line for line in lines)
    (case,) = ElementTree.parse(file).iter("testcase")
    assert (case[0].tag, case[0].attrib["message"]) == ("skipped", reason)


def test_another_selection_of_the_data_is_paired_and_told(tmp_path: Path, capsys: Capture) -> None:
    before, after = two(tmp_path, values(20), values(20), dataset_fingerprint="other")
    rerun = compared(before, after)
    assert not rerun.same_data and only(rerun).pairing == "paired"
    main(["compare", before.uri, after.uri])
    assert "The data sets differ: samples are paired by their ids." in capsys.readouterr().out


def test_a_few_labels_that_were_corrected_keep_no_sample_from_its_pair(tmp_path: Path) -> None:
    before, after = two(tmp_path, values(20), values(20))
    path = "scores/model=net/method=agi/metric=deletion-f0"
    table = after.read(path)
    assert table is not None
    after.forget(path)
    labels = table["label"].to_pylist()
    table = table.set_column(table.column_names.index("label"), table.schema.field("label"), [[5] * 9 + labels[9:]])
    after.commit(path, 0, 20, table, [], table["id"].to_pylist())
    assert only(compared(before, after)).pairs == 20


def of_the_batch(output: Output, run: str, mean: float) -> None:
    """Add a figure that is not counted by sample."""
    record = output.run(run)
    one = Summary("net", "agi", "runtime", "seconds", False, 20, 0, mean, mean, mean, (), (), by_sample=False)
    record["summary"].append(one.as_dict())
    output.write_bytes(f"runs/{run}.json", json.dumps(record).encode())


@pytest.mark.parametrize(("second", "compares"), [(ELSEWHERE, False), (values(20), True)])
def test_where_no_sample_is_in_common_what_is_not_counted_by_sample_is_set_aside_as_well(
    second: dict[str, float], compares: bool, tmp_path: Path
) -> None:
    before, after = two(tmp_path, values(20), second)
    of_the_batch(before, FIRST, 1.0)
    of_the_batch(after, after.runs()[-1], 2.0)
    rerun = compared(before, after, {"runtime": 0.1})
    assert ("runtime" in [one.metric for one in rerun.changes]) == compares
    assert ("runtime" in [key[2] for key, _ in rerun.incomparable]) != compares


def test_a_metric_that_looks_at_other_samples_costs_the_other_metrics_nothing(tmp_path: Path) -> None:
    before = write_rerun(tmp_path / "a", {("agi", "deletion"): values(20), ("agi", "mar"): values(20)})
    scores = {("agi", "deletion"): values(20), ("agi", "mar"): ELSEWHERE}
    after = write_rerun(tmp_path / "b", scores, run="20260108T030405.000000Z-weekly")
    rerun = compared(before, after)
    assert [one.metric for one in rerun.changes] == ["deletion"]
    assert [(key[2], reason) for key, reason in rerun.incomparable] == [("mar", NO_SAMPLE)]
