"""Specs for another machine, and YAML that reads back the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.document import parse_document, write_document
from jobs.portable import portable_text, unreachable
from jobs.spec import built_in_specs, load_spec

SPEC = """\
version: 1
name: birds
output: runs/birds
dataset: {source: parquet, path: data/birds.parquet, train_path: s3://bucket/train.parquet}
models:
  - {name: resnet18, weights: birds.safetensors}
  - {name: resnet18, id: random, weights: random}
methods:
  - gradient
  - {name: agi, sweep: {classes: [1, 5]}}
"""


@pytest.mark.parametrize(
    "value",
    [
        {"text": ["no", "yes", "null", "1e-3", "1_000", "0x1f", "~", "", "12:30", "- a", "*", "a: b", "# c", "'", "ü"]},
        {"numbers": [1, -1, 0.5, 1e-7, 1e22, -2.5e-05], "truth": [True, False, None]},
        {"lines": "one\n two\n\nthree\n", "bare": "one\ntwo", "nested": {"a": [{"b": []}, {}]}},
    ],
)
def test_what_is_written_reads_back_the_same(value: dict[str, object]) -> None:
    assert parse_document(write_document(value), "a.yaml", Path()).value == value


def test_a_value_that_stands_twice_is_written_twice() -> None:
    same = {"a": 1}
    assert write_document({"x": same, "z": same}) == "x:\n  a: 1\nz:\n  a: 1\n"


@pytest.mark.parametrize("name", built_in_specs())
def test_a_portable_spec_is_the_same_job(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = portable_text(name)
    spec = load_spec(name)
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "elsewhere" / "spec.yaml"
    file.write_text(text)
    monkeypatch.chdir(tmp_path)
    assert load_spec(file).model_dump() == spec.model_dump()


def test_paths_are_absolute_and_the_rest_is_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "birds.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    value = parse_document(portable_text("specs/birds.yaml", ["seed=7"]), "a", Path()).value
    assert value == {
        "version": 1,
        "name": "birds",
        "output": f"{tmp_path}/runs/birds",
        "dataset": {
            "source": "parquet",
            "path": f"{tmp_path}/specs/data/birds.parquet",
            "train_path": "s3://bucket/train.parquet",
        },
        "models": [
            {"name": "resnet18", "weights": f"{tmp_path}/specs/birds.safetensors"},
            {"name": "resnet18", "id": "random", "weights": "random"},
        ],
        "methods": ["gradient", {"name": "agi", "sweep": {"classes": [1, 5]}}],
        "seed": 7,
    }


def problems(
    tmp_path: Path, *changes: str, writable: tuple[str, ...] = (), readable: tuple[str, ...] = ()
) -> list[str]:
    file = tmp_path / "birds.yaml"
    file.write_text(SPEC)
    return [one.place for one in unreachable(load_spec(file, changes), writable, readable)]


def test_paths_of_this_machine_are_told_with_their_places(tmp_path: Path) -> None:
    assert problems(tmp_path) == ["output", "dataset.path", "models[0].weights"]
    file = tmp_path / "birds.yaml"
    first, second, _ = unreachable(load_spec(file), ["/out"], [])
    assert str(first) == (
        f"{file}:3: output: '{Path.cwd()}/runs/birds' is a folder of this machine; expected an object store "
        "(s3://bucket/prefix, gs://bucket/prefix) or a folder of a volume, known: /out"
    )
    assert str(second).startswith(f"{file}:4: dataset.path: '{tmp_path}/data/birds.parquet' is a path of this machine;")


@pytest.mark.parametrize(
    ("output", "fine"),
    [
        ("s3://bucket/x", True),
        ("gs://bucket/x", True),
        ("/out", True),
        ("/out/x", True),
        ("file:///out/x", True),
        ("/in/x", False),
        ("/outside", False),
        ("file:///tmp/x", False),
        ("/out/../tmp", False),
        ("file:///out/../tmp", False),
    ],
)
def test_an_output_is_in_an_object_store_or_a_volume(output: str, fine: bool, tmp_path: Path) -> None:
    found = problems(tmp_path, f"output={output}", writable=("/out",), readable=("/in", "/out"))
    assert ("output" in found) is not fine


def test_inputs_may_lie_where_nothing_can_be_written(tmp_path: Path) -> None:
    changes = ("output=s3://b/x", "dataset.path=/in/a.parquet", "models.0.weights=gs://b/w.safetensors")
    assert problems(tmp_path, *changes, readable=("/in",)) == []


@pytest.mark.parametrize("text", ["y", "Y", "n", "N", "yes", "off", "0o17", "0X1F", "0b1", "1e3", "012", "~", "null"])
def test_text_that_kubectl_would_take_for_something_else_is_quoted(text: str) -> None:
    """Its YAML has the booleans of YAML 1.1 and the numbers of Go."""
    assert write_document({text: text}) == f"'{text}': '{text}'\n"
