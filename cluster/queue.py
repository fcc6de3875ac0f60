"""Which unit next: a unit is ready as soon as what it reads is committed, shard by shard."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

from pipeline.commit import Part
from pipeline.stages.variant import STAGES, Unit, Variant

Place = tuple[int, int]
"""The number of a model and split, and that of a stretch of the split: what a worker keeps in memory."""


def gaps(parts: Iterable[Part], total: int) -> list[tuple[int, int]]:
    """The ranges of positions 0 … total − 1 that no part covers. Parts are in order and do not overlap."""
    found, reached = [], 0
    for part in parts:
        if part.start >= total:
            break
        if part.start > reached:
            found.append((reached, part.start))
        reached = max(reached, part.stop)
    if reached < total:
        found.append((reached, total))
    return found


def units(variant: Variant, parts: Iterable[Part]) -> list[Unit]:
    """The units that are left of a variant: its gaps, cut at multiples of the unit size."""
    size = variant.unit_size
    found = []
    for start, stop in gaps(parts, variant.total):
        edges = [start, *range((start // size + 1) * size, stop, size), stop]
        found += [Unit(variant.path, low, high) for low, high in pairwise(edges)]
    return found


class UnitQueue:
    """Units of one job, handed out as they become ready.

    Ready units are kept by place (model, stretch of the data set). A worker that asks again is given more of the
    place where it was, so that the replica and the decoded images in its memory serve once more.

    Args:
        variants: all variants of the job, by path.
        committed: the parts of each variant that are there already.

    Attributes:
        lost: units that could not be done, with the reason.
        stranded: units that waited for a lost one.
    """

    def __init__(self, variants: Mapping[str, Variant], committed: Mapping[str, list[Part]]) -> None:
        self._variants = variants
        subjects = dict.fromkeys((variant.model, variant.split) for variant in variants.values())
        self._subjects = {subject: number for number, subject in enumerate(subjects)}
        self._stretch = max((variant.unit_size for variant in variants.values()), default=1)
        self._readers: dict[str, list[str]] = defaultdict(list)
        self._units: dict[str, list[Unit]] = {}
        self._missing: dict[Unit, int] = {}
        self._ready: dict[Place, list[tuple[int, int, str, Unit]]] = defaultdict(list)
        self._places: list[Place] = []
        self._owners: dict[Place, object] = {}
        self.lost: dict[Unit, str] = {}
        self.stranded: set[Unit] = set()
        left = {path: gaps(committed.get(path, []), variant.total) for path, variant in variants.items()}
        for path, variant in variants.items():
            for read in variant.reads:
                self._readers[read.variant].append(path)
            self._units[path] = units(variant, committed.get(path, []))
            for unit in self._units[path]:
                missing = sum(
                    _overlap(left[read.variant], 0, variants[read.variant].total)
                    if read.whole
                    else _overlap(left[read.variant], unit.start, unit.stop)
                    for read in variant.reads
                )
                self._missing[unit] = missing
                if missing == 0:
                    self._offer(unit)

    def __len__(self) -> int:
        """Units neither done nor lost."""
        return len(self._missing)

    def remaining(self, path: str) -> list[Unit]:
        """The units of a variant that were to be done at the start."""
        return self._units[path]

    def take(self, worker: object) -> Unit | None:
        """A ready unit for this worker, or None while none is."""
        place = next(
            (place for place, owner in self._owners.items() if owner == worker and self._ready.get(place)),
            None,
        )
        if place is None:
            place = self._free_place()
        if place is None:
            return None
        for held in [held for held, owner in self._owners.items() if owner == worker and held != place]:
            del self._owners[held]
        self._owners.setdefault(place, worker)
        unit = heapq.heappop(self._ready[place])[3]
        return unit

    def fills_a_worker(self, unit: Unit) -> bool:
        """Whether a unit takes so long, and has so little to read beforehand, that none shall wait behind it."""
        return self._variants[unit.variant].stage in ("train", "retrain")

    def done(self, unit: Unit) -> None:
        """A unit was committed; what waited for it may become ready."""
        self._missing.pop(unit, None)
        for path in self._readers[unit.variant]:
            reader = self._variants[path]
            whole = any(read.variant == unit.variant and read.whole for read in reader.reads)
            for waiting in self._units[path] if whole else self._touching(path, unit):
                if waiting not in self._missing:
                    continue
                covered = len(unit) if whole else min(unit.stop, waiting.stop) - max(unit.start, waiting.start)
                self._missing[waiting] -= covered
                if self._missing[waiting] == 0:
                    self._offer(waiting)

    def lose(self, unit: Unit, reason: str) -> None:
        """A unit cannot be done, and so neither what reads it."""
        if self._missing.pop(unit, None) is not None:
            self.lost[unit] = reason
            self._strand_readers(unit)

    def _strand_readers(self, unit: Unit) -> None:
        for path in self._readers[unit.variant]:
            reader = self._variants[path]
            whole = any(read.variant == unit.variant and read.whole for read in reader.reads)
            for waiting in self._units[path] if whole else self._touching(path, unit):
                if self._missing.pop(waiting, None) is not None:
                    self.stranded.add(waiting)
                    self._strand_readers(waiting)

    def _touching(self, path: str, unit: Unit) -> list[Unit]:
        """The variant's units that share a position with `unit`."""
        candidates = self._units[path]
        low = bisect_right(candidates, unit.start, key=lambda one: one.stop)
        high = bisect_left(candidates, unit.stop, key=lambda one: one.start)
        return candidates[low:high]

    def _offer(self, unit: Unit) -> None:
        variant = self._variants[unit.variant]
        place = (self._subjects[variant.model, variant.split], unit.start // self._stretch)
        if variant.stage == "retrain":
            # Nothing waits for a cell: it comes after all that something waits for.
            place = (len(self._subjects), 0)
        if not self._ready[place]:
            heapq.heappush(self._places, place)
        # Later stages first: what is nearest to a result leaves memory soonest.
        order = (-STAGES.index(variant.stage), unit.start, unit.variant, unit)
        heapq.heappush(self._ready[place], order)

    def _free_place(self) -> Place | None:
        """The first place with ready units, one that nobody holds if there is such."""
        while self._places and not self._ready.get(self._places[0]):
            heapq.heappop(self._places)
        passed: list[Place] = []
        found: Place | None = None
        while self._places and found is None:
            place = heapq.heappop(self._places)
            if not self._ready.get(place) or place in passed:
                continue
            passed.append(place)
            if place not in self._owners:
                found = place
        for place in passed:
            heapq.heappush(self._places, place)
        return found if found is not None else (passed[0] if passed else None)


def _overlap(ranges: list[tuple[int, int]], start: int, stop: int) -> int:
    """Positions of start ≤ p < stop that the ranges hold. The ranges are in order and do not overlap."""
    total = 0
    for low, high in ranges[bisect_right(ranges, start, key=lambda pair: pair[1]) :]:
        if low >= stop:
            break
        total += min(high, stop) - max(low, start)
    return total
