"""How far a run is: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.executor import Event
from jobs.plan import Plan
from pipeline.stages.variant import STAGES

PLAIN_EVERY = 10.0  # seconds between plain lines
TROUBLES_SHOWN = 5


@dataclass
class _StageCount:
    """Of one stage: units to do and done, samples done, failures."""

    units: int
    done: int = 0
    samples: int = 0
    failures: int = 0
    lost: int = 0


class Progress:
    """Shows a run's progress on standard error."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._stages: dict[str, _StageCount] = {}
        self._stage_of: dict[str, str] = {}
        self._troubles: list[str] = []
        self._work = 0.0
        self._worked = 0.0
        self._weights: dict[str, float] = {}
        self._began = self._said = time.monotonic()
        self._live: Live | None = None

    def say(self, text: str) -> None:
        """One plain line."""
        self._console.print(Text(text), soft_wrap=True)

    @contextmanager
    def showing(self, plan: Plan) -> Iterator[None]:
        """Show progress inside the block."""
        for path, variant in plan.job.variants.items():
            self._stage_of[path] = variant.stage
            # Work is counted in passes; a sample of a stage without any still takes some.
            self._weights[path] = variant.cost.forwards + variant.cost.backwards + 0.1
            units = plan.queue.remaining(path)
            if units:
                count = self._stages.setdefault(variant.stage, _StageCount(0))
                count.units += len(units)
                self._work += self._weights[path] * sum(len(unit) for unit in units)
        self._began = self._said = time.monotonic()
        total, reused = (
            sum(count.units for count in self._stages.values()),
            sum(map(len, plan.committed.values())),
        )
        if not total:
            self.say(f"nothing to do: all {reused} units are committed")
            yield
            return
        self.say(f"{total} units to do" + (f", {reused} committed before" if reused else ""))
        if not self._console.is_terminal:
            yield
            self._line()
            return
        with Live(self._table(), console=self._console, refresh_per_second=4) as self._live:
            yield
            self._live.update(self._table())

    def show(self, event: Event) -> None:
        """Take an event in."""
        if event.unit is None:
            self.say("stopping: units in flight are finished first")
            return
        count = self._stages[self._stage_of[event.unit.variant]]
        if event.kind == "done" and event.report is not None:
            count.done += 1
            count.samples += len(event.unit)
            count.failures += event.report.receipt.failures
            self._worked += self._weights[event.unit.variant] * len(event.unit)
        elif event.kind in ("again", "lost"):
            count.lost += event.kind == "lost"
            what = "gave up" if event.kind == "lost" else "trying again"
            trouble = f"{event.unit.variant} [{event.unit.start}, {event.unit.stop}): {what}: {event.reason}"
            self._troubles.append(trouble)
            if self._live is None:
                self.say(trouble)
        now = time.monotonic()
        if self._live is not None:
            self._live.update(self._table())
        elif now - self._said >= PLAIN_EVERY:
            self._line()

    def _line(self) -> None:
        self._said = time.monotonic()
        stages = ", ".join(
            f"{stage} {self._stages[stage].done}/{self._stages[stage].units}"
            for stage in STAGES
            if stage in self._stages
        )
        failures = sum(count.failures for count in self._stages.values())
        self.say(f"{self._elapsed():.0f} s: units {stages}; {failures} failures; {self._left()}")

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _left(self) -> str:
        """Time left, by the share of the passes that are done (an upper bound where methods stop early)."""
        if self._worked < 0.01 * self._work:
            return "time left: not known yet"
        seconds = self._elapsed() * max(0.0, self._work - self._worked) / self._worked
        if not seconds:
            return "done"
        return f"at most {seconds:.0f} s left" if seconds < 120 else f"at most {seconds / 60:.0f} min left"

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for heading in ("stage", "units", "", "samples", "samples/s", "failed"):
            table.add_column(heading, justify="left" if heading in ("stage", "") else "right")
        elapsed = max(self._elapsed(), 1e-3)
        for stage in STAGES:
            if (count := self._stages.get(stage)) is None:
                continue
            filled = round(24 * count.done / count.units)
            bar = Text("━" * filled, style="cyan") + Text("━" * (24 - filled), style="bright_black")
            failed = f"{count.failures}" + (f" (+{count.lost} units)" if count.lost else "")
            table.add_row(
                stage,
                f"{count.done}/{count.units}",
                bar,
                f"{count.samples}",
                f"{count.samples / elapsed:.1f}",
                failed,
            )
        lines = [
            Text(line, style="yellow", overflow="ellipsis", no_wrap=True) for line in self._troubles[-TROUBLES_SHOWN:]
        ]
        return Group(table, Text(f"{elapsed:.0f} s, {self._left()}", style="bright_black"), *lines)
