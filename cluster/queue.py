"""Which unit next: a unit is ready as soon as what it reads is committed, shard by shard."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from cluster.unit_table import UnitTable
from pipeline.part import Part
from pipeline.ranges import Ranges, gaps
from pipeline.stages.variant import STAGES, StageName, Unit, Variant

Place = tuple[int, int]
"""The number of a subject (a model and split, or one cell of a benchmark), and that of a stretch of its samples: what a
worker keeps in memory."""


class UnitQueue:
    """Units of one job, handed out as they become ready.

    A worker that asks again is given more of the place where it was, so that the replica and the decoded images in its
    memory serve once more.

    Args:
        variants: all variants of the job, by path.
        committed: the parts of each variant that are there already.

    Attributes:
        waits: that another run is waited for, in one line, until it was told; else empty.
        lost: units that could not be done, with the reason.
        stranded: units that waited for a lost one.
    """

    def __init__(self, variants: Mapping[str, Variant], committed: Mapping[str, list[Part]]) -> None:
        self._variants = variants
        self._stretch = max((variant.unit_size for variant in variants.values()), default=1)
        self._number_subjects()
        self._readers: dict[str, list[tuple[str, bool]]] = defaultdict(list)
        self._tables: dict[str, UnitTable] = {}
        self._ready: Counter[Place] = Counter()
        self._open: Counter[Place] = Counter()
        self._open_cells = 0
        self._places: list[Place] = []
        self._owners: dict[Place, object] = {}
        self._begun = {path for path, parts in committed.items() if parts}
        self._holding = False
        self.waits = ""
        self.lost: dict[Unit, str] = {}
        self.stranded: set[Unit] = set()
        left = {path: gaps(committed.get(path, []), variant.total) for path, variant in variants.items()}
        for path, variant in variants.items():
            table = self._tables[path] = UnitTable(variant, left[path])
            for read in variant.reads:
                self._readers[read.variant].append((path, read.whole))
                if read.whole:
                    table.missing += len(left[read.variant])
                else:
                    table.missing += left[read.variant].inside(table.starts, table.stops)
            for place, count in self._places_of(path, table.starts):
                self._open[place] += count
            self._offer(path, np.flatnonzero(table.missing == 0))
        self._open_units = self._open.total()
        self._open_cells = sum(count for place, count in self._open.items() if self._is_cell(place))
        self._of_stage = {
            subject: [[self._tables[path] for path in paths] for _, paths in groupby(found, self._stage_of)]
            for subject, found in self._of_subject.items()
        }

    def _number_subjects(self) -> None:
        """Subjects in the order in which they are worked on; of each, its variants, the nearest to a result first."""
        cells = [path for path, variant in self._variants.items() if variant.stage == "retrain"]
        shared = {path: (one.model, one.split) for path, one in self._variants.items() if one.stage != "retrain"}
        numbers = {subject: number for number, subject in enumerate(dict.fromkeys(shared.values()))}
        self._subject = {path: numbers[subject] for path, subject in shared.items()}
        # Nothing waits for a cell: it comes after all that something waits for.
        self._first_cell = len(numbers)
        self._subject |= {path: number for number, path in enumerate(cells, self._first_cell)}
        self._of_subject: dict[int, list[str]] = defaultdict(list)
        # Later stages first: what is nearest to a result leaves memory soonest.
        for path in sorted(self._variants, key=lambda path: (-STAGES.index(self._variants[path].stage), path)):
            self._of_subject[self._subject[path]].append(path)

    def __len__(self) -> int:
        """Units neither done nor lost nor held back."""
        return self._open_units - (self._open_cells if self._holding else 0)

    @property
    def ready(self) -> int:
        """Units that could be handed out now."""
        return sum(count for place, count in self._ready.items() if self._is_free(place))

    def hold_cells(self) -> bool:
        """Hand out no cells of a benchmark, and count none, until `release_cells`; whether there are any to do."""
        self._holding = True
        return self._open_cells > 0

    def release_cells(self) -> None:
        """The cells that were held back are to be done now."""
        self._holding = False

    def count(self, path: str) -> int:
        """How many units a variant has that were to be done at the start."""
        return len(self._tables[path])

    def positions(self, path: str) -> int:
        """How many positions they cover."""
        return int((self._tables[path].stops - self._tables[path].starts).sum())

    def units(self, path: str) -> Iterator[Unit]:
        """The units of a variant that were to be done at the start, halves in the place of those that were split."""
        return self._tables[path].units(range(len(self._tables[path])))

    def take(self, worker: object) -> Unit | None:
        """A ready unit for this worker, or None while none is."""
        place = self._place(worker)
        if place is None:
            return None
        for held in [held for held, owner in self._owners.items() if owner == worker and held != place]:
            del self._owners[held]
        self._owners.setdefault(place, worker)
        table, row = self._first_ready(place)
        table.ready[row] = False
        self._ready[place] -= 1
        return table.unit(row)

    def from_elsewhere(self) -> list[Unit]:
        """Units that other runs of the output have committed since the last call; see `SharedQueue`."""
        return []

    def wait_for_others(self) -> bool:
        """Where nothing is ready and nothing under way: wait a moment for other runs; False where there are none."""
        return False

    def rest(self) -> None:
        """There is no worker at the moment; see `SharedQueue`."""

    def put_back(self, unit: Unit) -> None:
        """A unit that was taken is not done, through no fault of its own."""
        if (row := self._row(unit)) is not None:
            self._offer(unit.variant, np.array([row]))

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
        first, second = self._cut(unit, [(unit.start + unit.stop) // 2])
        return first, second

    def is_left(self, unit: Unit) -> bool:
        """Whether a unit is neither done nor given up."""
        return self._row(unit) is not None

    def fills_a_worker(self, unit: Unit) -> bool:
        """Whether a unit takes so long, and has so little to read beforehand, that none shall wait behind it."""
        return self._variants[unit.variant].stage in ("train", "retrain")

    def done(self, unit: Unit) -> None:
        """A unit was committed; what waited for it may become ready."""
        if not self._close(unit):
            return
        self._begun.add(unit.variant)
        for path, rows, covered in self._reading(unit):
            table = self._tables[path]
            table.missing[rows] -= covered
            self._offer(path, rows.start + np.flatnonzero(table.open[rows] & (table.missing[rows] == 0)))

    def lose(self, unit: Unit, reason: str) -> None:
        """A unit cannot be done, and so neither what reads it."""
        if self._close(unit):
            self.lost[unit] = reason
            self._strand_readers(unit)

    def lose_rest(self, path: str, reason: str, in_hand: Set[Unit]) -> list[Unit]:
        """Give up the units of a variant that are neither done nor lost nor in somebody's hand, and return them."""
        table = self._tables[path]
        rest = [unit for unit in table.units(np.flatnonzero(table.open)) if unit not in in_hand]
        for unit in rest:
            self.lose(unit, reason)
        return rest

    def _cut(self, unit: Unit, edges: Sequence[int]) -> list[Unit]:
        """Put pieces in the place of a unit, cut at some of its positions; nobody is offered them."""
        row, table, place = self._row(unit), self._tables[unit.variant], self._place_of(unit)
        if row is None:
            raise ValueError(f"{unit} is not to be done")
        self._ready[place] -= int(table.ready[row])
        rows = table.cut(row, edges)
        self._count_open(unit, len(edges))
        table.missing[rows] = self._missing(unit.variant, table.starts[rows], table.stops[rows])
        return list(table.units(range(rows.start, rows.stop)))

    def _missing(self, path: str, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many positions of what a variant reads for each start ≤ p < stop are still to be done."""
        missing = np.zeros_like(starts)
        for read in self._variants[path].reads:
            table = self._tables[read.variant]
            left = Ranges(table.starts[table.open], table.stops[table.open])
            missing += len(left) if read.whole else left.inside(starts, stops)
        return missing

    def _strand_readers(self, unit: Unit) -> None:
        for path, rows, _ in self._reading(unit):
            table = self._tables[path]
            for waiting in list(table.units(rows.start + np.flatnonzero(table.open[rows]))):
                if self._close(waiting):
                    self.stranded.add(waiting)
                    self._strand_readers(waiting)

    def _reading(self, unit: Unit) -> Iterator[tuple[str, slice, NDArray[np.int64] | int]]:
        """Who reads a unit: a variant, the rows of its units, and how many positions of it each reads."""
        for path, whole in self._readers[unit.variant]:
            table = self._tables[path]
            if whole:
                yield path, slice(0, len(table)), len(unit)
                continue
            rows = table.touching(unit.start, unit.stop)
            yield path, rows, np.minimum(table.stops[rows], unit.stop) - np.maximum(table.starts[rows], unit.start)

    def _row(self, unit: Unit) -> int | None:
        """The row of a unit that is neither done nor given up; None of any other."""
        row = self._tables[unit.variant].row(unit)
        return row if row is not None and self._tables[unit.variant].open[row] else None

    def _close(self, unit: Unit) -> bool:
        """A unit is not to be done any more; False where that was so before."""
        row, table = self._row(unit), self._tables[unit.variant]
        if row is None:
            return False
        self._ready[self._place_of(unit)] -= int(table.ready[row])
        table.open[row] = table.ready[row] = False
        self._count_open(unit, -1)
        return True

    def _count_open(self, unit: Unit, change: int) -> None:
        place = self._place_of(unit)
        self._open[place] += change
        self._open_units += change
        self._open_cells += change if self._is_cell(place) else 0

    def _offer(self, path: str, rows: NDArray[np.int64]) -> None:
        """Units can be handed out."""
        table = self._tables[path]
        rows = rows[~table.ready[rows]]
        table.ready[rows] = True
        for place, count in self._places_of(path, table.starts[rows]):
            if not self._ready[place]:
                heapq.heappush(self._places, place)
            self._ready[place] += count

    def _places_of(self, path: str, starts: NDArray[np.int64]) -> Iterator[tuple[Place, int]]:
        """Places of a variant's units that begin there, and how many of them are in each."""
        numbers, counts = np.unique(starts // self._stretch, return_counts=True)
        subject = self._subject[path]
        return (((subject, number), count) for number, count in zip(numbers.tolist(), counts.tolist(), strict=True))

    def _place_of(self, unit: Unit) -> Place:
        return self._subject[unit.variant], unit.start // self._stretch

    def _is_cell(self, place: Place) -> bool:
        return place[0] >= self._first_cell

    def _stage_of(self, path: str) -> StageName:
        return self._variants[path].stage

    def _edges(self, place: Place) -> tuple[int, int]:
        """First position of a place, and one past the last."""
        return place[1] * self._stretch, (place[1] + 1) * self._stretch

    def _first_ready(self, place: Place) -> tuple[UnitTable, int]:
        """The next unit of a place that has one: of the latest stage, the first position, the first of the methods."""
        for tables in self._of_stage[place[0]]:
            rows = [(table, row) for table in tables if (row := table.first_ready(*self._edges(place))) is not None]
            if rows:
                return min(rows, key=lambda one: one[0].starts[one[1]])
        raise ValueError(f"nothing is ready at {place}")

    def _is_free(self, place: Place) -> bool:
        """Whether units of a place may be handed out."""
        return not (self._holding and self._is_cell(place))

    def _place(self, worker: object) -> Place | None:
        """The place of the next unit for a worker: its own, as long as something is ready there."""
        mine = [place for place, owner in self._owners.items() if owner == worker and self._ready[place]]
        return next((place for place in mine if self._enter(place)), None) or self._next_place()

    def _next_place(self) -> Place | None:
        """The first place with ready units, one that nobody holds if there is such."""
        passed: list[Place] = []
        found: Place | None = None
        while self._places and found is None:
            place = heapq.heappop(self._places)
            if not self._ready[place] or (passed and passed[-1] == place):
                continue
            passed.append(place)
            if place not in self._owners and self._enter(place):
                found = place
        for place in passed:
            heapq.heappush(self._places, place)
        return found or next((place for place in passed if self._enter(place)), None)

    def _enter(self, place: Place) -> bool:
        """Whether units of a place that has some may be handed out by this run now."""
        return self._is_free(place)
