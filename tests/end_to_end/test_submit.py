"""A job submitted to a running Ray cluster, as somebody would do it who has never seen the program's own folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from fault_cluster import SmallCluster
from fault_output import markers

from cluster.submit import Jobs
from jobs.cli import MISTAKE, OK, main
from jobs.submit import make_parcel
from pipeline.store import Output, open_output

pytestmark = pytest.mark.slow

HEATLINE = str(Path(sys.executable).parent / "heatline")
JOB = {
    "version": 1,
    "name": "birds",
    "output": "runs/birds",
    "dataset": {"source": "digits", "limit": 24},
    "models": [{"name": "mnist_cnn2", "weights": "random"}],
    "methods": ["random", "gradient"],
    "metrics": [{"name": "deletion", "step": 196}],
    "report": {"samples": 1},
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of one node, started by `ray start --head`; Ray keeps sockets in its folder, whose path is short."""
    with tempfile.TemporaryDirectory(prefix="hl-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster = SmallCluster(Path(folder))
        try:
            yield cluster.dashboard
        finally:
            cluster.close()


@pytest.fixture(scope="module", autouse=True)
def mistaken(address: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of a job with a mistake that only the cluster can see; it ends while the other tests run."""
    folder = tmp_path_factory.mktemp("mistaken")
    spec = {**JOB, "output": str(folder / "out"), "models": [{"name": "my_networks:small", "weights": "random"}]}
    (folder / "job.yaml").write_text(yaml.safe_dump(spec))
    return Jobs(address).submit(make_parcel(str(folder / "job.yaml"), [], "cluster-cpu"))[0].id


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a user's, with packages called as the program's are."""
    for room in ("pipeline", "cluster", "jobs"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text("raise RuntimeError('this is not heatline')")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    (tmp_path / "own.yaml").write_text(
        yaml.safe_dump({"executor": "ray", "workers": 1, "cpus_per_worker": 0.5, "unit_passes": 50})
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


@pytest.fixture
def posted() -> Iterator[tuple[str, list[bytes]]]:
    """A webhook's address, and what it was told."""
    told: list[bytes] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hooks/very-secret", told
        server.shutdown()


def scores(output: Output) -> dict[tuple[str, str], float | None]:
    return {(row["method"], row["id"]): row["value"] for row in output.scores().to_pylist()}


def wait_until(happened: Callable[[], bool], seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.2)


def test_a_submitted_job_ends_as_if_run_here_and_its_webhook_shows_nowhere(
    address: str, away: Path, posted: tuple[str, list[bytes]]
) -> None:
    hook, told = posted
    words = ["submit", "job.yaml", "--profile", "own.yaml", "--notify", hook, "--follow", "--json"]
    variables = {**os.environ, "RAY_API_SERVER_ADDRESS": address}
    done = subprocess.run([HEATLINE, *words], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == OK, done.stderr
    job = json.loads(done.stdout)
    assert (job["state"], job["exit_code"], job["attached"]) == ("done", 0, False)
    there = open_output(away / "runs" / "birds")
    assert there.run()["submission"] == job["id"]
    assert json.loads(told[0])["run"] == there.run()["run"]
    assert main(["run", "job.yaml", "--profile", "local", "--set", "output=here"]) == OK
    here = scores(open_output(away / "here"))
    assert len(here) == 48 and scores(there) == pytest.approx(here, abs=1e-5)

    jobs = Jobs(address)
    shown = [done.stdout, done.stderr, repr(jobs._client.list_jobs()), jobs.logs(job["id"])]
    shown += [file.read_text() for file in (away / "runs").rglob("*.json")]
    assert not [text for text in shown if "very-secret" in text]


def test_the_same_job_is_not_sent_twice_is_stopped_and_goes_on(
    address: str, away: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Long enough not to end by itself meanwhile.
    longer = ["--set", "dataset={source: digits}", "--set", "methods=[{name: integrated_gradients, steps: 200}]"]
    submit = ["submit", "job.yaml", "--profile", "own.yaml", *longer]

    def asked(*words: str) -> dict[str, object]:
        assert main([*words, "--json", "--address", address]) == OK
        answer: dict[str, object] = json.loads(capsys.readouterr().out)
        return answer

    first = asked(*submit)
    assert first["state"] in ("waiting", "running") and first["attached"] is False
    again = asked(*submit)
    assert (again["id"], again["attached"]) == (first["id"], True)
    output = away / "runs" / "birds"
    wait_until(lambda: len(markers(output)) > 3)
    found = asked("status", str(first["id"]))["progress"]
    assert isinstance(found, dict) and found["status"] == "running"
    assert [stage["stage"] for stage in found["stages"]] == ["predict", "attribute", "evaluate"]

    stopped = asked("stop", str(first["id"]))
    assert (stopped["state"], stopped["ran"], stopped["exit_code"]) == ("stopped", True, 3)
    assert open_output(output).run()["status"] == "stopped"
    kept = markers(output)
    second = asked(*submit)
    assert (second["id"], second["attached"]) == (f"{first['id']}-2", False)
    wait_until(lambda: len(markers(output)) > len(kept) + 3)
    assert asked("stop", str(second["id"]))["ran"]
    now = markers(output)
    assert all(now[one] == written for one, written in kept.items())
    ranges = [one.rsplit("-", 1)[0] for one in now]
    assert len(ranges) == len(set(ranges)), "a range was computed twice"


def test_a_mistake_that_only_the_cluster_sees_ends_with_its_exit_code(
    address: str, mistaken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs", mistaken, "--follow", "--address", address]) == MISTAKE
    told = capsys.readouterr()
    assert "cannot import 'my_networks'" in told.out
    assert f"{mistaken}: failed, exit code 2" in told.err
