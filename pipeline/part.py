"""Parts of a variant: their names, their markers, and what is told of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

MARKERS = "_committed"
MARKER_NAME = re.compile(r"^(\d{9})-(\d{9})-([0-9a-f]{16})\.json$")
PART_NAME = re.compile(r"part-(\d{9}-\d{9}-[0-9a-f]{16})\.parquet")


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
