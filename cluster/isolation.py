"""Which sample brings workers down: a unit whose workers die is halved until the sample is found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from cluster.attempt import Order, WorkerDiedError
from cluster.queue import UnitQueue
from pipeline.stages.unreadable import UNREADABLE
from pipeline.stages.variant import Split, Unit

# Samples of one unit that are looked for: each takes about log2(unit) deaths of a worker.
SAMPLES = 3
# A single sample has to bring so many workers down, alone, to be held guilty: one may have died by chance.
LAST_TRIES = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a worker's death.

    Attributes:
        kind: `again`: the orders are to be carried out; `split`: the same, for halves; `isolated`: the same, for a
            sample that is recorded as failed; `lost`: the unit is given up.
        orders: each for a worker that has nothing else.
        reason: one line.
    """

    kind: Literal["again", "split", "isolated", "lost"]
    orders: tuple[Order, ...]
    reason: str


class Isolation:
    """Decides what happens to units whose workers died.

    A unit is tried again alone, decoding no image but its own, as often as any unit may be. If its workers still
    die it is halved, each half alone, down to a single sample. That one's image is decoded alone, to tell an image that
    no worker must touch again from one that this stage cannot compute; then the sample is committed as failed. For n
    samples with one guilty that takes about log2(n) + 2 deaths beyond the tries of the whole.

    Args:
        queue: where units are split.
        retries: further tries of a whole unit.

    Attributes:
        unreadable: positions whose image must not be decoded any more, by split.
    """

    def __init__(self, queue: UnitQueue, retries: int) -> None:
        self._queue = queue
        self._retries = retries
        self._whole: dict[Unit, Unit] = {}
        self._deaths: Counter[Unit] = Counter()
        self.unreadable: dict[Split, frozenset[int]] = {}

    def after_death(self, order: Order, error: WorkerDiedError) -> Verdict:
        """What becomes of an order whose worker died."""
        unit, reason = order.unit, str(error)
        whole = self._whole.setdefault(unit, unit)
        self._deaths[unit] += 1
        if unit != whole:
            self._deaths[whole] += 1
        if order.task == "give_up" or (order.task == "look" and error.out_of_memory):
            return Verdict("lost", (), reason)
        if order.task == "look":
            split = self._queue.variant(unit).split
            self.unreadable[split] = self.unreadable.get(split, frozenset()) | set(range(unit.start, unit.stop))
            return _failed(unit, UNREADABLE)
        if self._deaths[unit] < self._tries(unit):
            return Verdict("again", (Order(unit, "alone"),), reason)
        died = f"its workers died {self._deaths[unit]} times; the last time: {reason}"
        if not self._queue.holds_samples(unit) or self._deaths[whole] > self._most_deaths(whole):
            return Verdict("lost", (), died)
        if len(unit) > 1:
            halves = self._queue.split(unit)
            self._whole |= dict.fromkeys(halves, whole)
            return Verdict("split", tuple(Order(half, "alone") for half in halves), reason)
        if error.out_of_memory:
            # With fewer workers on the node, or more memory, it may well succeed: not a fault of the sample.
            return Verdict("lost", (), died)
        if self._is_unreadable(unit):
            return _failed(unit, UNREADABLE)
        return Verdict("again", (Order(unit, "look"),), f"{reason}; looking at its image alone")

    def after_look(self, unit: Unit) -> Verdict:
        """A sample's image can be decoded: it is the stage that brings workers down with it."""
        if self._is_unreadable(unit):
            # Found out meanwhile with another stage: nobody has decoded it now.
            return _failed(unit, UNREADABLE)
        return _failed(unit, f"brought its worker down {self._deaths[unit]} times")

    def _is_unreadable(self, unit: Unit) -> bool:
        return unit.start in self.unreadable.get(self._queue.variant(unit).split, ())

    def _tries(self, unit: Unit) -> int:
        if self._whole[unit] == unit:
            return self._retries + 1
        return LAST_TRIES if len(unit) == 1 else 1

    def _most_deaths(self, whole: Unit) -> int:
        return self._retries + 1 + SAMPLES * (len(whole).bit_length() + LAST_TRIES)


def _failed(unit: Unit, reason: str) -> Verdict:
    return Verdict("isolated", (Order(unit, "give_up", reason=reason),), reason)
