"""Cells of a remove-and-retrain benchmark: their weights, where their images were, and what trained them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from jobs.cli import FAILED, OK, main
from pipeline.models import HeldImages, Images, ModelConfig, load_classifier
from pipeline.models.device_name import device_name
from pipeline.models.training_run import TrainingRun
from pipeline.retrain.grid import read_grid
from pipeline.store import Output, open_output

Row = dict[str, Any]


def run(folder: Path, retrain: Row | None = None, **profile: object) -> int:
    """Runs a grid of two cells, the clean arm and one without half of the pixels; the output is `folder/out`."""
    keys = {
        "version": 1,
        "name": "job",
        "output": str(folder / "out"),
        "dataset": {"source": "digits", "limit": 40},
        "models": [{"name": "mnist_cnn2", "weights": "random"}],
        "methods": ["gradient"],
        "metrics": [],
        "report": {"samples": 2},
        "retrain": {
            "methods": ["random"], "fractions": [0.5], "repeats": 1, "model": "mnist_cnn2", "epochs": 2,
            "train_limit": 96, "batch_size": 16, **(retrain or {}),
        },
    }  # fmt: skip
    spec, resources = folder / "job.yaml", folder / "profile.yaml"
    spec.write_text(yaml.safe_dump(keys))
    resources.write_text(yaml.safe_dump({"executor": "local", "rows": 16, **profile}))
    return main(["run", str(spec), "--profile", str(resources)])


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("once")
    assert run(folder) == OK
    return folder


@pytest.fixture
def folder(once: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(once / "out", tmp_path / "out")
    return tmp_path


def output_of(folder: Path) -> Output:
    return open_output(folder / "out")


def paths(output: Output) -> list[str]:
    return [one["path"] for one in output.run()["variants"] if one["stage"] == "retrain"]


def rows(output: Output) -> dict[tuple[str | None, int], Row]:
    """The rows of the latest run's cells, by method and position."""
    found = [row for path in paths(output) for row in output.read(path).to_pylist()]
    return {(row["method"], row["position"]): row for row in found}


def test_weights_that_are_wanted_later_are_trained_once_more_and_never_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def computed() -> str:
        return capsys.readouterr().out

    plain = rows(output_of(folder))
    assert set(plain) == {(None, 0), ("random", 0)} and all(row["file"] is None for row in plain.values())
    assert run(folder, {"save_weights": True}) == OK
    assert "2 units computed" in computed()
    output = output_of(folder)
    kept = rows(output)
    assert {key: row for key, row in kept.items() if key[1] == 0} == plain
    assert all(kept[method, 1]["accuracy"] == plain[method, 0]["accuracy"] for method in (None, "random"))
    for path in paths(output):
        (file,) = [row["file"] for row in output.read(path).to_pylist() if row["position"] == 1]
        weights = output.read_bytes(f"{path}/{file}")
        load_classifier(ModelConfig(name="mnist_cnn2", weights="train"), classes=10, weights=weights)
    grid = read_grid(output, variants(output))
    assert all(grid.rows["file"].is_valid().to_pylist()) and not grid.missing
    # A cell with weights is the same cell: nobody trains it once more, with them or without.
    assert run(folder) == OK and run(folder, {"save_weights": True}) == OK
    assert "units computed" not in computed()


def test_a_cell_is_trained_once_for_its_figures_and_its_weights(folder: Path) -> None:
    for path in paths(output_of(folder)):
        output_of(folder).forget(path)
    assert run(folder, {"save_weights": True}) == OK
    found = rows(output_of(folder))
    assert set(found) == {(method, position) for method in (None, "random") for position in (0, 1)}
    for method in (None, "random"):
        first, second = found[method, 0], found[method, 1]
        assert first["file"] == second["file"] is not None and first["seconds"] == second["seconds"]


class Entry:
    """A variant of a record, as `read_grid` takes it."""

    def __init__(self, one: Row) -> None:
        self.path, self.stage, self.model = one["path"], one["stage"], one["model"]
        self.cell = type("Cell", (), one["cell"]) if one["cell"] else None


def variants(output: Output) -> Iterator[Entry]:
    return (Entry(one) for one in output.run()["variants"])


def without_memory(monkeypatch: pytest.MonkeyPatch, *kinds: type[Images]) -> None:
    """The second epoch of a training on such images does not fit in memory."""

    def epoch(self: TrainingRun, images: Images, *, whole: Callable[..., None] = TrainingRun.epoch) -> None:
        if self.history and isinstance(images, kinds):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        whole(self, images)

    monkeypatch.setattr(TrainingRun, "epoch", epoch)


def test_where_memory_runs_out_the_images_are_streamed_and_the_figures_stay(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = output_of(folder)
    held = rows(output)
    assert all(row["data"].startswith("held: ") for row in held.values())
    for path in paths(output):
        output.forget(path)
    without_memory(monkeypatch, HeldImages)
    assert run(folder) == OK
    for key, row in rows(output_of(folder)).items():
        assert row["data"] == (
            "streamed: with images held on cpu, memory did not suffice (CUDA out of memory. Tried to allocate 2.00 GiB)"
        )
        same = ("accuracy", "train_accuracy", "history", "train_images", "test_images", "left_out", "precision")
        assert all(row[name] == held[key][name] for name in same)


def test_where_memory_runs_out_for_streamed_images_as_well_the_cell_is_lost_with_the_mend(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in paths(output_of(folder)):
        output_of(folder).forget(path)
    without_memory(monkeypatch, Images)
    assert run(folder) == FAILED
    said = capsys.readouterr()
    assert "does not fit in memory; lower batch_size" in said.out + said.err


def test_a_row_says_what_trained_it(once: Path) -> None:
    for row in rows(output_of(once)).values():
        found = (row["device"], row["devices"], row["precision"])
        assert found == (device_name(torch.device("cpu")), 1, "float32")


def test_the_training_images_mean_takes_a_pixels_place(once: Path) -> None:
    output = output_of(once)
    variants = output.run()["variants"]
    (path,) = [one["path"] for one in variants if one["stage"] == "statistics" and one["split"] == "retraining"]
    table = output.read(path)
    sums = torch.tensor(table["sums"].to_pylist()).double().sum(0) / sum(table["pixels"].to_pylist())
    assert rows(output)["random", 0]["fill"] == sums.round().int().tolist()


@pytest.mark.slow
def test_a_cell_that_two_processes_train_together_has_the_figures_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without momentum rounding stays rounding.
    settings = {"optimizer": "sgd", "learning_rate": 0.02, "momentum": 0.0, "save_weights": True}
    assert run(tmp_path, settings) == OK
    output = output_of(tmp_path)
    alone = rows(output)
    (path,) = [path for path in paths(output) if "method=random" in path]
    output.forget(path)
    capsys.readouterr()
    assert run(tmp_path, settings, executor="ray", workers=1, cpus_per_worker=0.5, processes_per_training=2) == OK
    assert "1 units computed" in capsys.readouterr().out
    output = output_of(tmp_path)
    together = rows(output)
    for key, row in together.items():
        assert row["devices"] == (2 if key[0] == "random" else 1)
        losses = [[epoch["loss"] for epoch in one["history"]] for one in (alone[key], row)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
        same = ("accuracy", "train_accuracy", "train_images", "test_images", "left_out", "fill", "id", "precision")
        assert all(row[name] == alone[key][name] for name in same)
    assert output.exists(f"{path}/{together['random', 1]['file']}")
    assert not output.exists(f"{path}/_checkpoint.bin")
