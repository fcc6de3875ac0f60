"""ImageNet's ILSVRC 2012 images from a folder, with the usual thousand class indices."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from pipeline.data.decode import Pixels, Size
from pipeline.data.folder import (
    ImageFile,
    class_folders,
    existing_file,
    existing_folder,
    file_columns,
    file_state,
    folder_state,
    images_below,
    read_files,
)
from pipeline.data.source import Listing, SourceConfig
from pipeline.errors import FatalError
from pipeline.suggestion import did_you_mean

CLASSES = 1000
_CLASS_FOLDER = re.compile(r"n\d{8}")
_FLAT_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.", re.IGNORECASE)

ClassIndex = dict[str, tuple[int, str]]


class ImageNet(SourceConfig):
    """ILSVRC 2012 images: `path/<wnid>/*.JPEG`, or `path/ILSVRC2012_val_*.JPEG` with a file of labels.

    There are always 1,000 classes, numbered in sorted order of the wnids, however many the folder holds. An
    id is the file's path relative to `path`.

    Source: Russakovsky et al. 2015, ImageNet Large Scale Visual Recognition Challenge.
    """

    paths: ClassVar[tuple[str, ...]] = ("path", "train_path", "labels", "class_index")
    source: Literal["imagenet"] = "imagenet"
    path: str = Field(description="folder of wnid folders, or of files ILSVRC2012_val_*.JPEG")
    train_path: str | None = Field(None, description="the training split, a folder of wnid folders")
    labels: str | None = Field(
        None, description="for a flat folder: text file whose line k is the class index (0 to 999) of image k"
    )
    class_index: str | None = Field(
        None,
        description="JSON file, wnid to [index, name]; default: class_index.json beside the folder, if there",
    )
    resize: PositiveInt | None = Field(256, description="length of the short side in pixels, before the crop")
    crop: PositiveInt | None = Field(224, description="side of the centred square that is kept, in pixels")

    def listing(self) -> Listing:
        """Every image file, sorted by path."""
        root = existing_folder(self.path)
        folders = [name for name in class_folders(root) if _CLASS_FOLDER.fullmatch(name)]
        index = self._index(folders)
        if folders:
            files, labels = self._in_folders(root, folders, index)
        else:
            files, labels = self._flat(root)
        ids, sizes = file_columns(files)
        if not len(ids):
            raise FatalError(f"dataset.path '{self.path}': no images in its {len(folders)} wnid folders")
        names = [name for _, name in sorted(index.values())]
        return Listing(
            ids=ids,
            labels=pa.array(labels),
            classes=CLASSES,
            class_names=tuple(names) if names else None,
            locator={"bytes": sizes},
            content=sizes.to_numpy().astype("<i8").tobytes(),
        )

    def state(self) -> object:
        """Modification times of the folder, its class folders and the files beside it."""
        root = existing_folder(self.path)
        beside = [
            self._class_index_file(),
            existing_file(self.labels, "dataset.labels") if self.labels else None,
        ]
        return [folder_state(root), [file_state(file) if file else None for file in beside]]

    def read(self, rows: pa.Table, size: Size | None, threads: int) -> Pixels:
        """The images; see `SourceConfig.read`."""
        return read_files(self.path, rows, self.geometry, size, threads)

    def training_split(self) -> Self | None:
        """The folder at `train_path`, with the same class index."""
        if not self.train_path:
            return None
        index = self._class_index_file()
        return self._unselected(
            path=self.train_path, train_path=None, labels=None, class_index=str(index) if index else None
        )

    def _class_index_file(self) -> Path | None:
        if self.class_index is not None:
            return existing_file(self.class_index, "dataset.class_index")
        # The parent is taken of the real path: a spec may say `path: .` or give a link.
        beside = Path(self.path).expanduser().resolve().parent / "class_index.json"
        return beside if beside.is_file() else None

    def _index(self, folders: list[str]) -> ClassIndex:
        """wnid to (index, name); empty for a flat folder without a class index."""
        file = self._class_index_file()
        if file is not None:
            return read_class_index(file)
        if len(folders) == CLASSES:
            return {name: (index, name) for index, name in enumerate(sorted(folders))}
        if folders:
            raise FatalError(
                f"dataset.path '{self.path}' holds {len(folders)} of the {CLASSES} wnid folders, so their "
                f"class indices are unknown: give class_index, a JSON file of wnid to [index, name]"
            )
        return {}

    def _in_folders(
        self, root: Path, folders: list[str], index: ClassIndex
    ) -> tuple[list[ImageFile], NDArray[np.int64]]:
        for name in folders:
            if name not in index:
                raise FatalError(
                    f"dataset.path '{self.path}': the folder {name} is not in the class index"
                    f"{did_you_mean(name, index)}"
                )
        groups = [images_below(root, name) for name in folders]
        labels = np.repeat([index[name][0] for name in folders], [len(group) for group in groups])
        return [file for group in groups for file in group], labels.astype(np.int64)

    def _flat(self, root: Path) -> tuple[list[ImageFile], NDArray[np.int64]]:
        found = images_below(root, "", recursive=False)
        numbered = [(int(match[1]), file) for file in found if (match := _FLAT_NAME.match(file.path))]
        if not numbered:
            raise FatalError(
                f"dataset.path '{self.path}' holds neither wnid folders (n01440764, ...) nor "
                f"ILSVRC2012_val_*.JPEG files"
            )
        if self.labels is None:
            raise FatalError(
                f"dataset.path '{self.path}' is a flat folder: give labels, a text file whose line k is the "
                f"class index (0 to {CLASSES - 1}) of image k, or sort the images into wnid folders"
            )
        by_number = read_labels(existing_file(self.labels, "dataset.labels"))
        last, file = max(numbered, key=lambda pair: pair[0])
        if last > len(by_number):
            raise FatalError(f"dataset.labels '{self.labels}' has {len(by_number)} lines, none for {file.path}")
        return [file for _, file in numbered], by_number[[number - 1 for number, _ in numbered]]


def read_class_index(file: Path) -> ClassIndex:
    """wnid to (index, name) of all thousand classes.

    Raises:
        FatalError: the file is not such a JSON file, or does not number 1,000 classes.
    """
    expected = f"{CLASSES} entries wnid: [index, name] were expected"
    try:
        found = json.loads(file.read_bytes())
        index = {str(wnid): (int(number), str(name)) for wnid, (number, name) in found.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise FatalError(f"dataset.class_index '{file}' cannot be read: {error}; {expected}") from None
    if sorted(number for number, _ in index.values()) != list(range(CLASSES)):
        raise FatalError(f"dataset.class_index '{file}' does not number the classes 0 to {CLASSES - 1}; {expected}")
    return index


def read_labels(file: Path) -> NDArray[np.int64]:
    """(lines,) int64 in [0, 999].

    Raises:
        FatalError: a line is no such number.
    """
    labels: list[int] = []
    for number, text in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        line = text.strip()
        if not line.isdecimal() or int(line) > CLASSES:
            raise FatalError(f"dataset.labels '{file}' line {number}: got {line!r}, expected 0 to {CLASSES - 1}")
        if int(line) == CLASSES:
            raise FatalError(
                f"dataset.labels '{file}' line {number}: got {CLASSES}, expected 0 to {CLASSES - 1} in "
                f"sorted order of the wnids; the development kit's ILSVRC2012_validation_ground_truth.txt "
                f"counts from 1 in another order"
            )
        labels.append(int(line))
    return np.array(labels, dtype=np.int64)
