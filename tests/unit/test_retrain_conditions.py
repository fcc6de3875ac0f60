"""What networks were trained with, as their rows say it, and as the page, the Markdown and the console tell it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from html_page import Page
from synthetic_output import RUN, image_folder, write_run
from synthetic_retrain import add_retraining

from pipeline.report import build_report, run_dataset
from pipeline.report.record import RetrainCell, VariantEntry
from pipeline.retrain.conditions import Machine, Placed, conditions
from pipeline.retrain.grid import CELLS, Grid, read_grid
from pipeline.store import Output, open_output

CPU = {"device": "Some Processor", "devices": 1, "precision": "float32"}
ROOM = "1 MB of images, half of what is free is 9 MB"


def grid(*rows: dict[str, Any]) -> Grid:
    base = {"seconds": 2.0, "train_images": 100, "test_images": 50, "left_out": 0, "unranked": 0}
    return Grid((), pa.Table.from_pylist([{**base, **row} for row in rows], schema=CELLS))


def test_where_images_were_kept_is_counted_and_the_last_reason_told() -> None:
    held, other = ({"data": f"held: {why}"} for why in ("half of 8 MB", "half of 9 MB"))
    streamed = {"data": "streamed: memory did not suffice: 3 MB"}
    found = conditions(grid(held, streamed, other))
    assert found.placed == (Placed("held", "half of 9 MB", 2), Placed("streamed", "memory did not suffice: 3 MB", 1))
    assert found.seconds == 6.0
    assert found.sentences == [
        "images held in 2 trainings: half of 9 MB",
        "images streamed in 1 training: memory did not suffice: 3 MB",
    ]


def test_rows_that_do_not_say_where_they_were_trained_say_nothing() -> None:
    found = conditions(grid({}, {"data": None}))
    assert (found.placed, found.machines, found.sentences) == ((), (), [])


def test_one_kind_of_device_is_named_and_several_are_counted() -> None:
    pair = {"device": "Some GPU", "devices": 2, "precision": "bfloat16"}
    assert conditions(grid(CPU, CPU)).sentences == ["trained on Some Processor in float32"]
    found = conditions(grid(CPU, pair, CPU))
    assert found.machines == (Machine("Some Processor", 1, "float32", 2), Machine("Some GPU", 2, "bfloat16", 1))
    (said,) = found.sentences
    assert said.startswith("trained on Some Processor in float32 (2), 2 × Some GPU in bfloat16 (1); these round differ")


def test_images_without_an_order_are_counted_by_method_once_for_all_its_cells() -> None:
    found = conditions(grid({"method": "a", "unranked": 3}, {"method": "a", "unranked": 3}, {"method": "b"}, {}))
    assert found.unranked == {"a": 3} and not found.uneven


@pytest.mark.parametrize("column", ["train_images", "test_images"])
def test_cells_with_other_numbers_of_images_are_uneven(column: str) -> None:
    assert conditions(grid({}, {column: 49})).uneven


def test_without_a_trained_cell_there_is_nothing_to_tell() -> None:
    found = conditions(grid())
    assert (found.train_images, found.uneven, found.seconds, found.sentences) == ((0, 0), False, 0, [])


def built(folder: Path, **settings: Any) -> Output:
    config = image_folder(folder / "images", {"cat": ["0.png", "1.png"]})
    record, metrics = settings.pop("record", {}), settings.pop("metrics", {"deletion": ("auc", False)})
    output, dataset = write_run(folder / "out", config, methods=("random", "good"), metrics=metrics, **record)
    add_retraining(output, dataset, lambda *_: 0.5, methods=("random", "good"), **settings)
    build_report(output, dataset=dataset, samples=1)
    return output


def texts(output: Output) -> tuple[str, str]:
    html, markdown = (output.read_bytes(f"report/{RUN}/{name}").decode() for name in ("index.html", "summary.md"))
    return Page(html).text, markdown


def test_page_and_markdown_say_how_networks_were_trained(tmp_path: Path) -> None:
    row = {**CPU, "data": f"held: {ROOM}"}
    page, markdown = texts(built(tmp_path, row=lambda method: {**row, "unranked": 2 if method == "good" else 0}))
    assert f"Images held in 14 trainings: {ROOM}. Trained on Some Processor in float32." in page
    assert f"images held in 14 trainings: {ROOM}; trained on Some Processor in float32." in markdown
    assert "the map failed, or is the same everywhere, in 2 of good’s." in page and "good 2 images at random" in page
    assert "Images masked at random, since their map failed or is the same everywhere: good 2." in markdown
    assert "no fair comparison" not in page + markdown


def test_page_and_markdown_warn_of_networks_with_other_numbers_of_images(tmp_path: Path) -> None:
    page, markdown = texts(built(tmp_path, row=lambda method: {"train_images": 900} if method == "good" else {}))
    assert "trained on 900 to 1,000 images each" in page
    assert "their accuracies are no fair comparison" in page and "no fair comparison" in markdown


def test_a_grid_is_read_whatever_columns_its_rows_have(tmp_path: Path) -> None:
    output = open_output(tmp_path / "out", create=True)
    entries = []
    for number, row in enumerate(({"accuracy": 0.5}, {"accuracy": 0.75, "device": "Some GPU", "later": 1})):
        path = f"retrain/model=net/repeat={number}-0123abcd"
        table = pa.Table.from_pylist([{"position": 0, "id": "a", "file": None, **row}])
        output.commit(path, 0, 1, table, [], ["a"])
        entries.append(entry(path, number))
    found = read_grid(output, [*entries, entry("retrain/model=net/repeat=2-0123abcd", 2)])
    assert [cell.accuracy for cell in found.cells] == [0.5, 0.75, None]
    assert found.rows["device"].to_pylist() == [None, "Some GPU"] and found.rows["repeat"].to_pylist() == [0, 1]


def entry(path: str, repeat: int) -> Any:
    cell = RetrainCell(kind="roar", fill="mean", network="cnn", method=None, fraction=0, repeat=repeat)
    return VariantEntry(path=path, stage="retrain", model="net", cell=cell)


def test_a_control_of_retraining_alone_is_not_claimed_for_other_measures(tmp_path: Path) -> None:
    both, alone, none = (tmp_path / name for name in ("both", "alone", "none"))
    page, _ = texts(built(both))
    assert "This run has no random control" not in page and "Only the retrained networks" not in page
    page, _ = texts(without_random_scores(alone))
    assert "Only the retrained networks have a random control" in page and "mean, where there is one" in page
    assert "the control: what chance scores not scored" in page
    assert "clear of the random control" not in page and "sample by sample" not in page
    page, _ = texts(built(none, metrics={}, record={"summary": ()}))
    assert "Believe a method only where it beats the random control." in page and "not scored" not in page


def without_random_scores(folder: Path) -> Output:
    """A run whose spec has no method `random`: maps and ranks are there for the benchmark, scores are not."""
    output = built(folder)
    record = output.run(RUN)
    gone = [one for one in record["variants"] if (one["stage"], one["method"]) == ("evaluate", "random")]
    record["variants"] = [one for one in record["variants"] if one not in gone]
    record["summary"] = [one for one in record["summary"] if (one["method"], one["over"]) != ("random", "samples")]
    output.write_bytes(f"runs/{RUN}.json", json.dumps(record).encode())
    build_report(output, dataset=run_dataset(output, record), samples=1)
    return output
