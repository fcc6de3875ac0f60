"""The units of one variant as columns: of a million units each takes some bytes, and many are counted at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.part import Part
from pipeline.stages.variant import Unit, Variant

Numbers = NDArray[np.int64]


class Ranges:
    """Positions, as ranges start ≤ p < stop that are in order and do not overlap.

    Attributes:
        starts, stops: (n,) int64.
    """

    def __init__(self, starts: Numbers, stops: Numbers) -> None:
        self.starts, self.stops = starts, stops
        self._before = np.concatenate([[0], np.cumsum(stops - starts)])

    def __len__(self) -> int:
        """Positions in all of them."""
        return int(self._before[-1])

    def inside(self, starts: Numbers, stops: Numbers) -> Numbers:
        """How many positions of each start ≤ p < stop the ranges hold, (m,) int64."""
        return self._below(stops) - self._below(starts)

    def _below(self, limits: Numbers) -> Numbers:
        """How many positions p < limit the ranges hold."""
        begun = np.searchsorted(self.starts, limits)
        if not len(self.starts):
            return np.zeros_like(limits)
        beyond = np.maximum(0, self.stops[begun - 1] - limits)
        return self._before[begun] - np.where(begun > 0, beyond, 0)


def gaps(parts: Iterable[Part], total: int) -> Ranges:
    """The positions 0 … total − 1 that no part covers. Parts are in order and do not overlap."""
    starts, stops, reached = [], [], 0
    for part in parts:
        if part.start >= total:
            break
        if part.start > reached:
            starts.append(reached)
            stops.append(part.start)
        reached = max(reached, part.stop)
    if reached < total:
        starts.append(reached)
        stops.append(total)
    return Ranges(np.array(starts, dtype=np.int64), np.array(stops, dtype=np.int64))


class UnitTable:
    """The units that are left of a variant, in order.

    Attributes:
        starts, stops: first position of each unit, and one past its last, (n,) int64.
        missing: positions of what it reads that are not committed, (n,) int64.
        open: whether it is neither done nor given up, (n,) bool.
        ready: whether it could be handed out: nothing is missing, and nobody has it, (n,) bool.
    """

    def __init__(self, variant: Variant, left: Ranges) -> None:
        """Cut what is left of a variant at multiples of its unit size.

        Args:
            variant: the variant.
            left: the positions that no committed part covers.
        """
        self._path, size = variant.path, variant.unit_size
        counts = -(-left.stops // size) - left.starts // size
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        edges = (np.repeat(left.starts // size, counts) + number) * size
        self.starts = np.maximum(edges, np.repeat(left.starts, counts))
        self.stops = np.minimum(edges + size, np.repeat(left.stops, counts))
        self.missing = np.zeros_like(self.starts)
        self.open = np.ones(len(self.starts), dtype=bool)
        self.ready = np.zeros(len(self.starts), dtype=bool)

    def __len__(self) -> int:
        """Units, whatever became of them."""
        return len(self.starts)

    def unit(self, row: int) -> Unit:
        """The unit of a row."""
        return Unit(self._path, int(self.starts[row]), int(self.stops[row]))

    def units(self, rows: Iterable[int]) -> Iterator[Unit]:
        """The units of some rows."""
        return (self.unit(row) for row in rows)

    def row(self, unit: Unit) -> int | None:
        """The row of a unit; None where there is none, such as of one that was split."""
        row = int(np.searchsorted(self.starts, unit.start))
        return row if row < len(self) and self.unit(row) == unit else None

    def touching(self, start: int, stop: int) -> slice:
        """Rows of the units that hold a position of start ≤ p < stop."""
        return slice(int(np.searchsorted(self.stops, start, "right")), int(np.searchsorted(self.starts, stop)))

    def beginning(self, start: int, stop: int) -> slice:
        """Rows of the units that begin at start ≤ p < stop."""
        low, high = np.searchsorted(self.starts, (start, stop))
        return slice(int(low), int(high))

    def first_ready(self, start: int, stop: int) -> int | None:
        """Row of the first unit that begins at start ≤ p < stop and is ready; None where none is."""
        rows = self.beginning(start, stop)
        row = int(self.ready[rows].argmax()) if rows.start < rows.stop else 0
        return rows.start + row if rows.start < rows.stop and self.ready[rows.start + row] else None

    def split(self, row: int) -> None:
        """Put two halves in the place of a unit; they are open, and nobody has to hand them out."""
        middle = (self.starts[row] + self.stops[row]) // 2
        self.starts = np.insert(self.starts, row + 1, middle)
        self.stops = np.insert(self.stops, row, middle)
        self.missing = np.insert(self.missing, row, 0)
        self.open = np.insert(self.open, row, True)
        self.ready = np.insert(self.ready, row, False)
