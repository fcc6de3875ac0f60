"""A queue that shares its units with other runs of the same output: each unit is computed by one of them."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from cluster.queue import UnitQueue, gaps, overlap
from pipeline.claim import LOOK_EVERY, Claims, Stretch
from pipeline.errors import RetryableError
from pipeline.part import Part
from pipeline.stages.variant import Unit, Variant

_WAIT = 0.5  # seconds between looks where there is nothing else to do
_SHARE = 0.1  # of the time, at most, goes into looking at what others have committed

Look = Callable[[Iterable[str]], Mapping[str, list[Part]]]


class SharedQueue(UnitQueue):
    """Claims a stretch of the data set before the first of its units is handed out.

    A stretch is what one worker keeps in memory: some thousand samples of one model, with all their units. What another
    run has claimed is set aside, and looked at again until it is committed or free. Without another run this costs
    three calls to the store a stretch.
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
        predictions = {(v.model, v.split): v.path for v in variants.values() if v.stage == "predict"}
        self._subject = {v.path: predictions.get((v.model, v.split), v.path) for v in variants.values()}
        self._of_subject: dict[str, list[str]] = defaultdict(list)
        for path, subject in self._subject.items():
            if variants[path].stage != "retrain":
                self._of_subject[subject].append(path)
        self._withheld: dict[Stretch, list[Unit]] = defaultdict(list)
        self._asked = self._looked = time.monotonic()
        self._look_seconds = 0.0
        self._elsewhere: list[Unit] = []
        self._told = False

    def take(self, worker: object) -> Unit | None:
        """A ready unit for this worker that no other run has claimed, or None while none is."""
        self._ask_again()
        while (unit := super().take(worker)) is not None:
            stretch = self._stretch_of(unit)
            if not self._enter(stretch):
                self._withheld[stretch].append(unit)
            elif unit in self._missing:
                return unit
        return None

    def done(self, unit: Unit) -> None:
        """A unit was committed; what waited for it may become ready."""
        if unit not in self._missing:
            return  # another run had it as well, and was told of first
        super().done(unit)
        stretch = self._stretch_of(unit)
        if not self._left(stretch):
            self._claims.give_back(stretch)

    def from_elsewhere(self) -> list[Unit]:
        """Units that other runs have committed, those that were told of before left out."""
        found, self._elsewhere = self._elsewhere, []
        return found

    def wait_for_others(self) -> bool:
        """Where nothing is ready and nothing under way: wait a moment for other runs; False where there are none."""
        self._look_around()
        if self.ready or not len(self):
            return True
        if not self._withheld and not self._claims.neighbours:
            return False
        if not self._told:
            self._told = True
            self.waits = f"another run of this output has what is left, {len(self)} units: waiting for it"
        time.sleep(_WAIT)
        return True

    def _stretch_of(self, unit: Unit) -> Stretch:
        """What has to be claimed for a unit: its stretch of samples; of a benchmark, the one training."""
        if self._variants[unit.variant].stage == "retrain":
            return Stretch(unit.variant, unit.start, unit.stop)
        number = unit.start // self._stretch
        return Stretch(self._subject[unit.variant], number * self._stretch, (number + 1) * self._stretch)

    def _paths(self, stretch: Stretch) -> list[str]:
        return self._of_subject.get(stretch.subject) or [stretch.subject]

    def _enter(self, stretch: Stretch) -> bool:
        """Whether the stretch is this run's, claimed now where it was nobody's."""
        if self._claims.holds(stretch):
            return True
        if not self._claims.take(stretch):
            return False
        if self._claims.shared:
            # Only now can nobody else commit anything of it any more.
            self._take_in(self._paths(stretch), stretch)
        return True

    def _ask_again(self) -> None:
        """Whether what others had claimed is free by now."""
        if not self._withheld or time.monotonic() - self._asked < LOOK_EVERY:
            return
        self._look_around()
        for stretch in list(self._withheld):
            if self._enter(stretch):
                for unit in self._withheld.pop(stretch):
                    if unit in self._missing:
                        self._offer(unit)
        self._asked = time.monotonic()

    def _look_around(self) -> None:
        """Take in what others have committed; units here may wait for it."""
        if not self._claims.shared or time.monotonic() - self._looked < max(LOOK_EVERY, self._look_seconds / _SHARE):
            return
        began = time.monotonic()
        self._take_in({unit.variant for unit in self._missing})
        self._looked = time.monotonic()
        self._look_seconds = self._looked - began

    def _take_in(self, paths: Iterable[str], stretch: Stretch | None = None) -> None:
        """Count units as done that are committed by now: those of a stretch, or all that no stretch in hand has."""
        try:
            committed = self._look(paths)
        except RetryableError:
            return  # the next look will tell
        for path, parts in committed.items():
            left = gaps(parts, self._variants[path].total)
            for unit in self._inside(path, stretch) if stretch else self._units[path]:
                if unit not in self._missing or unit in self._held or overlap(left, unit.start, unit.stop):
                    continue
                if stretch or not self._claims.holds(self._stretch_of(unit)):
                    self.done(unit)
                    self._elsewhere.append(unit)

    def _left(self, stretch: Stretch) -> bool:
        """Whether anything of a stretch is still to be done."""
        return any(unit in self._missing for path in self._paths(stretch) for unit in self._inside(path, stretch))

    def _inside(self, path: str, stretch: Stretch) -> list[Unit]:
        """The units of a variant that begin in a stretch."""
        units = self._units[path]
        low = bisect_left(units, stretch.start, key=lambda unit: unit.start)
        return units[low : bisect_left(units, stretch.stop, key=lambda unit: unit.start)]
