"""What every source of images has in common: its selection, its geometry, and what it must be able to do."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, PositiveInt, model_validator

from pipeline.contracts import Config
from pipeline.data.decode import Geometry, Interpolation, Pixels, Size

Select = Literal["all", "correct", "correct_for_all_models"]
Split = Literal["train", "test"]

# Settings that pick samples or name another split: they change neither the list of samples nor their pixels.
SELECTION = frozenset({"limit", "sample", "classes", "ids", "select"})
ELSEWHERE = frozenset({"train_path", "download"})

# Past this a shard of images no longer fits in memory, and no classifier looks at as many pixels.
LARGEST_SIDE = 4096

# Hashing a million ids at once would hold them in memory a second time.
_HASHED_AT_ONCE = 65_536


@dataclass(frozen=True, slots=True)
class Listing:
    """Every sample of a source, in the source's order.

    Attributes:
        ids: n different strings.
        labels: n int64, null where unknown.
        classes: number of classes; 0 where no label is known.
        class_names: one a class, or None.
        locator: columns of n values with which `SourceConfig.read` finds a sample.
        notes: what `read` needs beside the locator, by name, JSON-able; kept in the index's metadata.
        content: stands for the images in the digest: changes when they do.
    """

    ids: pa.Array | pa.ChunkedArray
    labels: pa.Array | pa.ChunkedArray
    classes: int
    class_names: tuple[str, ...] | None = None
    locator: dict[str, pa.Array] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)
    content: bytes = b""

    def digest(self) -> str:
        """16 hexadecimal digits of ids, labels and content; no folder, time or machine is part of it."""
        total = hashlib.sha256(self.content)
        for start in range(0, len(self.ids), _HASHED_AT_ONCE):
            total.update("\n".join(self.ids.slice(start, _HASHED_AT_ONCE).to_pylist()).encode())
            total.update(b"\n")
        total.update(np.ascontiguousarray(pc.fill_null(self.labels, -1).to_numpy(), dtype="<i8").tobytes())
        return total.hexdigest()[:16]


class SourceConfig(Config, ABC):
    """Where images come from, which of them, and how large."""

    paths: ClassVar[tuple[str, ...]] = ()
    """Fields that hold a path or URI; a relative one is meant relative to the spec's folder."""

    source: str
    limit: PositiveInt | None = Field(
        None, description="the first N of the selected samples, in the source's order; it only shortens"
    )
    sample: PositiveInt | None = Field(None, description="N samples drawn from the selected with the job's seed")
    classes: tuple[int | str, ...] | None = Field(
        None, min_length=1, description="keep the samples of these classes, by label or by name"
    )
    ids: tuple[str, ...] | None = Field(None, min_length=1, description="keep the samples with these ids")
    select: Select = Field("all", description="keep all, or those that each or every model classifies correctly")
    resize: int | None = Field(
        None, ge=1, le=LARGEST_SIDE, description="length of the short side in pixels, before the crop"
    )
    crop: int | None = Field(
        None, ge=1, le=LARGEST_SIDE, description="side of the centred square that is kept, in pixels"
    )
    interpolation: Interpolation = Field("bilinear", description="filter of the resize")

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.resize is not None and self.crop is not None and self.crop > self.resize:
            raise ValueError(
                f"crop {self.crop} is larger than resize {self.resize}, the short side of the images; raise resize"
            )
        return self

    @property
    def geometry(self) -> Geometry:
        """Resize and crop."""
        return Geometry(self.resize, self.crop, self.interpolation)

    @abstractmethod
    def listing(self) -> Listing:
        """List the whole source, whatever is selected.

        Raises:
            FatalError: the source is missing, empty or not what it should be.
        """

    @abstractmethod
    def state(self) -> object:
        """A cheap JSON-able value that changes when the source may have changed.

        Raises:
            FatalError: the source is missing.
        """

    @abstractmethod
    def read(self, rows: pa.Table, size: Size | None, threads: int) -> Pixels:
        """Read the images of some rows of the index.

        Args:
            rows: n rows of the index, with its metadata.
            size: (height, width) that each image must have; None: that of the first that decodes.
            threads: how many may decode at once.

        Returns:
            n images; one that cannot be used has a reason in place of pixels.
        """

    def regions(self) -> tuple[str, ...]:
        """Names of the regions that are known of its images: where things are. Most sources know of none."""
        return ()

    def region_state(self, index: pa.Table) -> object:
        """A JSON-able value that changes where the regions do, as far as the data set's fingerprint does not say so."""
        del index
        return None

    def read_with_regions(self, rows: pa.Table, size: Size | None, threads: int) -> Pixels:
        """As `read`, with the regions of `regions()` beside the images."""
        return self.read(rows, size, threads)

    @abstractmethod
    def training_split(self) -> Self | None:
        """The same source's training split, nothing selected but `classes`; None where none is known."""

    def _unselected(self, **changes: object) -> Self:
        cleared = {"limit": None, "sample": None, "ids": None, "select": "all"}
        return self.model_copy(update={**cleared, **changes})
