"""Remove and retrain on the page, in Markdown, and as files for programs."""

from __future__ import annotations

import base64
import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from html_page import Page
from PIL import Image
from pyarrow import feather
from synthetic_output import RUN, figures, image_folder, stored_map, write_run
from synthetic_retrain import FILL, Accuracy, add_retraining

from jobs.cli import main
from pipeline.data import Dataset
from pipeline.report import build_report, view_sample
from pipeline.report.faithfulness import verdict
from pipeline.report.record import read_record
from pipeline.retrain.grid import read_grid
from pipeline.stages.ranking import rank_methods
from pipeline.store import Output

METHODS = ("random", "good", "bad")
SIZE = 16
LEVEL = {None: 0.9, "random": 0.6, "good": 0.4, "bad": 0.8}


def accuracy(method: str | None, fraction: float, repeat: int) -> float:
    """Straight lines; `good` lies 20 points below random, `bad` 20 above, and the second repeat is 2 points better."""
    return LEVEL[method] - 0.2 * fraction + 0.02 * repeat + (0.002 * repeat if method in ("good", "bad") else 0)


def written(folder: Path, accuracy: Accuracy = accuracy, **settings: object) -> tuple[Output, Dataset]:
    names = {"cat": [f"{number}.png" for number in range(4)]}
    changes = settings.pop("record", {})
    methods = settings.setdefault("methods", METHODS)
    config = image_folder(folder / "images", names, size=SIZE)
    output, dataset = write_run(folder / "out", config, methods=methods, **changes)  # type: ignore[arg-type]
    return add_retraining(output, dataset, accuracy, **settings), dataset  # type: ignore[arg-type]


def built(folder: Path, accuracy: Accuracy = accuracy, **settings: object) -> Output:
    output, dataset = written(folder, accuracy, **settings)
    build_report(output, dataset=dataset, samples=1)
    return output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return built(tmp_path_factory.mktemp("run"))


def file(output: Output, name: str) -> bytes:
    return output.read_bytes(f"report/{RUN}/{name}")


def page(output: Output) -> Page:
    return Page(file(output, "index.html").decode())


def markdown(output: Output) -> list[str]:
    return file(output, "summary.md").decode().splitlines()


def table(output: Output, name: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = feather.read_table(io.BytesIO(file(output, f"{name}.arrow"))).to_pylist()
    return rows


def test_the_section_is_on_the_page_and_linked(run: Output) -> None:
    found = page(run)
    assert "retrain" in {one["id"] for one in found.attributes("section")}
    assert found.words.count("Remove and retrain") >= 2  # link and heading
    assert "#retrain" in {one["href"] for one in found.attributes("a")}
    assert "20 networks were trained on 1,000 images each, in 30 s of training in all, and tested on 400." in found.text


def test_a_run_without_retraining_has_neither_section_nor_files(tmp_path: Path) -> None:
    output, dataset = write_run(tmp_path / "out", image_folder(tmp_path / "images", {"cat": ["0.png"]}))
    build_report(output, dataset=dataset, samples=1)
    assert "retrain" not in {one["id"] for one in page(output).attributes("section")}
    assert not [name for name, _ in output.list(f"report/{RUN}") if "retrain" in name]


def test_the_markdown_table_has_accuracies_with_half_their_interval_and_clean_on_top(run: Output) -> None:
    lines = [line for line in markdown(run)[markdown(run).index("## Remove and retrain") :] if line.startswith("|")]
    # Of two repeats 0.02 apart: t with one degree of freedom is 12.706, the standard error 0.01.
    clean = "91.0 ± 12.7"
    assert lines[0] == "| method | 25 % | 50 % | 75 % | area, ↓ lower is better | gain over random | against random |"
    assert lines[2] == f"| clean | {clean} | {clean} | {clean} | {clean} |  |  |"
    assert lines[3] == (
        "| good | **36.1 ± 14.0** | **31.1 ± 14.0** | **26.1 ± 14.0** | **31.1 ± 14.0** | +19.9 ± 1.3 | better |"
    )
    assert lines[4].endswith("| −20.1 ± 1.3 | worse |")
    assert lines[5] == "| random | 56.0 ± 12.7 | 51.0 ± 12.7 | 46.0 ± 12.7 | 51.0 ± 12.7 |  |  |"


def test_more_test_images_have_a_second_decimal(tmp_path: Path) -> None:
    lines = markdown(built(tmp_path, test_images=10_000))
    assert any("| random | 56.00 ± 12.71 |" in line for line in lines)


def test_the_page_has_the_same_table_and_the_differences(run: Output) -> None:
    text = page(run).text
    assert "good 36.1 ± 14.0 31.1 ± 14.0 26.1 ± 14.0 31.1 ± 14.0 better +19.9 ± 1.3" in text
    assert "bad 76.1 ± 14.0 71.1 ± 14.0 66.1 ± 14.0 71.1 ± 14.0 worse −20.1 ± 1.3" in text
    # Against clean and beneath it against random, at 25 %.
    assert "good +54.9 ± 1.3 +19.9 ± 1.3" in text
    assert "With 2 repeats an interval reaches 12.7 standard errors to each side (2.8 with 5)" in text


def test_the_verdict_is_by_the_paired_difference_although_intervals_overlap(run: Output) -> None:
    heads = [line for line in markdown(run) if line.startswith("| method | deletion")]
    assert heads[0].endswith("| roar accuracy, ↓ lower is better |")
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[-1] for line in markdown(run)[6:10]}
    assert rows["good"] == "**0.311** [0.171, 0.451] (2) |"
    assert rows["bad"] == "0.711 [0.571, 0.851] (2, worse than random) |"


