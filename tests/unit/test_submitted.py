"""The other side of a submission: the program that was submitted, the output that was made, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.parcel import Parcel, pack
from jobs import submitted
from jobs.cli import MISTAKE, OK
from jobs.notify import VARIABLE
from jobs.record import SUBMISSION_VARIABLE
from jobs.submitted import run_submitted
from pipeline.store import open_output

WEBHOOK = "https://hooks.example/T0/very-secret"


@pytest.fixture
def parcel(tmp_path: Path) -> Parcel:
    open_output(tmp_path / "out", create=True)
    return Parcel(
        name="birds",
        output=str(tmp_path / "out"),
        profile="cluster",
        files={"spec.yaml": "version: 1\n"},
        arguments=("run", "spec.yaml"),
        module="jobs.submitted",
        pythons=("/nowhere/python", sys.executable),
        private={"webhook": WEBHOOK},
        facts={"command": ["submit", "job.yaml"], "output": str(tmp_path / "out")},
    )


@pytest.fixture
def ran(parcel: Parcel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run, in the folder of the job; nothing is computed."""
    (tmp_path / "sent").mkdir()
    monkeypatch.chdir(pack(parcel, "birds-1-2", tmp_path / "sent").working_folder)
    monkeypatch.setattr(sys, "argv", ["submitted", "run", "spec.yaml"])
    for name in (VARIABLE, SUBMISSION_VARIABLE):
        monkeypatch.setenv(name, "before")
    commands: list[list[str]] = []

    def note(arguments: list[str]) -> int:
        commands.append([os.environ[VARIABLE], os.environ[SUBMISSION_VARIABLE], *sys.argv, "->", *arguments])
        return OK

    monkeypatch.setattr(submitted, "main", note)
    return commands


def test_the_job_runs_with_its_webhook_its_id_and_the_command_to_repeat(ran: list[list[str]]) -> None:
    assert run_submitted(["run", "spec.yaml"]) == OK
    assert ran == [[WEBHOOK, "birds-1-2", "heatline", "submit", "job.yaml", "->", "run", "spec.yaml"]]


def test_another_copy_of_the_program_is_refused_with_both_places(
    ran: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    facts = json.loads(Path("submission.json").read_text())
    Path("submission.json").write_text(json.dumps({**facts, "code": "0" * 16, "place": "/there/pipeline"}))
    assert run_submitted(["run", "spec.yaml"]) == MISTAKE
    assert "not the program that was submitted: /" in (told := capsys.readouterr().err) and "/there/pipeline" in told
    assert ran == []


def test_an_output_of_another_machine_is_refused_with_the_mend(
    ran: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "heatline.json").unlink()
    assert run_submitted(["run", "spec.yaml"]) == MISTAKE
    assert "does not see it; take an object store (--set output=s3://bucket/prefix)" in capsys.readouterr().err
    assert ran == []


def test_the_start_takes_the_first_python_that_has_what_it_needs(parcel: Parcel, tmp_path: Path) -> None:
    folder = pack(parcel, "birds-1", tmp_path).working_folder
    # In place of the program: a module that says which interpreter it is and what it was given.
    (folder / "jobs").mkdir()
    (folder / "jobs" / "submitted.py").write_text("import sys; print(sys.executable, sys.argv[1:])")
    around = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        ["sh", "heatline.sh", "run", "a b"], cwd=folder, env=around, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{sys.executable} ['run', 'a b']"


def test_without_such_a_python_the_start_says_which_were_tried(parcel: Parcel, tmp_path: Path) -> None:
    folder = pack(parcel, "birds-1", tmp_path).working_folder
    script = (folder / "heatline.sh").read_text().replace(sys.executable, "/nowhere/else/python")
    done = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == MISTAKE
    assert "tried /nowhere/python /nowhere/else/python (heatline submit --python names another)" in done.stderr
