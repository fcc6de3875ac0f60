"""`heatline compare`: which runs, what is printed, and the exit codes that schedules go by."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from synthetic_rerun import FIRST, SECOND, values, write_rerun

from jobs.cli import FAILED, MISTAKE, OK, main
from jobs.prepare import prepare
from jobs.profile import load_profile
from jobs.run_name import find_run
from jobs.spec import load_spec
from pipeline.errors import FatalError
from pipeline.store import Output

Capture = pytest.CaptureFixture[str]
KEPT = "20260107T030405.000000Z-kept"


def scores(shift: float = 0.0, *methods: str) -> dict[tuple[str, str], dict[str, float]]:
    found = {("agi", "mar"): values(20, shift), ("gradient", "mar"): values(20), ("random", "mar"): values(20, -1)}
    return {key: one for key, one in found.items() if not methods or key[0] in methods}


def reruns(folder: Path, shift: float = -0.5, **changes: object) -> Output:
    """Two runs of one output; in the second agi has moved, and gradient has not been computed anew."""
    output = write_rerun(folder, scores())
    moved = {("agi", "mar"): values(20, shift)}
    write_rerun(folder, moved, run=SECOND, fingerprint="f1")
    kept = write_rerun(folder, scores(0.0, "gradient", "random"), run=KEPT).run(KEPT)
    record = output.run(SECOND)
    record["summary"] += kept["summary"]
    record["variants"] += kept["variants"]
    record["spec"] |= changes
    output.write_bytes(f"runs/{SECOND}.json", json.dumps(record).encode())
    (folder / "runs" / f"{KEPT}.json").unlink()
    return output


def test_a_regression_is_exit_code_1_and_named(tmp_path: Path, capsys: Capture) -> None:
    reruns(tmp_path / "out")
    assert main(["compare", str(tmp_path / "out")]) == FAILED
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"before {FIRST}  {tmp_path / 'out'}"
    assert lines[1] == f"after  {SECOND}  {tmp_path / 'out'}"
    (row,) = [line.split() for line in lines if line.startswith("  mar")]
    assert row == ["mar", "auc", "↑", "0.483", "-0.017", "−0.500", "[−0.500,", "−0.500]", "20", "worse"]
    assert "2 figures are of the same rows in both runs, and not shown (--all)." in lines
    assert lines[-1] == "1 regression; 0 better, 0 unclear, 1 same (1 figure of the control aside)"


def test_all_shows_what_has_not_moved_too(tmp_path: Path, capsys: Capture) -> None:
    reruns(tmp_path / "out")
    assert main(["compare", str(tmp_path / "out"), "--all"]) == FAILED
    text = capsys.readouterr().out
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("  mar")] == ["worse", "same", "same"]
    assert "random (control)" in text and "not shown" not in text


def test_an_improvement_is_exit_code_0(tmp_path: Path, capsys: Capture) -> None:
    reruns(tmp_path / "out", shift=0.5)
    assert main(["compare", str(tmp_path / "out")]) == OK
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == "no regressions; 1 better, 0 unclear, 1 same (1 figure of the control aside)"
    )


@pytest.mark.parametrize(
    ("spec", "options", "code"),
    [
        ({"mar": 0.6}, [], OK),
        ({"default": 0.6}, [], OK),
        ({"default": 0.6, "mar": 0.4}, [], FAILED),
        ({"mar": 0.6}, ["--tolerance", "mar=0.4"], FAILED),
        ({}, ["--tolerance", "default=0.6"], OK),
        ({}, ["--tolerance", "mar auc=0.6", "--tolerance", "mar=0"], OK),
    ],
)
def test_the_tolerance_is_the_specs_unless_an_option_says_otherwise(
    tmp_path: Path, spec: dict[str, float], options: list[str], code: int
) -> None:
    reruns(tmp_path / "out", compare={"tolerance": spec})
    assert main(["compare", str(tmp_path / "out"), *options]) == code


@pytest.mark.parametrize(
    ("option", "phrase"),
    [
        ("mar", "expected METRIC=VALUE"),
        ("mar=", "expected METRIC=VALUE"),
        ("mar=-1", "a number of at least 0"),
        ("mar=nan", "a number of at least 0"),
        ("marr=1", "neither run has figures of 'marr'; did you mean 'mar'?"),
        ("mar aucc=1", "mar has no measure 'aucc'; did you mean 'auc'?"),
        ("mar =1", "mar has no measure ''; known: auc"),
        ("default auc=1", "default is for all metrics without a tolerance of their own"),
    ],
)
def test_a_tolerance_that_is_none_is_one_line(tmp_path: Path, option: str, phrase: str, capsys: Capture) -> None:
    reruns(tmp_path / "out")
    assert main(["compare", str(tmp_path / "out"), "--tolerance", option]) == MISTAKE
    error = capsys.readouterr().err
    assert error.startswith(f"--tolerance {option}: ") and phrase in error and error.count("\n") == 1
    assert "auc, auc" not in error


def test_json_holds_every_row_and_what_was_asked(tmp_path: Path, capsys: Capture) -> None:
    output = reruns(tmp_path / "out")
    assert main(["compare", str(tmp_path / "out"), "--tolerance", "mar=0.1", "--json"]) == FAILED
    found = json.loads(capsys.readouterr().out)
    assert (found["before"]["run"], found["after"]["run"]) == (FIRST, SECOND)
    assert found["before"]["output"] == output.uri
    assert (found["tolerance"], found["regressions"], found["same_data"]) == ({"mar": 0.1}, 1, True)
    assert found["verdicts"] == {"worse": 1, "same": 1}
    rows = {row["method"]: row for row in found["rows"]}
    assert list(rows) == ["agi", "gradient", "random"]
    assert rows["agi"]["verdict"] == "worse" and rows["agi"]["regression"]
    assert rows["agi"]["difference"] == pytest.approx(-0.5, abs=1e-6)
    assert (rows["gradient"]["pairing"], rows["gradient"]["verdict"]) == ("same rows", "same")
    assert rows["random"]["control"]


def test_junit_has_a_case_a_figure_and_fails_where_it_got_worse(tmp_path: Path) -> None:
    reruns(tmp_path / "out")
    write_rerun(tmp_path / "other", {("agi", "mar"): values(20, -0.7), ("new", "mar"): values(20)})
    file = tmp_path / "reports" / "heatline.xml"
    assert main(["compare", str(tmp_path / "out"), str(tmp_path / "other"), "--junit", str(file)]) == FAILED
    (suite,) = ElementTree.parse(file).getroot()
    assert {name: suite.attrib[name] for name in ("tests", "failures", "skipped", "errors")} == {
        "tests": "4",
        "failures": "1",
        "skipped": "3",
        "errors": "0",
    }
    agi, *others = suite
    assert (agi.attrib["classname"], agi.attrib["name"]) == ("net", "agi mar auc")
    (failure,) = agi
    assert failure.tag == "failure"
    assert failure.attrib["message"] == "-0.017 → -0.217, −0.200 [−0.200, −0.200], higher is better"
    assert {(one.attrib["name"], one[0].tag, one[0].attrib["message"]) for one in others} == {
        ("gradient mar auc", "skipped", "only in the first run"),
        ("random mar auc", "skipped", "only in the first run"),
        ("new mar auc", "skipped", "only in the second run"),
    }


def test_a_first_run_has_nothing_to_be_compared_with(tmp_path: Path, capsys: Capture) -> None:
    write_rerun(tmp_path / "out", scores())
    file = tmp_path / "heatline.xml"
    assert main(["compare", str(tmp_path / "out"), "--junit", str(file)]) == OK
    assert "nothing to compare with yet: no run of this job" in capsys.readouterr().out
    assert ElementTree.parse(file).getroot().attrib["tests"] == "0"


def test_runs_that_share_no_figure_are_a_mistake(tmp_path: Path, capsys: Capture) -> None:
    write_rerun(tmp_path / "a", scores(0.0, "agi"))
    write_rerun(tmp_path / "b", scores(0.0, "gradient"))
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == MISTAKE
    assert capsys.readouterr().out.splitlines()[-5:] == [
        "only in the first run:",
        "  net agi: mar auc",
        "only in the second run:",
        "  net gradient: mar auc",
        "nothing compared: the runs have no figure in common",
    ]


def test_a_run_without_figures_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    write_rerun(tmp_path / "out", scores())
    write_rerun(tmp_path / "out", {}, run=SECOND, status="stopped")
    assert main(["compare", str(tmp_path / "out")]) == MISTAKE
    error = capsys.readouterr().err
    assert error == f"{tmp_path / 'out'}: run {SECOND} has no figures to compare (stopped)\n"


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    reruns(tmp_path / "out")
    assert main(["compare", str(tmp_path / "out"), "--junit", str(tmp_path)]) == MISTAKE
    assert "cannot be written" in capsys.readouterr().err


def test_what_cannot_be_paired_is_told_under_the_table(tmp_path: Path, capsys: Capture) -> None:
    write_rerun(tmp_path / "a", scores(0.0, "agi"))
    write_rerun(tmp_path / "b", scores(0.0, "agi"), committed=False)
    main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    text = capsys.readouterr().out
    assert "1 figure is compared by its means' intervals: the rows of the second run are gone." in text


@pytest.mark.parametrize("name", ["out", "a@b", f"a@{FIRST}"])
def test_a_run_is_an_output_one_of_its_runs_or_a_record(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    write_rerun(folder, {})
    write_rerun(folder, {}, run=SECOND)
    for text, run in (
        (str(folder), SECOND),
        (f"{folder}/", SECOND),
        (f"{folder}@{FIRST}", FIRST),
        (f"{folder}/runs/{FIRST}.json", FIRST),
    ):
        output, found = find_run(text)
        assert (Path(output.uri), found) == (folder, run)


def test_a_record_in_the_folder_that_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rerun(tmp_path, {})
    monkeypatch.chdir(tmp_path)
    output, found = find_run(f"runs/{FIRST}.json")
    assert (Path(output.uri), found) == (tmp_path, FIRST)


@pytest.mark.parametrize("text", ["{folder}@none", "{folder}/runs/none.json"])
def test_a_run_that_is_not_there_is_one_line_with_those_that_are(text: str, tmp_path: Path) -> None:
    write_rerun(tmp_path / "out", {})
    with pytest.raises(FatalError, match=f"no run none; there are {FIRST}"):
        find_run(text.format(folder=tmp_path / "out"))


def test_no_result_depends_on_the_tolerance(tmp_path: Path) -> None:
    def variants(*options: str) -> set[str]:
        spec = load_spec("quickstart", [f"output={tmp_path / 'out'}", "dataset.limit=2", *options])
        _, _, plan = prepare(spec, load_profile("local"))
        return {variant.fingerprint for variant in plan.job.variants.values()}

    assert variants("compare.tolerance={default: 0.5}") == variants()
