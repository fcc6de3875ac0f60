"""A run is held against the one before it of the same job, whatever other jobs share the output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic_rerun import values, write_rerun

from jobs.cli import FAILED, MISTAKE, OK, main
from jobs.notify import run_message
from jobs.run import Result
from jobs.run_name import earlier_run
from pipeline.store import Output

Capture = pytest.CaptureFixture[str]


def run_of(day: int, job: str = "weekly") -> str:
    return f"202601{day:02d}T000000.000000Z-{job}"


def write(folder: Path, day: int, job: str = "weekly", *figures: str, shift: float = 0.0, **changes: Any) -> Output:
    """A run of a job; figures are `METHOD METRIC`."""
    scores = {}
    for one in figures or ("agi mar", "random mar"):
        method, _, metric = one.partition(" ")
        scores[method, metric] = values(20, shift)
    # Rows of another day lie elsewhere, so that nothing is the same only since it was not computed anew.
    return write_rerun(folder, scores, run=run_of(day, job), name=job, fingerprint=f"f{day}", **changes)


def told(output: Output, run: str) -> dict[str, Any]:
    return run_message(output, Result("done", run, None, 4, 0, 0))


def test_it_is_the_nearest_with_figures(tmp_path: Path) -> None:
    for day in (1, 2, 4):
        output = write(tmp_path, day)
    write_rerun(tmp_path, {}, run=run_of(3), name="weekly", status="stopped")
    assert earlier_run(output, run_of(4)) == run_of(2)
    assert earlier_run(output, run_of(1)) is None


def test_a_run_of_another_job_in_between_is_passed_over(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2, "birds")
    output = write(tmp_path, 3, shift=-0.5)
    assert earlier_run(output, run_of(3)) == run_of(1)
    message = told(output, run_of(3))
    assert (message["compared_with"], len(message["regressions"])) == (run_of(1), 1)
    assert message["text"].endswith("; 1 regression")
    assert main(["compare", str(tmp_path)]) == FAILED
    assert capsys.readouterr().out.startswith(f"before {run_of(1)}")


def test_of_the_same_job_one_with_a_figure_in_common_goes_first(tmp_path: Path) -> None:
    write(tmp_path, 1, "weekly", "agi mar")
    write(tmp_path, 2, "weekly", "agi deletion")
    output = write(tmp_path, 3, "weekly", "agi mar")
    assert earlier_run(output, run_of(3)) == run_of(1)


def test_a_job_that_ran_under_no_name_before_is_held_against_a_run_with_a_figure_in_common(tmp_path: Path) -> None:
    write(tmp_path, 1, "mars")
    write(tmp_path, 2, "deletions", "agi deletion", "random mar")
    output = write(tmp_path, 3)
    assert earlier_run(output, run_of(3)) == run_of(1, "mars")


@pytest.mark.parametrize(
    ("figures", "source"),
    [(("gradient deletion",), "digits"), (("random mar",), "digits"), (("agi mar",), "shapes")],
    ids=["other figures", "the control alone", "other data"],
)
def test_a_run_of_another_job_that_tells_nothing_is_not_taken(
    figures: tuple[str, ...], source: str, tmp_path: Path, capsys: Capture
) -> None:
    write(tmp_path, 1, "birds", *figures, source=source)
    output = write(tmp_path, 2)
    assert earlier_run(output, run_of(2)) is None
    message = told(output, run_of(2))
    assert (message["compared_with"], message["regressions"]) == (None, None)
    assert message["text"].endswith("0 samples failed")
    assert main(["compare", str(tmp_path)]) == OK
    assert "no run of this job, and none with a figure in common, came before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (("gradient deletion",), "nothing compared: the runs have no figure in common"),
        (("random mar",), "nothing compared: the runs have the random control alone in common"),
    ],
)
def test_where_no_figure_could_be_compared_nobody_is_told_of_no_regressions(
    figures: tuple[str, ...], said: str, tmp_path: Path, capsys: Capture
) -> None:
    write(tmp_path, 1, "weekly", *figures)
    output = write(tmp_path, 2)
    message = told(output, run_of(2))
    assert (message["compared_with"], message["regressions"]) == (run_of(1), None)
    assert message["text"].endswith(f"; {said}")
    assert main(["compare", str(tmp_path)]) == MISTAKE
    assert capsys.readouterr().out.splitlines()[-1] == said


def test_figures_that_were_set_aside_are_counted_beside_the_regressions(tmp_path: Path) -> None:
    metric = {"id": "mar", "config": {"name": "mar", "grid": 100}}
    write(tmp_path, 1, "weekly", "agi mar", "agi lerf", spec={"metrics": [metric]})
    metric = {"id": "mar", "config": {"name": "mar", "grid": 10}}
    output = write(tmp_path, 2, "weekly", "agi mar", "agi lerf", spec={"metrics": [metric]})
    assert told(output, run_of(2))["text"].endswith("; no regressions, 1 figure not compared")


def test_a_record_that_cannot_be_read_is_passed_over_and_told(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path, 1)
    output = write(tmp_path, 3)
    output.write_bytes(f"runs/{run_of(2)}.json", b"{}")
    assert main(["compare", str(tmp_path)]) == OK
    said = capsys.readouterr()
    assert said.out.startswith(f"before {run_of(1)}")
    place = output.place(f"runs/{run_of(2)}.json")
    assert said.err == f"warning: runs are left out: {place}: is damaged (name); remove it\n"


def test_rows_that_cannot_be_read_any_more_cost_the_webhook_its_comparison_alone(tmp_path: Path) -> None:
    write(tmp_path, 1)
    output = write(tmp_path, 2)
    (file,) = (tmp_path / "scores/model=net/method=agi/metric=mar-f1").glob("*.parquet")
    file.write_bytes(b"no parquet")
    assert told(output, run_of(2))["regressions"] is None
