"""Parquet files behind one path or URI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipeline.errors import FatalError
from pipeline.filesystem import open_filesystem, store_error
from pipeline.suggestion import did_you_mean

_TAIL = 8


@dataclass(frozen=True, slots=True)
class ParquetFolder:
    """Some parquet files.

    Attributes:
        filesystem: where they lie.
        base: the folder, or the one file.
        files: paths relative to `base`, sorted; one empty string where `base` is the file.
        stamps: size in bytes and modification time in nanoseconds of each.
    """

    filesystem: pafs.FileSystem
    base: str
    files: tuple[str, ...]
    stamps: tuple[tuple[int, int], ...]

    @property
    def base_name(self) -> str:
        """The last part of `base`."""
        return self.base.rsplit("/", 1)[-1]

    def full_path(self, name: str) -> str:
        """Path of one of `files` on the file system."""
        return full_path(self.base, name)


def full_path(base: str, name: str) -> str:
    """A file below a folder; the base itself where the name is empty."""
    return f"{base}/{name}" if name else base


def resolve(path: str) -> tuple[pafs.FileSystem, str]:
    """File system and path on it.

    Raises:
        FatalError: a URI that pyarrow does not know, or that holds credentials.
    """
    try:
        return open_filesystem(path)
    except FatalError as error:
        raise FatalError(f"dataset.path {error}") from None


def open_folder(path: str) -> ParquetFolder:
    """Find the parquet files of a path or URI; none is opened.

    Raises:
        FatalError: nothing is there, or no parquet file.
    """
    filesystem, base = resolve(path)
    try:
        info = filesystem.get_file_info(base)
        if info.type == pafs.FileType.File:
            return ParquetFolder(filesystem, base, ("",), ((info.size, info.mtime_ns or 0),))
        if info.type == pafs.FileType.NotFound:
            raise FatalError(f"dataset.path '{path}' does not exist{_near(filesystem, base)}")
        found = filesystem.get_file_info(pafs.FileSelector(base, recursive=True))
    except OSError as error:
        raise FatalError(f"dataset.path cannot be listed: {store_error(path, error)}") from None
    named = {
        file.path.removeprefix(base).lstrip("/"): (file.size, file.mtime_ns or 0)
        for file in found
        if file.type == pafs.FileType.File and file.path.endswith(".parquet")
    }
    # A leading dot or underscore marks what a writer has not finished, or notes beside the data.
    kept = sorted(name for name in named if not any(part[0] in "._" for part in name.split("/")))
    if not kept:
        raise FatalError(f"dataset.path '{path}' holds no *.parquet files")
    return ParquetFolder(filesystem, base, tuple(kept), tuple(named[name] for name in kept))


def footer(stream: pa.NativeFile) -> bytes:
    """A parquet file's own description of itself: schema, and sizes and statistics of every column chunk."""
    size = stream.size()
    if size < _TAIL:
        return b""
    stream.seek(size - _TAIL)
    length = int.from_bytes(stream.read(_TAIL)[:4], "little")
    stream.seek(max(0, size - _TAIL - length))
    content: bytes = stream.read(min(length, size - _TAIL))
    stream.seek(0)
    return content


def column_bytes(stream: pa.NativeFile, metadata: pq.FileMetaData, column: str) -> Iterator[bytes]:
    """One column as it lies in the file, a row group at a time; of a nested column all its leaves."""
    for group in range(metadata.num_row_groups):
        chunks = metadata.row_group(group)
        for number in range(chunks.num_columns):
            chunk = chunks.column(number)
            if chunk.path_in_schema == column or chunk.path_in_schema.startswith(f"{column}."):
                stream.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
                yield stream.read(chunk.total_compressed_size)
    stream.seek(0)


def _near(filesystem: pafs.FileSystem, base: str) -> str:
    if not isinstance(filesystem, pafs.LocalFileSystem):
        return ""
    parent = Path(base).parent
    names = sorted(entry.name for entry in parent.iterdir()) if parent.is_dir() else []
    return did_you_mean(Path(base).name, names)
