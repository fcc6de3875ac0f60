"""Reading images out of parquet files: only the row groups that hold them, each once, one column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
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
    one_line,
    run,
)
from pipeline.data.parquet_file import full_path, resolve
from pipeline.errors import FatalError, RetryableError

# Rows decompressed at a time. Raw images are large: 64 of 224 x 224 stay near the cache, and read 1.5 times
# as fast as a whole row group.
_TENSOR_ROWS = 64
_ENCODED_ROWS = 1024
_CHANNELS = (1, 3)


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows wanted from one row group: `rows` in it, ascending, and where each goes, `slots`."""

    path: str
    number: int
    rows: NDArray[np.int64]
    slots: NDArray[np.int64]


def check_image_column(field: pa.Field, path: str) -> None:
    """Say whether a column can hold images.

    Raises:
        FatalError: it cannot.
    """
    kind = field.type
    if _is_binary(kind):
        return
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type):
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

    Raises:
        RetryableError: an object store did not answer.
    """
    filesystem, base = resolve(path)
    reader = _Reader(filesystem, column)
    block = _Block(len(rows), geometry, size)

    def read(group: _Group) -> None:
        try:
            for slots, values in reader.batches(group):
                block.add(slots, values)
        except UnusableImageError as error:
            block.fail(group.slots, str(error))

    groups = _groups(base, files, rows)
    run(read, groups, threads)
    return block.pixels(threads)


def _groups(base: str, files: list[str], rows: pa.Table) -> list[_Group]:
    file, number, row = (rows[name].to_numpy() for name in ("file", "row_group", "row"))
    order = np.lexsort((row, number, file))
    changes = np.flatnonzero((np.diff(file[order]) != 0) | (np.diff(number[order]) != 0)) + 1
    return [
        _Group(full_path(base, files[file[slots[0]]]), int(number[slots[0]]), row[slots], slots)
        for slots in np.split(order, changes)
        if len(slots)
    ]


class _Reader:
    """Opens files for the length of one call; a footer that several row groups share is parsed once."""

    def __init__(self, filesystem: pafs.FileSystem, column: str) -> None:
        self._filesystem = filesystem
        self._column = column
        self._footers: dict[str, pq.FileMetaData] = {}

    def batches(self, group: _Group) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
        """Slots and values of the rows wanted, some at a time; it stops after the last.

        Raises:
            UnusableImageError: the file is missing, corrupt, or not the one that was listed.
            RetryableError: an object store did not answer.
        """
        try:
            with self._filesystem.open_input_file(group.path) as stream:
                file = pq.ParquetFile(stream, metadata=self._footers.get(group.path))
                self._footers[group.path] = file.metadata
                yield from self._wanted(file, group)
        except FileNotFoundError:
            raise UnusableImageError(f"the file {group.path} is missing") from None
        except OSError as error:
            # A disk's bad sector and a damaged page stay as they are; a silent store comes back.
            if not isinstance(self._filesystem, pafs.LocalFileSystem):
                raise RetryableError(f"{group.path} cannot be read: {one_line(error)}") from error
            raise UnusableImageError(f"{group.path} cannot be read: {one_line(error)}") from error
        except pa.ArrowException as error:
            raise UnusableImageError(f"{group.path} is damaged: {one_line(error)}") from error

    def _wanted(self, file: pq.ParquetFile, group: _Group) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
        metadata, schema = file.metadata, file.schema_arrow
        changed = group.number >= metadata.num_row_groups or self._column not in schema.names
        if changed or metadata.row_group(group.number).num_rows <= group.rows[-1]:
            raise UnusableImageError(f"{group.path} is not the file that was listed; run again to list it anew")
        kind = schema.field(self._column).type
        raw, nested = isinstance(kind, pa.FixedShapeTensorType), pa.types.is_struct(kind)
        batches = file.iter_batches(
            batch_size=_TENSOR_ROWS if raw else _ENCODED_ROWS,
            row_groups=[group.number],
            columns=[f"{self._column}.bytes" if nested else self._column],
            use_threads=False,
        )
        start = done = 0
        for batch in batches:
            stop = int(np.searchsorted(group.rows, start + len(batch)))
            if stop > done:
                values = batch.column(0)
                # flatten and not field: a null struct must not show what its child happens to hold.
                values = values.flatten()[0] if nested else values
                yield group.slots[done:stop], values.take(pa.array(group.rows[done:stop] - start))
            start, done = start + len(batch), stop
            if done == len(group.rows):
                return


class _Block:
    """Collects what row groups yield, from several threads: each slot is written once."""

    def __init__(self, count: int, geometry: Geometry, size: Size | None) -> None:
        self._geometry = geometry
        self._size = size
        self._encoded: list[bytes | None] = [None] * count
        self._images: Array | None = None
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
            fitted = fit_arrays(_planes(values), self._geometry, self._size)
            self._reasons.update({int(slots[row]): reason for row, reason in fitted.reasons.items()})
            self._raw_images(fitted.images)[slots] = fitted.images

    def fail(self, slots: NDArray[np.int64], reason: str) -> None:
        """Note why these images cannot be used."""
        self._reasons.update(dict.fromkeys(slots.tolist(), reason))

    def pixels(self, threads: int) -> Pixels:
        """The images of all slots; encoded ones are decoded now."""
        if self._images is not None:
            return Pixels(self._images, self._reasons)
        lengths = [len(data) for data in self._encoded if data is not None]
        small = sum(lengths) < SMALL_IMAGE_BYTES * len(lengths)
        return decode_all(self._fetch, len(self._encoded), self._geometry, self._size, 1 if small else threads)

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


def _is_binary(kind: pa.DataType) -> bool:
    return any(check(kind) for check in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))