def test_what_n_counts_is_said(run: Output) -> None:
    text = page(run).text
    assert "n 2 repeats" in text and "n 40" in text
    assert "Of retrained networks: mean over repeats [95 % interval, Student's t] (repeats)." in markdown(run)
    rows = list(csv.DictReader(io.StringIO(file(run, "summary.csv").decode())))
    assert {row["metric"]: row["over"] for row in rows} == {
        "deletion": "samples",
        "insertion": "samples",
        "mar": "samples",
        "roar": "repeats",
    }


def test_how_to_read_the_figures_is_on_the_page(run: Output) -> None:
    assert "roar a network trained anew on images without the pixels that the map ranks highest" in page(run).text


def test_retraining_has_a_plot_of_its_own_and_none_among_curves_over_samples(run: Output) -> None:
    labels = [one.get("aria-label") or "" for one in page(run).attributes("figure")]
    assert sum("trained anew" in label for label in labels) == 1 and not any("roar accuracy" in one for one in labels)
    (label,) = [label for label in labels if "trained anew" in label]
    assert label.endswith("best first: good 31.1 ± 14.0, random 51.0 ± 12.7, bad 71.1 ± 14.0")


def test_kept_pixels_turn_the_direction_round(tmp_path: Path) -> None:
    output = built(tmp_path, kind="kar")
    lines = markdown(output)
    section = lines[lines.index("## Keep and retrain") :]
    assert any("area, ↑ higher is better" in line for line in section)
    assert any(
        line.startswith("| bad | **76.1 ± 14.0**") and line.endswith("| +20.1 ± 1.3 | better |") for line in section
    )
    assert any(line.startswith("| good | 36.1") and line.endswith("| −19.9 ± 1.3 | worse |") for line in section)
    text = page(output).text
    assert "pixels kept at random" in text and "pixels kept, most relevant first (%)" in text


def test_missing_cells_are_counted_by_arm_and_what_is_there_is_shown(tmp_path: Path) -> None:
    def stopped(method: str | None, fraction: float, repeat: int) -> float | None:
        gone = method == "bad" or (method, fraction, repeat) in (("good", 0.5, 1), (None, 0.0, 0))
        return None if gone else accuracy(method, fraction, repeat)

    output = built(tmp_path, stopped, record={"status": "stopped"})
    counted = "8 of 20 trainings are missing: clean 1 of 2, good 1 of 6, bad 6 of 6"
    assert counted in page(output).text
    assert f"{counted}." in markdown(output)
    section = [line for line in markdown(output) if line.startswith(("| good", "| bad", "| clean"))]
    assert "| good | 36.1 ± 14.0 | 30.0 (1) | 26.1 ± 14.0 | 30.0 (1) | +20.0 | not told apart |" in section
    assert "| bad | – | – | – | – |  |  |" in section
    assert len(table(output, "retrain")) == 12


def test_a_run_stopped_before_any_training_says_so(tmp_path: Path) -> None:
    output = built(tmp_path, lambda method, fraction, repeat: None, summarised=False)
    text = page(output).text
    assert "No network is trained yet." in text and "20 of 20 trainings are missing" in text
    assert "no trained network says yet which colour took the place of pixels" in text
    assert table(output, "retrain") == [] and table(output, "retrain_summary")[0]["accuracy"] is None


