"""Killed at any moment, the same command finishes the rest: nothing twice, nothing lost, nothing changed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from fault_run import hear_ctrl_c

from jobs.cli import INTERRUPTED, MISTAKE, OK, STOPPED, main
from pipeline.noise import Noise
from pipeline.store import Output, open_output

Write = Callable[..., Path]
COMMAND = [sys.executable, "-m", "jobs.cli"]


def start(spec: Path, profile: Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "run", str(spec), "--profile", str(profile)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=hear_ctrl_c,
    )  # fmt: skip


def markers(output: Path) -> dict[str, int]:
    return {str(one): one.stat().st_mtime_ns for one in output.rglob("_committed/*.json")}


def wait_for_markers(process: subprocess.Popen[str], output: Path, count: int, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while len(markers(output)) < count and process.poll() is None:
        assert time.monotonic() < until, "the job commits nothing"
        time.sleep(0.02)


def results(output: Output) -> tuple[dict[tuple[str, str], np.ndarray], dict[tuple[str, str, str], float | None]]:
    table = output.maps().to_table()
    maps = table["map"].combine_chunks().to_numpy_ndarray()
    keys = list(zip(table["method"].to_pylist(), table["id"].to_pylist(), strict=True))
    rows = output.scores().to_pylist()
    scores = {(row["method"], row["metric"], row["id"]): row["value"] for row in rows}
    assert len(set(keys)) == len(keys) == 6 * 40 and len(scores) == len(rows) == 6 * 3 * 40
    return dict(zip(keys, maps, strict=True)), scores


def assert_same(first: Output, second: Output) -> None:
    (maps, scores), (others, other_scores) = results(first), results(second)
    for key, value in maps.items():
        np.testing.assert_allclose(value, others[key], atol=0 if key[0] == "random" else 1e-5)
    for name, score in scores.items():
        assert score == other_scores[name] or abs(float(score or 0) - float(other_scores[name] or 0)) <= 1e-5


@pytest.fixture
def undisturbed(write_spec: Write, write_profile: Write, tmp_path: Path) -> Output:
    spec = write_spec("undisturbed", output=str(tmp_path / "undisturbed-out"))
    assert main(["run", str(spec), "--profile", str(write_profile("quiet"))]) == OK
    return open_output(tmp_path / "undisturbed-out")


def test_a_driver_killed_at_random_moments_loses_nothing(
    undisturbed: Output, write_spec: Write, write_profile: Write, tmp_path: Path
) -> None:
    spec, profile = write_spec(), write_profile(unit_passes=2, in_flight=3)
    output = tmp_path / "out"
    moments = Noise(5).generator("kill", "moments")
    seen: dict[str, int] = {}
    for _ in range(4):
        process = start(spec, profile, tmp_path)
        wait_for_markers(process, output, len(seen) + int(moments.integers(1, 40)))
        time.sleep(float(moments.uniform(0, 0.05)))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = markers(output)
        assert all(now[one] == written for one, written in seen.items()), "a committed unit was computed again"
        seen = now
    assert main(["run", str(spec), "--profile", str(profile)]) == OK
    last = markers(output)
    assert all(last[one] == written for one, written in seen.items())
    ranges = {one.rsplit("-", 1)[0] for one in last}
    assert len(ranges) == len(last), "a range was committed twice"
    assert_same(undisturbed, open_output(output))


def test_ray_gives_what_the_local_executor_gives_and_survives_a_killed_actor(
    undisturbed: Output, write_spec: Write, write_profile: Write, tmp_path: Path
) -> None:
    profile = write_profile(**RAY, unit_passes=5)
    spec = write_spec()
    process = start(spec, profile, tmp_path)
    wait_for_markers(process, tmp_path / "out", 5)
    actors = [
        one
        for one in psutil.Process(process.pid).children(recursive=True)
        if "UnitActor" in one.name() + " ".join(one.cmdline())
    ]
    assert len(actors) == 2
    actors[0].kill()
    _, errors = process.communicate(timeout=240)
    assert process.returncode == OK, errors
    assert "trying again" in errors
    assert_same(undisturbed, open_output(tmp_path / "out"))
    ranges = [one.rsplit("-", 1)[0] for one in markers(tmp_path / "out")]
    assert len(ranges) == len(set(ranges))


RAY = {"executor": "ray", "workers": 2, "cpus_per_worker": 0.5, "object_store_mb": 100}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, STOPPED)])
def test_a_stop_on_ray_says_how_to_go_on(
    write_spec: Write, write_profile: Write, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    spec = write_spec(dataset={"source": "digits"})
    process = start(spec, write_profile(unit_passes=2, **RAY), tmp_path)
    wait_for_markers(process, tmp_path / "out", 3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Go on with the same command" in errors and str(spec) in errors and "Traceback" not in errors
    assert "SIGTERM received" not in errors
    assert open_output(tmp_path / "out").run()["status"] == "stopped"


@pytest.mark.parametrize(
    "executor", [pytest.param({"executor": "local"}, id="local"), pytest.param(RAY, id="ray", marks=pytest.mark.slow)]
)
def test_a_second_ctrl_c_ends_it_at_once_with_one_line(
    write_spec: Write, write_profile: Write, tmp_path: Path, executor: dict[str, object]
) -> None:
    # A unit of many images, which takes longer than the test.
    spec = write_spec(dataset={"source": "digits"}, methods=[{"name": "rise", "masks": 4000}], metrics=[])
    process = start(spec, write_profile(unit_passes=10_000, **executor), tmp_path)
    wait_for_markers(process, tmp_path / "out", 1)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None and any(line.startswith("stopping") for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == INTERRUPTED, errors
    assert errors.splitlines()[-1] == "stopped at once; the same command goes on with what is committed"
    assert "Traceback" not in errors and "SystemError" not in errors


def test_a_full_disk_stops_with_one_line_and_the_rest_is_done_later(
    write_spec: Write,
    write_profile: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec, profile = write_spec(), write_profile(in_flight=1)
    original, left = Path.write_bytes, [20]

    def full(self: Path, content: bytes) -> int:
        left[0] -= "/maps/" in str(self)
        if left[0] < 0:  # from then on nothing can be written any more
            raise OSError(28, "No space left on device")
        return original(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["run", str(spec), "--profile", str(profile)]) == STOPPED
    errors = capsys.readouterr().err
    assert "no space left" in errors and "Traceback" not in errors
    monkeypatch.setattr(Path, "write_bytes", original)
    before = markers(tmp_path / "out")
    assert before and main(["run", str(spec), "--profile", str(profile)]) == OK
    assert all(markers(tmp_path / "out")[one] == written for one, written in before.items())
    assert len(results(open_output(tmp_path / "out"))[0]) == 6 * 40


@pytest.mark.slow
def test_a_folder_of_that_name_in_the_working_directory_does_no_harm(
    write_spec: Write, write_profile: Write, tmp_path: Path
) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("raise RuntimeError('the wrong pipeline')\n")
    profile = write_profile(executor="ray", workers=1, cpus_per_worker=0.5, object_store_mb=100)
    spec = write_spec(methods=["gradient"], metrics=[])
    heatline = Path(sys.executable).parent / "heatline"
    process = subprocess.run(
        [heatline, "run", str(spec), "--profile", str(profile)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert process.returncode == OK, process.stderr


def test_a_folder_of_something_else_is_a_mistake(
    write_spec: Write, write_profile: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("x")
    arguments = ["run", str(write_spec()), "--profile", str(write_profile()), "--set", f"output={tmp_path / 'thesis'}"]
    assert main(arguments) == MISTAKE
    assert "not a heatline output" in capsys.readouterr().err
