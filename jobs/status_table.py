"""How far a run is, as people read it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.console import plain
from jobs.status import RunProgress, StageProgress

_WIDTH = 24


def stage_table(stages: Iterable[StageProgress]) -> Table:
    """A row a stage: units done of those there are, a bar, samples, speed, failures."""
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "units", "", "samples", "samples/s", "failed"):
        table.add_column(heading, justify="left" if heading in ("stage", "") else "right", no_wrap=True)
    for stage in stages:
        done = stage.reused + stage.done
        filled = round(_WIDTH * done / max(stage.units, 1))
        speed = stage.samples_per_second
        table.add_row(
            Text(plain(stage.stage)),
            f"{done}/{stage.units}",
            Text("━" * filled, style="cyan") + Text("─" * (_WIDTH - filled), style="bright_black"),
            f"{stage.samples}",
            "" if speed is None else f"{speed:.1f}",
            f"{stage.failures}" + (f" (+{stage.lost} units)" if stage.lost else ""),
        )
    return table


def left_text(seconds: float | None) -> str:
    """Time left in words; empty where it is not known."""
    if seconds is None:
        return ""
    return f"at most {duration(seconds)} left" if seconds else "done"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    for size, unit in ((86400.0, "days"), (3600.0, "h")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def print_progress(progress: RunProgress, console: Console, now: datetime | None = None) -> None:
    """A run in a few lines: what it is, its stages, the time it took and will take."""
    console.print(Text(plain(f"{progress.run}: {_state(progress, now or datetime.now(UTC))}")), soft_wrap=True)
    if progress.stages:
        console.print(stage_table(progress.stages))


def _state(progress: RunProgress, now: datetime) -> str:
    took = duration(progress.seconds)
    if progress.status == "running":
        return f"running for {took}, {left_text(progress.left_seconds) or 'time left: not known yet'}"
    if progress.status == "silent":
        since = duration((now - datetime.fromisoformat(progress.updated)).total_seconds())
        return (
            f"no sign of life for {since}, after {took}: it was killed, or it stands still; the command that started "
            "it finishes the rest"
        )
    idle = ", nothing to do" if progress.status == "done" and not any(one.done for one in progress.stages) else ""
    why = f": {progress.reason}" if progress.reason else ""
    return f"{progress.status} after {took}{idle}{why}"
