"""Parquet files with masks and boxes in every layout."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.data import Dataset, Parquet, Shard, build_index
from pipeline.errors import FatalError
from pipeline.noise import Noise

HEIGHT, WIDTH, COUNT = 12, 18, 9
DRAWN = Noise(0).generator("test", "masks").random((COUNT, HEIGHT, WIDTH))
MASKS = DRAWN < 0.4


def file_of(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(pixels: np.ndarray) -> bytes:
    return file_of(Image.fromarray(pixels))


def pictured(masks: np.ndarray) -> np.ndarray:
    """Masks as white on black, (n, H, W, 3)."""
    return np.repeat(masks[..., None] * np.uint8(255), 3, axis=3)


def encoded_images(masks: np.ndarray) -> pa.Array:
    return pa.array([{"bytes": png(image), "path": None} for image in pictured(masks)])


def raw_images(masks: np.ndarray) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(pictured(masks))


def tensor(masks: np.ndarray, kind: pa.DataType) -> pa.Array:
    whole = pa.fixed_shape_tensor(kind, masks.shape[1:])
    storage = pa.array(list(masks.reshape(len(masks), -1)), pa.list_(pa.uint8(), masks[0].size))
    return pa.ExtensionArray.from_storage(whole, storage.cast(whole.storage_type))


MASK_LAYOUTS: dict[str, Callable[[np.ndarray], pa.Array]] = {
    "struct": lambda masks: pa.array([{"bytes": png(mask * np.uint8(255)), "path": "m.png"} for mask in masks]),
    "binary": lambda masks: pa.array([png(mask * np.uint8(1)) for mask in masks]),
    "colours": lambda masks: pa.array([png(mask[..., None] * np.array([0, 0, 9], np.uint8)) for mask in masks]),
    "one bit": lambda masks: pa.array([png(mask) for mask in masks]),
    "uint8 tensor": lambda masks: tensor(masks * np.uint8(3), pa.uint8()),
    "bool tensor": lambda masks: tensor(masks, pa.bool_()),
    "tensor of one channel first": lambda masks: tensor(masks[:, None], pa.bool_()),
    "tensor of one channel last": lambda masks: tensor(masks[..., None], pa.uint8()),
    "list": lambda masks: pa.array(masks.tolist(), pa.list_(pa.list_(pa.bool_()))),
    "fixed list": lambda masks: pa.array(masks.astype(int).tolist(), pa.list_(pa.list_(pa.uint8(), WIDTH), HEIGHT)),
}


def write(path: Path, image: pa.Array | None = None, **columns: object) -> str:
    image = encoded_images(MASKS) if image is None else image
    ids = [f"s{row}" for row in range(len(image))]
    table = pa.table({"image": image, "label": np.arange(len(image)) % 3, "id": ids, **columns})
    pq.write_table(table, path, row_group_size=4)
    return str(path)


def opened(config: Parquet) -> Dataset:
    return Dataset(config, build_index(config), seed=0)


def loaded(path: str, **changes: object) -> Shard:
    dataset = opened(Parquet(path=path, **changes))
    return dataset.load(range(len(dataset)), regions=True)


def reasons(shard: Shard) -> dict[str, str]:
    assert all("\n" not in one.reason for one in shard.regionless)
    return {one.id: one.reason for one in shard.regionless}


def message(config: Parquet) -> str:
    with pytest.raises(FatalError) as caught:
        build_index(config)
    return str(caught.value)