def test_one_repeat_claims_nothing(tmp_path: Path) -> None:
    output = built(tmp_path, repeats=1)
    text = page(output).text
    assert "n 1 repeat" in text and "n 1 repeats" not in text and "There is one repeat" in text
    assert "Bars are 95 %" not in text
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[-1] for line in markdown(output)[6:10]}
    assert rows["good"] == "0.300 (1, not clearly better than random) |" and rows["random"] == "0.500 (1) |"


def test_the_files_hold_cells_and_summary(run: Output) -> None:
    cells = table(run, "retrain")
    assert len(cells) == 20 and {row["method"] for row in cells} == {None, *METHODS}
    first = next(row for row in cells if (row["method"], row["fraction"], row["repeat"]) == ("good", 0.5, 1))
    assert first["accuracy"] == np.float32(accuracy("good", 0.5, 1)) and first["test_images"] == 400
    assert first["history"] == [{"number": 1, "loss": 0.5, "accuracy": 0.75}]
    summary = {(row["method"], row["figure"], row["fraction"]): row for row in table(run, "retrain_summary")}
    assert len(summary) == 1 + 3 * 3 + 3
    assert summary[None, "accuracy", 0.0]["accuracy"] == pytest.approx(0.91)
    area = summary["good", "area", None]
    assert area["accuracy"] == pytest.approx(0.311) and area["gain"] == pytest.approx(0.199) and area["gain_n"] == 2
    assert (area["standing"], summary["random", "area", None]["control"]) == ("better", True)
    assert summary["bad", "accuracy", 0.25]["drop"] == pytest.approx(0.91 - 0.761)


def test_the_csv_says_what_arrow_says(run: Output) -> None:
    for name in ("retrain", "retrain_summary"):
        arrow = feather.read_table(io.BytesIO(file(run, f"{name}.arrow")))
        rows = list(csv.DictReader(io.StringIO(file(run, f"{name}.csv").decode())))
        assert len(rows) == arrow.num_rows and not {"history", "fill"} & set(rows[0])
        assert json.loads(arrow.schema.metadata[b"heatline"]) == {"run": RUN, "table": name}
        for column in rows[0]:
            if pa.types.is_floating(arrow.schema.field(column).type):
                values = [float(row[column]) if row[column] else None for row in rows]
                assert values == arrow[column].to_pylist()


def test_a_clean_arm_of_an_earlier_run_of_another_kind_counts(tmp_path: Path) -> None:
    output = built(tmp_path, kind="kar", row_kind="roar")
    assert {row["kind"] for row in table(output, "retrain")} == {"kar"}
    assert any(line.startswith("| clean | 91.0") for line in markdown(output))


