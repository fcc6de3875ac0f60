"""Class folders of image files, and ImageNet's thousand classes among them."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data import Dataset, ImageFolder, ImageNet, SourceConfig, build_index, folder, index_facts, index_key
from pipeline.errors import FatalError, RetryableError

WNIDS = [f"n{number:08d}" for number in range(1000)]


def draw(path: Path, value: int = 0, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def write_class_index(path: Path) -> None:
    path.write_text(json.dumps({wnid: [index, f"name {index}"] for index, wnid in enumerate(WNIDS)}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    draw(root / "dog" / "b.PNG", 20)
    draw(root / "dog" / "a.png", 10)
    draw(root / "cat" / "deep" / "c.png", 30)
    draw(root / "cat" / "z.jpg", 40)
    draw(root / ".hidden" / "x.png")
    (root / "empty").mkdir()
    (root / "dog" / "notes.txt").write_text("no image")
    (root / "dog" / ".a.png").write_text("left by an editor")
    return root


def opened(config: SourceConfig) -> Dataset:
    return Dataset(config, build_index(config), seed=0)


def message(config: SourceConfig) -> str:
    with pytest.raises(FatalError) as caught:
        index_key(config)
        build_index(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_classes_are_the_sorted_folders_and_ids_the_paths(root: Path):
    dataset = opened(ImageFolder(path=str(root)))
    assert dataset.class_names == ("cat", "dog", "empty")
    assert dataset.ids(0, 9) == ["cat/deep/c.png", "cat/z.jpg", "dog/a.png", "dog/b.PNG"]
    assert dataset.labels(0, 9).tolist() == [0, 0, 1, 1]


def test_images_are_those_of_the_files(root: Path):
    shard = opened(ImageFolder(path=str(root))).load([3, 2, 0])
    assert shard.images[:, 0, 0, 0].tolist() == [20, 10, 30]
    assert shard.labels.tolist() == [1, 1, 0]


def test_missing_broken_and_dangling_files_fail_alone(root: Path):
    (root / "dog" / "dangling.png").symlink_to(root / "nowhere.png")
    (root / "dog" / "broken.png").write_bytes(b"no image")
    draw(root / "dog" / "odd.png", size=(9, 8))
    dataset = opened(ImageFolder(path=str(root)))
    (root / "dog" / "a.png").unlink()
    shard = dataset.load(range(len(dataset)))
    assert shard.ids == ("cat/deep/c.png", "cat/z.jpg", "dog/b.PNG")
    reasons = {failure.id: failure.reason for failure in shard.failures}
    assert reasons["dog/a.png"] == reasons["dog/dangling.png"] == "the file is missing"
    assert reasons["dog/broken.png"].startswith("not an image")
    assert "9 x 8 pixels" in reasons["dog/odd.png"]


def test_a_mount_that_fails_fails_no_image(root: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(path: object, mode: str = "r") -> object:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    dataset = opened(ImageFolder(path=str(root)))
    monkeypatch.setattr(folder, "open", fails, raising=False)
    with pytest.raises(RetryableError, match="endpoint"):
        dataset.load([0])


@pytest.mark.parametrize("folder", [".", "dog", "cat/deep"])
def test_the_key_changes_when_a_file_is_added_anywhere(root: Path, folder: str):
    config = ImageFolder(path=str(root))
    key = index_key(config)
    os.utime(root / folder, ns=(0, 0))
    assert index_key(config) != key


def test_the_key_lists_no_further_files_where_they_are_many(root: Path, monkeypatch: pytest.MonkeyPatch):
    if (root / "dog").stat().st_nlink != 2:
        pytest.skip("this file system does not count the folders in a folder")
    listed = []
    scan = os.scandir
    monkeypatch.setattr(folder, "WATCHED", 0)
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(Path(path).name) or scan(path))
    index_key(ImageFolder(path=str(root)))
    assert "cat" in listed and "dog" not in listed


@pytest.mark.parametrize("rewritten", ["size", "time"])
def test_the_key_changes_when_a_file_is_rewritten_in_a_folder_of_few(root: Path, rewritten: str):
    config = ImageFolder(path=str(root))
    file = root / "cat" / "deep" / "c.png"
    folder_time = file.parent.stat().st_mtime_ns
    before = index_key(config)
    if rewritten == "size":
        draw(file, 30, (9, 9))
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert file.parent.stat().st_mtime_ns == folder_time
    assert index_key(config) != before


def test_each_file_of_a_folder_of_many_is_not_looked_at(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folder, "WATCHED", 3)
    config = ImageFolder(path=str(root))
    before = index_key(config)
    os.utime(root / "dog" / "a.png", ns=(0, 1))
    assert index_key(config) == before
    monkeypatch.setattr(folder, "WATCHED", 5)
    assert index_key(config) != before


def test_the_digest_follows_names_labels_and_sizes_and_not_the_place(root: Path):
    def digest(path: Path) -> str:
        return index_facts(build_index(ImageFolder(path=str(path)))).digest

    before = digest(root)
    moved = root.rename(root.parent / "moved")
    assert digest(moved) == before
    draw(moved / "dog" / "a.png", size=(90, 90))
    assert digest(moved) != before


def test_folders_without_classes_or_images_are_refused(root: Path, tmp_path: Path):
    assert "did you mean 'images'?" in message(ImageFolder(path=str(tmp_path / "image")))
    assert "one folder a class was expected" in message(ImageFolder(path=str(root / "dog")))
    (tmp_path / "bare" / "class").mkdir(parents=True)
    assert "no images in its 1 folders" in message(ImageFolder(path=str(tmp_path / "bare")))
    assert "source: parquet only" in message(ImageFolder(path="s3://bucket/images"))
    assert "is a file" in message(ImageFolder(path=str(root / "dog" / "a.png")))


def test_the_training_split_lies_at_train_path():
    config = ImageFolder(path="val", train_path="train", limit=3, classes=("cat",), crop=8)
    assert config.training_split() == ImageFolder(path="train", classes=("cat",), crop=8)
    assert ImageFolder(path="val").training_split() is None


def test_imagenet_numbers_some_folders_by_the_index_beside_them(tmp_path: Path):
    write_class_index(tmp_path / "class_index.json")
    for wnid in (WNIDS[998], WNIDS[7]):
        draw(tmp_path / "val" / wnid / "x.JPEG", size=(300, 400))
    dataset = opened(ImageNet(path=str(tmp_path / "val")))
    assert dataset.labels(0, 2).tolist() == [7, 998]
    assert (dataset.classes, dataset.height, dataset.width) == (1000, 224, 224)
    assert dataset.class_names is not None
    assert dataset.class_names[998] == "name 998"
    assert dataset.load([0]).images.shape == (1, 3, 224, 224)


def test_imagenet_without_an_index_needs_all_thousand_folders(tmp_path: Path):
    root = tmp_path / "val"
    for wnid in WNIDS[:-1]:
        (root / wnid).mkdir(parents=True)
    draw(root / WNIDS[500] / "x.JPEG")
    assert "999 of the 1000 wnid folders" in message(ImageNet(path=str(root)))
    (root / WNIDS[999]).mkdir()
    assert opened(ImageNet(path=str(root))).labels(0, 1).tolist() == [500]


def test_imagenet_flat_takes_line_k_for_image_k(tmp_path: Path):
    for number in (2, 3):
        draw(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    (tmp_path / "labels.txt").write_text("65\n970\n230\n")
    config = ImageNet(path=str(tmp_path / "val"), labels=str(tmp_path / "labels.txt"))
    dataset = opened(config)
    assert dataset.labels(0, 2).tolist() == [970, 230]
    assert (dataset.classes, dataset.class_names) == (1000, None)
    assert "give labels" in message(ImageNet(path=str(tmp_path / "val")))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("65\ncat\n", "line 2: got 'cat'"),
        ("65\n1000\n", "counts from 1 in another order"),
        ("65\n", "none for"),
    ],
)
def test_imagenet_refuses_a_wrong_file_of_labels(tmp_path: Path, text: str, says: str):
    draw(tmp_path / "val" / "ILSVRC2012_val_00000002.JPEG")
    (tmp_path / "labels.txt").write_text(text)
    assert says in message(ImageNet(path=str(tmp_path / "val"), labels=str(tmp_path / "labels.txt")))


def test_imagenet_refuses_folders_and_indices_it_does_not_know(tmp_path: Path):
    draw(tmp_path / "val" / "n99999999" / "x.JPEG")
    write_class_index(tmp_path / "class_index.json")
    assert "n99999999 is not in the class index" in message(ImageNet(path=str(tmp_path / "val")))
    (tmp_path / "class_index.json").write_text('{"n99999999": [0, "x"]}')
    assert "does not number the classes 0 to 999" in message(ImageNet(path=str(tmp_path / "val")))
    (tmp_path / "class_index.json").write_text("[1, 2]")
    assert "wnid: [index, name] were expected" in message(ImageNet(path=str(tmp_path / "val")))
    (tmp_path / "bare").mkdir()
    (tmp_path / "class_index.json").unlink()
    assert "neither wnid folders" in message(ImageNet(path=str(tmp_path / "bare")))


def test_imagenets_training_split_keeps_the_class_index(tmp_path: Path):
    write_class_index(tmp_path / "class_index.json")
    (tmp_path / "val").mkdir()
    config = ImageNet(path=str(tmp_path / "val"), train_path="elsewhere/train", sample=5)
    index = str((tmp_path / "class_index.json").resolve())
    assert config.training_split() == ImageNet(path="elsewhere/train", class_index=index)
