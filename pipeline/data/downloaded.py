"""Data sets that torchvision knows how to fetch; they fit in memory, so that reading is indexing."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from pipeline.data.decode import Array, Pixels, Size, fit_arrays
from pipeline.data.source import Listing, SourceConfig, Split
from pipeline.errors import FatalError, one_line

if TYPE_CHECKING:
    from torchvision.datasets import VisionDataset


@dataclass(frozen=True, slots=True)
class Arrays:
    """One split in memory.

    Attributes:
        planes: (n, 3, H, W) uint8; may be a view.
        labels: (n,) int64.
        class_names: one a class.
    """

    planes: Array
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]


class DownloadedConfig(SourceConfig):
    """A split of a data set in torchvision's own file layout. An id is `<source>/<split>/<number>`."""

    paths: ClassVar[tuple[str, ...]] = ("root",)
    revision: ClassVar[int] = 1
    wanted: ClassVar[str]
    """What must lie in `root`, for the message that says so."""

    split: Split = Field("test", description="which part of the data set")
    root: str = Field("data", description="folder in which the files lie or are put")
    download: bool = Field(True, description="fetch the files when they are not there")

    @classmethod
    @abstractmethod
    def open(cls, root: str, split: Split, *, download: bool) -> VisionDataset:
        """torchvision's data set object; it raises RuntimeError or OSError where files lack."""

    @classmethod
    @abstractmethod
    def arrays(cls, data: VisionDataset) -> Arrays:
        """The whole split from torchvision's object."""

    def listing(self) -> Listing:
        """The split in the files' order; fetches the files when that is wished."""
        arrays = self._arrays(self.download)
        return Listing(
            ids=pa.array([f"{self.source}/{self.split}/{number:05d}" for number in range(len(arrays.labels))]),
            labels=pa.array(arrays.labels),
            classes=len(arrays.class_names),
            class_names=arrays.class_names,
            locator={"number": pa.array(np.arange(len(arrays.labels)), pa.int32())},
            content=f"{self.source} {self.split} {self.revision}".encode(),
        )

    def state(self) -> object:
        """The source's revision: the published files do not change."""
        return self.revision

    def read(self, rows: pa.Table, size: Size | None, threads: int) -> Pixels:
        """The images; see `SourceConfig.read`.

        Raises:
            FatalError: the files are not there. Nothing is fetched here: many workers may read at once.
        """
        del threads
        return fit_arrays(self._arrays(download=False).planes[rows["number"].to_numpy()], self.geometry, size)

    def training_split(self) -> Self:
        """The training split in the same folder."""
        return self._unselected(split="train")

    def _arrays(self, download: bool) -> Arrays:
        root = str(Path(self.root).expanduser().absolute())
        try:
            return _cached(type(self), root, self.split, download)
        except (RuntimeError, OSError, EOFError) as error:
            failed = f" and cannot be fetched ({one_line(error)[:200]})" if download else ""
            raise FatalError(
                f"source {self.source}: the files are not under dataset.root '{self.root}'{failed}; "
                f"put {self.wanted} there"
            ) from None


def _cached(kind: type[DownloadedConfig], root: str, split: Split, download: bool) -> Arrays:
    # Whether files may be fetched does not change what they hold, so it is no part of the cache's key.
    if download:
        kind.open(root, split, download=True)
    return _load(kind, root, split)


@lru_cache(maxsize=2)
def _load(kind: type[DownloadedConfig], root: str, split: Split) -> Arrays:
    return kind.arrays(kind.open(root, split, download=False))
