"""A run's log: one JSON line an event, which no id can break and no credential gets into."""

from __future__ import annotations

import json
import logging
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from small_plan import ATTRIBUTE, PREDICT, RUN, done, small_plan, started

from cluster.executor import Event
from cluster.log import JsonLines, WorkerLog
from jobs.log import RunLog, logging_to
from pipeline.errors import FatalError
from pipeline.stages.variant import Unit


def logged(tmp_path: Path, *events: Event) -> list[dict[str, Any]]:
    """The lines that events make, in a file."""
    file = tmp_path / "logs" / "run.jsonl"
    with logging_to(str(file)) as log:
        log.begin(small_plan().job)
        for event in events:
            log.show(event)
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_unit_that_is_done_is_one_line_with_all_there_is_to_know(tmp_path: Path) -> None:
    (line,) = logged(tmp_path, done(ATTRIBUTE, 2, failures=1, worker=3))
    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert line == {
        "level": "info",
        "message": "maps/a [2, 4): done",
        "event": "done",
        "run": RUN,
        "stage": "attribute",
        "model": "net",
        "variant": ATTRIBUTE,
        "unit": "2-4",
        "samples": 2,
        "worker": "3",
        "rows": 1,
        "failures": 1,
        "load_seconds": 1.0,
        "compute_seconds": 2.0,
        "write_seconds": 0.5,
    }


def test_levels_tell_what_needs_a_look(tmp_path: Path) -> None:
    unit = Unit(PREDICT, 0, 2)
    events = [started(PREDICT, 0), Event("again", unit, reason="died"), Event("lost", unit, reason="died")]
    assert [line["level"] for line in logged(tmp_path, *events)] == ["info", "warning", "error"]


def test_what_happens_to_workers_is_a_line_without_a_unit(tmp_path: Path) -> None:
    (line,) = logged(tmp_path, Event("workers", reason="2 workers", workers=(2, 0)))
    assert (line["event"], line["message"], line["run"]) == ("workers", "2 workers", RUN)


def test_a_reason_can_neither_begin_a_line_nor_drive_a_terminal(tmp_path: Path) -> None:
    reason = 'x\n{"level": "error"}\x1b[2J\u202e\u2028"'
    unit = Unit(PREDICT, 0, 2)
    lines = logged(tmp_path, Event("lost", unit, reason=reason))
    assert len(lines) == 1 and lines[0]["reason"] == reason
    assert (tmp_path / "logs" / "run.jsonl").read_text().isascii()


def test_credentials_in_a_reason_stay_out_of_the_log(tmp_path: Path) -> None:
    reason = "GET https://name:hunter2@store/x?X-Amz-Signature=cafe failed"
    (line,) = logged(tmp_path, Event("lost", Unit(PREDICT, 0, 2), reason=reason))
    assert "hunter2" not in str(line) and "cafe" not in str(line) and "store/x" in line["reason"]


def test_lines_are_added_to_a_log_that_is_there(tmp_path: Path) -> None:
    logged(tmp_path, started(PREDICT, 0))
    assert len(logged(tmp_path, started(PREDICT, 2))) == 2


def test_on_standard_error_warnings_of_libraries_are_lines_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to("-") as log:
        log.say("note", "of ours")
        logging.getLogger("some.library").warning("of theirs")
        warnings.warn("deprecated", stacklevel=1)
    captured = capsys.readouterr()
    found = [json.loads(line) for line in captured.err.splitlines()]
    assert [line["message"] for line in found[:2]] == ["of ours", "of theirs"] and "deprecated" in found[2]["message"]
    assert not captured.out


def test_without_a_place_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to(None) as log:
        log.say("note", "nobody reads this", logging.ERROR)
    RunLog().say("note", "nor this", logging.ERROR)
    assert capsys.readouterr() == ("", "")


def test_a_log_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = pytest.raises(FatalError, match=r"^--log .*file/run.jsonl: cannot be written: [A-Z][a-z ]+$")
    with refused, logging_to(str(tmp_path / "file" / "run.jsonl")):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_under_the_log_stops_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to("/dev/full") as log:
        log.say("note", "lost")
    assert capsys.readouterr().err == ""


def test_a_worker_keeps_the_way_to_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("heatline.worker").handlers.clear()
    log = WorkerLog(small_plan().job)
    try:
        raise ValueError("no such thing")
    except ValueError as error:
        log.note_failure(Unit(PREDICT, 0, 2), error)
    logging.getLogger("heatline.worker").handlers.clear()
    line = json.loads(capsys.readouterr().err)
    assert (line["run"], line["stage"], line["unit"]) == (RUN, "predict", "0-2")
    assert "ValueError: no such thing" in line["traceback"] and __file__ in line["traceback"]


def test_a_traceback_is_without_credentials() -> None:
    try:
        raise ValueError("s3://key:hunter2@bucket")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "m", (), (type(error), error, error.__traceback__))
    assert "hunter2@bucket" not in JsonLines().format(record).replace('ValueError(\\"s3://key:hunter2@bucket\\")', "")
