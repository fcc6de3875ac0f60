"""A data set and the split that networks are trained on: of one size, and with labels that mean the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from synthetic_output import image_folder

from jobs.check import check
from jobs.problem import SpecError
from jobs.spec import load_spec
from pipeline.data import build_index

RETRAIN = {"methods": ["random"], "repeats": 1, "model": "cifar_cnn4"}


def problems(folder: Path, dataset: dict[str, Any], **changes: Any) -> list[str]:
    """What `heatline validate` says."""
    spec = {
        "version": 1,
        "name": "a",
        "output": "out",
        "dataset": dataset,
        "models": [{"name": "cifar_cnn4", "weights": "random"}],
        "methods": ["gradient"],
        "retrain": RETRAIN,
        **changes,
    }
    file = folder / "a.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in spec.items() if value is not None}))
    try:
        check(load_spec(file), build_index)
    except SpecError as error:
        return [f"{one.place}: {one.message}" for one in error.problems]
    return []


def parquet(folder: Path, name: str, labels: list[int], size: int = 16) -> None:
    pixels = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((len(labels), size, size, 3), np.uint8))
    pq.write_table(pa.table({"image": pixels, "label": labels}), folder / f"{name}.parquet")


def folders(root: Path, **names: list[str]) -> None:
    for split, classes in names.items():
        image_folder(root / split, {name: ["0.png", "1.png"] for name in classes})


SPLITS = {"source": "parquet", "path": "test.parquet", "train_path": "train.parquet"}
FOLDERS = {"source": "imagefolder", "path": "test", "train_path": "train"}


def test_splits_of_one_kind_are_fine(tmp_path: Path) -> None:
    parquet(tmp_path, "test", [0, 1, 2])
    parquet(tmp_path, "train", [0, 1, 2, 2])
    assert problems(tmp_path, SPLITS) == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"retrain": None, "models": [{"name": "cifar_cnn4", "weights": "train"}]},
        {"retrain": None, "metrics": ["sanity_labels"]},
    ],
    ids=["retrain", "weights: train", "sanity_labels"],
)
def test_other_sizes_are_refused_whatever_is_trained(tmp_path: Path, changes: dict[str, Any]) -> None:
    parquet(tmp_path, "test", [0, 1])
    parquet(tmp_path, "train", [0, 1], size=20)
    assert problems(tmp_path, SPLITS, **changes) == [
        "dataset.train_path: the training split's images are 20 × 20 pixels, the data set's 16 × 16; "
        "set dataset.resize and dataset.crop"
    ]
    assert problems(tmp_path, {**SPLITS, "resize": 16, "crop": 16}, **changes) == []


def test_where_nothing_is_trained_the_training_split_may_be_anything(tmp_path: Path) -> None:
    parquet(tmp_path, "test", [0, 1])
    parquet(tmp_path, "train", [0, 1], size=20)
    assert problems(tmp_path, SPLITS, retrain=None) == []


def test_labels_past_the_logits_of_the_network_are_refused(tmp_path: Path) -> None:
    parquet(tmp_path, "test", [0, 1])
    parquet(tmp_path, "train", [0, 1, 2])
    assert problems(tmp_path, SPLITS) == [
        "dataset.train_path: the training split's labels go to 2, past the 2 classes of 'cifar_cnn4'; "
        "if they mean the same, say classes: 3 with the model"
    ]
    assert problems(tmp_path, SPLITS, models=[{"name": "cifar_cnn4", "weights": "random", "classes": 3}]) == []


def test_a_class_that_nobody_trains_on_may_be_tested_for(tmp_path: Path) -> None:
    parquet(tmp_path, "test", [0, 1, 2])
    parquet(tmp_path, "train", [0, 1])
    assert problems(tmp_path, SPLITS) == []


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (["cat", "dog", "owl"], "class 2 is 'owl' in the training split and nothing in the data set (3 classes there"),
        (["cat", "emu"], "class 1 is 'emu' in the training split and 'dog' in the data set (2 classes there, 2 here)"),
    ],
)
def test_a_label_that_means_another_class_is_refused(tmp_path: Path, train: list[str], said: str) -> None:
    folders(tmp_path, test=["cat", "dog"], train=train)
    (found,) = problems(tmp_path, FOLDERS)
    assert found.startswith("dataset.train_path: ") and said in found


def test_a_training_split_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    parquet(tmp_path, "test", [0, 1])
    (found,) = problems(tmp_path, SPLITS, retrain={**RETRAIN, "train_limit": 2})
    assert found.startswith("retrain: retrain needs the training split: dataset.train_path")


def test_a_training_split_that_cannot_be_read_is_told_once(tmp_path: Path) -> None:
    parquet(tmp_path, "test", [0, 1])
    (tmp_path / "train.parquet").write_bytes(b"no parquet")
    (found,) = problems(tmp_path, SPLITS, retrain={**RETRAIN, "train_limit": 2})
    assert found.startswith("dataset.train_path: the training split: ")
