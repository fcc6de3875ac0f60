"""One of each fault in its smallest form; `tests/benchmarks/faults.py` has them larger, at random moments."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fault_cluster import SmallCluster
from fault_image import write_digits
from fault_output import computed_twice, difference, log_lines, markers
from fault_run import Command

from jobs.cli import FAILED, INTERRUPTED, OK, STOPPED, main
from pipeline.store import Output, open_output

COUNT = 24
METRICS = [{"name": "deletion", "step": 128}, {"name": "mar", "grid": 8}]
PROFILE = {"executor": "local", "in_flight": 2, "rows": 8, "unit_passes": 1}


def words(
    folder: Path, name: str, network: str = "mnist_cnn2", profile: object = None, steps: int = 8, **images: set[int]
) -> list[str]:
    """Arguments of `run` for a small job over a file of digits, of which some can be bad; its output is called so."""
    spec = {
        "version": 1,
        "name": name,
        "output": str(folder / name),
        "dataset": {"source": "parquet", "path": str(write_digits(folder / f"{name}.parquet", COUNT, **images))},
        "models": [{"name": network, "weights": "random", "id": "network", "mean": [0, 0, 0], "std": [1, 1, 1]}],
        "methods": ["random", "gradient", {"name": "integrated_gradients", "steps": steps}],
        "metrics": METRICS,
        "report": {"samples": 1},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    (folder / f"{name}.profile").write_text(yaml.safe_dump(profile or PROFILE))
    return [str(folder / f"{name}.yaml"), "--profile", str(folder / f"{name}.profile")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Output:
    """The job in peace."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert main(["run", *words(folder, "job")]) == OK
    return open_output(folder / "job")


def assert_to_the_bit(name: str, folder: Path, undisturbed: Output) -> None:
    found = difference(open_output(folder / name), undisturbed)
    assert found.samples == COUNT * (1 + 3 + 3 * 2)
    assert (found.lost, found.duplicated, found.changed, found.other_parts, found.failed) == (0, 0, 0, 0, frozenset())


def kept(before: dict[str, int], output: Path) -> bool:
    """Whether what was committed before was left alone, and the rest added."""
    now = markers(output)
    return len(now) > len(before) and all(now[one] == written for one, written in before.items())


