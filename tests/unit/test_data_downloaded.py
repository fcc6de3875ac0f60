"""The sources that come with a library: digits, MNIST and CIFAR in their published file layouts."""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from torchvision import datasets

from pipeline.data import Cifar10, Cifar100, Dataset, Digits, Mnist, SourceConfig, build_index, index_key
from pipeline.errors import FatalError

GENERATOR = np.random.default_rng(0)
GREY = GENERATOR.integers(0, 256, (6, 28, 28), dtype=np.uint8)
COLOUR = GENERATOR.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)


def opened(config: SourceConfig) -> Dataset:
    return Dataset(config, build_index(config), seed=0)


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, *GREY.shape) + GREY.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 6) + bytes(range(6)))
    return tmp_path


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()

    def put(name: str, content: dict[str, object]) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    batch = {"data": COLOUR.reshape(6, -1), "labels": [0, 1, 2, 3, 4, 5]}
    meta = put("batches.meta", {"label_names": [f"class {label}" for label in range(10)]})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [put("data_batch_1", batch), put("data_batch_2", batch)])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [put("test_batch", batch)])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    return tmp_path


def test_digits_are_scikit_learns_enlarged_fourfold():
    dataset = opened(Digits())
    shard = dataset.load([0, 7])
    theirs = load_digits()
    assert dataset.ids(0, 8)[7] == shard.ids[1] == "digits/0035"
    assert shard.labels.tolist() == theirs.target[[0, 35]].tolist()
    expected = np.rint(theirs.images[35] * 255 / 16)
    assert np.array_equal(shard.images[1, 0].numpy()[::4, ::4], expected)
    assert np.array_equal(shard.images[1, 2].numpy(), np.kron(expected, np.ones((4, 4))))


def test_digits_are_split_into_every_fifth_and_the_rest():
    test, train = opened(Digits()), opened(Digits().training_split())
    assert (len(test), len(train)) == (360, 1437)
    assert not set(test.ids(0, 9999)) & set(train.ids(0, 9999))
    assert set(test.labels(0, 9999).tolist()) == set(range(10))


def test_digits_can_be_resized_and_cropped():
    dataset = opened(Digits(resize=16, crop=12))
    assert dataset.load(range(5)).images.shape == (5, 3, 12, 12)
    assert (dataset.height, dataset.width) == (12, 12)


def test_mnist_shows_its_grey_in_three_channels(mnist: Path):
    dataset = opened(Mnist(root=str(mnist), download=False))
    shard = dataset.load([5, 2])
    assert shard.ids == ("mnist/test/00005", "mnist/test/00002")
    assert np.array_equal(shard.images.numpy(), np.repeat(GREY[[5, 2], None], 3, axis=1))
    assert dataset.class_names == tuple("0123456789")


def test_cifar_keeps_order_and_names(cifar: Path):
    dataset = opened(Cifar10(root=str(cifar), download=False))
    shard = dataset.load([4, 0])
    assert np.array_equal(shard.images.numpy(), COLOUR[[4, 0]])
    assert shard.labels.tolist() == [4, 0]
    assert dataset.class_names is not None
    assert dataset.class_names[4] == "class 4"


def test_the_training_split_is_the_other_part(cifar: Path):
    config = Cifar10(root=str(cifar), download=False, limit=2, classes=(1, 2), select="correct")
    train = config.training_split()
    assert train == Cifar10(root=str(cifar), download=False, split="train", classes=(1, 2))
    assert opened(train).ids(0, 9) == [f"cifar10/train/{number:05d}" for number in (1, 2, 7, 8)]


def test_the_parts_have_keys_of_their_own():
    assert index_key(Digits()) == index_key(Digits(limit=4))
    assert len({index_key(config) for config in (Digits(), Digits(split="train"), Mnist(), Cifar10())}) == 4


@pytest.mark.parametrize("source", [Mnist, Cifar10, Cifar100])
def test_absent_files_are_one_line_that_says_what_to_put_where(tmp_path: Path, source: type[Mnist]):
    with pytest.raises(FatalError) as caught:
        build_index(source(root=str(tmp_path / "nothing"), download=False))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "nothing") in str(caught.value)
    assert source.wanted in str(caught.value)


def test_a_failed_download_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", unreachable)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", unreachable)
    for config in (Mnist(root=str(tmp_path)), Cifar10(root=str(tmp_path))):
        with pytest.raises(FatalError, match=r"cannot be fetched \(no route to host\); put .* there"):
            build_index(config)
