"""Lines for a log: that a run goes on is told also while nothing happens."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console
from small_plan import PREDICT, small_plan

from cluster.executor import Event
from jobs import progress
from jobs.progress import ALIKE_SHOWN, Progress
from jobs.tally import Tally
from pipeline.stages.variant import Unit


def test_what_goes_wrong_in_the_same_way_again_and_again_is_told_some_times() -> None:
    lines = io.StringIO()
    shown = Progress(Console(file=lines, width=500))
    for number in range(500):
        shown.show(Event("lost", Unit(PREDICT, number, number + 1), reason="crashed"))
    shown.show(Event("lost", Unit(PREDICT, 500, 501), reason="no memory"))
    said = lines.getvalue().splitlines()
    assert len(said) == ALIKE_SHOWN + 1
    assert said[-2].endswith("gave up: crashed; further ones like it are not told")
    assert said[-1].endswith("[500, 501): gave up: no memory")


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
