"""Which unit next: a unit is ready as soon as what it reads is committed, shard by shard."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from itertools import pairwise
from operator import itemgetter

from pipeline.part import Part
from pipeline.stages.variant import STAGES, Unit, Variant

_STOP = itemgetter(1)

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
        ready: units that could be handed out now.
        waits: that another run is waited for, in one line, until it was told; else empty.
        lost: units that could not be done, with the reason.
        stranded: units that waited for a lost one.
    """

    def __init__(self, variants: Mapping[str, Variant], committed: Mapping[str, list[Part]]) -> None:
        self._variants = variants
        subjects = dict.fromkeys((variant.model, variant.split) for variant in variants.values())
        self._subjects = {subject: number for number, subject in enumerate(subjects)}
        self._last_place = (len(self._subjects), 0)
        self._stretch = max((variant.unit_size for variant in variants.values()), default=1)
        self._readers: dict[str, list[str]] = defaultdict(list)
        self._units: dict[str, list[Unit]] = {}
        self._missing: dict[Unit, int] = {}
        self._ready: dict[Place, list[tuple[int, int, str, Unit]]] = defaultdict(list)
        self._places: list[Place] = []
        self._owners: dict[Place, object] = {}
        self._begun = {path for path, parts in committed.items() if parts}
        self._held: set[Unit] = set()
        self._ready_but_held: list[Unit] = []
        self.ready = 0
        self.waits = ""
        self.lost: dict[Unit, str] = {}
        self.stranded: set[Unit] = set()
        left = {path: gaps(committed.get(path, []), variant.total) for path, variant in variants.items()}
        for path, variant in variants.items():
            for read in variant.reads:
                self._readers[read.variant].append(path)
            self._units[path] = units(variant, committed.get(path, []))
            # There may be a million units: what is the same for all of a variant is found once.
            whole = sum(stop - start for read in variant.reads if read.whole for start, stop in left[read.variant])
            parts = [left[read.variant] for read in variant.reads if not read.whole and left[read.variant]]
            for unit in self._units[path]:
                missing = whole
                for ranges in parts:
                    missing += overlap(ranges, unit.start, unit.stop)
                self._missing[unit] = missing
                if missing == 0:
                    self._offer(unit)

    def __len__(self) -> int:
        """Units neither done nor lost nor held back."""
        return len(self._missing) - len(self._held)

    def hold_cells(self) -> bool:
        """Hand out no cells of a benchmark, and count none, until `release_cells`; whether there are any to do."""
        self._held = {unit for unit in self._missing if self.variant(unit).stage == "retrain"}
        ready = [entry[3] for entry in self._ready.pop(self._last_place, [])]
        self._ready_but_held = [unit for unit in ready if unit in self._held]
        self.ready -= len(ready)
        return bool(self._held)

    def release_cells(self) -> None:
        """The cells that were held back are to be done now."""
        ready, self._held, self._ready_but_held = self._ready_but_held, set(), []
        for unit in ready:
            if unit in self._missing:
                self._offer(unit)

    def remaining(self, path: str) -> list[Unit]:
        """The units of a variant that were to be done at the start."""
        return self._units[path]

    def take(self, worker: object) -> Unit | None:
        """A ready unit for this worker, or None while none is."""
        while (place := self._place(worker)) is not None:
            for held in [held for held, owner in self._owners.items() if owner == worker and held != place]:
                del self._owners[held]
            self._owners.setdefault(place, worker)
            unit = heapq.heappop(self._ready[place])[3]
            self.ready -= 1
            if unit in self._missing:
                return unit
        return None

    def from_elsewhere(self) -> list[Unit]:
        """Units that other runs of the output have committed since the last call; see `SharedQueue`."""
        return []

    def wait_for_others(self) -> bool:
        """Where nothing is ready and nothing under way: wait a moment for other runs; False where there are none."""
        return False

    def put_back(self, unit: Unit) -> None:
        """A unit that was taken is not done, through no fault of its own."""
        self._offer(unit)

    def leave(self, worker: object) -> None:
        """A worker takes no more units: the places where it was are free for others."""
        for place in [place for place, owner in self._owners.items() if owner == worker]:
            del self._owners[place]

    def variant(self, unit: Unit) -> Variant:
        """The variant that a unit is of."""
        return self._variants[unit.variant]

    def holds_samples(self, unit: Unit) -> bool:
        """Whether a unit is a range of samples, which can be cut; a training or a calibration is one piece of work."""
        return self.variant(unit).stage not in ("train", "calibrate", "retrain")

    def has_begun(self, path: str) -> bool:
        """Whether anything of a variant is committed."""
        return path in self._begun

    def split(self, unit: Unit) -> tuple[Unit, Unit]:
        """Put two halves in the place of a unit that was taken; they are in hand as it was."""
        middle = (unit.start + unit.stop) // 2
        halves = Unit(unit.variant, unit.start, middle), Unit(unit.variant, middle, unit.stop)
        found = self._units[unit.variant]
        place = bisect_left(found, unit)
        found[place : place + 1] = halves
        del self._missing[unit]
        self._missing |= dict.fromkeys(halves, 0)
        return halves

    def fills_a_worker(self, unit: Unit) -> bool:
        """Whether a unit takes so long, and has so little to read beforehand, that none shall wait behind it."""
        return self._variants[unit.variant].stage in ("train", "retrain")

    def done(self, unit: Unit) -> None:
        """A unit was committed; what waited for it may become ready."""
        self._missing.pop(unit, None)
        self._held.discard(unit)
        self._begun.add(unit.variant)
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
            self._held.discard(unit)
            self.lost[unit] = reason
            self._strand_readers(unit)

    def lose_rest(self, path: str, reason: str, in_hand: Set[Unit]) -> list[Unit]:
        """Give up the units of a variant that are neither done nor lost nor in somebody's hand, and return them."""
        rest = [unit for unit in self._units[path] if unit in self._missing and unit not in in_hand]
        for unit in rest:
            self.lose(unit, reason)
        return rest

    def _strand_readers(self, unit: Unit) -> None:
        for path in self._readers[unit.variant]:
            reader = self._variants[path]
            whole = any(read.variant == unit.variant and read.whole for read in reader.reads)
            for waiting in self._units[path] if whole else self._touching(path, unit):
                if self._missing.pop(waiting, None) is not None:
                    self._held.discard(waiting)
                    self.stranded.add(waiting)
                    self._strand_readers(waiting)

    def _touching(self, path: str, unit: Unit) -> list[Unit]:
        """The variant's units that share a position with `unit`."""
        candidates = self._units[path]
        low = bisect_right(candidates, unit.start, key=lambda one: one.stop)
        high = bisect_left(candidates, unit.stop, key=lambda one: one.start)
        return candidates[low:high]

    def _offer(self, unit: Unit) -> None:
        if unit in self._held:
            self._ready_but_held.append(unit)
            return
        variant = self._variants[unit.variant]
        place = (self._subjects[variant.model, variant.split], unit.start // self._stretch)
        if variant.stage == "retrain":
            # Nothing waits for a cell: it comes after all that something waits for.
            place = self._last_place
        if not self._ready[place]:
            heapq.heappush(self._places, place)
        # Later stages first: what is nearest to a result leaves memory soonest.
        order = (-STAGES.index(variant.stage), unit.start, unit.variant, unit)
        heapq.heappush(self._ready[place], order)
        self.ready += 1

    def _place(self, worker: object) -> Place | None:
        """The place of the next unit for a worker: its own, as long as something is ready there."""
        mine = (place for place, owner in self._owners.items() if owner == worker and self._ready.get(place))
        return next(mine, None) or self._free_place()

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


def overlap(ranges: list[tuple[int, int]], start: int, stop: int) -> int:
    """Positions of start ≤ p < stop that the ranges hold. The ranges are in order and do not overlap."""
    total, number = 0, bisect_right(ranges, start, key=_STOP)
    while number < len(ranges) and ranges[number][0] < stop:
        low, high = ranges[number]
        total += min(high, stop) - max(low, start)
        number += 1
    return total
