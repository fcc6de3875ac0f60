"""Rows of parquet files: only the row groups that hold them, each once, one column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.data.decode import UnusableImageError, read_error
from pipeline.data.parquet_file import full_path
from pipeline.errors import RetryableError, one_line

# Rows decompressed at a time. Raw images are large: 64 of 224 x 224 stay near the cache, and read 1.5 times
# as fast as a whole row group.
_TENSOR_ROWS = 64
_ENCODED_ROWS = 1024


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows wanted from one row group: `rows` in it, ascending, and where each goes, `slots`."""

    path: str
    number: int
    rows: NDArray[np.int64]
    slots: NDArray[np.int64]


def row_groups(base: str, files: list[str], rows: pa.Table) -> list[RowGroup]:
    """Where rows of an index stand.

    Args:
        base: the source's folder or file on its file system.
        files: paths relative to it.
        rows: n rows with `file`, `row_group` and `row`; their slots are 0 to n - 1.
    """
    file, number, row = (rows[name].to_numpy() for name in ("file", "row_group", "row"))
    order = np.lexsort((row, number, file))
    changes = np.flatnonzero((np.diff(file[order]) != 0) | (np.diff(number[order]) != 0)) + 1
    return [
        RowGroup(full_path(base, files[file[slots[0]]]), int(number[slots[0]]), row[slots], slots)
        for slots in np.split(order, changes)
        if len(slots)
    ]


class ColumnReader:
    """Opens files for the length of one call; a footer that several row groups share is parsed once."""

    def __init__(self, filesystem: pafs.FileSystem, column: str) -> None:
        self._filesystem = filesystem
        self._column = column
        self._footers: dict[str, pq.FileMetaData] = {}

    def batches(self, group: RowGroup) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
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
            raise read_error(group.path, error) from error
        except MemoryError:
            raise  # Arrow's own is an ArrowException too, and says nothing of the file
        except pa.ArrowException as error:
            raise UnusableImageError(f"{group.path} is damaged: {one_line(error)}") from error

    def _wanted(self, file: pq.ParquetFile, group: RowGroup) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
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


def holds_encoded(kind: pa.DataType) -> bool:
    """Whether a column of this type holds files: binary, or a struct with binary `bytes`."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return any(check(kind) for check in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))
