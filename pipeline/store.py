"""The output folder: Arrow parts committed by markers, read back only where a marker names them.

A variant is a folder that holds one stage's rows for one configuration, for example
`maps/model=resnet20/method=agi-1f3a9c21`. Inside it stand parts, `part-<start>-<stop>-<hash>.parquet`, each with
the rows of the samples at positions start ≤ p < stop, and `_committed/<start>-<stop>-<hash>.json`, the markers.
The marker is written last and its name says all that planning needs, so one listing tells what is done.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipeline.errors import FatalError, RetryableError, ShardError

IDENTITY = "heatline.json"
FORMAT = 1
MARKERS = "_committed"
_MARKER_NAME = re.compile(r"^(\d{9})-(\d{9})-([0-9a-f]{16})\.json$")

FAILURE_SCHEMA = pa.schema(
    [("position", pa.int64()), ("id", pa.string()), ("stage", pa.string()), ("reason", pa.string())]
)


@dataclass(frozen=True, slots=True)
class Failed:
    """A sample that a stage could not do, with the reason in one line."""

    position: int
    id: str
    reason: str


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A committed part of a variant: the samples at positions start ≤ p < stop."""

    start: int
    stop: int
    hash: str

    @property
    def file(self) -> str:
        """Name of the part's file in the variant's folder."""
        return f"part-{self.start:09d}-{self.stop:09d}-{self.hash}.parquet"

    @property
    def marker(self) -> str:
        """Name of the marker's file in the folder `_committed`."""
        return f"{self.start:09d}-{self.stop:09d}-{self.hash}.json"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a marker holds: how many rows and failures a part has, its size and what it took to make."""

    start: int
    stop: int
    rows: int
    failures: int
    size: int
    seconds: float


def open_output(uri: str | Path, *, create: bool = False) -> Output:
    """Open an output folder.

    Args:
        uri: a folder, or a URI such as `s3://bucket/prefix`.
        create: make the folder where there is none.

    Returns:
        The output.

    Raises:
        FatalError: the folder is missing, holds something else, or was written by a newer format.
    """
    text = str(uri)
    if "://" in text:
        filesystem, root = pafs.FileSystem.from_uri(text)
    else:
        filesystem, root = pafs.LocalFileSystem(), Path(text).expanduser().absolute().as_posix()
        text = root
    output = Output(filesystem, root, text)
    if output.exists(IDENTITY):
        found = json.loads(output.read_bytes(IDENTITY)).get("format")
        if found != FORMAT:
            raise FatalError(f"{text}: written in format {found}, this version reads format {FORMAT}")
        return output
    info = filesystem.get_file_info(root)
    if info.type == pafs.FileType.File:
        raise FatalError(f"{text}: is a file, an output is a folder")
    if info.type == pafs.FileType.Directory and filesystem.get_file_info(pafs.FileSelector(root)):
        raise FatalError(f"{text}: is not empty and is not a heatline output; name another folder")
    if not create:
        raise FatalError(f"{text}: no heatline output here")
    output.write_bytes(IDENTITY, json.dumps({"format": FORMAT, "what": "output of heatline"}).encode())
    return output


class Output:
    """An output folder on a local disk or an object store. Opened with `open_output`.

    Attributes:
        uri: the folder, absolute, or its URI.
    """

    def __init__(self, filesystem: pafs.FileSystem, root: str, uri: str) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._local = isinstance(filesystem, pafs.LocalFileSystem)
        self.uri = uri

    # Files

    def path(self, name: str) -> str:
        """The place of a file under this output, in the file system's own form."""
        return f"{self._root}/{name}"

    def exists(self, name: str) -> bool:
        """Whether a file or folder of this name is there."""
        return bool(self._filesystem.get_file_info(self.path(name)).type != pafs.FileType.NotFound)

    def read_bytes(self, name: str) -> bytes:
        """The content of a file."""
        with self._filesystem.open_input_stream(self.path(name), compression=None) as stream:
            return bytes(stream.read())

    def write_bytes(self, name: str, content: bytes | pa.Buffer) -> None:
        """Write a file so that it is there whole or not at all: temporary name and rename, or a single put.

        Raises:
            FatalError: no space or no permission; nothing that was there is touched.
            RetryableError: the store failed in a way that may pass.
        """
        target = self.path(name)
        try:
            if not self._local:
                with self._filesystem.open_output_stream(target) as stream:
                    stream.write(content)
                return
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(f"{target}.{uuid.uuid4().hex}.tmp")
            try:
                temporary.write_bytes(content)
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise FatalError(f"{self.uri}: no space left; free some and run the same command again") from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
                raise FatalError(f"{target}: cannot be written: {error.strerror}") from error
            raise RetryableError(f"{target}: {error}") from error

    def list(self, folder: str, *, recursive: bool = False) -> list[tuple[str, int]]:
        """Files under a folder with their sizes, names relative to the folder, sorted; one listing."""
        base = self.path(folder)
        selector = pafs.FileSelector(base, allow_not_found=True, recursive=recursive)
        found = self._filesystem.get_file_info(selector)
        return sorted(
            (PurePosixPath(info.path).relative_to(base).as_posix(), info.size)
            for info in found
            if info.type == pafs.FileType.File
        )

    # Tables that are made once

    def cached_table(self, name: str, build: Callable[[], pa.Table]) -> pa.Table:
        """The Arrow table kept under `name`, made and kept on first use."""
        if not self.exists(name):
            sink = pa.BufferOutputStream()
            table = build()
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            self.write_bytes(name, sink.getvalue())
        return self.open_table(name)

    def open_table(self, name: str) -> pa.Table:
        """An Arrow table kept by `cached_table`; memory-mapped on a local disk."""
        source = pa.memory_map(self.path(name)) if self._local else self._filesystem.open_input_file(self.path(name))
        return pa.ipc.open_file(source).read_all()

    # Commits

    def describe(self, variant: str, description: dict[str, Any]) -> None:
        """Keep what a variant is (`variant.json`) beside its parts."""
        name = f"{variant}/variant.json"
        content = json.dumps(description, indent=1, sort_keys=True).encode()
        if not (self.exists(name) and self.read_bytes(name) == content):
            self.write_bytes(name, content)

    def description(self, variant: str) -> dict[str, Any]:
        """What `describe` kept."""
        found: dict[str, Any] = json.loads(self.read_bytes(f"{variant}/variant.json"))
        return found

    def commit(
        self,
        variant: str,
        start: int,
        stop: int,
        table: pa.Table,
        failed: Sequence[Failed],
        expected: Iterable[str],
        seconds: float = 0.0,
    ) -> Receipt:
        """Write a part and its failures, then, last, the marker that makes them count.

        Args:
            variant: the folder.
            start: first position.
            stop: one past the last position.
            table: rows with a column `id`; several rows of one sample stand together.
            failed: the samples that have no row.
            expected: ids that went in; each must come out once, as rows or as a failure.
            seconds: what the part took to make.

        Returns:
            What the marker says.

        Raises:
            ShardError: ids out are not ids in.
            FatalError, RetryableError: as `write_bytes`.
        """
        _check_ids(variant, table, failed, expected)
        sink = pa.BufferOutputStream()
        # Maps are floats without repetition: dictionaries and statistics cost time and save nothing.
        plain = "map" in table.column_names
        # Small row groups let a reader take a few samples' maps without the rest.
        pq.write_table(
            table,
            sink,
            compression="none" if plain else "zstd",
            use_dictionary=not plain,
            write_statistics=not plain,
            row_group_size=64 if plain else 65536,
        )
        content = sink.getvalue()
        part = Part(start, stop, hashlib.sha256(content).hexdigest()[:16])
        self.write_bytes(f"{variant}/{part.file}", content)
        if failed:
            stage = variant.split("/", 1)[0]
            rows = [{**asdict(one), "stage": stage} for one in failed]
            sink = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pylist(rows, schema=FAILURE_SCHEMA), sink)
            self.write_bytes(f"failures/{variant}/{part.file}", sink.getvalue())
        receipt = Receipt(start, stop, table.num_rows, len(failed), content.size, round(seconds, 3))
        self.write_bytes(f"{variant}/{MARKERS}/{part.marker}", json.dumps(asdict(receipt)).encode())
        return receipt

    def parts(self, variant: str) -> list[Part]:
        """The committed parts that count, in order, without overlap; one listing.

        Where parts overlap (two runs with other unit sizes at the same time) the one that starts first, then the
        longer one, counts; what is left uncovered is a gap to be computed.
        """
        counted: list[Part] = []
        for part in sorted(self._markers(variant), key=lambda part: (part.start, -part.stop, part.hash)):
            if not counted or part.start >= counted[-1].stop:
                counted.append(part)
        return counted

    def _markers(self, variant: str) -> Iterable[Part]:
        for name, _ in self.list(f"{variant}/{MARKERS}"):
            if match := _MARKER_NAME.match(name):
                yield Part(int(match[1]), int(match[2]), match[3])

    def forget(self, variant: str) -> None:
        """Take a variant's commits back, markers first, so that it is computed again."""
        for folder in (f"{variant}/{MARKERS}", variant, f"failures/{variant}"):
            if self.exists(folder):
                self._filesystem.delete_dir(self.path(folder))

    # Reading

    def read(
        self, variant: str, start: int = 0, stop: int | None = None, columns: list[str] | None = None
    ) -> pa.Table | None:
        """Rows of the samples at positions start ≤ p < stop, in order; None where nothing is committed.

        Args:
            variant: the folder.
            start: first position.
            stop: one past the last position; default: to the end.
            columns: those wanted; default: all.
        """
        wanted = [
            part for part in self.parts(variant) if part.stop > start and (stop is None or part.start < stop)
        ]
        if not wanted:
            return None
        inside = ds.field("position") >= start
        if stop is not None:
            inside = inside & (ds.field("position") < stop)
        return self._dataset(variant, wanted).to_table(columns=columns, filter=inside)

    def dataset(self, variant: str) -> ds.Dataset | None:
        """The committed parts of a variant as a pyarrow dataset; None where nothing is committed."""
        parts = self.parts(variant)
        return self._dataset(variant, parts) if parts else None

    def failures(self, variants: Iterable[str]) -> pa.Table:
        """Failures of the variants' committed parts: position, id, stage, reason."""
        tables = [FAILURE_SCHEMA.empty_table()]
        for variant in variants:
            there = {name for name, _ in self.list(f"failures/{variant}")}
            names = [part.file for part in self.parts(variant) if part.file in there]
            tables += [
                pq.read_table(self.path(f"failures/{variant}/{name}"), filesystem=self._filesystem) for name in names
            ]
        return pa.concat_tables(tables)

    def _dataset(self, variant: str, parts: Sequence[Part]) -> ds.Dataset:
        paths = [self.path(f"{variant}/{part.file}") for part in parts]
        # Paths that hold `key=value` must not become columns here: parts say themselves what they are.
        return ds.dataset(paths, format="parquet", filesystem=self._filesystem, partitioning=None)


def _check_ids(variant: str, table: pa.Table, failed: Sequence[Failed], expected: Iterable[str]) -> None:
    """Ids in = ids out: every expected id once, in rows or among the failures."""
    out = table.column("id").unique().to_pylist() + [one.id for one in failed]
    wanted = list(expected)
    if len(out) != len(wanted) or set(out) != set(wanted):
        missing, extra = sorted(set(wanted) - set(out)), sorted(set(out) - set(wanted))
        raise ShardError(
            f"{variant}: {len(wanted)} samples went in and {len(out)} came out; "
            f"missing {missing[:3]}, unexpected {extra[:3]}"
        )
