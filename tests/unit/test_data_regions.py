"""Where things are, out of parquet files: the same geometry as the image, and a reason where it cannot be known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from region_files import (
    COUNT,
    HEIGHT,
    MASK_LAYOUTS,
    MASKS,
    WIDTH,
    encoded_images,
    file_of,
    loaded,
    message,
    opened,
    png,
    raw_images,
    reasons,
    tensor,
    write,
)

from pipeline.data import Dataset, Digits, Parquet, build_index
from pipeline.data.parquet_region import read_regions
from pipeline.errors import RetryableError


@pytest.mark.parametrize("layout", MASK_LAYOUTS)
def test_every_layout_of_a_mask_is_the_same_region(tmp_path: Path, layout: str) -> None:
    path = write(tmp_path / "a.parquet", masks=MASK_LAYOUTS[layout](MASKS))
    dataset = opened(Parquet(path=path, mask_column="masks"))
    positions = [8, 0, 5, 5, 3]
    shard = dataset.load(positions, regions=True)
    assert dataset.regions == ("object",)
    assert shard.regions["object"].dtype == torch.bool
    assert np.array_equal(shard.regions["object"].numpy(), MASKS[positions][:, None])
    assert shard.regionless == ()


@pytest.mark.parametrize("images", [encoded_images, raw_images])
@pytest.mark.parametrize("layout", ["struct", "bool tensor", "list"])
@pytest.mark.parametrize(
    "geometry", [{"resize": 8}, {"resize": 31}, {"crop": 7}, {"resize": 17, "crop": 15}, {"resize": 7, "crop": 6}]
)
def test_a_mask_goes_the_way_of_an_image_that_looks_like_it(
    tmp_path: Path, images: Callable[[np.ndarray], pa.Array], layout: str, geometry: dict[str, int]
) -> None:
    path = write(tmp_path / "a.parquet", images(MASKS), masks=MASK_LAYOUTS[layout](MASKS))
    shard = loaded(path, mask_column="masks", interpolation="nearest", **geometry)
    assert len(shard) == COUNT
    assert shard.regions["object"].equal(shard.images[:, :1] > 0)
    # Whatever filter the image takes, a mask takes the nearest pixel.
    smooth = loaded(path, mask_column="masks", interpolation="bicubic", **geometry)
    assert smooth.regions["object"].equal(shard.regions["object"])


def test_boxes_are_half_open_pixels_cut_off_at_the_edge(tmp_path: Path) -> None:
    boxes = [
        [[2, 1, 5, 4]],
        [[0, 0, 1, 1], [WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT]],
        [[-4, -4, 2, 3], [15, 9, 99, 99]],
        [[3, 3, 3, 9]],
        [[WIDTH, 0, WIDTH + 5, 5], [-9, -9, 0, 0]],
        [],
        [[0, 0, WIDTH, HEIGHT]],
        [[1, 1, 4, 4], [3, 3, 6, 6]],
        [[5, 5, 6, 6]],
    ]
    expected = np.zeros((COUNT, HEIGHT, WIDTH), bool)
    for row, found in enumerate(boxes):
        for left, top, right, bottom in found:
            for y in range(HEIGHT):
                for x in range(WIDTH):
                    expected[row, y, x] |= left <= x < right and top <= y < bottom
    for number, kind in enumerate([pa.int64(), pa.int16(), pa.float32()]):
        for inner in (pa.list_(kind), pa.list_(kind, 4)):
            path = write(tmp_path / f"{number}.parquet", boxes=pa.array(boxes, pa.list_(inner)))
            shard = loaded(path, boxes_column="boxes")
            assert np.array_equal(shard.regions["object"].numpy()[:, 0], expected)
            assert shard.regionless == ()
    assert expected.reshape(COUNT, -1).sum(1).tolist() == [9, 2, 15, 0, 0, 0, WIDTH * HEIGHT, 17, 1]


def test_a_box_between_pixels_has_those_whose_centre_it_holds(tmp_path: Path) -> None:
    boxes = pa.array([[[1.4, 0.6, 3.5, 2.6]]] * COUNT)
    shard = loaded(write(tmp_path / "a.parquet", boxes=boxes), boxes_column="boxes")
    assert shard.regions["object"][0, 0].nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_boxes_are_in_pixels_of_the_stored_image(tmp_path: Path) -> None:
    box = np.zeros((COUNT, HEIGHT, WIDTH), bool)
    box[:, 2:7, 4:13] = True
    path = write(tmp_path / "a.parquet", encoded_images(box), boxes=pa.array([[[4, 2, 13, 7]]] * COUNT))
    shard = loaded(path, boxes_column="boxes", interpolation="nearest", resize=24, crop=20)
    assert shard.regions["object"].equal(shard.images[:, :1] > 0)


def test_with_both_columns_the_mask_is_the_object(tmp_path: Path) -> None:
    masks = MASK_LAYOUTS["binary"](MASKS).to_pylist()
    masks[4] = None
    path = write(tmp_path / "a.parquet", masks=pa.array(masks), boxes=pa.array([[[0, 0, 9, 9]]] * COUNT))
    shard = loaded(path, mask_column="masks", boxes_column="boxes")
    expected = MASKS.copy()
    expected[4] = False
    assert np.array_equal(shard.regions["object"].numpy()[:, 0], expected)
    assert reasons(shard) == {"s4": "the mask is null"}


def test_a_mask_that_cannot_be_used_leaves_the_image_without_a_region(tmp_path: Path) -> None:
    masks = MASK_LAYOUTS["struct"](MASKS).to_pylist()
    masks[0] = None
    masks[1]["bytes"] = None
    masks[2]["bytes"] = masks[2]["bytes"][:50]
    masks[3]["bytes"] = png(MASKS[3][:-1])
    masks[4]["bytes"] = b"no image"
    masks[5]["bytes"] = file_of(Image.fromarray(MASKS[5]).convert("L"), "JPEG")
    masks[6]["bytes"] = png(MASKS[6] & False)
    shard = loaded(write(tmp_path / "a.parquet", masks=pa.array(masks)), mask_column="masks")
    assert shard.failures == () and len(shard) == COUNT
    found = reasons(shard)
    assert [found.pop(name) for name in ("s0", "s1")] == ["the mask is null"] * 2
    assert found.pop("s3") == "the mask has 11 x 18 pixels (height x width), its image 12 x 18"
    assert found.keys() == {"s2", "s4", "s5"}
    assert all(reason.startswith("the mask cannot be used: ") for reason in found.values())
    assert "cannot be decoded" in found["s2"] and "not an image in PNG" in found["s5"]
    assert shard.regions["object"].flatten(1).any(1).tolist() == [False] * 7 + [True] * 2


def test_raw_masks_that_are_null_or_no_rectangle_are_named(tmp_path: Path) -> None:
    rows = MASKS.tolist()
    rows[1] = None
    rows[2] = [*rows[2][:-1], rows[2][-1][:-1]]
    rows[3] = []
    rows[4][2][2] = None
    lists = loaded(write(tmp_path / "a.parquet", masks=pa.array(rows)), mask_column="masks")
    assert reasons(lists) == {"s1": "the mask is null"} | dict.fromkeys(
        ("s2", "s3", "s4"), "the mask's rows differ in length, hold nulls, or are none"
    )
    kind = pa.fixed_shape_tensor(pa.uint8(), (HEIGHT, WIDTH))
    flat = [None if row == 6 else mask.ravel().tolist() for row, mask in enumerate(MASKS.astype(int))]
    storage = pa.array(flat, kind.storage_type)
    path = write(tmp_path / "b.parquet", masks=pa.ExtensionArray.from_storage(kind, storage))
    tensors = loaded(path, mask_column="masks")
    assert reasons(tensors) == {"s6": "the mask is null"}
    assert np.array_equal(tensors.regions["object"].numpy()[[5, 7]], MASKS[[5, 7], None])
    small = loaded(write(tmp_path / "c.parquet", masks=tensor(MASKS[:, 1:], pa.uint8())), mask_column="masks")
    assert set(reasons(small).values()) == {"the mask has 11 x 18 pixels (height x width), its image 12 x 18"}


def test_boxes_that_are_none_are_named(tmp_path: Path) -> None:
    boxes = [None, [None], [[1, 2, 3]], [[1, 2, 3, 4, 5]], [[1, None, 2, 3]], [[5, 5, 2, 9]], [[0, 0, 2, 2]]]
    boxes += [[[0.0, 0.0, float("inf"), 2.0]], [[0.0, 0.0, float("nan"), 2.0]]]
    shard = loaded(write(tmp_path / "a.parquet", boxes=pa.array(boxes)), boxes_column="boxes")
    found = reasons(shard)
    assert found.keys() == {"s0", "s1", "s2", "s3", "s4", "s5", "s7", "s8"}
    assert found["s0"] == "the boxes are null"
    assert "ends before it begins" in found["s5"]
    assert all("x0, y0, x1, y1" in found[name] for name in ("s1", "s2", "s3", "s4", "s5", "s7", "s8"))
    assert shard.regions["object"].flatten(1).sum(1).tolist() == [0, 0, 0, 0, 0, 0, 4, 0, 0]


@pytest.mark.parametrize("images", [encoded_images, raw_images])
def test_an_image_that_fails_takes_its_region_along(tmp_path: Path, images: Callable[[np.ndarray], pa.Array]) -> None:
    masks = MASK_LAYOUTS["binary"](MASKS).to_pylist()
    masks[3] = masks[5] = None
    image = images(MASKS).to_pylist()
    image[2] = image[3] = None
    whole = pa.array(image, images(MASKS).type.storage_type if images is raw_images else None)
    whole = pa.ExtensionArray.from_storage(images(MASKS).type, whole) if images is raw_images else whole
    shard = loaded(write(tmp_path / "a.parquet", whole, masks=pa.array(masks)), mask_column="masks")
    assert [one.id for one in shard.failures] == ["s2", "s3"]
    assert reasons(shard) == {"s5": "the mask is null"}
    assert [one.position for one in shard.regionless] == [5]
    expected = MASKS.copy()
    expected[5] = False
    assert np.array_equal(shard.regions["object"].numpy()[:, 0], expected[[0, 1, 4, 5, 6, 7, 8]])


def test_of_a_palette_the_index_counts_and_alpha_does_not(tmp_path: Path) -> None:
    black = Image.fromarray(MASKS[0].astype(np.uint8), mode="L").convert("P")
    black.putpalette([0, 0, 0] * 256)
    opaque = Image.fromarray(MASKS[1] * np.uint8(255)).convert("RGB").convert("RGBA")
    deep = Image.fromarray(MASKS[2].astype(np.uint16))
    grey = Image.fromarray(MASKS[3] * np.uint8(7)).convert("LA")
    files = [file_of(image) for image in (black, opaque, deep, grey)]
    files.append(file_of(Image.new("CMYK", (WIDTH, HEIGHT)), "TIFF"))
    path = write(tmp_path / "a.parquet", encoded_images(MASKS[:5]), masks=pa.array(files))
    shard = loaded(path, mask_column="masks")
    assert np.array_equal(shard.regions["object"].numpy()[:4, 0], MASKS[:4])
    assert reasons(shard) == {"s4": "the mask cannot be used: mode CMYK is none that a mask has"}


def test_a_damaged_mask_page_costs_no_image(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", masks=MASK_LAYOUTS["binary"](MASKS))
    dataset = opened(Parquet(path=path, mask_column="masks"))
    metadata = pq.ParquetFile(path).metadata.row_group(1)
    (chunk,) = (
        metadata.column(at) for at in range(metadata.num_columns) if metadata.column(at).path_in_schema == "masks"
    )
    damaged = bytearray(Path(path).read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    damaged[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    Path(path).write_bytes(damaged)
    shard = dataset.load(range(COUNT), regions=True)
    assert shard.failures == ()
    assert list(reasons(shard)) == ["s4", "s5", "s6", "s7"]
    assert all(path in reason for reason in reasons(shard).values())


def test_a_silent_object_store_is_tried_again_and_no_mask_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent:
        def open_input_file(self, path: str) -> None:
            raise OSError(f"{path}: timed out")

    dataset = opened(
        Parquet(path=write(tmp_path / "a.parquet", masks=MASK_LAYOUTS["binary"](MASKS)), mask_column="masks")
    )
    monkeypatch.setattr("pipeline.data.parquet_image.read_regions", lambda _, *rest: read_regions(Silent(), *rest))
    with pytest.raises(RetryableError, match="timed out"):
        dataset.load([0], regions=True)


def test_masks_are_not_read_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", masks=MASK_LAYOUTS["binary"](MASKS))
    dataset = opened(Parquet(path=path, mask_column="masks"))
    monkeypatch.setattr("pipeline.data.parquet_image.read_regions", None)
    shard = dataset.load(range(COUNT))
    assert len(shard) == COUNT and shard.regions == {}


def test_a_data_set_without_regions_has_none_and_no_fingerprint_of_them() -> None:
    dataset = Dataset(Digits(), build_index(Digits()), seed=0)
    assert (dataset.regions, dataset.region_fingerprint) == ((), None)
    assert dataset.load([0, 1], regions=True).regions == {}


def test_fingerprints_tell_masks_from_boxes_and_leave_the_data_set_alone(tmp_path: Path) -> None:
    boxes = [[[row, 0, 12, 9]] for row in range(COUNT)]
    path = write(tmp_path / "a.parquet", masks=MASK_LAYOUTS["binary"](MASKS), boxes=pa.array(boxes))
    configs = [
        Parquet(path=path),
        Parquet(path=path, mask_column="masks"),
        Parquet(path=path, boxes_column="boxes"),
        Parquet(path=path, mask_column="masks", boxes_column="boxes"),
    ]
    found = [opened(config) for config in configs]
    assert len({dataset.fingerprint for dataset in found}) == 1
    regions = [dataset.region_fingerprint for dataset in found]
    assert regions[0] is None and regions[1] == regions[3]
    assert len(set(regions)) == 3


@pytest.mark.parametrize("kind", ["boxes", "mask"])
def test_other_boxes_or_raw_masks_of_the_same_length_have_another_fingerprint(tmp_path: Path, kind: str) -> None:
    found = []
    for number, row in enumerate((3, 4)):
        masks = MASKS.copy()
        boxes = np.tile([[0, 0, 9, 9], [1, 1, 8, 8]], (COUNT, 1, 1))
        masks[row], boxes[row] = MASKS[row, ::-1], [[0, 0, 9, 9], [2, 1, 8, 8]]
        path = tmp_path / f"{number}.parquet"
        columns = {"boxes": pa.array(boxes.tolist()), "mask": tensor(masks, pa.uint8())}
        table = pq.read_table(write(path, **columns))
        pq.write_table(table, path, compression="none", use_dictionary=False)
        found.append(opened(Parquet(path=str(path), **{f"{kind}_column": kind})))
    assert found[0].fingerprint == found[1].fingerprint
    assert found[0].region_fingerprint != found[1].region_fingerprint


def test_columns_that_cannot_be_masks_or_boxes_are_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet",
        masks=MASK_LAYOUTS["binary"](MASKS),
        boxes=pa.array([[[0, 0, 1, 1]]] * COUNT),
        numbers=np.arange(COUNT),
        texts=pa.array([[["a"]]] * COUNT),
        colours=tensor(np.zeros((COUNT, 2, 2, 3), np.uint8), pa.uint8()),
        paths=pa.array([{"path": "a.png"}] * COUNT),
    )
    assert "did you mean 'masks'?" in message(Parquet(path=path, mask_column="mask"))
    assert message(Parquet(path=path, boxes_column="box")).startswith("dataset.boxes_column:")
    for column in ("numbers", "texts", "colours", "paths", "boxes"):
        assert f"dataset.mask_column: '{column}'" in message(Parquet(path=path, mask_column=column))
    for column in ("numbers", "texts", "masks"):
        assert f"dataset.boxes_column: '{column}'" in message(Parquet(path=path, boxes_column=column))


def test_nobody_looks_for_masks_in_the_training_split() -> None:
    config = Parquet(path="test", train_path="train", mask_column="masks", boxes_column="boxes")
    assert config.training_split() == Parquet(path="train")
