"""JUnit files are what continuous integration expects, whatever the names and reasons hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from jobs.junit import Case, run_cases, write_junit
from pipeline.errors import FatalError


def suite_of(tmp_path: Path, *cases: Case) -> ElementTree.Element:
    write_junit(tmp_path / "a.xml", "suite", cases, "2026-01-02T03:04:05+00:00")
    (suite,) = ElementTree.parse(tmp_path / "a.xml").getroot()
    return suite


def test_counts_and_times_are_the_cases(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, Case("a", "x", 1.5), Case("a", "y", 0.25, failure="why"), Case("b", "z", skipped="no"))
    assert suite.attrib == {
        "name": "suite",
        "tests": "3",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
        "time": "1.750",
        "timestamp": "2026-01-02T03:04:05+00:00",
    }
    assert [(one.attrib["classname"], one.attrib["name"], one.attrib["time"]) for one in suite] == [
        ("a", "x", "1.500"),
        ("a", "y", "0.250"),
        ("b", "z", "0.000"),
    ]
    assert [[child.tag for child in one] for one in suite] == [[], ["failure"], ["skipped"]]


def test_names_and_reasons_come_back_as_they_were(tmp_path: Path) -> None:
    text = "<b> & \"quotes\" 'and' ]]> ü 猫 😀"
    (case,) = suite_of(tmp_path, Case(text, text, failure=text))
    assert (case.attrib["classname"], case.attrib["name"]) == (text, text)
    assert (case[0].attrib["message"], case[0].text) == (text, text)


@pytest.mark.parametrize("letter", ["\0", "\x1b", "\x08", "\ud800", "\uffff"])
def test_what_xml_cannot_hold_is_spelled_out(tmp_path: Path, letter: str) -> None:
    (case,) = suite_of(tmp_path, Case("group", f"a{letter}b", failure=f"c{letter}d"))
    spelled = letter.encode("unicode_escape").decode()
    assert (case.attrib["name"], case[0].text) == (f"a{spelled}b", f"c{spelled}d")


def test_of_several_lines_the_first_is_the_message(tmp_path: Path) -> None:
    (case,) = suite_of(tmp_path, Case("group", "name", failure="first\nsecond"))
    assert (case[0].attrib["message"], case[0].text) == ("first", "first\nsecond")


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match="cannot be written"):
        write_junit(tmp_path, "suite", [])


def variant(path: str, stage: str, **keys: Any) -> dict[str, Any]:
    return {"path": path, "stage": stage, "model": "net", "method": None, "metric": None, "cell": None, **keys}


RECORD = {
    "name": "weekly",
    "status": "failed",
    "failures": 2,
    "units": {"lost": 2},
    "lost": [
        {"variant": "scores/a", "start": 0, "stop": 8, "reason": "out of memory"},
        {"variant": "scores/a", "start": 8, "stop": 16, "reason": "the actor died"},
    ],
    "timings": [{"path": "maps/a", "seconds": 2.5}],
    "variants": [
        variant("predictions/a", "predict"),
        variant("maps/a", "attribute", method="agi"),
        variant("maps/b", "attribute", method="agi", split="retraining"),
        variant("scores/a", "evaluate", method="agi", metric="mar"),
        variant("retrain/a", "retrain", method="agi", cell={"fraction": 0.5, "repeat": 1}),
    ],
}


def test_a_run_has_a_case_a_variant_and_one_for_itself() -> None:
    cases = run_cases(RECORD)
    assert [(one.group, one.name, one.seconds) for one in cases] == [
        ("predict.net", "predict", 0.0),
        ("attribute.net", "agi", 2.5),
        ("attribute.net", "agi retraining", 0.0),
        ("evaluate.net", "agi mar", 0.0),
        ("retrain.net", "agi fraction 0.5 repeat 1", 0.0),
        ("run", "weekly", 0.0),
    ]


def test_lost_units_and_the_run_as_a_whole_fail() -> None:
    failures = {one.name: one.failure for one in run_cases(RECORD) if one.failure}
    assert failures == {
        "agi mar": "samples 0 to 7: out of memory\nsamples 8 to 15: the actor died",
        "weekly": "2 samples failed, 2 units were lost",
    }


@pytest.mark.parametrize(("status", "failure"), [("done", ""), ("stopped", "the run is stopped")])
def test_a_run_passes_where_it_is_done(status: str, failure: str) -> None:
    (*_, whole) = run_cases({**RECORD, "status": status})
    assert whole.failure == failure
