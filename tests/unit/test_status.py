"""How far a run is, as its output alone tells it."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_plan import PREDICT, done, small_plan, started

from jobs.heartbeat import signs_of_life
from jobs.status import SILENT, RunProgress, StageProgress, current_runs, progress_file, progress_of, sign_of_life
from jobs.status_table import duration, left_text, print_progress
from jobs.tally import Tally
from pipeline.errors import FatalError
from pipeline.store import Output, open_output

FIRST, SECOND = "20260102T030405.000000Z-small", "20260102T040405.000000Z-small"
BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STAGES = (StageProgress("predict", 4, 1, 2, 0, 4, 1, 0, 2.5), StageProgress("attribute", 4))


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return open_output(tmp_path / "out", create=True)


def write_record(output: Output, run: str = FIRST, **changes: Any) -> None:
    record = {"name": "small", "run": run, "status": "running", "started": BEGAN.isoformat(), "finished": None}
    output.write_bytes(f"runs/{run}.json", json.dumps({**record, "seconds": 0.0, **changes}).encode())


def write_sign(output: Output, run: str = FIRST, left: float | None = 30.0) -> datetime:
    content = sign_of_life(STAGES, left)
    output.write_bytes(progress_file(run), content)
    return datetime.fromisoformat(json.loads(content)["updated"])


def shown(progress: RunProgress, now: datetime) -> str:
    sink = io.StringIO()
    print_progress(progress, Console(file=sink, width=120), now)
    return sink.getvalue()


def test_a_run_that_gives_signs_of_life_is_running(output: Output) -> None:
    write_record(output)
    updated = write_sign(output)
    found = progress_of(output, now=updated + timedelta(seconds=SILENT - 1))
    assert (found.status, found.going_on, found.left_seconds, found.stages) == ("running", True, 30.0, STAGES)
    assert found.seconds == pytest.approx((updated - BEGAN).total_seconds())
    assert "at most 30 s left" in shown(found, updated)


def test_a_run_that_gives_none_any_more_is_silent(output: Output) -> None:
    write_record(output)
    updated = write_sign(output)
    found = progress_of(output, now=updated + timedelta(seconds=SILENT + 60))
    assert (found.status, found.going_on, found.left_seconds) == ("silent", False, None)
    assert [one.done for one in found.stages] == [2, 0]
    assert all(one.samples_per_second is None for one in found.stages)
    assert "no sign of life for 2 min" in shown(found, updated + timedelta(seconds=SILENT + 60))


def test_a_run_that_was_killed_before_its_first_sign_is_silent_since_it_began(output: Output) -> None:
    write_record(output)
    assert progress_of(output, now=BEGAN + timedelta(seconds=1)).status == "running"
    found = progress_of(output, now=BEGAN + timedelta(seconds=SILENT + 1))
    assert (found.status, found.updated, found.stages) == ("silent", BEGAN.isoformat(), ())


def test_of_a_run_that_has_ended_the_record_speaks(output: Output) -> None:
    ended = BEGAN + timedelta(seconds=90)
    stages = [{"stage": "predict", "units": 4, "done": 4, "samples": 8, "samples_per_second": 3.0}]
    write_record(output, status="failed", finished=ended.isoformat(), seconds=90.0, stages=stages)
    write_sign(output)
    found = progress_of(output)
    assert (found.status, found.seconds, found.left_seconds) == ("failed", 90.0, None)
    assert found.stages == (StageProgress("predict", 4, done=4, samples=8),)
    assert shown(found, ended).splitlines()[0] == f"{FIRST}: failed after 90 s"


def test_why_a_run_stopped_is_told(output: Output) -> None:
    ended = BEGAN + timedelta(seconds=90)
    write_record(output, status="stopped", finished=ended.isoformat(), seconds=90.0, reason="no space left")
    assert shown(progress_of(output), ended).splitlines()[0] == f"{FIRST}: stopped after 90 s: no space left"


def test_totals_stand_in_the_json(output: Output) -> None:
    write_record(output)
    write_sign(output)
    found = json.loads(json.dumps(progress_of(output).as_dict()))
    assert (found["units"], found["reused"], found["done"], found["failures"]) == (8, 1, 2, 1)
    assert found["stages"][0]["samples_per_second"] == 2.5


def test_runs_that_share_the_work_are_all_current(output: Output) -> None:
    write_record(output)
    write_record(output, SECOND)
    write_sign(output)
    updated = write_sign(output, SECOND)
    assert [one.run for one in current_runs(output, now=updated)] == [FIRST, SECOND]


def test_where_no_run_is_alive_the_latest_is_current(output: Output) -> None:
    write_record(output)
    write_sign(output)
    write_record(output, SECOND, status="done", finished=BEGAN.isoformat())
    later = datetime.now(UTC) + timedelta(hours=1)
    assert [(one.run, one.status) for one in current_runs(output, now=later)] == [(SECOND, "done")]


def test_signs_are_no_runs(output: Output) -> None:
    write_record(output)
    write_sign(output)
    assert output.runs() == [FIRST]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]"])
def test_a_damaged_sign_counts_as_none(output: Output, content: bytes) -> None:
    write_record(output)
    output.write_bytes(progress_file(FIRST), content)
    assert progress_of(output, now=BEGAN).status == "running"


def test_an_output_without_a_run_is_an_error(output: Output) -> None:
    with pytest.raises(FatalError, match="no run yet"):
        progress_of(output)


def test_a_run_writes_its_sign_and_takes_it_away_at_the_end(output: Output) -> None:
    tally = Tally(small_plan())
    with signs_of_life(output, FIRST, tally):
        assert json.loads(output.read_bytes(progress_file(FIRST)))["stages"][0]["done"] == 0
    assert not output.exists(progress_file(FIRST))


def test_signs_go_on_while_nothing_happens(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    tally, written, contents = Tally(small_plan()), threading.Semaphore(0), []
    original = Output.write_bytes

    def write(self: Output, name: str, content: bytes) -> None:
        original(self, name, content)
        contents.append(json.loads(content)["stages"][0]["done"])
        written.release()

    monkeypatch.setattr(Output, "write_bytes", write)
    with signs_of_life(output, FIRST, tally, every=0.01):
        tally.take(started(PREDICT, 0))
        tally.take(done(PREDICT, 0))
        # The first is written at once, the second may have been under way when the unit was done.
        assert all(written.acquire(timeout=20) for _ in range(3))
    assert contents[0] == 0 and contents[2] == 1


def test_a_sign_that_cannot_be_written_stops_no_run(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Output, name: str, content: bytes) -> None:
        raise FatalError("no space left")

    monkeypatch.setattr(Output, "write_bytes", full)
    with signs_of_life(output, FIRST, Tally(small_plan())):
        pass
    assert not output.exists(progress_file(FIRST))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(45.0, "45 s"), (119.0, "119 s"), (150.0, "2 min"), (7200.0, "2.0 h"), (180000.0, "2.1 days")],
)
def test_durations_are_told_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_time_left_is_an_upper_bound_or_nothing() -> None:
    assert (left_text(None), left_text(0.0), left_text(90.0)) == ("", "done", "at most 90 s left")
