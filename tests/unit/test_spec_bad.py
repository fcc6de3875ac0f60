"""Every mistake in a spec is one clear line with its place, exit code 2, and no traceback."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from bad_specs import BAD as BAD_AS_WRITTEN
from bad_specs import spec
from bad_specs_opened import BAD_WHEN_OPENED

from jobs.cli import main
from pipeline.models import build_network, weights_bytes
from pipeline.models.weights import weights_metadata

BAD = {**BAD_AS_WRITTEN, **BAD_WHEN_OPENED}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that some of the specs name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("specs")
    metadata = weights_metadata("cifar_resnet8", 10, (0.5,) * 3, (0.5,) * 3)
    state = build_network("cifar_resnet8", 10).state_dict()
    (folder / "resnet8.safetensors").write_bytes(weights_bytes(state, metadata))
    (folder / "unsaid.safetensors").write_bytes(weights_bytes(state, {}))
    state = build_network("cifar_cnn4", 1000).state_dict()
    metadata = weights_metadata("cifar_cnn4", 1000, (0.5,) * 3, (0.5,) * 3)
    (folder / "cnn4.safetensors").write_bytes(weights_bytes(state, metadata))
    (folder / "text.safetensors").write_text("not weights")
    images = pa.FixedShapeTensorArray.from_storage(
        pa.fixed_shape_tensor(pa.uint8(), (32, 32, 3)), pa.array([[0] * 3072] * 4, pa.list_(pa.uint8(), 3072))
    )
    pq.write_table(pa.table({"image": images, "label": [0, 1, 2, 9]}), folder / "four.parquet")
    pq.write_table(pa.table({"image": images}), folder / "unlabelled.parquet")
    return folder


def lines_of(error: str) -> list[str]:
    assert "Traceback" not in error
    return error.splitlines()


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_is_one_line_with_its_place(
    mistake: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, problems = BAD[mistake]
    monkeypatch.chdir(folder)
    Path("bad.yaml").write_bytes(text.encode() if isinstance(text, str) else text)

    code = main(["validate", "bad.yaml"])

    output = capsys.readouterr()
    lines = lines_of(output.err)
    assert (code, output.out) == (2, "")
    assert len(lines) == len(problems), lines
    for line, (number, place, phrase) in zip(lines, problems, strict=True):
        start = "bad.yaml: " if number is None else f"bad.yaml:{number}: "
        assert line.startswith(start + (f"{place}: " if place else "")), line
        assert phrase in line, line


def test_stated_classes_say_that_labels_mean_the_first_of_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    Path("fine.yaml").write_text(
        spec(
            data="dataset: {source: parquet, path: four.parquet}\n",
            models="models:\n  - {name: cifar_cnn4, weights: cnn4.safetensors, classes: 1000}\n",
        )
    )
    assert main(["validate", "fine.yaml"]) == 0, capsys.readouterr().err


def test_an_unlabelled_data_set_is_fine_where_nothing_takes_labels(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    Path("fine.yaml").write_text(
        spec(
            data="dataset: {source: parquet, path: unlabelled.parquet, label_column: null}\n",
            models="models:\n  - {name: cifar_resnet8, weights: random, classes: 4}\n",
        )
    )
    assert main(["validate", "fine.yaml"]) == 0, capsys.readouterr().err


def test_more_than_45_mistakes_are_tried() -> None:
    assert len(BAD) >= 45


SET = {
    "methods.0.stepz=5": ("methods[0].stepz", "unknown key for gradient"),
    "methods.3.steps=5": ("methods", "expected a number from 0 to 0, got '3'"),
    "methods.gradient.output=logit": ("methods", "'gradient' is number 0"),
    "methods.0=gradint": ("methods[0].name", "did you mean 'gradient'?"),
    "dataset.limit=none": ("dataset.limit", "expected a whole number of at least 1, got 'none'"),
    "dataset.limt=3": ("dataset.limt", "did you mean 'limit'?"),
    "name.first=a": ("name", "a plain value, with no keys to set"),
    "metrics.0.grid=3": ("metrics", "there is no such list; set it whole"),
    "seed": ("", "expected KEY=VALUE, such as methods.1.steps=20"),
    "a..b=1": ("", "expected KEY=VALUE"),
    "seed=[1": ("", "not valid YAML"),
    "models.0.weights=nowhere.pt": ("models[0].weights", "no such file of weights"),
}


@pytest.mark.parametrize("option", SET)
def test_a_mistake_in_an_option_names_the_option(
    option: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, phrase = SET[option]
    monkeypatch.chdir(folder)
    Path("fine.yaml").write_text(spec())

    code = main(["validate", "fine.yaml", "--set", option])

    (line,) = lines_of(capsys.readouterr().err)
    assert code == 2
    assert line.startswith(f"--set {option}: " + (f"{place}: " if place else "")), line
    assert phrase in line, line


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("nowhere.yaml", "no such file; built-in specs: checks/planted"),
        ("quikstart", "no such file; did you mean 'quickstart'?"),
        (".", "expected a spec file, got a folder"),
    ],
)
def test_a_spec_that_is_not_there_is_one_line(name: str, phrase: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["validate", name])
    (line,) = lines_of(capsys.readouterr().err)
    assert code == 2
    assert line.startswith(f"{name}: ") and phrase in line, line


def test_json_lists_the_same_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(spec(methods="methods:\n  - {name: agi, stepz: 5}\n"))

    code = main(["validate", str(file), "--json"])

    (result,) = json.loads(capsys.readouterr().out)
    assert code == 2
    assert result["fine"] is False
    assert result["problems"] == [
        {
            "file": str(file),
            "line": 8,
            "place": "methods[0].stepz",
            "message": "unknown key for agi; did you mean 'steps'?",
        }
    ]


def test_every_place_is_spelled_as_in_the_file() -> None:
    places = [place for _, problems in BAD.values() for _, place, _ in problems]
    # The one key of two words is a tolerance of one measure.
    keys = r"compare\.tolerance\.\w+ \w*|(\w+(\[\d+\])?(\.\w+(\[\d+\])?)*)?"
    assert all(re.fullmatch(keys, place) for place in places)
