"""A record that cannot be read costs no other run; who asks for it is told in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_rerun import FIRST, SECOND, values, write_rerun

from jobs.cli import MISTAKE, OK, main
from jobs.left_out import left_out_warning
from pipeline.errors import FatalError
from pipeline.store import Output

Capture = pytest.CaptureFixture[str]
LATEST = "20260115T030405.000000Z-weekly"
DAMAGED: dict[str, Any] = {
    "empty": "",
    "no JSON": "{",
    "too deep": "[" * 100_000,
    "no mapping": [1],
    "no keys": {},
    "no status": {"status": None},
    "no time": {"started": "yesterday"},
    "a time without its zone": {"started": "2026-01-01T00:00:00"},
    "null seconds": {"seconds": None},
    "seconds in words": {"seconds": "72"},
    "units as a list": {"units": [1]},
    "a figure without its mean": {"summary": [{"model": "net", "method": "agi", "metric": "mar", "measure": "mar"}]},
    "a variant without its stage": {"variants": [{"path": "scores/a"}]},
    "a timing without its seconds": {"timings": [{"path": "scores/a", "samples": 3}]},
    "a method without its name": {"spec": {"methods": [{"id": "agi", "config": {}}]}},
    "a tolerance in words": {"spec": {"compare": {"tolerance": {"mar": "much"}}}},
    "repeats one that is gone": {"same_as": "20200101T000000.000000Z-weekly"},
    "leads out of the folder": {"same_as": "../heatline"},
}


def damage(output: Output, run: str, kind: str) -> str:
    """Spoil a record, and give the place of its file."""
    content, name = DAMAGED[kind], f"runs/{run}.json"
    if isinstance(content, dict) and content:
        content = {**json.loads(output.read_bytes(name)), **content}
    output.write_bytes(name, (content if isinstance(content, str) else json.dumps(content)).encode())
    return output.place(name)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Three weekly runs."""
    for run in (FIRST, SECOND, LATEST):
        output = write_rerun(tmp_path / "out", {("agi", "mar"): values(20)}, run=run)
    return output


@pytest.mark.parametrize("kind", DAMAGED)
def test_the_other_records_are_read_and_a_line_says_why_one_is_not(output: Output, kind: str) -> None:
    place, reasons = damage(output, SECOND, kind), list[str]()
    found = [record["run"] for record in output.records(output.runs(), reasons.append)]
    assert found == [FIRST, LATEST]
    (reason,) = reasons
    assert reason.startswith(f"{place}: ") and "remove it" in reason and "\n" not in reason
    with pytest.raises(FatalError, match="remove it"):
        output.run(SECOND)


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("words", [["history"], ["history", "--json"], ["status"], ["status", "--json"]])
def test_a_list_of_runs_goes_on_without_it(output: Output, kind: str, words: list[str], capsys: Capture) -> None:
    place = damage(output, LATEST, kind)
    command, *options = words
    assert main([command, output.uri, *options]) == OK
    said = capsys.readouterr()
    assert said.err.startswith(f"warning: runs are left out: {place}: ") and said.err.count("\n") == 1
    assert SECOND in said.out and LATEST not in said.out


@pytest.mark.parametrize("words", [["compare", "{out}@{run}"], ["report", "{out}@{run}"], ["show", "{out}"]])
def test_asked_for_by_itself_it_is_an_error_in_one_line(output: Output, words: list[str], capsys: Capture) -> None:
    place = damage(output, LATEST, "null seconds")
    assert main([word.format(out=output.uri, run=LATEST) for word in words]) == MISTAKE
    assert capsys.readouterr().err == f"{place}: is damaged (seconds); remove it\n"


def test_where_none_can_be_read_that_is_said(output: Output, capsys: Capture) -> None:
    for run in output.runs():
        damage(output, run, "empty")
    assert main(["history", output.uri]) == OK
    said = capsys.readouterr()
    assert said.out == "no run whose record can be read\n" and said.err.count("\n") == 1
    assert main(["status", output.uri]) == MISTAKE
    assert "no run whose record can be read" in capsys.readouterr().err


def test_a_record_that_leaves_keys_out_as_an_earlier_version_may_is_read(output: Output, capsys: Capture) -> None:
    record = {"name": "old", "status": "done", "started": "2025-01-01T00:00:00+00:00"}
    output.write_bytes("runs/20250101T000000.000000Z-old.json", json.dumps(record).encode())
    for words in (["history"], ["history", "--json"]):
        assert main([words[0], output.uri, *words[1:]]) == OK
        said = capsys.readouterr()
        assert "20250101T000000.000000Z-old" in said.out and said.err == ""


def test_many_are_one_line_that_names_three() -> None:
    assert left_out_warning([]) == ""
    line = left_out_warning([*(f"{name}: is gone" for name in "abcde"), "a: is gone"])
    assert line == "warning: runs are left out: a: is gone; b: is gone; c: is gone and 2 more"
