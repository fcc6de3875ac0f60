"""Two Ray nodes on one machine: work spreads, one that leaves costs what it had in hand, one that joins gets work."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_cluster import SmallCluster
from fault_output import markers
from fault_run import Command

from jobs.cli import INTERRUPTED, MISTAKE, OK, STOPPED, main
from pipeline.store import open_output

Write = Callable[..., Path]
IN_FLIGHT = 2


def events(log: Path, kind: str) -> list[dict[str, Any]]:
    """What the run's log says of units, one kind of event."""
    lines = log.read_text().splitlines() if log.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("}")]
    return [one for one in found if one["event"] == kind]


@pytest.mark.slow
def test_work_spreads_over_nodes_that_come_and_go(
    cluster: SmallCluster, write_spec: Write, write_profile: Write, tmp_path: Path
) -> None:
    spec = write_spec(dataset={"source": "digits"}, methods=[{"name": "rise", "masks": 2000}], metrics=[])
    profile = write_profile(
        executor="ray", address=cluster.address, workers={"min": 1, "max": 2}, in_flight=IN_FLIGHT, unit_passes=20
    )
    log = tmp_path / "log.jsonl"
    command = Command(["run", spec, "--profile", profile, "--log", log], tmp_path)

    def workers(since: int = 0) -> set[str]:
        return {one["worker"] for one in events(log, "done")[since:]}

    try:
        assert command.wait_until(lambda: len(workers()) == 2), "work spreads over two workers"
        assert len(cluster.head.workers("UnitActor")) == len(cluster.second.workers("UnitActor")) == 1
        cluster.second_leaves()
        assert command.wait_until(lambda: bool(events(log, "again")))
        before = len(events(log, "done"))
        assert command.wait_until(lambda: len(events(log, "done")) >= before + 5), "the other node goes on"
        assert len(workers(before)) == 1
        cluster.join()
        assert command.wait_until(lambda: len(workers()) == 3), "the node that joined gets work"
        assert len(cluster.second.workers("UnitActor")) == 1
        (gone,) = {one["worker"] for one in events(log, "again")}
        assert gone not in workers(before)
        assert len(events(log, "again")) <= IN_FLIGHT
        assert all("node left" in one["reason"] for one in events(log, "again"))
        assert not events(log, "lost") and not events(log, "split")
        command.signal(signal.SIGINT)
        assert command.end() == INTERRUPTED
    finally:
        if command.running:
            command.kill()
    ranges = [name.rsplit("-", 1)[0] for name in markers(tmp_path / "out")]
    assert len(ranges) == len(set(ranges)) >= len(events(log, "done"))


@pytest.mark.slow
def test_a_profile_that_asks_for_more_than_the_cluster_has_says_so_at_once(
    cluster: SmallCluster, write_spec: Write, write_profile: Write, tmp_path: Path
) -> None:
    profile = write_profile(executor="ray", address=cluster.address, workers=3)
    command = Command(["run", write_spec(), "--profile", profile], tmp_path)
    assert command.end() == MISTAKE
    (line,) = [line for line in command.errors.splitlines() if "asks for" in line]
    assert "asks for 3 workers of 1 CPU; the cluster has room for 2 (2 nodes: 2 CPU" in line
    assert "Traceback" not in command.errors and not markers(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.large
def test_a_job_whose_clusters_head_dies_stops_with_a_record_and_goes_on_elsewhere(
    write_spec: Write, write_profile: Write, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(prefix="hl-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        own = SmallCluster(Path(folder))
        try:
            profile = write_profile(executor="ray", address=own.address, workers=1, unit_passes=5, in_flight=1)
            spec = write_spec(dataset={"source": "digits"})
            command = Command(["run", spec, "--profile", profile], tmp_path)
            assert command.wait_for_units(tmp_path / "out", 3)
            own.kill_control_service()
            # Ray ends the process after a minute, without a word.
            assert command.end(55) == STOPPED, command.errors
        finally:
            own.close()
    assert "has not answered for" in command.errors and "Go on with the same command" in command.errors
    assert "Traceback" not in command.errors and open_output(tmp_path / "out").run()["status"] == "stopped"
    before = markers(tmp_path / "out")
    assert main(["run", str(spec), "--profile", str(write_profile("here", unit_passes=50))]) == OK
    now = markers(tmp_path / "out")
    assert all(now[one] == written for one, written in before.items())
