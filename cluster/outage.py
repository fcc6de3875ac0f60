"""Storage that does not answer for a while: units fail one after the other, and none of them is to blame."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.stages.variant import Unit

FIRST_REST = 0.25
"""Seconds without new units after a failure for a passing reason; twice as many where the next units fail as well."""

LONGEST_REST = 30.0
"""Seconds, at most."""

LONGEST = 90.0
"""Seconds of nothing but failures after which the job stops."""

UNITS = 3
"""Units that fail one after the other without one that is done between them, from which on it is not theirs."""


class Outage:
    """Failures for passing reasons since the last unit that was done.

    Args:
        clock: seconds from any beginning on.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rests = 0
        self._units: set[Unit] = set()
        self._since = self._last = self._until = float("-inf")

    def note_failure(self, unit: Unit) -> None:
        """A unit failed for a passing reason: nothing new is to be handed out for a moment."""
        # What failed long ago, while others go on for hours, began no outage that lasts until now.
        if self._clock() - self._last > LONGEST:
            self._since = self._clock()
        self._last = self._clock()
        self._units.add(unit)
        # What was in flight fails together, and counts once.
        if self._clock() >= self._until:
            self._until = self._clock() + min(LONGEST_REST, FIRST_REST * 2.0**self._rests)
            self._rests += 1

    def note_success(self) -> None:
        """Something was done."""
        self._rests, self._last, self._until = 0, float("-inf"), float("-inf")
        self._units.clear()

    @property
    def rest(self) -> float:
        """Seconds until units are to be handed out again."""
        return max(0.0, self._until - self._clock())

    @property
    def lasts_long(self) -> bool:
        """Whether failures have followed each other for so long that it is time to stop."""
        return self._clock() - self._since > LONGEST

    @property
    def is_general(self) -> bool:
        """Whether so many units failed that no unit is to blame."""
        return len(self._units) >= UNITS
