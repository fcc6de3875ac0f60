"""The same job again: each run has a record, and one with nothing to do changes no figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from html_page import Page

from jobs import record
from jobs.cli import MISTAKE, OK, main
from jobs.run_name import earlier_run
from jobs.status import progress_of
from pipeline.errors import FatalError
from pipeline.store import Output, open_output

Write = Callable[..., Path]
SMALL: dict[str, Any] = {
    "dataset": {"source": "digits", "limit": 8},
    "methods": ["random", "gradient"],
    "metrics": [{"name": "deletion", "step": 512}],
    "report": {"samples": 0},
}


@pytest.fixture
def run(write_spec: Write, write_profile: Write, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the small job, with changed keys, and gives what it printed."""

    def again(*options: str, **changes: object) -> str:
        arguments = ["run", str(write_spec(**{**SMALL, **changes})), "--profile", str(write_profile()), *options]
        assert main(arguments) == OK
        return capsys.readouterr().out

    return again


@pytest.fixture
def output(tmp_path: Path) -> Callable[[], Output]:
    return lambda: open_output(tmp_path / "out")


def test_a_rerun_with_nothing_to_do_has_a_small_record_of_its_own(
    run: Callable[..., str], output: Callable[[], Output], tmp_path: Path
) -> None:
    first = json.loads(run("--json"))
    second = json.loads(run("--json"))
    assert output().runs() == [first["run"], second["run"]]
    assert (second["status"], second["done"], second["page"]) == ("done", 0, first["page"])
    file = tmp_path / "out" / "runs" / f"{second['run']}.json"
    assert json.loads(file.read_text())["same_as"] == first["run"] and file.stat().st_size < 2000
    # Who reads it finds everything, as of the run before.
    whole, before = output().run(second["run"]), output().run(first["run"])
    assert whole["summary"] == before["summary"] and whole["variants"] == before["variants"]
    assert whole["units"]["done"] == 0 and whole["units"]["reused"] == before["units"]["done"]
    assert whole["started"] >= before["finished"]
    assert output().scores(run=second["run"]).equals(output().scores(run=first["run"]))


