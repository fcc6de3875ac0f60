"""Differences, ranks and agreement: on the page, in Markdown, and as files for programs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from html_page import Page
from pyarrow import feather
from synthetic_output import METRICS, RUN, figures, image_folder, write_run

from pipeline.data import Dataset
from pipeline.report import build_report
from pipeline.report.faithfulness import verdict
from pipeline.report.finding import find
from pipeline.report.record import read_record
from pipeline.stages.comparison import Comparison
from pipeline.stages.summarise import Summary
from pipeline.store import Output

METHODS = ("random", "worst", "good", "best")
COUNT = 24
GAIN = {"random": 0.2, "worst": 0.1, "good": 0.7, "best": 0.75}


def score(method: str, metric: str, position: int) -> float:
    """Samples differ by far more than methods; `best` and `good` swap places on every third sample."""
    gain = GAIN[method] + 0.001 * (position % 5)
    if position % 3 == 0 and method in ("good", "best"):
        gain = GAIN["good"] + GAIN["best"] - gain
    sign = 1 if METRICS[metric][1] else -1
    return 10 * (position % 7) + sign * gain


def summary(models: tuple[str, ...] = ("net",), methods: tuple[str, ...] = METHODS) -> list[Summary]:
    found = []
    for model in models:
        for method in methods:
            for metric in METRICS:
                mean = sum(score(METHODS[methods.index(method)], metric, one) for one in range(COUNT)) / COUNT
                found.append(figures(method, mean, mean - 5, mean + 5, metric=metric, model=model, n=COUNT))
    return found


def written(folder: Path, **changes: object) -> tuple[Output, Dataset]:
    names = {"cat": [f"{number:02}.png" for number in range(COUNT)]}
    config = image_folder(folder / "images", names, size=8)
    settings = {"methods": METHODS, "score": score, "summary": summary(), **changes}
    return write_run(folder / "out", config, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Output:
    output, dataset = written(tmp_path_factory.mktemp("run"))
    build_report(output, dataset=dataset, samples=0)
    return output


def file(output: Output, name: str) -> bytes:
    return output.read_bytes(f"report/{RUN}/{name}")


def page(output: Output) -> Page:
    return Page(file(output, "index.html").decode())


def table(output: Output, name: str) -> pa.Table:
    return feather.read_table(io.BytesIO(file(output, f"{name}.arrow")))


def test_the_sections_are_on_the_page(run: Output) -> None:
    found = page(run)
    sections = {one["id"] for one in found.attributes("section")}
    links = {str(one["href"]) for one in found.attributes("a")}
    assert {"differences", "ranks", "agreement"} <= sections and {"#differences", "#ranks", "#agreement"} <= links


def test_paired_samples_tell_methods_from_chance_where_intervals_overlap(run: Output) -> None:
    verdicts = [words for words in page(run).words if words in ("not clearly better than random", "worse than random")]
    # Of the first, the heading of a column and nothing else.
    assert verdicts == ["worse than random"] * len(METRICS) + ["not clearly better than random"]


def test_the_best_and_those_it_is_not_told_from_stand_first(run: Output) -> None:
    lines = file(run, "summary.md").decode().split("## Differences")[1].splitlines()
    (line,) = [one for one in lines if one.startswith("| mar")][:1]
    mean = sum(score("best", "mar", position) for position in range(COUNT)) / COUNT
    assert line == f"| mar, ↓ lower is better | best ({mean:.3f}) | good | worst |"


def test_every_pair_is_in_the_files_once(run: Output) -> None:
    rows = table(run, "comparisons").to_pylist()
    pairs = {(one["metric"], frozenset((one["first"], one["second"]))) for one in rows}
    assert len(rows) == len(pairs) == 6 * len(METRICS)
    assert {one["second"] for one in rows if one["family"] == "control"} == {"random"}
    assert file(run, "comparisons.md").decode().count("| worst | random | 24 |") == len(METRICS)


def test_the_csv_says_what_arrow_says(run: Output) -> None:
    for name in ("comparisons", "ranks", "agreement", "summary"):
        arrow = table(run, name)
        rows = list(csv.DictReader(io.StringIO(file(run, f"{name}.csv").decode())))
        assert len(rows) == arrow.num_rows > 0
        for column in rows[0]:
            values = arrow[column].to_pylist()
            if pa.types.is_floating(arrow.schema.field(column).type):
                assert [float(row[column]) if row[column] else None for row in rows] == values
            elif pa.types.is_boolean(arrow.schema.field(column).type):
                assert [row[column] == "true" for row in rows] == values
            else:
                assert [row[column] for row in rows] == ["" if one is None else str(one) for one in values]


def test_the_arrow_files_open_in_pandas_and_say_whose_they_are(run: Output) -> None:
    frame = pd.read_feather(io.BytesIO(file(run, "ranks.arrow")))
    best = frame[(frame["method"] == "best") & (frame["metric"] == "mar")]
    assert best["rank"].tolist() == [1.0] and best["mean_rank"].tolist() == [1.0]
    metadata = json.loads(table(run, "ranks").schema.metadata[b"heatline"])
    assert metadata == {"run": RUN, "table": "ranks"}


def test_the_arrow_summary_holds_the_curves(run: Output) -> None:
    rows = {(one["method"], one["metric"]): one for one in table(run, "summary").to_pylist()}
    mean = rows["good", "insertion"]["mean"]
    assert rows["good", "insertion"]["axis_shares"] == [0.0, 0.5, 1.0] and rows["good", "mar"]["curve"] == []
    assert rows["good", "insertion"]["curve"] == [0.1, mean, 0.9] and rows["good", "insertion"]["axis_names"] == []


def test_ranks_mark_the_control_and_put_the_best_first(run: Output) -> None:
    lines = file(run, "summary.md").decode().split("## Ranks")[1].splitlines()
    methods = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")][2:6]
    assert methods == ["best", "good", "random (control)", "worst"]
    assert "| best | 1.0 | 1 (1.3) | 1 (1.3) | 1 (1.3) |" in lines


def test_measures_that_order_alike_agree_fully(run: Output) -> None:
    rows = table(run, "agreement").to_pylist()
    assert len(rows) == 3
    assert {(one["methods"], one["samples"]) for one in rows} == {(3, COUNT)}
    assert {round(one["sample_spearman"], 6) for one in rows} == {1.0}


def test_the_report_of_an_old_record_is_the_same_findings(tmp_path: Path) -> None:
    output, dataset = written(tmp_path)
    record = output.run()
    new = find(output, read_record(output))
    for row in record["summary"]:
        row["fractions"] = row.pop("axis")
        for key in ("vertical", "horizontal", "by_sample", "against_chance"):
            del row[key]
    output.write_bytes(f"runs/{RUN}.json", json.dumps(record).encode())
    old = read_record(output)
    assert old.summary[0].axis == (0.0, 0.5, 1.0) and find(output, old) == new
    build_report(output, dataset=dataset, samples=0)
    assert page(output).attributes("svg") and "pixels changed, most relevant first (%)" in page(output).text


def test_names_of_blocks_on_the_axis_stay_names_in_the_record(tmp_path: Path) -> None:
    changed = summary()
    rows = [{**one.as_dict(), "axis": ["1", "2", "10"] if one.curve else []} for one in changed]
    output, _ = written(tmp_path)
    output.write_bytes(f"runs/{RUN}.json", json.dumps({**output.run(), "summary": rows}).encode())
    assert read_record(output).summary[0].axis == ("1", "2", "10")


def test_where_the_scores_are_gone_the_figures_stay(tmp_path: Path) -> None:
    output, dataset = written(tmp_path)
    for one in output.run()["variants"]:
        if one["stage"] == "evaluate":
            output.forget(one["path"])
    build_report(output, dataset=dataset, samples=0)
    found = page(output)
    assert "differences" not in {one["id"] for one in found.attributes("section")}
    # The intervals of the means overlap.
    assert found.text.count("not clearly better than random") == 3 * len(METRICS)
    assert "its interval lies clear of the random control’s" in found.text
    assert {one["sample_rank"] for one in table(output, "ranks").to_pylist()} == {None}


def test_a_run_without_figures_has_empty_files(tmp_path: Path) -> None:
    output, dataset = written(tmp_path, summary=[])
    build_report(output, dataset=dataset, samples=0)
    assert table(output, "comparisons").num_rows == 0
    assert not {"differences", "ranks", "agreement"} & {one["id"] for one in page(output).attributes("section")}
    assert file(output, "ranks.csv").decode().count("\n") == 1


def test_measures_that_a_batch_takes_together_are_not_compared_by_sample(tmp_path: Path) -> None:
    rows = [{**one.as_dict(), "by_sample": one.metric != "mar"} for one in summary()]
    output, _ = written(tmp_path)
    output.write_bytes(f"runs/{RUN}.json", json.dumps({**output.run(), "summary": rows}).encode())
    found = find(output, read_record(output))
    assert {one.metric for one in found.comparisons} == {"deletion", "insertion"}
    assert {one.samples for one in found.ranks if one.metric == "mar"} == {0}


def test_names_never_become_markup_in_the_new_sections(tmp_path: Path) -> None:
    evil = ("random", "<u>a", "<u>b|", "<u>c")
    gains = dict(zip(evil, METHODS, strict=True))
    output, dataset = written(
        tmp_path,
        models=("<u>net",),
        methods=evil,
        score=lambda method, metric, position: score(gains[method], metric, position),
        summary=summary(("<u>net",), evil),
    )
    build_report(output, dataset=dataset, samples=0)
    found = page(output)
    assert {"differences", "ranks", "agreement"} <= {one["id"] for one in found.attributes("section")}
    assert not found.attributes("u") and "<u>c" in found.text
    for name in ("summary.md", "comparisons.md"):
        assert "<u>" not in file(output, name).decode().replace("\\<u\\>", "")
        assert r"\<u\>b\|" in file(output, name).decode()


def test_the_verdict_is_by_the_paired_difference_where_there_is_one() -> None:
    method, control = figures("a", 0.1, 0.0, 0.2), figures("random", 0.5, 0.4, 0.6)
    pair = Comparison("net", "deletion", "auc", False, "control", "a", "random", 9, -0.4, -0.5, -0.3, 0.2, 0.2, 0.9)
    assert verdict(method, control) == ""
    assert verdict(method, control, pair) == "not clearly better than random"
