"""A folder of images, one folder a class, as torchvision's ImageFolder reads it."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.data.decode import Pixels, Size
from pipeline.data.folder import (
    EXTENSIONS,
    class_folders,
    existing_folder,
    file_columns,
    folder_state,
    images_below,
    read_files,
)
from pipeline.data.source import Listing, SourceConfig
from pipeline.errors import FatalError


class ImageFolder(SourceConfig):
    """Images under `path/<class>/`; classes are numbered in sorted order of their folders.

    An id is the file's path relative to `path`. Folders in a class folder belong to that class. Hidden files
    and folders are left out; a class folder without an image is still a class.
    """

    paths: ClassVar[tuple[str, ...]] = ("path", "train_path")
    source: Literal["imagefolder"] = "imagefolder"
    path: str = Field(description="folder with one folder a class")
    train_path: str | None = Field(None, description="the training split, a folder with the same classes")

    def listing(self) -> Listing:
        """Every image file, class by class, sorted by path."""
        root = existing_folder(self.path)
        names = class_folders(root)
        if not names:
            raise FatalError(f"dataset.path '{self.path}' holds no folders; one folder a class was expected")
        files = [images_below(root, name) for name in names]
        ids, sizes = file_columns([file for group in files for file in group])
        if not len(ids):
            raise FatalError(
                f"dataset.path '{self.path}': no images in its {len(names)} folders ({', '.join(EXTENSIONS)})"
            )
        return Listing(
            ids=ids,
            labels=pa.array(np.repeat(np.arange(len(names)), [len(group) for group in files])),
            classes=len(names),
            class_names=tuple(names),
            locator={"bytes": sizes},
            content=sizes.to_numpy().astype("<i8").tobytes(),
        )

    def state(self) -> object:
        """See `folder_state`."""
        return folder_state(existing_folder(self.path))

    def read(self, rows: pa.Table, size: Size | None, threads: int) -> Pixels:
        """The images; see `SourceConfig.read`."""
        return read_files(self.path, rows, self.geometry, size, threads)

    def training_split(self) -> Self | None:
        """The folder at `train_path`."""
        return self._unselected(path=self.train_path, train_path=None) if self.train_path else None
