"""Published weights reach their published accuracy; skipped where the development data is absent."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.models import Classifier, ModelConfig, check_classifier, last_spatial_layer, load_classifier

SHARED = Path(os.environ.get("HEATLINE_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
pytestmark = pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason="no shared data here")


def load(name: str, file: str) -> Classifier:
    config = ModelConfig(name=name, weights=str(SHARED / "weights" / file))
    return load_classifier(config, classes=500)


def cifar(file: str, count: int) -> tuple[Tensor, Tensor]:
    table = parquet.read_table(SHARED / "cifar10" / file).slice(0, count)
    pixels = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["image"].to_pylist()]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255, torch.tensor(
        table["label"].to_pylist()
    )


@torch.no_grad()
def accuracy(model: Classifier, images: Tensor, labels: Tensor) -> float:
    return (torch.cat([model(part) for part in images.split(100)]).argmax(1) == labels).float().mean().item()


@pytest.mark.parametrize(("depth", "published", "count"), [(20, 0.8103, 500), (32, 0.8256, 200)])
def test_shared_resnets_reach_their_published_accuracy(depth: int, published: float, count: int) -> None:
    model = load(f"cifar_resnet{depth}", f"cifar10_resnet{depth}.safetensors")
    check_classifier(model, 32, 32, 10)
    three_standard_errors = 3 * (published * (1 - published) / count) ** 0.5
    assert accuracy(model, *cifar("test.parquet", count)) == pytest.approx(published, abs=three_standard_errors)
    assert accuracy(model, *cifar("train_lossless_4000.parquet", 100)) >= 0.98


def test_shared_squeezenet_knows_its_classes_and_images() -> None:
    model = load("squeezenet1_0", "imagenet_squeezenet1_0.safetensors")
    assert model.classes == 1000
    assert last_spatial_layer(model.network, 224, 224) == "features.12"
    index = json.loads((SHARED / "imagenet_sample" / "class_index.json").read_text())
    files = sorted((SHARED / "imagenet_sample" / "val").glob("*/*.JPEG"))[::10]
    images = []
    for file in files:
        image = Image.open(file).convert("RGB")
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        images.append(torch.from_numpy(np.array(image.crop((left, top, left + 224, top + 224)))))
    pixels = torch.stack(images).permute(0, 3, 1, 2).float() / 255
    labels = torch.tensor([index[file.parent.name][0] for file in files])
    # 60.4 % on all 500 images; three standard errors of a share of 50.
    assert accuracy(model, pixels, labels) == pytest.approx(0.604, abs=0.21)
