"""The units of one variant as columns: of a million units each takes some bytes, and many are counted at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pipeline.ranges import Ranges
from pipeline.stages.variant import Unit, Variant


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

    def cut(self, row: int, edges: Sequence[int]) -> slice:
        """Put pieces in the place of a unit, cut at some of its positions.

        Returns:
            The rows of the pieces: open, missing nothing, and not ready.
        """
        pieces = slice(row, row + len(edges) + 1)
        self.starts = np.insert(self.starts, row + 1, edges)
        self.stops = np.insert(self.stops, row, edges)
        for name, value in (("missing", 0), ("open", True), ("ready", False)):
            column = np.insert(getattr(self, name), row, [value] * len(edges))
            column[pieces] = value
            setattr(self, name, column)
        return pieces
