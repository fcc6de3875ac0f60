"""A queue that shares its units with other runs of the same output: each unit is computed by one of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from cluster.queue import Place, UnitQueue
from pipeline.claim import LOOK_EVERY, Claims
from pipeline.errors import RetryableError
from pipeline.neighbour import Stretch
from pipeline.part import Part
from pipeline.ranges import Ranges, gaps
from pipeline.stages.variant import Unit, Variant

_WAIT = 0.5  # seconds between looks where there is nothing else to do
_SHARE = 0.1  # of the time, at most, goes into looking at what others have committed

Look = Callable[[Iterable[str]], Mapping[str, list[Part]]]


class SharedQueue(UnitQueue):
    """Claims a place before the first of its units is handed out.

    A place is what one worker keeps in memory: some thousand samples of one model, with all their units, or one
    training of a benchmark. What another run has claimed is withheld, and asked for again until it is committed or
    free. Without another run this costs a handful of calls to the store a place. Superpixels are claimed with the
    samples of the spec's first model: runs whose specs name the models in another order may make them twice.
    """

    def __init__(
        self, variants: Mapping[str, Variant], committed: Mapping[str, list[Part]], claims: Claims, look: Look
    ) -> None:
        """As `UnitQueue`.

        Args:
            variants, committed: as there.
            claims: this run's claims, begun before `committed` was looked up.
            look: the parts of some variants that are committed by now.
        """
        super().__init__(variants, committed)
        self._claims, self._look = claims, look
        self._withheld: set[Place] = set()
        self._asked = self._looked = time.monotonic()
        self._look_seconds = 0.0
        self._elsewhere: list[Unit] = []
        self._told = False

    def take(self, worker: object) -> Unit | None:
        """A ready unit for this worker that no other run has claimed, or None while none is."""
        if self._withheld and time.monotonic() - self._asked >= LOOK_EVERY:
            self._look_around()
            self._withheld.clear()
            self._asked = time.monotonic()
        return super().take(worker)

    def from_elsewhere(self) -> list[Unit]:
        """Units that other runs have committed, those that were told of before left out."""
        found, self._elsewhere = self._elsewhere, []
        return found

    def wait_for_others(self) -> bool:
        """Where nothing is ready and nothing under way: wait a moment for other runs; False where there are none."""
        self._look_around()
        if self.ready or not len(self):
            return True
        self._claims.look_again()
        if not self._withheld and not self._claims.neighbours:
            return False
        # Who has nothing to do holds nothing: else two runs could wait for what the other holds.
        self._claims.give_all_back()
        if not self._told:
            self._told = True
            self.waits = f"another run of this output has what is left, {len(self)} units: waiting for it"
        time.sleep(_WAIT)
        return True

    def rest(self) -> None:
        """There is no worker at the moment, and one may take long to come: what is held is free for other runs."""
        self._claims.give_all_back()

    def _is_free(self, place: Place) -> bool:
        return super()._is_free(place) and place not in self._withheld

    def _enter(self, place: Place) -> bool:
        """Whether the place is this run's and has units yet, claimed now where it was nobody's."""
        if not self._ready[place] or not super()._enter(place):
            return False
        stretch = self._stretch_of(place)
        if self._claims.holds(stretch):
            return True
        taken = self._claims.take(stretch)
        # Only now can nobody else commit anything of it any more.
        if taken and self._claims.shared and not self._take_in(self._of_subject[place[0]], place):
            self._claims.give_back(stretch)
            taken = False
        if not taken:
            self._withheld.add(place)
        return taken and bool(self._ready[place])

    def _close(self, unit: Unit) -> bool:
        closed, place = super()._close(unit), self._place_of(unit)
        if closed and not self._open[place]:
            self._claims.give_back(self._stretch_of(place))
        return closed

    def _stretch_of(self, place: Place) -> Stretch:
        """What has to be claimed for a place, which is the same for every job that has some of its units."""
        subject, number = place
        paths = self._of_subject[subject]
        name = next((path for path in paths if self._variants[path].stage == "predict"), paths[-1])
        return Stretch(name, number * self._stretch, (number + 1) * self._stretch)

    def _look_around(self) -> None:
        """Take in what others have committed; units here may wait for it."""
        if not self._claims.shared or time.monotonic() - self._looked < max(LOOK_EVERY, self._look_seconds / _SHARE):
            return
        began = time.monotonic()
        self._take_in([path for path, table in self._tables.items() if table.open.any()])
        self._looked = time.monotonic()
        self._look_seconds = self._looked - began

    def _take_in(self, paths: Iterable[str], place: Place | None = None) -> bool:
        """Count units as done that are committed by now: those of a place, or all of which this run has no claim.

        Returns:
            Whether that could be seen; else the next look may tell.
        """
        try:
            committed = self._look(paths)
        except RetryableError:
            return False
        for path, parts in committed.items():
            table, left = self._tables[path], gaps(parts, self._variants[path].total)
            if place:
                self._cut_at_what_is_left(path, left, place)
            rows = table.beginning(*self._edges(place)) if place else slice(0, len(table))
            there = table.open[rows] & (left.inside(table.starts[rows], table.stops[rows]) == 0)
            for unit in list(table.units(rows.start + np.flatnonzero(there))):
                if place or not self._claims.holds(self._stretch_of(self._place_of(unit))):
                    self.done(unit)
                    self._elsewhere.append(unit)
        return True

    def _cut_at_what_is_left(self, path: str, left: Ranges, place: Place) -> None:
        """Cut the units of a place of which a part is committed, by a run that cuts its units otherwise.

        Of overlapping parts one counts: were such a unit computed whole, what the other does not cover would not.
        """
        table = self._tables[path]
        rows = table.beginning(*self._edges(place))
        missing = left.inside(table.starts[rows], table.stops[rows])
        partly = table.open[rows] & (missing > 0) & (missing < table.stops[rows] - table.starts[rows])
        for unit in list(table.units(rows.start + np.flatnonzero(partly))):
            edges = {edge for one in left for edge in one if unit.start < edge < unit.stop}
            pieces = self._cut(unit, sorted(edges))
            # Also those of one that was in hand: what its worker commits overlaps and may not count.
            rows = table.beginning(pieces[0].start, pieces[-1].stop)
            self._offer(path, rows.start + np.flatnonzero(table.missing[rows] == 0))
