"""`heatline show` draws the stored maps, prints the scores, and says what was probably meant."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from synthetic_output import METHODS, image_folder, stored_map, write_run

from jobs.commands.show import show
from pipeline.errors import FatalError
from pipeline.report import overlay, sample_picture, view_sample
from pipeline.report.heatmap import enlarged
from pipeline.report.picture import TILE


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = {"cat": [f"{number:02}.png" for number in range(15)], "dog": [f"{number:02}.png" for number in range(10)]}
    config = image_folder(tmp_path / "images", names)
    write_run(tmp_path / "out", config, models=("net", "other"), failed={3: "the map is not finite"})
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out"


def called(*arguments: object) -> Result:
    return CliRunner().invoke(show, [str(one) for one in arguments], catch_exceptions=False)


def refused(*arguments: object) -> str:
    with pytest.raises(FatalError) as error:
        called(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_a_sample_the_first_ids_are_listed(output: Path) -> None:
    lines = called(output).stdout.splitlines()
    assert len(lines) == 20 and lines[0] == "cat/00.png"


def test_the_list_as_json_says_how_many_there_are(output: Path) -> None:
    found = json.loads(called(output, "--json").stdout)
    assert found["samples"] == 25 and len(found["ids"]) == 20


def test_the_picture_is_named_after_the_id(output: Path) -> None:
    result = called(output, "--sample", "cat/02.png")
    assert result.stdout.splitlines()[0] == "cat-02.png"
    assert Image.open("cat-02.png").format == "PNG"


def test_the_picture_can_go_elsewhere(output: Path, tmp_path: Path) -> None:
    called(output, "--sample", "cat/02.png", "--save", tmp_path / "here.webp")
    assert Image.open(tmp_path / "here.webp").format == "WEBP"


def test_the_json_has_the_scores_of_every_method(output: Path) -> None:
    found = json.loads(called(output, "--sample", "cat/02.png", "--model", "net", "--json").stdout)
    (model,) = found["models"]
    assert found["label"] == "cat" and model["predicted"] == "cat"
    assert sorted(model["methods"]) == sorted(METHODS)
    assert [score["value"] for score in model["scores"]] == pytest.approx([0.2] * 3 * len(METHODS))


def test_the_scores_are_a_table_with_a_line_a_method(output: Path) -> None:
    lines = called(output, "--sample", "cat/02.png", "--model", "net").stdout.splitlines()
    assert lines[1] == "net: predicts cat (0.750), label cat"
    assert lines[2].split() == ["method", "deletion", "auc", "insertion", "auc", "mar"]
    assert ["agi", "0.2000", "0.2000", "0.2000"] in [line.split() for line in lines]


def test_a_score_without_a_value_is_a_dash(output: Path) -> None:
    lines = called(output, "--sample", "dog/09.png", "--model", "net").stdout.splitlines()
    assert ["agi", "–", "–", "–"] in [line.split() for line in lines]


def test_a_name_that_is_nearly_right_gets_the_right_one(output: Path) -> None:
    assert refused(output, "--sample", "cat/2.png").startswith("no sample 'cat/2.png' among the run's 25; did you mean")
    assert refused(output, "--sample", "cat/02.png", "--model", "nett").endswith("did you mean 'net'?")


def test_a_sample_without_maps_says_why(output: Path) -> None:
    assert refused(output, "--sample", "cat/03.png").endswith("it failed in maps: the map is not finite")


def test_a_picture_of_an_unknown_kind_is_refused(output: Path) -> None:
    assert "should end in one of .png" in refused(output, "--sample", "cat/02.png", "--save", "a.xyz")


def test_a_picture_that_cannot_be_written_is_one_line(output: Path) -> None:
    assert "no/folder.png: cannot be written" in refused(output, "--sample", "cat/02.png", "--save", "no/folder.png")


def test_an_output_or_run_that_is_not_there_is_one_line(output: Path, tmp_path: Path) -> None:
    assert "no heatline output here" in refused(tmp_path / "nowhere")
    assert "no run nope" in refused(output, "--run", "nope")


def test_the_picture_holds_the_image_and_every_map_in_a_row_for_each_model(tmp_path: Path) -> None:
    config = image_folder(tmp_path / "images", {"cat": ["0.png"]})
    opened, dataset = write_run(tmp_path / "out", config, models=("net", "other"))
    view = view_sample(opened, dataset=dataset, sample="cat/0.png")
    picture = np.asarray(sample_picture(view))
    for model in ("net", "other"):
        tile = np.asarray(enlarged(overlay(view.image, stored_map(model, "agi", 0, 16, 16)), TILE))
        assert _holds(picture, tile), model


def _holds(picture: np.ndarray, tile: np.ndarray) -> bool:
    """Whether a picture holds another one somewhere, pixel for pixel."""
    height, width = tile.shape[:2]
    corners = np.argwhere((picture[: -height + 1, : -width + 1] == tile[0, 0]).all(2))
    return any(np.array_equal(picture[top : top + height, left : left + width], tile) for top, left in corners[:50_000])