def test_history_takes_reruns_with_nothing_to_do_together(
    run: Callable[..., str], output: Callable[[], Output], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        run()
    run(metrics=[{"name": "deletion", "step": 256}])
    run()
    assert len(output().runs()) == 5
    assert main(["history", str(tmp_path / "out")]) == OK
    rows = capsys.readouterr().out.split("\n\n")[0].splitlines()[1:]
    assert ["nothing to do" in row for row in rows] == [False, True, False, True]
    assert "done, nothing to do (2 runs)" in rows[1] and output().runs()[2] in rows[1]
    assert main(["history", str(tmp_path / "out"), "--page"]) == OK
    page = Page((tmp_path / "out/report/history.html").read_text())
    assert "5 runs" in page.text and page.text.count("nothing to do") == 2
    # A dot for a run with figures of its own, and one for the last of those that found nothing to do.
    methods = 2
    assert len(page.attributes("circle")) == 4 * methods


def test_what_moved_is_told_against_the_run_before_the_repeated_one(
    run: Callable[..., str], output: Callable[[], Output], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    run(seed=1)
    run(seed=1)
    names = output().runs()
    assert [earlier_run(output(), name) for name in names] == [None, names[0], names[0]]
    assert main(["compare", str(tmp_path / "out"), "--json", "--tolerance", "default=1"]) == OK
    assert json.loads(capsys.readouterr().out)["before"]["run"] == names[0]


def test_the_page_of_a_rerun_with_nothing_to_do_is_that_of_the_run_that_did_it(
    run: Callable[..., str], output: Callable[[], Output], tmp_path: Path
) -> None:
    page = Path(json.loads(run("--json"))["page"])
    run()
    page.unlink()
    assert main(["report", str(tmp_path / "out")]) == OK
    assert page.is_file() and page.parent.name == output().runs()[0]
    assert [folder.name for folder in page.parents[1].iterdir() if folder.is_dir()] == [page.parent.name]


def test_a_rerun_whose_page_is_gone_is_recorded_whole(
    run: Callable[..., str], output: Callable[[], Output], tmp_path: Path
) -> None:
    first = json.loads(run("--json"))
    (tmp_path / "out" / first["page"].removeprefix(str(tmp_path / "out") + "/")).unlink()
    run()
    assert "same_as" not in output().run()


def test_a_rerun_of_a_record_that_is_gone_says_so(
    run: Callable[..., str], output: Callable[[], Output], tmp_path: Path
) -> None:
    first = json.loads(run("--json"))
    run()
    (tmp_path / "out" / "runs" / f"{first['run']}.json").unlink()
    with pytest.raises(FatalError, match=f"repeats run {first['run']}, which is gone; remove it as well"):
        output().run()


@pytest.mark.parametrize("content", ["", "{}", '{"same_as": "gone"}'], ids=["empty", "no keys", "repeats a lost one"])
def test_a_record_that_cannot_be_read_stops_no_later_run(
    content: str,
    run: Callable[..., str],
    write_spec: Write,
    write_profile: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = json.loads(run("--json"))
    whole = json.loads((tmp_path / "out" / "runs" / f"{first['run']}.json").read_text())
    if "same_as" in content:
        content = json.dumps({**whole, **json.loads(content)})
    (tmp_path / "out" / "runs" / "20200102T030405.000000Z-job.json").write_text(content)
    assert main(["run", str(write_spec(**SMALL)), "--profile", str(write_profile()), "--json"]) == OK
    said = capsys.readouterr()
    (warning,) = [line for line in said.err.splitlines() if line.startswith("warning:")]
    assert "20200102T030405.000000Z-job.json" in warning and "remove it" in warning
    # The other records still count: this run is the small one of a rerun with nothing to do.
    assert json.loads(said.out)["page"] == first["page"]


def test_a_page_stands_where_its_records_file_says(run: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "out" / "runs" / f"{json.loads(run('--json'))['run']}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "run": "../../../escaped"}))
    assert main(["report", str(tmp_path / "out")]) == OK
    assert not list(tmp_path.parent.rglob("escaped*"))


@pytest.mark.parametrize("origin", ["../../elsewhere", "a/b"])
def test_a_record_does_not_lead_out_of_its_folder(
    run: Callable[..., str], output: Callable[[], Output], tmp_path: Path, origin: str
) -> None:
    run()
    run()
    file = tmp_path / "out" / "runs" / f"{output().runs()[-1]}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "same_as": origin}))
    with pytest.raises(FatalError, match=r"is damaged \(same_as\); remove it"):
        output().run()


def test_two_runs_of_one_moment_have_two_records(
    run: Callable[..., str], output: Callable[[], Output], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Frozen(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 1, 2, 3, 4, 5, 999999, tzinfo=tz)

    monkeypatch.setattr(record, "datetime", Frozen)
    for _ in range(3):
        run()
    assert output().runs() == [
        "20260102T030405.999999Z-job",
        "20260102T030406.000000Z-job",
        "20260102T030406.000001Z-job",
    ]


def test_a_run_that_has_ended_leaves_its_counts_and_no_sign_of_life(
    run: Callable[..., str], output: Callable[[], Output], tmp_path: Path
) -> None:
    run("--log", str(tmp_path / "run.jsonl"))
    found = progress_of(output())
    assert found.status == "done" and [one.stage for one in found.stages] == ["predict", "attribute", "evaluate"]
    assert all(one.done == one.units for one in found.stages)
    assert sum(one.samples for one in found.stages) == 8 + 2 * 8 + 2 * 8
    assert not list((tmp_path / "out" / "runs").glob("*.progress*"))
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert {line["run"] for line in lines} == {found.run}
    assert sum(line["samples"] for line in lines if line["event"] == "done") == 40
    assert (lines[0]["event"], lines[-1]["event"], lines[-1]["status"]) == ("begun", "ended", "done")


def test_the_log_takes_the_place_of_the_display(
    write_spec: Write, write_profile: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(write_spec(**SMALL)), "--profile", str(write_profile()), "--log", "-"]) == OK
    captured = capsys.readouterr()
    assert [json.loads(line)["event"] for line in captured.err.splitlines()][-2:] == ["note", "ended"]
    assert captured.out.startswith("5 units computed; output ")
    assert main(["run", "no-such-spec", "--log", "-"]) == MISTAKE
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["event"], line["level"], line["run"]) == ("refused", "error", None)
