"""Parquet files of images: every layout, only what is needed, and one clear line for every mistake."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.data import Dataset, Parquet, build_index, index_facts, index_key
from pipeline.errors import FatalError, RetryableError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def as_struct(pixels: np.ndarray) -> pa.Array:
    return pa.array([{"bytes": png(image), "path": "x.png"} for image in pixels])


def as_binary(pixels: np.ndarray) -> pa.Array:
    return pa.array([png(image) for image in pixels], pa.large_binary())


def as_tensor(pixels: np.ndarray) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(pixels))


def as_planes(pixels: np.ndarray) -> pa.Array:
    return as_tensor(pixels.transpose(0, 3, 1, 2))


def write(path: Path, image: pa.Array | None = None, **columns: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = as_struct(PIXELS) if image is None else image
    columns = {"id": [f"s{row}" for row in range(len(image))], "label": np.arange(len(image)) % 3} | columns
    table = pa.table({"image": image, **{name: value for name, value in columns.items() if value is not None}})
    pq.write_table(table, path, row_group_size=5)
    return path


def opened(config: Parquet) -> Dataset:
    return Dataset(config, build_index(config), seed=0)


def message(config: Parquet) -> str:
    with pytest.raises(FatalError) as caught:
        opened(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("layout", [as_struct, as_binary, as_tensor, as_planes])
def test_every_layout_gives_the_same_pixels(tmp_path: Path, layout: Callable[[np.ndarray], pa.Array]):
    dataset = opened(Parquet(path=str(write(tmp_path / "a.parquet", layout(PIXELS)))))
    positions = [11, 0, 7, 7, 4, 5]
    shard = dataset.load(positions)
    assert (dataset.height, dataset.width) == (6, 8)
    assert np.array_equal(shard.images.numpy(), PIXELS[positions].transpose(0, 3, 1, 2))
    assert shard.images.is_contiguous()
    assert shard.ids == ("s11", "s0", "s7", "s7", "s4", "s5")
    assert shard.labels.tolist() == [2, 0, 1, 1, 1, 2]


@pytest.mark.parametrize("grey", [PIXELS[..., 0], PIXELS[..., :1], PIXELS[:, None, :, :, 0]])
def test_grey_tensors_become_three_equal_channels(tmp_path: Path, grey: np.ndarray):
    shard = opened(Parquet(path=str(write(tmp_path / "a.parquet", as_tensor(grey))))).load(range(12))
    assert np.array_equal(shard.images.numpy(), np.repeat(PIXELS[:, None, :, :, 0], 3, axis=1))


@pytest.mark.parametrize("layout", [as_struct, as_tensor])
def test_threads_and_shards_do_not_change_a_pixel(tmp_path: Path, layout: Callable[[np.ndarray], pa.Array]):
    dataset = opened(Parquet(path=str(write(tmp_path / "a.parquet", layout(PIXELS))), resize=4, crop=3))
    whole = dataset.load(range(12), threads=4).images
    assert all(dataset.load([at], threads=1).images.equal(whole[at : at + 1]) for at in range(12))


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path: Path):
    write(tmp_path / "b.parquet", as_struct(PIXELS[:4]), id=None)
    write(tmp_path / "a" / "c.parquet", as_struct(PIXELS[4:7]), id=None)
    write(tmp_path / "_unfinished" / "d.parquet", as_struct(PIXELS[7:]), id=None)
    dataset = opened(Parquet(path=str(tmp_path)))
    assert dataset.ids(0, 99) == [
        *(f"a/c.parquet/{row}" for row in range(3)),
        *(f"b.parquet/{row}" for row in range(4)),
    ]
    assert np.array_equal(dataset.load(range(7)).images.numpy()[3], PIXELS[0].transpose(2, 0, 1))


def test_without_an_id_column_an_id_is_file_name_and_row(tmp_path: Path):
    dataset = opened(Parquet(path=str(write(tmp_path / "digits.parquet", id=None))))
    assert dataset.ids(0, 2) == ["digits.parquet/0", "digits.parquet/1"]


def test_integer_ids_become_text(tmp_path: Path):
    assert opened(Parquet(path=str(write(tmp_path / "a.parquet", id=np.arange(12))))).ids(10, 12) == [
        "10",
        "11",
    ]


def test_a_uri_reads_like_a_path(tmp_path: Path):
    path = write(tmp_path / "a.parquet")
    by_uri, by_path = opened(Parquet(path=path.as_uri())), opened(Parquet(path=str(path)))
    assert by_uri.load(range(12)).images.equal(by_path.load(range(12)).images)
    assert by_uri.fingerprint == by_path.fingerprint


def test_class_names_come_from_hugging_face_metadata_unless_given(tmp_path: Path):
    features = {"label": {"names": ["cat", "dog", "eel"], "_type": "ClassLabel"}}
    table = pq.read_table(write(tmp_path / "a.parquet"))
    described = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(described, tmp_path / "b.parquet")
    path = str(tmp_path / "b.parquet")
    assert opened(Parquet(path=path)).class_names == ("cat", "dog", "eel")
    assert opened(Parquet(path=path, class_names=("a", "b", "c", "d"))).classes == 4
    assert opened(Parquet(path=str(tmp_path / "a.parquet"))).class_names is None


def test_unknown_labels_are_minus_one(tmp_path: Path):
    labels = pa.array([None, -1, *range(10)], pa.int32())
    dataset = opened(Parquet(path=str(write(tmp_path / "a.parquet", label=labels))))
    assert dataset.load([0, 1, 2]).labels.tolist() == [-1, -1, 0]
    assert dataset.labels(0, 4).tolist() == [-1, -1, 0, 1]
    assert dataset.classes == 10


def test_null_label_column_means_no_labels(tmp_path: Path):
    dataset = opened(Parquet(path=str(write(tmp_path / "a.parquet", label=None)), label_column=None))
    assert dataset.classes == 0
    assert dataset.labels(0, 2).tolist() == [-1, -1]


def test_broken_and_odd_images_fail_one_by_one(tmp_path: Path):
    image = as_struct(PIXELS).to_pylist()
    image[2]["bytes"] = image[2]["bytes"][:60]
    image[3] = None
    image[8]["bytes"] = None
    image[9]["bytes"] = png(PIXELS[9][:5])
    shard = opened(Parquet(path=str(write(tmp_path / "a.parquet", pa.array(image))))).load(range(12))
    assert shard.positions == (0, 1, 4, 5, 6, 7, 10, 11)
    assert shard.labels.tolist() == [0, 1, 1, 2, 0, 1, 1, 2]
    assert np.array_equal(shard.images.numpy(), PIXELS[list(shard.positions)].transpose(0, 3, 1, 2))
    reasons = {(failure.position, failure.id): failure.reason for failure in shard.failures}
    assert list(reasons) == [(2, "s2"), (3, "s3"), (8, "s8"), (9, "s9")]
    assert reasons[3, "s3"] == reasons[8, "s8"] == "the image is null"
    assert "5 x 8 pixels" in reasons[9, "s9"]


def test_a_null_among_tensors_is_one_failure(tmp_path: Path):
    storage = [None if row == 6 else image.ravel().tolist() for row, image in enumerate(PIXELS)]
    kind = pa.fixed_shape_tensor(pa.uint8(), [6, 8, 3])
    image = pa.ExtensionArray.from_storage(kind, pa.array(storage, kind.storage_type))
    shard = opened(Parquet(path=str(write(tmp_path / "a.parquet", image)))).load(range(4, 9))
    assert [(failure.id, failure.reason) for failure in shard.failures] == [("s6", "the image is null")]
    assert np.array_equal(shard.images.numpy(), PIXELS[[4, 5, 7, 8]].transpose(0, 3, 1, 2))


def test_a_file_that_vanished_fails_its_own_rows_only(tmp_path: Path):
    write(tmp_path / "a.parquet", as_struct(PIXELS[:4]), id=None)
    write(tmp_path / "b.parquet", as_struct(PIXELS[4:]), id=None)
    dataset = opened(Parquet(path=str(tmp_path)))
    (tmp_path / "a.parquet").unlink()
    shard = dataset.load(range(12))
    assert shard.positions == tuple(range(4, 12))
    assert all(failure.reason.endswith("a.parquet is missing") for failure in shard.failures)


def test_a_silent_object_store_is_tried_again_and_no_sample_is_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Silent:
        def open_input_file(self, path: str) -> None:
            raise OSError(f"{path}: timed out")

    dataset = opened(Parquet(path=str(write(tmp_path / "a.parquet"))))
    monkeypatch.setattr("pipeline.data.parquet_image.resolve", lambda path: (Silent(), "bucket/a.parquet"))
    with pytest.raises(RetryableError, match="timed out"):
        dataset.load([0])


def test_a_moment_without_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def without_memory(*given: object, **options: object) -> pq.ParquetFile:
        raise pa.ArrowMemoryError("malloc of size 64 failed")

    dataset = opened(Parquet(path=str(write(tmp_path / "a.parquet"))))
    monkeypatch.setattr(pq, "ParquetFile", without_memory)
    with pytest.raises(MemoryError, match="malloc"):
        dataset.load([0])


def test_a_damaged_page_fails_its_row_group_only(tmp_path: Path):
    path = write(tmp_path / "a.parquet", as_binary(PIXELS))
    dataset = opened(Parquet(path=str(path)))
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    damaged = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    damaged[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(damaged)
    shard = dataset.load(range(12))
    assert shard.positions == (0, 1, 2, 3, 4, 10, 11)
    assert all(str(path) in failure.reason and "\n" not in failure.reason for failure in shard.failures)


def test_a_file_replaced_by_a_shorter_one_is_noticed(tmp_path: Path):
    path = write(tmp_path / "a.parquet")
    dataset = opened(Parquet(path=str(path)))
    write(path, as_struct(PIXELS[:7]))
    shard = dataset.load(range(12))
    assert len(shard) == 5
    assert "not the file that was listed" in shard.failures[0].reason


def test_the_key_follows_the_files_and_not_the_selection(tmp_path: Path):
    path = write(tmp_path / "a.parquet")
    config = Parquet(path=str(path))
    key = index_key(config)
    assert index_key(Parquet(path=str(path), limit=3, ids=("s1",), train_path="elsewhere")) == key
    assert index_key(Parquet(path=str(path), label_column=None)) != key
    write(path, as_struct(PIXELS[:7]))
    assert index_key(config) != key


def test_the_digest_follows_the_content_and_not_the_place(tmp_path: Path):
    digests = [
        index_facts(build_index(Parquet(path=str(path)))).digest
        for path in (
            write(tmp_path / "a.parquet"),
            write(tmp_path / "other" / "b.parquet"),
            write(tmp_path / "c.parquet", as_struct(PIXELS[::-1])),
            write(tmp_path / "d.parquet", label=np.zeros(12, int)),
            write(tmp_path / "e.parquet", id=[f"t{row}" for row in range(12)]),
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_the_training_split_keeps_classes_and_drops_the_selection(tmp_path: Path):
    config = Parquet(path="test", train_path="train", limit=3, sample=9, ids=("s1",), classes=(1,), select="correct")
    assert config.training_split() == Parquet(path="train", classes=(1,))
    assert Parquet(path="test").training_split() is None


def test_missing_columns_name_the_nearest(tmp_path: Path):
    path = str(write(tmp_path / "a.parquet"))
    assert message(Parquet(path=path, image_column="img")).startswith("dataset.image_column:")
    assert "did you mean 'label'?" in message(Parquet(path=path, label_column="labels"))
    assert "has no column 'key'" in message(Parquet(path=path, id_column="key"))


def test_a_repeated_id_is_named(tmp_path: Path):
    path = str(write(tmp_path / "a.parquet", id=[*(f"s{row}" for row in range(11)), "s3"]))
    assert "'s3' stands 2 times" in message(Parquet(path=path))


def test_more_labels_than_class_names_is_an_error(tmp_path: Path):
    path = str(write(tmp_path / "a.parquet"))
    assert "label 2, but only 2 class names" in message(Parquet(path=path, class_names=("a", "b")))


@pytest.mark.parametrize(
    ("image", "label"),
    [
        (pa.array(["text"] * 12), None),
        (as_tensor(PIXELS.astype(np.float32)), None),
        (as_tensor(np.zeros((12, 4, 6, 8), np.uint8)), None),
        (None, ["cat"] * 12),
    ],
)
def test_columns_of_the_wrong_type_are_refused(tmp_path: Path, image: pa.Array | None, label: list[str] | None):
    columns = {} if label is None else {"label": label}
    assert "expected" in message(Parquet(path=str(write(tmp_path / "a.parquet", image, **columns))))


def test_missing_empty_and_unreadable_sources_are_one_line(tmp_path: Path):
    write(tmp_path / "train.parquet")
    write(tmp_path / "empty" / "a.parquet", as_struct(PIXELS)[:0], id=[], label=np.arange(0))
    (tmp_path / "none").mkdir()
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and then nothing of the kind")
    assert "did you mean 'train.parquet'?" in message(Parquet(path=str(tmp_path / "trian.parquet")))
    assert "no *.parquet files" in message(Parquet(path=str(tmp_path / "none")))
    assert "cannot be read as parquet" in message(Parquet(path=str(tmp_path / "bad.parquet")))
    assert "cannot be opened" in message(Parquet(path="nowhere://bucket/a.parquet"))
    assert "holds no rows" in message(Parquet(path=str(tmp_path / "empty")))


def test_a_source_without_one_good_image_is_refused(tmp_path: Path):
    path = str(write(tmp_path / "a.parquet", pa.array([b"broken"] * 12)))
    assert "none of the first 12 images of the data set can be used; s0: not an image" in message(Parquet(path=path))
