"""Lines for a log: that a run goes on is told also while nothing happens."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console
from small_plan import small_plan

from jobs import progress
from jobs.progress import Progress
from jobs.tally import Tally


def test_a_line_comes_now_and_then_while_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    said, lines = threading.Event(), io.StringIO()
    monkeypatch.setattr(progress, "QUIET_EVERY", 0.0)
    shown = Progress(Console(file=lines, width=200))
    line = Progress._line

    def saying(self: Progress, tally: Tally) -> None:
        line(self, tally)
        said.set()

    monkeypatch.setattr(Progress, "_line", saying)
    before = threading.active_count()
    with shown.showing(Tally(small_plan())):
        assert said.wait(10)
    assert "s: units predict 0/" in lines.getvalue()
    assert threading.active_count() == before
