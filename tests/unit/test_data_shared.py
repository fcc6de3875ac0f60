"""The sources on real images, where they are at hand."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.data import Dataset, ImageNet, Parquet, build_index

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("HEATLINE_SHARED_DATA", ROOT.parent / "shared" / "data"))

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared images are not here")


@pytest.fixture(scope="module")
def cifar() -> Dataset:
    config = Parquet(path=str(SHARED / "cifar10" / "test.parquet"))
    return Dataset(config, build_index(config), seed=0)


def test_cifar10_has_a_thousand_test_images_a_class(cifar: Dataset):
    assert len(cifar) == 10_000
    assert np.bincount(cifar.labels(0, 10_000).numpy()).tolist() == [1000] * 10
    assert cifar.class_names is not None
    assert (cifar.class_names[0], cifar.class_names[9]) == ("airplane", "truck")


def test_cifar10_images_are_what_pillow_decodes(cifar: Dataset):
    table = pq.read_table(SHARED / "cifar10" / "test.parquet")
    positions = [0, 999, 1000, 4321, 9999]
    shard = cifar.load(positions)
    for row, position in enumerate(positions):
        data = table["image"][position].as_py()["bytes"]
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1)
        assert np.array_equal(shard.images[row].numpy(), expected)
        assert shard.ids[row] == table["id"][position].as_py()


def test_no_image_of_a_thousand_fails(cifar: Dataset):
    shard = cifar.load(range(500, 1500))
    assert shard.failures == ()
    assert shard.images.shape == (1000, 3, 32, 32)


def test_imagenets_500_images_bear_the_usual_indices():
    config = ImageNet(path=str(SHARED / "imagenet_sample" / "val"))
    dataset = Dataset(config, build_index(config), seed=0)
    assert (len(dataset), dataset.classes) == (500, 1000)
    index = json.loads((SHARED / "imagenet_sample" / "class_index.json").read_text())
    wnids = [name.split("/")[0] for name in dataset.ids(0, 500)]
    assert dataset.labels(0, 500).tolist() == [index[wnid][0] for wnid in wnids] == list(range(0, 1000, 2))
    assert dataset.load([0, 499]).images.shape == (2, 3, 224, 224)


def test_grey_mnist_becomes_rgb():
    config = Parquet(path=str(SHARED / "mnist" / "test_2000.parquet"), limit=3)
    images = Dataset(config, build_index(config), seed=0).load([0, 1, 2]).images
    assert images.shape == (3, 3, 28, 28)
    assert images[:, 0].equal(images[:, 2])
