"""The page holds all it shows, says what went wrong, and lets no name become markup."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from PIL import Image
from synthetic_output import METRICS, RUN, image_folder, stored_map, write_run

from pipeline.data import Dataset
from pipeline.errors import FatalError
from pipeline.report import build_report, overlay, run_dataset
from pipeline.report.gallery import shown_positions
from pipeline.report.heatmap import enlarged
from pipeline.report.stored import maps_at, rows_at
from pipeline.store import Output

EVIL = "<script>alert(1)<script>.png"


@pytest.fixture
def run(tmp_path: Path) -> tuple[Output, Dataset]:
    names = {"cat": [f"{number}.png" for number in range(4)], "dog": [f"{number}.png" for number in range(4)]}
    return write_run(tmp_path / "out", image_folder(tmp_path / "images", names))


def page(output: Output, dataset: Dataset, samples: int = 4) -> Page:
    return Page(output.read_bytes(build_report(output, dataset=dataset, samples=samples)).decode())


def changed(tmp_path: Path, **changes: object) -> Page:
    config = image_folder(tmp_path / "images", {"cat": ["0.png", "1.png"]})
    output, dataset = write_run(tmp_path / "out", config, **changes)  # type: ignore[arg-type]
    return page(output, dataset)


def test_the_page_and_the_figures_stand_under_the_runs_name(run: tuple[Output, Dataset]) -> None:
    output, dataset = run
    assert build_report(output, dataset=dataset, samples=2) == f"report/{RUN}/index.html"
    assert [name for name, _ in output.list("report")] == ["index.html"]
    written = [
        f"{name}.{kind}" for name in ("agreement", "comparisons", "ranks", "summary") for kind in ("arrow", "csv")
    ]
    written += ["comparisons.md", "summary.md", "index.html"]
    assert [name for name, _ in output.list(f"report/{RUN}")] == sorted(written)
    assert output.read_bytes("report/index.html") == output.read_bytes(f"report/{RUN}/index.html")


def test_an_older_runs_page_does_not_take_the_place_of_the_latest(run: tuple[Output, Dataset]) -> None:
    output, dataset = run
    later = RUN.replace("2026", "2027")
    record = {**output.run(), "name": "later", "run": later}
    output.write_bytes(f"runs/{later}.json", json.dumps(record).encode())
    build_report(output, dataset=dataset, samples=1)
    build_report(output, RUN, dataset=dataset, samples=1)
    assert "later" in output.read_bytes("report/index.html").decode()


def test_the_page_and_its_files_are_the_same_bytes_each_time(run: tuple[Output, Dataset]) -> None:
    output, dataset = run

    def built() -> dict[str, bytes]:
        build_report(output, dataset=dataset, samples=4)
        return {name: output.read_bytes(f"report/{RUN}/{name}") for name, _ in output.list(f"report/{RUN}")}

    assert built() == built()


def test_the_page_fetches_nothing(run: tuple[Output, Dataset]) -> None:
    found = page(*run)
    sources = [value for _, one in found.tags for key in ("src", "href") if (value := one.get(key))]
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert not found.attributes("script")
    style = "".join(word for word in found.words if "--page" in word)
    assert "url(" not in style and "@import" not in style


def test_every_id_on_the_page_is_there_once(run: tuple[Output, Dataset]) -> None:
    ids = [one["id"] for _, one in page(*run).tags if "id" in one]
    assert len(ids) == len(set(ids))


def test_the_facts_are_on_the_page(run: tuple[Output, Dataset]) -> None:
    text = page(*run).text
    for fact in ("imagefolder", "8 samples", "16 × 16 pixels", "seed 0", "2 January 2026, 03:04 UTC", "1 min 12 s"):
        assert fact in text
    assert "net top-1 50.0 % of 8" in text


def test_every_method_and_metric_is_in_the_table(run: tuple[Output, Dataset]) -> None:
    found = page(*run)
    columns = [str(one["data-column"]) for one in found.attributes("td") if "data-column" in one]
    assert sum("is better" in column for column in columns) == 3 * len(METRICS)
    assert "worse than random" not in found.text and "the control: what chance scores" in found.text


def test_the_gallery_shows_the_stored_map_over_its_image(run: tuple[Output, Dataset]) -> None:
    output, dataset = run
    pictures = {str(one["alt"]): str(one["src"]) for one in page(output, dataset, 1).attributes("img")}
    (identifier,) = [alt.removeprefix("Image ") for alt in pictures if alt.startswith("Image ")]
    position = dataset.ids(0, len(dataset)).index(identifier)
    data = pictures[f"Map of agi on net for {identifier}"].split(",", 1)[1]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)
    image = dataset.load([position]).images[0].numpy()
    expected = np.asarray(enlarged(overlay(image, stored_map("net", "agi", position, 16, 16)))).astype(int)
    # 256 colours a picture.
    assert shown.shape == expected.shape and np.abs(shown - expected).max() <= 8


def test_the_gallery_says_what_was_predicted_and_whether_it_is_right(run: tuple[Output, Dataset]) -> None:
    text = page(*run, samples=8).text
    assert "cat with probability 0.750 ✓ correct" in text and "dog with probability 0.750 ✗ wrong" in text


def test_positions_are_the_middles_of_equal_stretches() -> None:
    assert shown_positions([np.arange(12)], 3) == [2, 6, 10]


def test_positions_are_those_that_every_method_with_maps_has() -> None:
    committed = [np.arange(10), np.array([3, 4, 5]), np.empty(0, np.int64)]
    assert shown_positions(committed, 24) == [3, 4, 5]


def test_no_samples_asked_for_gives_no_gallery(run: tuple[Output, Dataset]) -> None:
    assert not page(*run, samples=0).attributes("img")


def test_names_from_data_never_become_markup(tmp_path: Path) -> None:
    config = image_folder(tmp_path / "images", {"<b onclick=x>": [EVIL, "plain.png"]})
    output, dataset = write_run(
        tmp_path / "out",
        config,
        models=("<i>model",),
        failed={1: "<script>reason"},
        name="</title><script>",
        lost=[{"variant": "maps/<u>", "start": 0, "stop": 2, "reason": "<script>lost"}],
        spec={"name": "</pre><script>"},
        versions={"<s>": "<s>"},
    )
    found = page(output, dataset)
    assert not found.attributes("script") and not found.attributes("u") and not found.attributes("s")
    assert not any("onclick" in one for _, one in found.tags)
    assert all(words in found.text for words in (EVIL, "<script>reason", "<script>lost", "</title><script>"))


def test_failures_are_counted_by_stage_and_the_first_are_listed(tmp_path: Path) -> None:
    config = image_folder(tmp_path / "images", {"cat": [f"{number:02}.png" for number in range(9)]})
    failed = {position: f"reason {position}" for position in range(8)}
    output, dataset = write_run(tmp_path / "out", config, failed=failed)
    text = page(output, dataset).text
    assert "24 in all: 24 in maps" in text and "The first 20" in text
    assert text.count("reason 7") == 2


def test_a_run_that_was_stopped_says_so_and_shows_what_there_is(tmp_path: Path) -> None:
    found = changed(tmp_path, status="stopped", summary=[], timings=[], mapped=1)
    assert "This run was stopped before its end" in found.text and "No figures yet" in found.text
    assert len(found.attributes("img")) == 4


def test_a_run_without_maps_has_a_page(tmp_path: Path) -> None:
    assert "No maps to show yet" in changed(tmp_path, status="stopped", summary=[], mapped=0).text


def test_an_old_record_without_most_keys_has_a_page(tmp_path: Path) -> None:
    keys = ("seconds", "timings", "versions", "profile", "units", "lost", "spec")
    text = changed(tmp_path, summary=[], **dict.fromkeys(keys)).text
    assert "this run has no metrics" in text and "2 samples" in text


def test_a_run_without_a_control_says_that_chance_is_unknown(tmp_path: Path) -> None:
    assert "This run has no random control" in changed(tmp_path, methods=("gradient", "agi")).text


def test_images_that_are_gone_do_not_cost_the_figures(tmp_path: Path) -> None:
    config = image_folder(tmp_path / "images", {"cat": ["0.png", "1.png"]})
    output, dataset = write_run(tmp_path / "out", config)
    for file in (tmp_path / "images" / "cat").iterdir():
        file.unlink()
    found = page(output, dataset)
    assert "Faithfulness" in found.text and not found.attributes("img")


def test_a_record_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    config = image_folder(tmp_path / "images", {"cat": ["0.png"]})
    output, dataset = write_run(
        tmp_path / "out", config, summary=None, timings=[{"stage": 1, "seconds": 1.0, "samples": 1}]
    )
    with pytest.raises(FatalError, match=rf"the record of run {re.escape(RUN)} cannot be read \(timings"):
        build_report(output, dataset=dataset, samples=1)


def test_the_data_set_is_opened_again_from_the_record(run: tuple[Output, Dataset]) -> None:
    output, dataset = run
    again = run_dataset(output, output.run())
    assert again.fingerprint == dataset.fingerprint
    assert again.ids(0, 8) == dataset.ids(0, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"dataset": None}, "no 'dataset'"), ({"index": "index/gone"}, "index/gone"), ({"dataset": {}}, "source")],
)
def test_a_record_that_does_not_say_its_data_set_is_refused(
    run: tuple[Output, Dataset], change: dict[str, object], message: str
) -> None:
    output, _ = run
    record = {key: value for key, value in {**output.run(), **change}.items() if value is not None}
    with pytest.raises(FatalError, match=message):
        run_dataset(output, record)


def test_rows_of_a_few_samples_come_in_order_from_several_parts(run: tuple[Output, Dataset]) -> None:
    output, _ = run
    path = "maps/model=net/method=agi-0123abcd"
    assert rows_at(output, path, [7, 0, 4, 99], ["position", "id"])["position"].to_pylist() == [0, 4, 7]
    np.testing.assert_array_equal(maps_at(output, path, [4])[4], stored_map("net", "agi", 4, 16, 16))
    assert maps_at(output, "maps/none", [0]) == {}
