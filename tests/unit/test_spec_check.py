"""What is known of data and models before a job runs is what its workers find."""

from __future__ import annotations

from pathlib import Path

from jobs.check import check
from jobs.spec import load_spec
from pipeline.data import build_index
from pipeline.models import ModelConfig, load_classifier


def test_a_random_model_is_the_one_that_a_worker_builds_from_the_seed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "version: 1\nname: a\noutput: out\nseed: 5\ndataset: {source: digits, limit: 4}\n"
        "models: [{name: mnist_cnn2, weights: random}]\nmethods: [gradient]\n"
    )
    checked = check(load_spec(tmp_path / "a.yaml"), build_index)
    config = ModelConfig(name="mnist_cnn2", weights="random")
    assert checked.models["mnist_cnn2"].digest == load_classifier(config, classes=10, seed=5).digest
    assert checked.models["mnist_cnn2"].digest != load_classifier(config, classes=10).digest
