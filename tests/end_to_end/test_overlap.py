"""Runs of one output at the same time: no conflict, each unit computed once, nobody waits for a run that is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cluster.local import LocalExecutor
from jobs.cli import INTERRUPTED, MISTAKE, OK, main
from pipeline.claim import Claims
from pipeline.neighbour import CLAIMS
from pipeline.store import Output, open_output

Write = Callable[..., Path]


@pytest.fixture
def arguments(write_spec: Write, write_profile: Write) -> Callable[..., list[str]]:
    """Of a command about a job of many small units."""

    def made(output: Path, name: str = "job", samples: int = 96, **profile: object) -> list[str]:
        spec = write_spec(
            name,
            output=str(output),
            dataset={"source": "digits", "limit": samples},
            methods=["random", "gradient", {"name": "integrated_gradients", "steps": 20}],
            metrics=[{"name": "deletion", "step": 128}],
        )
        return ["run", str(spec), "--profile", str(write_profile(f"{name}-profile", unit_passes=8, **profile))]

    return made


Arguments = Callable[..., list[str]]


def results(output: Output, samples: int) -> tuple[dict[tuple[str, str], np.ndarray], dict[tuple[str, ...], float]]:
    table = output.maps().to_table()
    keys = list(zip(table["method"].to_pylist(), table["id"].to_pylist(), strict=True))
    rows = output.scores().to_pylist()
    scores = {(row["method"], row["metric"], row["id"]): row["value"] for row in rows}
    assert len(set(keys)) == len(keys) == 3 * samples and len(scores) == len(rows) == 3 * samples
    return dict(zip(keys, table["map"].combine_chunks().to_numpy_ndarray(), strict=True)), scores


def markers(output: Path) -> list[str]:
    return [str(one) for one in output.rglob("_committed/*.json")]


def assert_once(output: Path) -> None:
    ranges = [marker.rsplit("-", 1)[0] for marker in markers(output)]
    assert len(set(ranges)) == len(ranges), "a range was computed twice"


def start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *command, "--json"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def test_two_runs_at_once_compute_each_unit_once(arguments: Arguments, tmp_path: Path) -> None:
    shared = arguments(tmp_path / "out")
    processes = [start(shared, tmp_path) for _ in range(2)]
    assert main(arguments(tmp_path / "alone", "alone")) == OK
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == OK, errors
    output = open_output(tmp_path / "out")
    units = [output.run(name)["units"] for name in output.runs()]
    planned = len(markers(tmp_path / "alone"))
    assert len(units) == 2 and sum(one["done"] for one in units) == planned == len(markers(tmp_path / "out")), units
    assert_once(tmp_path / "out")
    (maps, scores), (others, other_scores) = results(open_output(tmp_path / "alone"), 96), results(output, 96)
    for key, value in maps.items():
        np.testing.assert_allclose(value, others[key], atol=0 if key[0] == "random" else 1e-5)
    assert scores == pytest.approx(other_scores, abs=1e-5)
    assert output.names(CLAIMS) == []


@pytest.mark.slow
def test_what_a_killed_run_had_in_hand_is_done_by_the_other(arguments: Arguments, tmp_path: Path) -> None:
    command = arguments(tmp_path / "out", samples=360, in_flight=1)
    processes = [start(command, tmp_path) for _ in range(2)]
    until = time.monotonic() + 240
    held: set[str] = set()
    # Until both have work in hand and some of it is done.
    while len(held) < 2 or len(markers(tmp_path / "out")) < 10:
        assert time.monotonic() < until and all(process.poll() is None for process in processes)
        time.sleep(0.01)
        for file in (tmp_path / "out" / CLAIMS).glob("*.json"):
            if list(file.parent.glob(f"{file.stem}@*")):
                held.add(file.name)
    os.killpg(processes[0].pid, signal.SIGKILL)
    processes[0].wait()
    told, errors = processes[1].communicate(timeout=240)
    assert processes[1].returncode == OK, errors
    units = open_output(tmp_path / "out").run(json.loads(told.splitlines()[-1])["run"])["units"]
    assert units["done"] and units["elsewhere"] + units["reused"], "what the killed run had committed counts"
    assert units["done"] + units["elsewhere"] + units["reused"] == len(markers(tmp_path / "out"))
    assert_once(tmp_path / "out")
    results(open_output(tmp_path / "out"), 360)


def test_fresh_does_not_take_away_what_another_run_is_making(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = open_output(tmp_path / "out", create=True)
    with Claims(output):
        assert main([*arguments(tmp_path / "out"), "--fresh"]) == MISTAKE
    assert "another run is at work here" in capsys.readouterr().err


def test_fresh_takes_nothing_away_from_a_run_that_began_after_it_was_planned(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(arguments(tmp_path / "out")) == OK
    before = markers(tmp_path / "out")
    with Claims(open_output(tmp_path / "out")):
        monkeypatch.setattr(Claims, "neighbours", 0)
        assert main([*arguments(tmp_path / "out"), "--fresh"]) == MISTAKE
    assert "another run is at work here" in capsys.readouterr().err and markers(tmp_path / "out") == before


def test_fresh_that_was_stopped_before_it_began_is_to_be_said_again(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = arguments(tmp_path / "out")
    assert main(words) == OK
    before = markers(tmp_path / "out")

    def stopped(*rest: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalExecutor, "run", stopped)
    monkeypatch.setattr(sys, "argv", ["heatline", *words, "--fresh"])
    assert main([*words, "--fresh"]) == INTERRUPTED
    told = capsys.readouterr().err
    assert f"{len(before)} units left" in told and told.splitlines()[-1].endswith("--fresh")
    assert markers(tmp_path / "out") == before
