"""Parquet files of images, on a disk or in an object store, as Hugging Face and others write them."""

from __future__ import annotations

import hashlib
import json
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from pipeline.data.decode import Pixels, Size
from pipeline.data.parquet_file import ParquetFolder, column_bytes, footer, open_folder
from pipeline.data.parquet_image import check_image_column, read_images
from pipeline.data.parquet_region import RegionColumn, check_boxes_column, check_mask_column
from pipeline.data.parquet_row import holds_encoded
from pipeline.data.source import Listing, SourceConfig
from pipeline.errors import FatalError, one_line
from pipeline.suggestion import did_you_mean


class _ListedFile(NamedTuple):
    """One file's rows of the index, and what stands for its images and its regions in the digests."""

    rows: pa.Table
    schema: pa.Schema
    footer: bytes
    regions: bytes


class Parquet(SourceConfig):
    """Images in a column of one parquet file, or of all `*.parquet` files below a folder, sorted by path.

    The image column holds encoded images, as Hugging Face's struct of `bytes` and `path` or as plain binary,
    or raw ones: a fixed-shape tensor (H, W, 3), (3, H, W), (H, W, 1), (1, H, W) or (H, W) uint8. Where there
    is no id column an id is `<file name>/<row>`. A negative label means unknown.

    Where the object is may stand beside the image, at the size at which the image is stored: as a mask, an encoded
    image (no JPEG) or a tensor or list of rows of bool or uint8, inside where it is not zero; or as a list of boxes
    [x0, y0, x1, y1] in pixels, half-open. With both, the mask counts.
    """

    paths: ClassVar[tuple[str, ...]] = ("path", "train_path")
    source: Literal["parquet"] = "parquet"
    path: str = Field(description="parquet file, folder of parquet files, or URI of either (s3://, gs://)")
    train_path: str | None = Field(None, description="the training split, with the same columns")
    image_column: str = Field("image", description="column of encoded or raw images")
    label_column: str | None = Field("label", description="column of integer labels; null: no labels")
    id_column: str = Field("id", description="column of different ids; if there is no `id`, file name and row")
    mask_column: str | None = Field(None, description="column of masks of the object, for metrics of where it is")
    boxes_column: str | None = Field(None, description="column of lists of boxes x0, y0, x1, y1 round the object")
    class_names: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="names of the classes; default: those in the file's Hugging Face metadata",
    )

    def listing(self) -> Listing:
        """Every row, file by file."""
        folder = open_folder(self.path)
        content, regions = hashlib.sha256(self.image_column.encode()), hashlib.sha256()
        parts: list[pa.Table] = []
        schema: pa.Schema | None = None
        for number, name in enumerate(folder.files):
            listed = self._list_file(folder, number, name)
            content.update(listed.footer)
            regions.update(listed.regions)
            parts.append(listed.rows)
            schema = schema or listed.schema
            here, first = (one.field(self.image_column).type for one in (listed.schema, schema))
            if here != first:
                raise FatalError(
                    f"dataset.path '{self.path}': column '{self.image_column}' is {here} in {name}, "
                    f"but {first} in {folder.files[0]}"
                )
        if schema is None or not sum(map(len, parts)):
            raise FatalError(f"dataset.path '{self.path}' holds no rows")
        table = pa.concat_tables(parts)
        self._check_ids(table["id"])
        labels = pc.if_else(pc.greater_equal(table["label"], 0), table["label"], pa.scalar(None, pa.int64()))
        names = self.class_names or _class_names(schema, self.label_column)
        return Listing(
            ids=table["id"],
            labels=labels,
            classes=self._count_classes(labels, names),
            class_names=names,
            locator={name: table[name] for name in ("file", "row_group", "row")},
            notes={"files": list(folder.files), "regions": regions.hexdigest()},
            content=content.digest(),
        )

    def state(self) -> object:
        """Size and modification time of each file."""
        folder = open_folder(self.path)
        return [[name, *stamp] for name, stamp in zip(folder.files, folder.stamps, strict=True)]

    def read(self, rows: pa.Table, size: Size | None, threads: int) -> Pixels:
        """The images; see `SourceConfig.read`.

        Raises:
            RetryableError: an object store did not answer.
        """
        return self._read(rows, size, threads, None)

    def regions(self) -> tuple[str, ...]:
        """The object, where a column says where it is."""
        return ("object",) if self._region_column() is not None else ()

    def region_state(self, index: pa.Table) -> object:
        """The column that says so, and a digest of what stands in it."""
        column = self._region_column()
        return None if column is None else [column.name, column.boxes, json.loads(index.schema.metadata[b"regions"])]

    def read_with_regions(self, rows: pa.Table, size: Size | None, threads: int) -> Pixels:
        """The images and the object's mask; see `SourceConfig.read_with_regions`.

        Raises:
            RetryableError: an object store did not answer.
        """
        return self._read(rows, size, threads, self._region_column())

    def training_split(self) -> Self | None:
        """The files at `train_path`, with the same columns; nobody asks where the objects of training images are."""
        if self.train_path is None:
            return None
        return self._unselected(path=self.train_path, train_path=None, mask_column=None, boxes_column=None)

    def _region_column(self) -> RegionColumn | None:
        if self.mask_column is not None:
            return RegionColumn(self.mask_column)
        return None if self.boxes_column is None else RegionColumn(self.boxes_column, boxes=True)

    def _read(self, rows: pa.Table, size: Size | None, threads: int, region: RegionColumn | None) -> Pixels:
        files = json.loads(rows.schema.metadata[b"files"])
        return read_images(self.path, files, self.image_column, rows, self.geometry, size, threads, region)

    def _list_file(self, folder: ParquetFolder, number: int, name: str) -> _ListedFile:
        path = folder.full_path(name)
        try:
            with folder.filesystem.open_input_file(path) as stream:
                last_bytes = footer(stream)
                file = pq.ParquetFile(stream)
                schema = file.schema_arrow
                self._check_columns(schema, path)
                columns = [column for column in (self.id_column, self.label_column) if column in schema.names]
                table = file.read(columns=columns)
                metadata = file.metadata
                regions = self._region_digest(stream, schema, metadata)
        except (OSError, pa.ArrowException) as error:
            raise FatalError(f"dataset.path: '{path}' cannot be read as parquet: {one_line(error)}") from None
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        count = metadata.num_rows
        if self.id_column in schema.names:
            ids = table[self.id_column].cast(pa.string())
        else:
            ids = pa.array([f"{name or folder.base_name}/{row}" for row in range(count)], pa.string())
        labels = table[self.label_column].cast(pa.int64()) if self.label_column else pa.nulls(count, pa.int64())
        rows = [np.arange(size, dtype=np.int32) for size in sizes]
        columns_of_index = {
            "id": ids,
            "label": labels,
            "file": pa.array(np.full(count, number, dtype=np.int32)),
            "row_group": pa.array(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)),
            "row": pa.array(np.concatenate(rows) if rows else np.empty(0, np.int32)),
        }
        return _ListedFile(pa.table(columns_of_index), schema, last_bytes, regions)

    def _region_digest(self, stream: pa.NativeFile, schema: pa.Schema, metadata: pq.FileMetaData) -> bytes:
        """Of boxes and raw masks: other ones may be equally long, and then the footer is the same."""
        column, total = self._region_column(), hashlib.sha256()
        if column is not None and not holds_encoded(schema.field(column.name).type):
            for part in column_bytes(stream, metadata, column.name):
                total.update(part)
        return total.digest()

    def _check_columns(self, schema: pa.Schema, path: str) -> None:
        wanted = {
            "image_column": self.image_column,
            "label_column": self.label_column,
            "id_column": self.id_column,
            "mask_column": self.mask_column,
            "boxes_column": self.boxes_column,
        }
        for key, column in wanted.items():
            if column is None or column in schema.names or (key == "id_column" and column == "id"):
                continue
            hint = "; null means no labels" if key == "label_column" else ""
            raise FatalError(
                f"dataset.{key}: '{path}' has no column '{column}', only {', '.join(schema.names)}"
                f"{did_you_mean(column, schema.names)}{hint}"
            )
        check_image_column(schema.field(self.image_column), path)
        if self.mask_column is not None:
            check_mask_column(schema.field(self.mask_column), path)
        if self.boxes_column is not None:
            check_boxes_column(schema.field(self.boxes_column), path)
        if self.label_column and not pa.types.is_integer(schema.field(self.label_column).type):
            kind = schema.field(self.label_column).type
            raise FatalError(
                f"dataset.label_column: '{self.label_column}' in '{path}' is {kind}, integers were expected"
            )

    def _check_ids(self, ids: pa.ChunkedArray) -> None:
        if ids.null_count:
            raise FatalError(f"dataset.id_column: '{self.id_column}' in '{self.path}' has {ids.null_count} nulls")
        if pc.count_distinct(ids).as_py() == len(ids):
            return
        counts = pc.value_counts(ids)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0].as_py()
        raise FatalError(
            f"dataset.id_column: ids must differ, but '{twice['values']}' stands {twice['counts']} times "
            f"in '{self.path}'"
        )

    def _count_classes(self, labels: pa.ChunkedArray, names: tuple[str, ...] | None) -> int:
        highest = pc.max(labels).as_py()
        seen = 0 if highest is None else int(highest) + 1
        if names is not None and seen > len(names):
            raise FatalError(
                f"dataset.label_column: '{self.path}' has label {seen - 1}, but only {len(names)} class names"
            )
        return len(names) if names is not None else seen


def _class_names(schema: pa.Schema, label_column: str | None) -> tuple[str, ...] | None:
    """Names of a Hugging Face ClassLabel; other people's metadata that is no such thing says nothing."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        feature = features[label_column]
        return tuple(str(name) for name in feature["names"]) if feature["_type"] == "ClassLabel" else None
    except (KeyError, TypeError, ValueError):
        return None
