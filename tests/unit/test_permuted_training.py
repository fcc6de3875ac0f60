"""Training on permuted labels: what the network gets, what it learns, and where a spec asks for it in vain."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from cluster.profile import Profile
from jobs.check import check
from jobs.layout import Layout
from jobs.problem import SpecError
from jobs.spec import JobSpec, load_spec
from pipeline.contracts import Cost
from pipeline.data import Shard, build_index
from pipeline.models import ModelConfig, TrainedNetwork, TrainingConfig, load_classifier, permuted_labels
from pipeline.noise import Noise
from pipeline.stages.train import Train
from pipeline.stages.variant import Variant


def test_permuted_labels_are_the_same_labels_in_an_order_that_the_seed_decides() -> None:
    labels = torch.arange(500) % 7
    permuted = permuted_labels(labels, Noise(1))
    assert torch.equal(permuted.bincount(), labels.bincount())
    assert torch.equal(permuted, permuted_labels(labels, Noise(1)))
    assert not torch.equal(permuted, permuted_labels(labels, Noise(2)))
    # One in seven agrees by chance, give or take: five standard errors.
    assert (permuted == labels).float().mean().item() == pytest.approx(1 / 7, abs=5 * (6 / 49 / 500) ** 0.5)


def trained_with(monkeypatch: pytest.MonkeyPatch, **variant: Any) -> dict[str, Any]:
    """What the stage hands to training."""
    seen: dict[str, Any] = {}

    def train(name: str, images: Tensor, labels: Tensor, **settings: Any) -> TrainedNetwork:
        seen.update(name=name, images=images, labels=labels, **settings)
        return TrainedNetwork({"weight": torch.ones(1)}, {}, 0.5, 1.0, (), None, "cpu", 1, "float32")

    monkeypatch.setattr("pipeline.stages.train.train_network", train)
    images = torch.arange(40 * 3 * 4, dtype=torch.uint8).view(40, 3, 2, 2)
    labels = torch.arange(40) % 5 - 1
    shard = SimpleNamespace(images=images, labels=labels, failures=())
    config = ModelConfig(name="mnist_cnn2", weights="random")
    around = SimpleNamespace(
        job=SimpleNamespace(models={"mnist_cnn2": config}, classes=4, seed=6), noise=Noise(6), device="cpu"
    )
    planned = Variant("weights/a", "train", "f", 1, 1, Cost(), (), "mnist_cnn2", **variant)
    Train().compute(around, planned, shard)  # type: ignore[arg-type]
    return seen


def test_a_permuted_training_differs_in_its_labels_and_its_start_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, permuted = trained_with(monkeypatch), trained_with(monkeypatch, permuted=True)
    known = torch.arange(40) % 5 > 0
    assert torch.equal(plain["labels"], (torch.arange(40) % 5 - 1)[known])
    assert torch.equal(permuted["labels"], permuted_labels(plain["labels"], Noise(6)))
    assert torch.equal(permuted["images"], plain["images"])
    assert plain["seed"] == 6 != permuted["seed"]
    same = ("name", "classes", "config", "mean", "std", "device")
    assert [plain[key] for key in same] == [permuted[key] for key in same]
    assert (plain["classes"], plain["config"]) == (4, TrainingConfig())


def test_a_training_is_of_the_classes_and_settings_that_the_plan_says(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainingConfig(epochs=3)
    seen = trained_with(monkeypatch, permuted=True, classes=9, training=settings)
    assert (seen["classes"], seen["config"]) == (9, settings)


def write(folder: Path, metrics: str, data: str = "{source: digits, limit: 40}") -> Path:
    path = folder / "a.yaml"
    path.write_text(
        f"version: 1\nname: a\noutput: out\ndataset: {data}\nmodels:\n  - {{name: mnist_cnn2, weights: random}}\n"
        f"methods: [gradient]\nmetrics:\n{metrics}"
    )
    return path


def layout_of(spec: JobSpec) -> Layout:
    return Layout(spec, check(spec, build_index), Profile(), build_index)


def test_a_permuted_training_is_an_artefact_of_its_own(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, "  - sanity_labels\n  - {name: sanity_labels, training: {epochs: 50}, id: b}\n"))
    layout = layout_of(spec)
    model, (default, longer) = spec.models[0], spec.metrics
    plain, permuted = layout._train(model), layout._permuted_training(default, model.id)
    assert permuted.path == f"weights/model=mnist_cnn2/labels=permuted-{permuted.fingerprint[:8]}"
    assert (permuted.stage, permuted.permuted, permuted.classes) == ("train", True, 10)
    assert permuted.training == TrainingConfig() and permuted.description()["labels"] == "permuted"
    other = layout._permuted_training(longer, model.id)
    assert other.training == TrainingConfig(epochs=50)
    assert len({plain.fingerprint, permuted.fingerprint, other.fingerprint}) == 3
    assert layout._permuted_training(default, model.id) == permuted


def test_a_network_learns_permuted_labels_by_heart(tmp_path: Path) -> None:
    settings = "{epochs: 25, batch_size: 16, augmentation: none, learning_rate: 0.01}"
    spec = load_spec(write(tmp_path, f"  - {{name: sanity_labels, training: {settings}}}\n"))
    layout = layout_of(spec)
    variant = layout._permuted_training(spec.metrics[0], spec.models[0].id)
    shard = _digits(layout, 48)
    around = SimpleNamespace(
        job=SimpleNamespace(models={"mnist_cnn2": spec.models[0]}, classes=10, seed=0), noise=Noise(0), device="cpu"
    )
    outcome = Train().compute(around, variant, shard)  # type: ignore[arg-type]
    row = outcome.table.to_pylist()[0]
    model = load_classifier(spec.models[0], classes=10, weights=outcome.files[row["file"]])
    with torch.no_grad():
        predicted = model(shard.images.float() / 255).argmax(1)
    learned = permuted_labels(shard.labels, Noise(0))
    assert row["accuracy"] == pytest.approx((predicted == learned).float().mean().item())
    assert row["accuracy"] > 0.9
    # What it says of the true labels is what the permutation says of them.
    assert (predicted == shard.labels).float().mean() < 0.3


def _digits(layout: Layout, count: int) -> Shard:
    from pipeline.data import Dataset

    assert layout.training is not None
    training = Dataset(layout.training, build_index(layout.training), 0)
    return training.load(range(count))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{source: parquet, path: four.parquet}", "sanity_labels needs a training split; set dataset.train_path"),
        (
            "{source: parquet, path: bare.parquet, label_column: null}",
            "sanity_labels needs labels, and the data set has none",
        ),
        (
            "{source: parquet, path: four.parquet, train_path: nowhere.parquet}",
            "sanity_labels needs the training split: dataset.train_path",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_a_problem_of_the_metric(tmp_path: Path, data: str, message: str) -> None:
    _write_parquet(tmp_path)
    spec = load_spec(write(tmp_path, "  - mar\n  - sanity_labels\n", data))
    with pytest.raises(SpecError) as caught:
        check(spec, build_index)
    found = [(problem.line, problem.place) for problem in caught.value.problems if message in problem.message]
    assert found == [(10, "metrics[1]")]


def _write_parquet(folder: Path) -> None:
    import io

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(np.zeros((28, 28, 3), np.uint8)).save(content, "PNG")
    images = [content.getvalue()] * 4
    pq.write_table(pa.table({"image": images, "label": [0, 1, 2, 9]}), folder / "four.parquet")
    pq.write_table(pa.table({"image": images}), folder / "bare.parquet")