@pytest.mark.parametrize("kind", ["roar", "kar"])
def test_the_gallery_shows_the_image_as_the_network_saw_it(tmp_path: Path, kind: str) -> None:
    output, dataset = written(tmp_path, kind=kind)
    build_report(output, dataset=dataset, samples=1)
    pictures = {str(one["alt"]): str(one["src"]) for one in page(output).attributes("img")}
    # The middles of two halves of four images.
    for position in (1, 3):
        identifier = dataset.ids(0, 4)[position]
        image = dataset.load([position]).images[0].numpy()
        order = np.argsort(-stored_map("net", "good", position, SIZE, SIZE).reshape(-1), kind="stable")
        top = order[: SIZE * SIZE // 4]
        expected = image.reshape(3, -1).copy()
        gone = top if kind == "roar" else np.setdiff1d(order, top)
        expected[:, gone] = np.array(FILL, np.uint8)[:, None]
        word = "removed" if kind == "roar" else "kept"
        data = pictures[f"{identifier}, 25 % {word} by good"].split(",", 1)[1]
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        np.testing.assert_array_equal(shown.transpose(2, 0, 1).reshape(3, -1), expected)
    assert sum(" by " in alt for alt in pictures) == 2 * 3 * 3


def test_black_needs_no_trained_cell_to_be_shown(tmp_path: Path) -> None:
    output = built(tmp_path, lambda method, fraction, repeat: None, fill="black", summarised=False)
    assert sum(" removed by " in str(one["alt"]) for one in page(output).attributes("img")) == 2 * 3 * 3


def test_without_ranks_there_is_a_line_in_place_of_the_gallery(tmp_path: Path) -> None:
    found = page(built(tmp_path, ranked=False))
    assert "There are no masked images to show: no ranks are committed." in found.text
    assert not any(" removed by " in str(one["alt"]) for one in found.attributes("img"))


def test_maps_of_training_images_are_no_result_of_the_run(tmp_path: Path) -> None:
    output, dataset = written(tmp_path)
    record = output.run(RUN)
    maps = next(one for one in record["variants"] if one["stage"] == "attribute" and one["method"] == "good")
    # Were they taken for maps of the explained images, these would be `bad`'s.
    other = next(one for one in record["variants"] if one["stage"] == "attribute" and one["method"] == "bad")
    record["variants"].append({**other, "method": "good", "split": "retraining"})
    output.write_bytes(f"runs/{RUN}.json", json.dumps(record).encode())
    seen = view_sample(output, dataset=dataset, sample=dataset.ids(0, 1)[0]).models[0].maps["good"]
    np.testing.assert_array_equal(seen, stored_map("net", "good", 0, SIZE, SIZE))
    assert [one.path for one in read_record(output).of_stage("attribute") if one.method == "good"] == [maps["path"]]


def test_retraining_of_some_methods_takes_no_mean_rank_from_the_others(tmp_path: Path) -> None:
    output, _ = written(tmp_path)
    summary = read_record(output).summary
    alone = [one for one in summary if one.over == "samples"]
    some = [one for one in summary if (one.over, one.method) != ("repeats", "bad")]

    def mean_ranks(rows: list) -> dict[str, float | None]:  # type: ignore[type-arg]
        return {one.method: one.mean_rank for one in rank_methods(rows, {}, "random")}

    assert mean_ranks(some) == mean_ranks(alone) == {"random": 3, "good": 2, "bad": 1}
    # By retraining they stand 2, 1, 3.
    assert mean_ranks(list(summary)) == {"random": (3 * 3 + 2) / 4, "good": (3 * 2 + 1) / 4, "bad": (3 * 1 + 3) / 4}


def test_names_never_become_markup(tmp_path: Path) -> None:
    evil = ("random", "<u>a|", "<u>b")
    levels = dict(zip((None, *evil), LEVEL, strict=True))
    output = built(
        tmp_path,
        lambda method, fraction, repeat: None if method == "<u>b" else accuracy(levels[method], fraction, repeat),
        methods=evil,
        model="<u>net",
        network="<u>cnn",
        record={"models": ("<u>net",)},
    )
    found = page(output)
    assert not found.attributes("u")
    assert "<u>cnn, maps of <u>net" in found.text and "missing: <u>b 6 of 6" in found.text
    text = file(output, "summary.md").decode()
    assert r"| \<u\>a\| | 36.1" in text and "<u>" not in text.replace("\\<u\\>", "")


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    output, dataset = written(tmp_path)

    def files() -> dict[str, bytes]:
        build_report(output, dataset=dataset, samples=2)
        return {name: file(output, name) for name, _ in output.list(f"report/{RUN}")}

    first = files()
    assert first == files() and {"retrain.arrow", "retrain_summary.csv"} <= set(first)


def test_every_id_on_the_page_is_there_once(run: Output) -> None:
    ids = [one["id"] for _, one in page(run).tags if "id" in one]
    assert len(ids) == len(set(ids))


def test_a_failed_cell_is_missing(tmp_path: Path) -> None:
    output, _ = written(tmp_path)
    record = read_record(output)
    (path,) = [one.path for one in record.variants if one.cell and one.cell.method is None and one.cell.repeat == 1]
    output.forget(path)
    assert [(one.method, one.repeat) for one in read_grid(output, record.variants).missing] == [(None, 1)]


def test_where_there_is_no_interval_no_method_beats_random() -> None:
    lone = replace(figures("good", 0.1, 0.0, 0.2), low=None, high=None, n=1, over="repeats")
    assert verdict(lone, replace(lone, method="random", mean=0.9)) == "not clearly better than random"


def test_history_has_the_best_area_and_never_that_of_random(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = [{"id": one, "config": {"name": "gradient"}} for one in ("good", "bad")]
    levels = {None: None, "random": "good", "good": "random", "bad": "bad"}
    output, _ = written(
        tmp_path,
        lambda method, fraction, repeat: accuracy(levels[method], fraction, repeat),
        record={"spec": {"methods": methods}},
    )
    assert main(["history", output.uri]) == 0
    lines = capsys.readouterr().out.splitlines()
    # The control stands at 0.311.
    assert "net roar accuracy" in lines[-2] and lines[-1].rstrip().endswith("  0.510 good")
