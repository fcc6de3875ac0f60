"""Ranges of positions, and those that no part of a variant covers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.part import Part

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

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Start and stop of each."""
        return zip(self.starts.tolist(), self.stops.tolist(), strict=True)

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
