"""How far a run is: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cluster.executor import Event
from jobs.console import plain
from jobs.repeating import repeating
from jobs.status_table import left_text, stage_table
from jobs.tally import Tally

PLAIN_EVERY = 10.0  # seconds between plain lines
QUIET_EVERY = 30.0  # the same, where nothing happens
TROUBLES_SHOWN = 5
ALIKE_SHOWN = 20  # lines of one kind, variant and reason: a method may fail on each of many units
_TROUBLES: Mapping[str, str] = {
    "again": "trying again",
    "split": "trying its halves",
    "isolated": "recorded as failed",
    "lost": "gave up",
}


class Progress:
    """Shows a run's progress on standard error."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._tally: Tally | None = None
        self._troubles: list[str] = []
        self._alike: Counter[tuple[str, str, str]] = Counter()
        self._workers = ""
        self._said = time.monotonic()
        self._live: Live | None = None

    def say(self, text: str) -> None:
        """One plain line."""
        self._console.print(Text(plain(text)), soft_wrap=True)

    @contextmanager
    def showing(self, tally: Tally) -> Iterator[None]:
        """Show progress inside the block."""
        self._tally, self._said = tally, time.monotonic()
        stages = tally.stages()
        total, reused = sum(stage.units - stage.reused for stage in stages), sum(stage.reused for stage in stages)
        if not total:
            self.say(f"nothing to do: all {reused} units are committed")
            yield
            return
        self.say(f"{total} units to do" + (f", {reused} committed before" if reused else ""))
        if not self._console.is_terminal:
            with repeating(self._tell_that_it_goes_on, 1.0, "progress"):
                yield
            self._line(tally)
            return
        # Drawn four times a second whether or not something happens: a unit may take long.
        with Live(console=self._console, refresh_per_second=4, get_renderable=lambda: self._table(tally)) as self._live:
            yield

    def _tell_that_it_goes_on(self) -> None:
        """A training, or a wait for workers, may take long without an event."""
        if self._tally is not None and time.monotonic() - self._said >= QUIET_EVERY:
            self._line(self._tally)

    def show(self, event: Event) -> None:
        """Take an event in that the tally has counted."""
        if event.unit is None:
            if event.kind == "workers":
                self._workers = f"{event.reason}, "
            else:
                self.say(event.reason)
            return
        if event.kind in _TROUBLES:
            what = _TROUBLES[event.kind]
            trouble = f"{event.unit.variant} [{event.unit.start}, {event.unit.stop}): {what}: {event.reason}"
            self._troubles.append(trouble)
            kind = (event.unit.variant, event.kind, event.reason)
            self._alike[kind] += 1
            if self._live is None and self._alike[kind] <= ALIKE_SHOWN:
                more = "; further ones like it are not told" if self._alike[kind] == ALIKE_SHOWN else ""
                self.say(f"{trouble}{more}")
        if self._live is None and self._tally is not None and time.monotonic() - self._said >= PLAIN_EVERY:
            self._line(self._tally)

    def _line(self, tally: Tally) -> None:
        self._said = time.monotonic()
        counted = [stage for stage in tally.stages() if stage.units > stage.reused]
        units = ", ".join(f"{stage.stage} {stage.done}/{stage.units - stage.reused}" for stage in counted)
        failures = sum(stage.failures for stage in counted)
        left = left_text(tally.left_seconds()) or "time left: not known yet"
        self.say(f"{tally.elapsed():.0f} s: {self._workers}units {units}; {failures} failures; {left}")

    def _table(self, tally: Tally) -> Group:
        left = left_text(tally.left_seconds()) or "time left: not known yet"
        lines = [
            Text(plain(line), style="yellow", overflow="ellipsis", no_wrap=True)
            for line in self._troubles[-TROUBLES_SHOWN:]
        ]
        foot = Text(f"{tally.elapsed():.0f} s, {self._workers}{left}", style="bright_black")
        return Group(stage_table(tally.stages()), foot, *lines)
