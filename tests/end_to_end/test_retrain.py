"""Remove and retrain as a whole job: maps of both splits, ranks, masked data sets, and a grid of trainings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from jobs.cli import FAILED, MISTAKE, OK, main
from pipeline.contracts import Batch
from pipeline.data import Dataset, Digits, Parquet, build_index
from pipeline.methods import IntegratedGradients
from pipeline.models import Classifier
from pipeline.noise import Noise
from pipeline.retrain import masked
from pipeline.stages.rank import stored_ranks
from pipeline.store import Output, open_output

Write = Callable[..., Path]
RETRAIN: dict[str, Any] = {
    "methods": ["random", "gradient"],
    "fractions": [0.25, 0.75],
    "repeats": 2,
    "model": "mnist_cnn2",
    "epochs": 1,
    "train_limit": 96,
}


def run(write_spec: Write, write_profile: Write, **retrain: object) -> int:
    spec = write_spec(
        dataset={"source": "digits", "limit": 40},
        methods=["gradient"],
        metrics=[],
        retrain={**RETRAIN, **retrain},
    )
    return main(["run", str(spec), "--profile", str(write_profile(rows=16))])


def output_of(write_spec: Write) -> Output:
    return open_output(write_spec().parent / "out")


def cells(output: Output) -> dict[tuple[str | None, float, int], dict[str, Any]]:
    paths = [one["path"] for one in output.run()["variants"] if one["stage"] == "retrain"]
    rows = [row for path in paths for row in output.read(path).to_pylist()]
    return {(row["method"], row["fraction"], row["repeat"]): row for row in rows}


def test_a_grid_is_trained_once(write_spec: Write, write_profile: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(write_spec, write_profile) == OK
    output = output_of(write_spec)
    found = cells(output)
    arms = [(None, 0.0), *((method, share) for method in ("random", "gradient") for share in (0.25, 0.75))]
    assert set(found) == {(*arm, repeat) for arm in arms for repeat in (0, 1)}
    for row in found.values():
        assert (row["train_images"], row["test_images"], row["left_out"]) == (96, 40, 0)
        assert 0 <= row["accuracy"] <= 1 and row["data"].startswith("held: ")
    said = capsys.readouterr().err
    assert "retrain: images held in 10 trainings: " in said and "retrain: trained on " in said
    # A larger grid trains what is new of it alone, and a fraction of old gets the accuracy of old.
    assert run(write_spec, write_profile, fractions=[0.25, 0.5, 0.75]) == OK
    assert "4 units computed" in capsys.readouterr().out
    again = cells(output_of(write_spec))
    assert len(again) == len(found) + 4 and all(again[key] == row for key, row in found.items())


def test_a_repeat_with_the_same_seed_gives_the_same_accuracy(write_spec: Write, write_profile: Write) -> None:
    def accuracies() -> dict[tuple[str | None, float, int], float]:
        return {key: row["accuracy"] for key, row in cells(output_of(write_spec)).items()}

    run(write_spec, write_profile)
    first = accuracies()
    for path in [one["path"] for one in output_of(write_spec).run()["variants"] if one["stage"] == "retrain"]:
        output_of(write_spec).forget(path)
    run(write_spec, write_profile)
    assert accuracies() == first


def test_a_method_whose_maps_fail_has_the_images_of_every_other_arm(
    write_spec: Write, write_profile: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, few = IntegratedGradients.__call__, {"fractions": [0.5], "repeats": 1, "train_limit": 100}

    def failing(self: IntegratedGradients, model: Classifier, batch: Batch, noise: Noise) -> torch.Tensor:
        maps = original(self, model, batch, noise)
        for row, name in enumerate(batch.ids):
            if name.endswith("5"):
                maps[row] = torch.nan if name.endswith("05") else 1.0
        return maps

    monkeypatch.setattr(IntegratedGradients, "__call__", failing)
    spec = write_spec(
        dataset={"source": "digits", "limit": 40},
        methods=[{"name": "integrated_gradients", "id": "ig", "steps": 1}],
        metrics=[],
        retrain={**RETRAIN, **few, "methods": ["random", "ig"], "write_masked": True, "max_unranked_share": 0.6},
    )
    # Some maps are not finite, which counts as a failure of their samples.
    assert main(["run", str(spec), "--profile", str(write_profile(rows=16))]) == FAILED
    splits = [
        Dataset(config, build_index(config), 0) for config in (Digits(split="train", sample=100), Digits(limit=40))
    ]
    lacking = sum(name.endswith("5") for one in splits for name in one.ids(0, len(one)))
    assert f"retrain: {lacking} images have no order by ig: masked at random" in capsys.readouterr().err
    output = output_of(write_spec)
    found = {method: row for (method, _, _), row in cells(output).items()}
    assert {(row["train_images"], row["test_images"], row["left_out"]) for row in found.values()} == {(100, 40, 0)}
    assert {method: row["unranked"] for method, row in found.items()} == {None: 0, "random": 0, "ig": lacking}
    masks = {
        one["method"]: output.read(one["path"]).to_pylist()
        for one in output.run()["variants"]
        if (one["stage"], one["split"]) == ("mask", "explained")
    }
    at_random = {row["id"]: row["image"] for row in masks["random"]}
    assert len(masks["ig"]) == 40
    for row in masks["ig"]:
        assert row["ranked"] != row["id"].endswith("5")
        assert row["ranked"] or row["image"] == at_random[row["id"]]


def test_ranks_order_the_maps_and_masked_images_follow_from_them(write_spec: Write, write_profile: Write) -> None:
    assert run(write_spec, write_profile, write_masked=True, repeats=1) == OK
    output = output_of(write_spec)
    variants = output.run()["variants"]

    def one(stage: str, split: str, **wanted: object) -> dict[str, Any]:
        (found,) = [
            v
            for v in variants
            if (v["stage"], v["split"], v["method"]) == (stage, split, "gradient")
            and all(v["cell"][key] == value for key, value in wanted.items())
        ]
        return found

    maps = output.read(one("attribute", "retraining")["path"])
    positions, ranks = stored_ranks(output, one("rank", "retraining")["path"], 0, 96)
    values = maps["map"].combine_chunks().to_numpy_ndarray()[:, 0]
    assert positions.tolist() == maps["position"].to_pylist() == list(range(96))
    for value, rank in zip(values[:8], ranks[:8].numpy(), strict=True):
        order = sorted(range(1024), key=lambda pixel, value=value: (-value.flat[pixel], pixel))
        assert [rank.flat[pixel] for pixel in order] == list(range(1024))
    folder = Path(output.uri.removeprefix("file://")) / one("mask", "retraining", fraction=0.25)["path"]
    table = output.read(one("mask", "retraining", fraction=0.25)["path"])
    config = Digits(split="train", sample=96)
    clean = Dataset(config, build_index(config), 0).load(range(96))
    every = clean.images.double().mean((0, 2, 3)).round().to(torch.uint8)
    expected = masked(clean.images, ranks, 0.25, "roar", every)
    np.testing.assert_array_equal(
        table["image"].combine_chunks().to_numpy_ndarray(), expected.permute(0, 2, 3, 1).numpy()
    )
    assert int((expected != clean.images).any(1).flatten(1).sum(1).max()) <= 256
    # The data set can be used elsewhere: by this program too.
    parts = sorted(folder.glob("part-*.parquet"))
    stored = Parquet(path=str(parts[0]), image_column="image", label_column="label")
    shard = Dataset(stored, build_index(stored), 0).load([0])
    np.testing.assert_array_equal(shard.images[0].numpy(), expected[0].numpy())


@pytest.mark.slow
@pytest.mark.large
def test_without_a_planted_feature_there_is_nothing_to_learn_and_without_random_pixels_there_is(
    write_spec: Write, write_profile: Write
) -> None:
    spec = write_spec(
        dataset={
            "source": "shapes", "size": 32, "count": 120, "train_count": 900, "label_from": "shortcut", "shortcut": 1.0,
        },
        models=[{"name": "cifar_cnn4", "weights": "train", "training": {"epochs": 5, "augmentation": "none"}}],
        methods=[{"name": "occlusion", "patch": 4, "stride": 2}],
        metrics=[],
        retrain={
            "methods": ["random", "occlusion"], "fractions": [0.2], "repeats": 1, "model": "cifar_cnn4", "epochs": 5,
            "augmentation": "none",
        },
    )  # fmt: skip
    assert main(["run", str(spec), "--profile", str(write_profile(rows=64))]) == OK
    found = {method: row["accuracy"] for (method, _, _), row in cells(output_of(write_spec)).items()}
    assert found[None] > 0.9 and found["random"] > 0.8
    assert found["occlusion"] < 1 / 6 + 0.15


@pytest.mark.slow
def test_killed_in_the_middle_of_the_grid_the_table_is_that_of_an_undisturbed_run(
    write_spec: Write, write_profile: Write, tmp_path: Path
) -> None:
    spec = {"dataset": {"source": "digits", "limit": 40}, "methods": ["gradient"], "metrics": [], "retrain": RETRAIN}
    killed, quiet = (write_spec(name, output=str(tmp_path / name), **spec) for name in ("killed", "quiet"))
    profile = write_profile(executor="ray", workers=2, cpus_per_worker=0.5)
    rows: list[dict[str, Any]] = []
    for kill in (True, False):
        with subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", "run", str(killed), "--profile", str(profile)],
            cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True,
        ) as process:  # fmt: skip
            until = time.monotonic() + 180
            while (
                kill
                and process.poll() is None
                and len(list((tmp_path / "killed").rglob("retrain/**/_committed/*.json"))) < 3
            ):
                assert time.monotonic() < until, "no cell is committed"
                time.sleep(0.05)
            if kill:
                done = {str(file): file.stat().st_mtime_ns for file in (tmp_path / "killed").rglob("_committed/*.json")}
                os.killpg(process.pid, signal.SIGKILL)
    assert main(["run", str(quiet), "--profile", str(write_profile("local", rows=16))]) == OK
    for name in ("killed", "quiet"):
        found = cells(open_output(tmp_path / name))
        rows.append({key: row["accuracy"] for key, row in found.items()})
    assert rows[0] == rows[1] and len(rows[0]) == 10
    # What was committed before the kill was not trained again.
    assert done and all(Path(file).stat().st_mtime_ns == moment for file, moment in done.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fractions": [0.0]}, "above 0, up to 1"),
        ({"fractions": [0.5, 1.5]}, "above 0, up to 1"),
        ({"fractions": [0.5, 0.3]}, "ascending"),
        ({"methods": ["gradiant"]}, "did you mean 'gradient'?"),
        ({"methods": ["random", "random"]}, "'random' is there twice"),
        ({"model": "mnist_cnn3"}, "mnist_cnn2"),
        ({"explained": "nobody"}, "no model of this job is called 'nobody'"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_with_its_line(
    write_spec: Write, write_profile: Write, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    assert run(write_spec, write_profile, **changes) == MISTAKE
    error = capsys.readouterr().err
    assert message in error and "retrain." in error


def test_a_selection_without_maps_of_every_image_is_refused(
    write_spec: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(
        dataset={"source": "digits", "limit": 40, "select": "correct"}, methods=["gradient"], retrain=RETRAIN
    )
    assert main(["validate", str(spec)]) == MISTAKE
    assert "retrain needs maps of every image" in capsys.readouterr().err


def test_a_data_set_without_a_training_split_is_refused(
    write_spec: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "digits.parquet"
    pixels = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((4, 32, 32, 3), np.uint8))
    pq.write_table(pa.table({"image": pixels, "label": [0, 1, 2, 3]}), file)
    spec = write_spec(dataset={"source": "parquet", "path": str(file)}, methods=["gradient"], retrain=RETRAIN)
    assert main(["validate", str(spec)]) == MISTAKE
    assert "retrain needs a training split; set dataset.train_path" in capsys.readouterr().err
