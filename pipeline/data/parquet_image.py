"""Reading images out of parquet files, and where things are in them."""

from __future__ import annotations

from threading import Lock

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.data.decode import (
    SMALL_IMAGE_BYTES,
    Array,
    Geometry,
    Pixels,
    Size,
    UnusableImageError,
    decode_all,
    fit_arrays,
    run,
)
from pipeline.data.parquet_file import resolve
from pipeline.data.parquet_region import RegionColumn, read_regions
from pipeline.data.parquet_row import ColumnReader, RowGroup, holds_encoded, row_groups
from pipeline.data.region import RegionBlock
from pipeline.errors import FatalError

_CHANNELS = (1, 3)


def check_image_column(field: pa.Field, path: str) -> None:
    """Say whether a column can hold images.

    Raises:
        FatalError: it cannot.
    """
    kind = field.type
    if holds_encoded(kind):
        return
    if isinstance(kind, pa.FixedShapeTensorType) and kind.value_type == pa.uint8():
        shape = tuple(kind.shape)
        if len(shape) == 2 or (len(shape) == 3 and (shape[-1] in _CHANNELS or shape[0] in _CHANNELS)):
            return
    raise FatalError(
        f"dataset.image_column: '{field.name}' in '{path}' is {kind}; expected binary, a struct with binary "
        f"`bytes`, or a fixed-shape tensor of uint8 with 1 or 3 channels"
    )


def read_images(
    path: str,
    files: list[str],
    column: str,
    rows: pa.Table,
    geometry: Geometry,
    size: Size | None,
    threads: int,
    region: RegionColumn | None = None,
) -> Pixels:
    """Read images of any rows of any files.

    Args:
        path: the folder, file or URI of the source.
        files: paths relative to it.
        column: the image column.
        rows: n rows with `file`, `row_group` and `row`.
        geometry: resize and crop.
        size: (height, width) expected, or None.
        threads: how many row groups are read, and then images decoded, at once.
        region: the column that says where the object is, where that is asked for.

    Raises:
        RetryableError: an object store did not answer.
    """
    filesystem, base = resolve(path)
    groups = row_groups(base, files, rows)
    reader = ColumnReader(filesystem, column)
    block = _Block(len(rows), geometry, size)

    def read(group: RowGroup) -> None:
        try:
            for slots, values in reader.batches(group):
                block.add(slots, values)
        except UnusableImageError as error:
            block.fail(group.slots, str(error))

    run(read, groups, threads)
    if region is None:
        return block.pixels(threads, None)
    regions = RegionBlock({"object": read_regions(filesystem, groups, region, threads)}, geometry)
    return regions.joined(block.pixels(threads, regions))


class _Block:
    """Collects what row groups yield, from several threads: each slot is written once."""

    def __init__(self, count: int, geometry: Geometry, size: Size | None) -> None:
        self._geometry = geometry
        self._size = size
        self._encoded: list[bytes | None] = [None] * count
        self._images: Array | None = None
        self._stored: Size | None = None
        self._reasons: dict[int, str] = {}
        self._lock = Lock()

    def add(self, slots: NDArray[np.int64], values: pa.Array) -> None:
        """Take encoded images as they are, and raw ones at their final size."""
        if not isinstance(values, pa.FixedShapeTensorArray):
            for slot, value in zip(slots.tolist(), values.to_pylist(), strict=True):
                self._encoded[slot] = value
            return
        if values.null_count:
            valid = values.is_valid().to_numpy(zero_copy_only=False)
            self.fail(slots[~valid], "the image is null")
            slots, values = slots[valid], values.filter(pa.array(valid))
        if len(values):
            planes = _planes(values)
            self._stored = (planes.shape[2], planes.shape[3])
            fitted = fit_arrays(planes, self._geometry, self._size)
            self._reasons.update({int(slots[row]): reason for row, reason in fitted.reasons.items()})
            self._raw_images(fitted.images)[slots] = fitted.images

    def fail(self, slots: NDArray[np.int64], reason: str) -> None:
        """Note why these images cannot be used."""
        self._reasons.update(dict.fromkeys(slots.tolist(), reason))

    def pixels(self, threads: int, regions: RegionBlock | None) -> Pixels:
        """The images of all slots; encoded ones are decoded now. `regions` is told of each that is good."""
        if self._images is not None and self._stored is not None:
            if regions is not None:
                for slot in sorted(set(range(len(self._encoded))) - self._reasons.keys()):
                    regions.add(slot, self._stored)
            return Pixels(self._images, self._reasons)
        lengths = [len(data) for data in self._encoded if data is not None]
        small = sum(lengths) < SMALL_IMAGE_BYTES * len(lengths)
        return decode_all(
            self._fetch,
            len(self._encoded),
            self._geometry,
            self._size,
            1 if small else threads,
            None if regions is None else regions.add,
        )

    def _fetch(self, slot: int) -> bytes:
        data = self._encoded[slot]
        if data is None:
            raise UnusableImageError(self._reasons.get(slot, "the image is null"))
        return data

    def _raw_images(self, fitted: Array) -> Array:
        with self._lock:
            if self._images is None:
                self._images = np.zeros((len(self._encoded), *fitted.shape[1:]), dtype=np.uint8)
            return self._images


def _planes(values: pa.FixedShapeTensorArray) -> Array:
    """(n, 3, H, W) view of raw images whose channels stand first, last or nowhere."""
    images: Array = values.to_numpy_ndarray()
    if images.ndim == 3:
        planes = images[:, None]
    elif images.shape[-1] in _CHANNELS:
        planes = images.transpose(0, 3, 1, 2)
    else:
        planes = images
    return np.broadcast_to(planes, (len(planes), 3, *planes.shape[2:]))
