"""Images as files in class folders: listing a million of them once, and reading some of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.data.decode import SMALL_IMAGE_BYTES, Geometry, Pixels, Size, UnusableImageError, decode_all, read_error
from pipeline.errors import FatalError
from pipeline.suggestion import did_you_mean

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")

WATCHED = 20_000
"""Images of a folder that are each looked at for changes; a fraction of a second on a disk."""


class ImageFile(NamedTuple):
    """One image file.

    Attributes:
        path: posix path relative to the source's folder.
        bytes: its size; -1 for a link that leads nowhere.
    """

    path: str
    bytes: int


def existing_folder(path: str, key: str = "dataset.path") -> Path:
    """The folder, or one clear line.

    Raises:
        FatalError: a URI, a missing folder, or a file.
    """
    if "://" in path:
        raise FatalError(f"{key} '{path}': image folders are read from a disk; give a URI to source: parquet only")
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise FatalError(f"{key} '{path}' is a file, a folder was expected")
    raise FatalError(f"{key} '{path}' does not exist{_sibling(folder)}")


def existing_file(path: str, key: str) -> Path:
    """The file, or one clear line.

    Raises:
        FatalError: there is no such file.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FatalError(f"{key} '{path}' is no file{_sibling(file)}")
    return file


def _sibling(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    return did_you_mean(path.name, sorted(entry.name for entry in path.parent.iterdir()))


def class_folders(root: Path) -> list[str]:
    """Names of the folders in a folder, sorted, hidden ones left out; links to folders count.

    Raises:
        FatalError: a name is not UTF-8.
    """
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise FatalError(f"the folder name {name!r} is not UTF-8; rename the folder") from None
    return names


def images_below(root: Path, relative: str, *, recursive: bool = True) -> list[ImageFile]:
    """Image files of one folder and, where wished, of those in it, sorted by path; hidden ones are left out.

    Args:
        root: the source's folder.
        relative: the folder to list, a posix path relative to `root`; empty for `root` itself.
        recursive: whether to enter folders. Links to folders are never entered: they may lead in a circle.
    """
    prefix = f"{relative}/" if relative else ""
    files: list[ImageFile] = []
    folders: list[str] = []
    with os.scandir(root / relative) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if name.lower().endswith(EXTENSIONS):
                files.append(ImageFile(prefix + name, _size(entry)))
            elif recursive and entry.is_dir(follow_symlinks=False):
                folders.append(prefix + name)
    for folder in folders:
        files.extend(images_below(root, folder))
    files.sort()
    return files


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return -1


def folder_state(root: Path) -> list[list[object]]:
    """Name and modification time of a folder and of all folders in it; and what is in them, where that is not much.

    A file that is added or removed changes its folder's time. One that is rewritten in place does not: it is noticed by
    its own size and time in a folder of at most `WATCHED` images, and in a larger one not at all, since to look at each
    of a million files takes minutes on a file server. The list is made anew then; the data set is another one where a
    size has changed.
    """
    state: list[list[object]] = [["", root.stat().st_mtime_ns]]
    for name in class_folders(root):
        state.extend(_nested_state(root, name))
    if (files := _files_state(root, [str(one[0]) for one in state])) is not None:
        state.append(["files", files])
    return state


def _files_state(root: Path, folders: list[str]) -> str | None:
    """Stands for names, sizes and times of the images in some folders; None where they are many."""
    found: list[tuple[str, int, int]] = []
    for folder in folders:
        with os.scandir(root / folder) as entries:
            images = (one for one in entries if one.name.lower().endswith(EXTENSIONS) and one.name[0] != ".")
            for entry in islice(images, WATCHED + 1 - len(found)):
                try:
                    stat = entry.stat()
                except FileNotFoundError:
                    continue  # a link that leads nowhere
                found.append((f"{folder}/{entry.name}", stat.st_size, stat.st_mtime_ns))
        if len(found) > WATCHED:
            return None
    return hashlib.sha256(repr(sorted(found)).encode(errors="surrogateescape")).hexdigest()[:16]


def _nested_state(root: Path, relative: str) -> list[list[object]]:
    stat = (root / relative).stat()
    state: list[list[object]] = [[relative, stat.st_mtime_ns]]
    # A folder's link count is two more than the folders in it; file systems that do not count say one.
    if stat.st_nlink != 2:
        with os.scandir(root / relative) as entries:
            inner = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        for name in inner:
            if not name.startswith("."):
                state.extend(_nested_state(root, f"{relative}/{name}"))
    return state


def file_state(path: Path) -> list[object]:
    """Size and modification time of one file."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def file_columns(files: list[ImageFile]) -> tuple[pa.Array, pa.Array]:
    """Ids (the relative paths) and sizes as Arrow columns.

    Raises:
        FatalError: a name is not UTF-8.
    """
    try:
        ids = pa.array([file.path for file in files], pa.string())
    except UnicodeEncodeError as error:
        raise FatalError(f"the file name {error.object!r} is not UTF-8; rename the file") from None
    return ids, pa.array(np.fromiter((file.bytes for file in files), dtype=np.int64, count=len(files)))


def read_files(path: str, rows: pa.Table, geometry: Geometry, size: Size | None, threads: int) -> Pixels:
    """Read and decode image files.

    Args:
        path: the source's folder.
        rows: n rows with `id`, the path relative to the folder, and `bytes`.
        geometry: resize and crop.
        size: (height, width) expected, or None.
        threads: how many read and decode at once.
    """
    mean = float(np.mean(rows["bytes"].to_numpy())) if len(rows) else 0.0
    fetch = file_reader(Path(path).expanduser(), rows["id"].to_pylist())
    return decode_all(fetch, len(rows), geometry, size, threads if mean >= SMALL_IMAGE_BYTES else 1)


def file_reader(root: Path, names: list[str]) -> Callable[[int], bytes]:
    """A function that reads file i, and raises UnusableImageError where it cannot."""
    folder = str(root)

    def fetch(row: int) -> bytes:
        try:
            with open(f"{folder}/{names[row]}", "rb") as stream:  # noqa: PTH123  a Path costs 10 µs an image
                return stream.read()
        except FileNotFoundError:
            raise UnusableImageError("the file is missing") from None
        except OSError as error:
            raise read_error("the file", error) from error

    return fetch