def test_a_job_that_was_stopped_twice_ends_as_if_it_had_not_been(tmp_path: Path, undisturbed: Output) -> None:
    output, log = tmp_path / "stopped", tmp_path / "log"
    command = ["run", *words(tmp_path, "stopped"), "--log", str(log)]
    seen: dict[str, int] = {}
    for number, code in ((signal.SIGINT, INTERRUPTED), (signal.SIGTERM, STOPPED)):
        running = Command(command, tmp_path)
        assert running.wait_for_units(output, len(seen) + 2)
        running.signal(number)
        assert running.end() == code, running.errors
        assert "Go on with the same command" in running.errors and command[1] in running.errors
        assert "Traceback" not in running.errors and open_output(output).run()["status"] == "stopped"
        assert not seen or kept(seen, output)
        seen = markers(output)
    assert main(command) == OK
    assert kept(seen, output) and not computed_twice(log_lines(log))
    assert_to_the_bit("stopped", tmp_path, undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB, which can be made larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_disk_that_is_full_and_then_larger_loses_nothing(
    tmp_path: Path, small_disk: Path, undisturbed: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", *words(tmp_path, "disk")]
    assert main(command) == STOPPED
    errors = capsys.readouterr().err
    assert "no space left" in errors and "Traceback" not in errors
    assert "Go on with the same command, once that is mended:" in errors
    before = markers(small_disk)
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert before and main(command) == OK
    assert kept(before, small_disk)
    assert_to_the_bit("disk", tmp_path, undisturbed)


@pytest.mark.parametrize("fault", ["cut off", "gone"])
def test_a_committed_part_that_the_disk_lost_is_named_and_computed_anew_without_its_marker(
    tmp_path: Path, undisturbed: Output, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    command = ["run", *words(tmp_path, "damaged")]
    assert main(command) == OK
    scores = next((tmp_path / "damaged").glob("scores/*/*gradients*/*deletion*"))
    part = next(scores.glob("part-*"))
    content = part.read_bytes()
    part.unlink()
    if fault == "cut off":
        part.write_bytes(content[:-100])
    capsys.readouterr()
    assert main([*command, "--set", "report.samples=2"]) == FAILED
    (told,) = [line for line in capsys.readouterr().err.splitlines() if part.name in line]
    marker = scores / "_committed" / part.name.removeprefix("part-").replace("parquet", "json")
    assert f"remove {marker.name} from {marker.parent}," in told
    marker.unlink()
    assert main(command) == OK
    assert part.read_bytes() == content
    assert_to_the_bit("damaged", tmp_path, undisturbed)


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of Linux")
def test_a_worker_that_gets_too_little_memory_takes_fewer_images_at_a_time(tmp_path: Path, undisturbed: Output) -> None:
    command = Command(["run", *words(tmp_path, "hungry", "fault_network:hungry", {**PROFILE, "rows": 16})], tmp_path)
    assert command.end() == OK, command.errors
    found = difference(open_output(tmp_path / "hungry"), undisturbed)
    assert found.complete and found.largest <= 1e-5 and not found.failed


def on(cluster: SmallCluster) -> dict[str, object]:
    """A profile for the cluster, with an actor a node."""
    return {**PROFILE, "executor": "ray", "address": cluster.address, "workers": 2, "retries": 1}


@pytest.mark.slow
def test_a_worker_that_stops_for_a_while_and_a_node_that_leaves_cost_what_they_had_in_hand(
    tmp_path: Path, cluster: SmallCluster, undisturbed: Output
) -> None:
    output, log = tmp_path / "node", tmp_path / "log"
    command = Command(["run", *words(tmp_path, "node", profile=on(cluster)), "--log", log], tmp_path)
    assert command.wait_for_units(output, 2)
    stopped = cluster.actors()[0]
    stopped.suspend()
    assert command.wait_for_units(output, 8), "the other worker goes on"
    stopped.resume()
    assert not any(line.event in ("again", "lost") for line in log_lines(log))
    before = markers(output)
    cluster.kill_second()
    cluster.join()
    assert command.end() == OK, command.errors
    assert "Traceback" not in command.errors and kept(before, output)
    lines = log_lines(log)
    assert sum(line.event == "again" for line in lines) <= 2, "no more than the node had in hand"
    assert not computed_twice(lines)
    assert_to_the_bit("node", tmp_path, undisturbed)


@pytest.mark.slow
def test_a_submitted_job_whose_supervisor_is_killed_goes_on_when_it_is_submitted_again(
    tmp_path: Path, cluster: SmallCluster
) -> None:
    # Ray looks about once a second whether a job's supervisor is there: a small job would be through before.
    steps = 400
    assert main(["run", *words(tmp_path, "job", steps=steps)]) == OK
    output = tmp_path / "submitted"
    job = words(tmp_path, "submitted", profile=on(cluster), steps=steps)
    command = ["submit", *job, "--address", cluster.dashboard, "--follow"]
    first = Command(command, tmp_path)
    assert first.wait_for_units(output, 2)
    (supervisor,) = cluster.supervisors()
    supervisor.kill()
    assert first.end() == STOPPED and "Traceback" not in first.errors
    before = markers(output)
    again = Command(command, tmp_path)
    assert again.end() == OK, again.errors
    assert kept(before, output)
    assert_to_the_bit("submitted", tmp_path, open_output(tmp_path / "job"))


@pytest.mark.slow
def test_an_image_that_kills_its_worker_each_time_fails_alone(
    tmp_path: Path, cluster: SmallCluster, undisturbed: Output
) -> None:
    output = tmp_path / "poisoned"
    words_of_run = ["run", *words(tmp_path, "poisoned", "fault_network:crashing", on(cluster), marked={7})]
    command = Command(words_of_run, tmp_path)
    assert command.end() == FAILED, command.errors
    assert "1 sample failed" in command.errors and "Traceback" not in command.errors
    found = difference(open_output(output), undisturbed, {7})
    assert found.complete and found.largest <= 1e-5 and found.failed == {7}
    before = markers(output)
    assert main(words_of_run) == FAILED
    assert markers(output) == before, "what is known to fail is not tried again"
