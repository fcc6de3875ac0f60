"""What was found of each fault, and the table of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from subprocess import SubprocessError
from typing import Any

import psutil
from fault_output import Difference

ROUNDING = 1e-5
"""Where units are cut otherwise than in the undisturbed run, a forward holds other images beside a sample."""


@dataclass
class Found:
    """What was found of one kind of fault.

    Attributes:
        fault: what was done.
        failing: positions that it is to make fail.
        exact: whether tables and parts are to be the same to the bit.
        times: how often it was done.
        in_flight: of each time, units that were under way, and computed again.
        again: units that had been committed before, and were computed again all the same; None where nothing ended.
        differences: from the undisturbed output, one a job.
        seconds: of each time, until work went on: where the fault ended the run, from the same command to the next
            commit; else from the fault to the commit of the last unit that was lost.
        trouble: what else did not go as it should, such as an exit code.
    """

    fault: str
    failing: frozenset[int] = frozenset()
    exact: bool = True
    times: int = 0
    in_flight: list[int] = field(default_factory=list)
    again: int | None = None
    differences: list[Difference] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        """Nothing lost, doubled or changed, nothing computed in vain, and no sample failed but those that were to."""
        return (
            bool(self.differences)
            and not self.again
            and not self.trouble
            and all(map(self._as_expected, self.differences))
        )

    def _as_expected(self, one: Difference) -> bool:
        same = not one.changed and not one.other_parts if self.exact else one.largest <= ROUNDING
        return one.complete and same and one.failed == self.failing

    @contextmanager
    def once(self) -> Iterator[None]:
        """The fault is done inside the block; what does not go as expected is trouble, and no end of the rest."""
        self.times += 1
        try:
            yield
        except (RuntimeError, TimeoutError, SubprocessError, psutil.Error) as error:
            self.trouble.append(" ".join(f"{type(error).__name__}: {error}".split())[:1000])

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        samples, lost, doubled, changed = (
            sum(getattr(one, key) for one in self.differences) for key in ("samples", "lost", "duplicated", "changed")
        )
        return {
            "fault": self.fault,
            "times": self.times,
            "in_flight": self.in_flight,
            "committed_again": self.again,
            "samples": samples,
            "lost": lost,
            "duplicated": doubled,
            "changed": changed,
            "largest_difference": max((one.largest for one in self.differences), default=0.0),
            "failed": sorted({position for one in self.differences for position in one.failed}),
            "seconds": [round(one, 2) for one in self.seconds],
            "trouble": self.trouble,
            "fine": self.fine,
        }

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        facts = self.facts()
        equal = "yes" if self.fine else "NO"
        if facts["changed"]:
            equal += f", {facts['changed']} samples to {facts['largest_difference']:.0e}"
        taken = f"{statistics.median(self.seconds):.1f} ({max(self.seconds):.1f})" if self.seconds else ""
        return {
            "fault": self.fault,
            "times": str(self.times),
            "units in flight, computed again": str(sum(self.in_flight)) if self.in_flight else "",
            "committed units computed again": "" if self.again is None else str(self.again),
            "samples": f"{facts['samples']:,}",
            "lost": str(facts["lost"]),
            "twice": str(facts["duplicated"]),
            "failed": str(len(facts["failed"])),
            "equal to the undisturbed": equal,
            "seconds until work went on, median (most)": taken,
        }


def table(found: Sequence[Found]) -> str:
    """Findings as a table in Markdown, with what was not as it should be below."""
    rows = [one.cells() for one in found]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    trouble = [f"\n{one.fault}: {line}" for one in found for line in one.trouble]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), *trouble])
