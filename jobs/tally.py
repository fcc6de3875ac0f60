"""Counts of a run while it goes on: what is done of each stage, how fast, and how long the rest will take."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cluster.executor import Event
from jobs.plan import Plan
from jobs.status import StageProgress
from pipeline.stages.variant import STAGES

RECENT = 60.0
"""Seconds that a stage's speed is taken over."""

KNOWN = 0.01
"""Share of the passes from which on the time left is told."""

_NOTHING = 1e-6  # passes; what is left of a sum of many


@dataclass
class _StageCount:
    units: int = 0
    reused: int = 0
    done: int = 0
    lost: int = 0
    samples: int = 0
    failures: int = 0
    again: int = 0


class Tally:
    """Takes a run's events in; may be read from another thread meanwhile.

    Args:
        plan: the run's plan, before anything of it is done.
        clock: seconds from any beginning on.
    """

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._counts: dict[str, _StageCount] = {}
        self._stage_of: dict[str, str] = {}
        self._weights: dict[str, float] = {}
        self._work = self._worked = 0.0
        self._recent: deque[tuple[float, str, int]] = deque()
        for path, variant in plan.job.variants.items():
            left, reused = plan.queue.count(path), len(plan.committed[path])
            count = self._counts.setdefault(variant.stage, _StageCount())
            count.units += left + reused
            count.reused += reused
            self._stage_of[path] = variant.stage
            # Work is counted in passes; a sample of a stage without any still takes some.
            self._weights[path] = variant.cost.forwards + variant.cost.backwards + 0.1
            self._work += self._weights[path] * plan.queue.positions(path)
        self._began = clock()
        self._first: float | None = None

    def take(self, event: Event) -> None:
        """Count an event."""
        if event.unit is None:
            return
        with self._guard:
            now = self._clock()
            if self._first is None:
                self._first = now
            stage = self._stage_of[event.unit.variant]
            count = self._counts[stage]
            if event.kind == "done" and event.report is not None:
                count.done += 1
                count.samples += len(event.unit)
                count.failures += event.report.receipt.failures
                self._worked += self._weights[event.unit.variant] * len(event.unit)
                self._recent.append((now, stage, len(event.unit)))
            if event.kind == "elsewhere":
                count.reused += 1
                self._work -= self._weights[event.unit.variant] * len(event.unit)
            count.again += event.kind in ("again", "split")
            count.units += event.kind == "split"
            count.lost += event.kind == "lost"

    def elapsed(self) -> float:
        """Seconds since the plan was made."""
        return self._clock() - self._began

    def left_seconds(self) -> float | None:
        """Time left by the share of the passes that are done: an upper bound where methods stop early.

        None as long as too little is done to tell.
        """
        with self._guard:
            if self._work <= _NOTHING:
                return 0.0
            if self._first is None or self._worked < KNOWN * self._work:
                return None
            left = (self._clock() - self._first) * max(0.0, self._work - self._worked) / self._worked
            return round(left, 1)

    def stages(self) -> tuple[StageProgress, ...]:
        """The stages so far, in the order of the pipeline."""
        with self._guard:
            now = self._clock()
            while self._recent and self._recent[0][0] < now - RECENT:
                self._recent.popleft()
            # Since the first unit was handed out, where that is less than a minute ago.
            span = min(RECENT, now - self._first) if self._first is not None else 0.0
            return tuple(
                StageProgress(stage=stage, **self._counted(stage), samples_per_second=self._speed(stage, span))
                for stage in STAGES
                if stage in self._counts
            )

    def _counted(self, stage: str) -> dict[str, int]:
        count = self._counts[stage]
        # Of a unit of which another run did a part the pieces are counted.
        return vars(count) | {"units": max(count.units, count.reused + count.done + count.lost)}

    def _speed(self, stage: str, span: float) -> float | None:
        samples = sum(count for _, name, count in self._recent if name == stage)
        return round(samples / span, 3) if samples and span > 0 else None
