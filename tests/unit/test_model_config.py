"""What a spec may say about a model, and what it is told when it is wrong."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.models import ModelConfig, TrainingConfig


def test_id_defaults_to_the_name_made_safe_for_a_folder() -> None:
    assert ModelConfig(name="resnet18", weights="random").id == "resnet18"
    assert ModelConfig(name="timm:resnet18.a1_in1k", weights="DEFAULT").id == "timm-resnet18.a1_in1k"
    assert ModelConfig(name="mine.nets:small", weights="train").id == "mine.nets-small"


@pytest.mark.parametrize("identifier", ["..", "a/b", "", "a b"])
def test_id_that_cannot_be_a_folder_is_refused(identifier: str) -> None:
    with pytest.raises(ValidationError, match="id"):
        ModelConfig(name="resnet18", weights="random", id=identifier)


@pytest.mark.parametrize(
    "weights", ["a/b.safetensors", "s3://bucket/b.pth", "s3://bucket/b.pt?region=eu-west-1", "b.PT", "b.th"]
)
def test_a_file_ending_makes_weights_a_path(weights: str) -> None:
    assert ModelConfig(name="resnet18", weights=weights).weights_path() == weights


@pytest.mark.parametrize("weights", ["train", "random", "DEFAULT", "IMAGENET1K_V1"])
def test_other_weights_are_no_path(weights: str) -> None:
    assert ModelConfig(name="resnet18", weights=weights).weights_path() is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet_18", "weights": "random"}, "did you mean .*resnet18"),
        ({"name": "fasterrcnn_resnet50_fpn", "weights": "random"}, "not an image classifier"),
        ({"name": "resnet18", "weights": "IMAGENET1K_V9"}, "did you mean 'IMAGENET1K_V1'"),
        ({"name": "cifar_resnet20", "weights": "DEFAULT"}, "no published weights"),
        ({"name": "timm:resnet18", "weights": "IMAGENET1K_V1"}, "takes DEFAULT"),
        ({"name": "resnet18", "weights": "weights.onnx"}, "expected a file ending in .safetensors"),
        ({"name": "resnet18", "weights": "random", "training": {}}, "training is for weights: train"),
        ({"name": "resnet18", "weights": "random", "std": (0.2, 0.0, 0.2)}, "std.1"),
        ({"name": "nets:", "weights": "random"}, "module:function"),
    ],
)
def test_a_mistake_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelConfig.model_validate(settings)


def test_training_defaults_hold_where_a_spec_gives_none() -> None:
    assert ModelConfig(name="cifar_cnn4", weights="train").training_settings() == TrainingConfig()
