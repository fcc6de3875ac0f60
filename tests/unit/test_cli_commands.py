"""The commands that read, and how `heatline` answers mistakes in a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.catalog import KINDS, catalog
from jobs.cli import COMMANDS, main
from jobs.commands.init import starter_spec
from jobs.spec import load_spec
from pipeline.errors import FatalError, RetryableError

Capture = pytest.CaptureFixture[str]


def test_help_does_not_import_torch() -> None:
    code = "import sys\nfrom jobs.cli import main\nmain(['--help'])\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_an_unknown_command_is_one_line_with_the_likely_one(capsys: Capture) -> None:
    assert main(["valdate"]) == 2
    assert capsys.readouterr().err == (
        "heatline: no command 'valdate'; did you mean 'validate'?; see heatline --help\n"
    )


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (["--nonsense"], "heatline: No such option"),
        (["validate"], "heatline validate: Missing argument 'SPEC…'; see heatline validate --help"),
        (["validate", "--sett", "a=1"], "heatline validate: No such option"),
        (["list", "methds"], "heatline list: Invalid value"),
        (["describe", "agii"], "no method, metric, model or source is called so; did you mean 'agi'?"),
    ],
)
def test_a_wrong_use_is_one_line_and_exit_code_2(arguments: list[str], phrase: str, capsys: Capture) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert phrase in error
    assert error.count("\n") == 1


def test_no_command_shows_the_help(capsys: Capture) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (FatalError("the disk is full"), 2, "the disk is full"),
        (RetryableError("s3://bucket: no answer\n(timeout)"), 3, "s3://bucket: no answer (timeout)"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
    ],
)
def test_an_exception_becomes_a_line_and_an_exit_code(
    raised: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail(kind: str) -> None:
        raise raised

    monkeypatch.setattr("jobs.commands.catalog.catalog", fail)
    assert main(["list", "methods"]) == code
    assert capsys.readouterr().err.strip() == line


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "jobs.cli", "--help"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.stderr == b""


@pytest.mark.parametrize(
    "source", ["digits", "shapes", "mnist", "cifar10", "cifar100", "imagenet", "imagefolder", "parquet"]
)
def test_init_writes_a_spec_that_loads(source: str, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "a.yaml"
    assert main(["init", str(file), "--source", source]) == 0
    assert file.name in capsys.readouterr().out
    spec = load_spec(file)
    assert spec.dataset.source == source
    assert len(spec.methods) == 6


def test_the_starter_spec_is_fine_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert main(["validate", "heatline.yaml"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "heatline.yaml: fine — 64 samples, 1 model, 6 methods, 3 metrics"
    )


def test_init_overwrites_only_when_told(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("mine")
    assert main(["init", str(file)]) == 2
    assert capsys.readouterr().err == f"{file}: is there already; --force overwrites it\n"
    assert file.read_text() == "mine"
    assert main(["init", str(file), "--force"]) == 0
    assert file.read_text() == starter_spec(str(file), "digits")


def test_init_into_no_folder_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    assert main(["init", str(tmp_path / "none" / "a.yaml")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_validate_counts_what_a_spec_asks_for(capsys: Capture) -> None:
    assert main(["validate", "quickstart", "--set", "dataset.limit=9", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result == {
        "file": "quickstart",
        "fine": True,
        "problems": [],
        "samples": 9,
        "models": 1,
        "methods": 6,
        "metrics": 3,
    }


def test_validate_goes_on_past_a_bad_spec(capsys: Capture) -> None:
    assert main(["validate", "nowhere.yaml", "quickstart"]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("nowhere.yaml: no such file")
    assert output.out.startswith("quickstart: fine")


def test_list_names_everything(capsys: Capture) -> None:
    assert main(["list"]) == 0
    words = capsys.readouterr().out.split()
    assert all(entry.name in words for kind in KINDS for entry in catalog(kind))


def test_list_of_one_kind_in_json(capsys: Capture) -> None:
    assert main(["list", "metrics", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)][:2] == ["deletion", "insertion"]


def test_describe_tells_parameters_cost_and_source(capsys: Capture) -> None:
    assert main(["describe", "agi"]) == 0
    text = capsys.readouterr().out
    assert "Source: Pan et al. 2021" in text
    assert "400 forwards and 800 backwards a sample (224 × 224 pixels, 1,000 classes)" in text
    assert "step_size  a number above 0 and of at most 1" in text


def test_describe_in_json_has_defaults_and_cost(capsys: Capture) -> None:
    assert main(["describe", "agi", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["cost"] == {"forwards": 400, "backwards": 800}
    (steps,) = [one for one in entry["parameters"] if one["name"] == "steps"]
    assert steps["default"] == "20"


@pytest.mark.parametrize("kind", KINDS)
def test_everything_has_a_summary_of_one_sentence(kind: str) -> None:
    for entry in catalog(kind):  # type: ignore[arg-type]
        assert entry.summary and "\n" not in entry.summary, entry.name


@pytest.mark.parametrize("kind", ["methods", "metrics"])
def test_every_method_and_metric_names_its_source(kind: str) -> None:
    assert [entry.name for entry in catalog(kind) if not entry.source] == []  # type: ignore[arg-type]
