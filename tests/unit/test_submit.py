"""Submitting through the Jobs API of a dashboard: once while it runs, under a name that tells, without secrets."""

from __future__ import annotations

import asyncio
import io
import json
import stat
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest
from ray_dashboard import Dashboard

from cluster.dashboard import find_address
from cluster.parcel import Parcel
from cluster.security import MODE
from cluster.submit import Jobs
from jobs.cli import MISTAKE, OK, STOPPED, main
from jobs.submit import make_parcel
from pipeline.errors import FatalError, RetryableError
from pipeline.store import open_output

WEBHOOK = "https://hooks.example/T0/very-secret"
SPEC = """\
version: 1
name: birds
output: runs/birds
dataset: {source: parquet, path: birds.parquet}
models: [{name: mnist_cnn2, weights: random}]
methods: [gradient]
"""


@pytest.fixture
def dashboard(ray_token: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    with Dashboard(token=ray_token) as one:
        yield one


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A spec in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(SPEC)
    Path("birds.parquet").touch()
    Path("own.yaml").write_text("executor: ray\ncpus_per_worker: 0.5\n")
    return "job.yaml"


@pytest.fixture
def parcel(spec: str) -> Parcel:
    return make_parcel(spec, [], "own.yaml")


def test_the_same_job_is_sent_once_while_it_runs(dashboard: Dashboard, parcel: Parcel) -> None:
    jobs = Jobs(dashboard.address)
    first, attached = jobs.submit(parcel)
    assert (first.id, first.state, attached) == (parcel.identifier, "waiting", False)
    assert (first.name, first.output, first.profile) == ("birds", str(Path("runs/birds").absolute()), "own.yaml")
    dashboard.jobs[first.id]["status"] = "RUNNING"
    again, attached = jobs.submit(parcel)
    assert (again.id, again.state, attached) == (first.id, "running", True)
    assert len(dashboard.submitted) == 1


def test_after_it_has_ended_the_next_attempt_gets_the_next_number(dashboard: Dashboard, parcel: Parcel) -> None:
    jobs = Jobs(dashboard.address)
    ids = []
    for status in ("SUCCEEDED", "FAILED", "STOPPED"):
        ids.append(jobs.submit(parcel)[0].id)
        dashboard.jobs[ids[-1]]["status"] = status
    assert ids == [parcel.identifier, f"{parcel.identifier}-2", f"{parcel.identifier}-3"]


def test_whoever_was_quicker_with_the_same_job_is_attached_to(dashboard: Dashboard, parcel: Parcel) -> None:
    dashboard.quicker.add(parcel.identifier)
    job, attached = Jobs(dashboard.address).submit(parcel)
    assert (job.id, attached, dashboard.submitted) == (parcel.identifier, True, [])


def test_the_id_tells_the_name_and_changes_with_all_that_bears_on_the_job(spec: str, parcel: Parcel) -> None:
    assert parcel.identifier.startswith("birds-")
    Path("wide.yaml").write_text("executor: ray\nworkers: 9\n")
    others = [
        make_parcel(spec, ["seed=1"], "own.yaml"),
        make_parcel(spec, [], "wide.yaml"),
        make_parcel(spec, [], "own.yaml", fresh=True),
    ]
    assert len({parcel.identifier, *(one.identifier for one in others)}) == 4
    same = make_parcel(spec, [], "own.yaml", webhook=WEBHOOK, command=["submit", "job.yaml"], python="/opt/python")
    assert same.identifier == parcel.identifier


def test_what_is_sent_is_the_program_and_the_jobs_files_and_no_secret_shows(dashboard: Dashboard, spec: str) -> None:
    Jobs(dashboard.address).submit(make_parcel(spec, [], "own.yaml", webhook=WEBHOOK))
    request = json.dumps(dashboard.submitted)
    assert WEBHOOK not in request and dashboard.token not in request
    assert json.loads(request)[0]["entrypoint"] == "sh heatline.sh run spec.yaml --profile profile.yaml"
    packages = [zipfile.ZipFile(io.BytesIO(data)) for data in dashboard.packages.values()]
    assert len(packages) == 4
    names = {name for package in packages for name in package.namelist()}
    assert {"pipeline/store.py", "cluster/submit.py", "jobs/submitted.py", "jobs/specs/quickstart.yaml"} <= names
    assert not [name for name in names if "__pycache__" in name or "birds.parquet" in name]
    job = next(package for package in packages if "spec.yaml" in package.namelist())
    assert job.read("webhook").decode() == WEBHOOK
    assert stat.S_IMODE(job.getinfo("webhook").external_attr >> 16) == 0o600
    assert b"address: auto" in job.read("profile.yaml") and b"cpus_per_worker: 0.5" in job.read("profile.yaml")
    assert str(Path("birds.parquet").absolute()).encode() in job.read("spec.yaml")


def test_a_local_output_is_made_here_so_that_the_cluster_can_be_asked_whether_it_sees_it(parcel: Parcel) -> None:
    assert open_output("runs/birds").runs() == []
    assert parcel.facts["output"] == str(Path("runs/birds").absolute())


def test_paths_that_only_the_cluster_sees_are_left_alone(spec: str) -> None:
    changes = ["output=/results/birds", "dataset.path=/results/birds.parquet"]
    with pytest.raises(FatalError, match=r"dataset.path: '/results/birds.parquet' is not there; .*--on-cluster FOLDER"):
        make_parcel(spec, changes, "own.yaml")
    parcel = make_parcel(spec, changes, "own.yaml", elsewhere=["/results"])
    assert parcel.facts["output"] is None and not Path("/results").exists()


def test_a_profile_without_ray_is_refused(spec: str) -> None:
    with pytest.raises(FatalError, match="--profile: 'local' runs in one process; take cluster"):
        make_parcel(spec, [], "local")


@pytest.mark.parametrize(
    ("status", "code", "state", "exit_code"),
    [
        ("PENDING", None, "waiting", None),
        ("RUNNING", None, "running", None),
        ("SUCCEEDED", 0, "done", 0),
        ("FAILED", 1, "failed", 1),
        ("FAILED", 2, "failed", 2),
        ("FAILED", 3, "stopped", 3),
        ("FAILED", -9, "stopped", 3),
        ("FAILED", None, "stopped", 3),
        ("STOPPED", None, "stopped", 3),
    ],
)
def test_how_a_job_ended_is_told_as_run_would_tell_it(
    dashboard: Dashboard, status: str, code: int | None, state: str, exit_code: int | None
) -> None:
    dashboard.put("birds-1", status, driver_exit_code=code)
    job = Jobs(dashboard.address).find("birds-1")
    assert (job.state, job.exit_code) == (state, exit_code)


def test_an_id_that_is_not_known_names_the_nearest(dashboard: Dashboard, capsys: pytest.CaptureFixture[str]) -> None:
    dashboard.put("birds-12ab", "RUNNING")
    for words in (["status"], ["logs"], ["logs", "--follow"], ["stop"]):
        assert main([*words, "birds-12ac", "--address", dashboard.address]) == MISTAKE
        assert "no job 'birds-12ac'; did you mean 'birds-12ab'?" in capsys.readouterr().err


def test_status_lists_the_jobs_and_tells_one_by_the_last_line_where_its_output_is_out_of_sight(
    dashboard: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = {"heatline": "c0de", "name": "birds", "output": "/not/here", "profile": "cluster"}
    dashboard.put("birds-1", "RUNNING", metadata=ours, logs="3 units to do\n\x1b[2J10 s: units predict 1/3\n\n")
    dashboard.put("somebody-elses", "RUNNING")
    assert main(["status", "--address", dashboard.address, "--json"]) == OK
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["id"], listed["state"], listed["name"]) == ("birds-1", "running", "birds")
    assert main(["status", "birds-1", "--address", dashboard.address, "--json"]) == OK
    found = json.loads(capsys.readouterr().out)
    assert (found["progress"], found["last_line"]) == (None, "\x1b[2J10 s: units predict 1/3")
    assert main(["status", "birds-1", "--address", dashboard.address]) == OK
    assert r"last line of its log: \x1b[2J10 s: units predict 1/3" in capsys.readouterr().out
    assert main(["logs", "birds-1", "--address", dashboard.address]) == OK
    assert capsys.readouterr().out == "3 units to do\n\\x1b[2J10 s: units predict 1/3\n\n"


def test_a_lost_connection_is_taken_up_where_it_broke(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    dashboard.put("birds-1", "RUNNING")
    jobs = Jobs(dashboard.address)
    endings = iter([ConnectionResetError("gone"), RuntimeError("closed unexpectedly"), None])

    async def tail(identifier: str) -> AsyncIterator[str]:
        ending = next(endings)
        for piece in ("one\n", "two\nthr") if ending else ("one\ntwo\n", "three\n", "four\n"):
            yield piece
        if ending:
            raise ending
        dashboard.jobs[identifier]["status"] = "SUCCEEDED"

    monkeypatch.setattr(jobs._client, "tail_job_logs", tail)
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert list(jobs.follow("birds-1")) == ["one\n", "two\nthr", "ee\n", "four\n"]


def test_a_cluster_that_has_just_been_started_is_waited_for(
    dashboard: Dashboard, parcel: Parcel, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, told = 0.0, list[str]()

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += 10 * seconds

    monkeypatch.setattr("cluster.submit.time", SimpleNamespace(sleep=pass_time, monotonic=lambda: now))
    dashboard.without_agent = 5
    job, attached = Jobs(dashboard.address).submit(parcel, told.append)
    assert (job.id, attached, len(dashboard.submitted)) == (parcel.identifier, False, 1)
    assert told == [f"{dashboard.address}: the cluster takes no jobs yet: waiting up to 90 s"]
    dashboard.jobs.clear()
    dashboard.without_agent = 1000
    with pytest.raises(RetryableError, match="No available agent"):
        Jobs(dashboard.address).submit(parcel)
    assert dashboard.without_agent > 985


def test_a_job_without_a_word_is_looked_up_and_the_rest_of_its_log_fetched(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the other side went away without a sign of it: the connection stays, and nothing comes any more."""
    dashboard.put("birds-1", "RUNNING", logs="one\ntwo\n")
    jobs, connections = Jobs(dashboard.address), 0

    async def tail(identifier: str) -> AsyncIterator[str]:
        nonlocal connections
        connections += 1
        yield "one\n"
        if connections == 3:
            dashboard.jobs[identifier]["status"] = "SUCCEEDED"
        await asyncio.sleep(3600)

    monkeypatch.setattr(jobs._client, "tail_job_logs", tail)
    monkeypatch.setattr("cluster.submit.QUIET_SECONDS", 0.05)
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert list(jobs.follow("birds-1")) == ["one\n", "two\n"]
    assert connections == 3


def test_a_quiet_job_is_followed_on_after_any_number_of_lost_connections(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is how long the cluster does not answer, and not since when the job has said nothing."""
    dashboard.put("birds-1", "RUNNING", logs="")
    jobs, now, lost = Jobs(dashboard.address), 0.0, 0

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += 100 * seconds

    async def tail(identifier: str) -> AsyncIterator[str]:
        nonlocal lost
        lost += 1
        if lost == 5:
            dashboard.jobs[identifier]["status"] = "SUCCEEDED"
        raise aiohttp.ClientConnectionError("idle for too long")
        yield ""

    monkeypatch.setattr(jobs._client, "tail_job_logs", tail)
    monkeypatch.setattr("cluster.submit.time", SimpleNamespace(sleep=pass_time, monotonic=lambda: now))
    assert "".join(jobs.follow("birds-1")) == ""
    dashboard.put("birds-2", "RUNNING")
    dashboard.troubled, lost = 100, 6
    with pytest.raises(RetryableError, match=r"the connection was lost: .*503"):
        list(jobs.follow("birds-2"))
    assert dashboard.troubled > 90
    dashboard.troubled = 0
    del dashboard.jobs["birds-2"]
    with pytest.raises(RetryableError, match="knows of no job 'birds-2' any more"):
        list(jobs.follow("birds-2"))


@pytest.mark.parametrize(("gpus", "profile"), [({}, "cluster-cpu"), ({"GPU": 2.0}, "cluster")])
def test_without_a_profile_the_nodes_decide(
    dashboard: Dashboard, spec: str, capsys: pytest.CaptureFixture[str], gpus: dict[str, float], profile: str
) -> None:
    dashboard.nodes = [{"CPU": 4.0}, {"CPU": 4.0, **gpus}]
    assert main(["submit", spec, "--address", dashboard.address, "--json"]) == OK
    assert json.loads(capsys.readouterr().out)["profile"] == profile


def test_stopping_twice_is_no_mistake(dashboard: Dashboard, capsys: pytest.CaptureFixture[str]) -> None:
    dashboard.put("birds-1", "RUNNING")
    for ran in (True, False):
        assert main(["stop", "birds-1", "--address", dashboard.address, "--json"]) == OK
        answer = json.loads(capsys.readouterr().out)
        assert (answer["state"], answer["ran"]) == ("stopped", ran)


def test_a_cluster_in_trouble_is_no_mistake_and_a_stop_waits_until_it_answers(
    dashboard: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    dashboard.put("birds-1", "RUNNING")
    dashboard.troubled = 1
    assert main(["status", "birds-1", "--address", dashboard.address]) == STOPPED
    (line,) = capsys.readouterr().err.splitlines()
    assert "status 503" in line and "Traceback" not in line
    dashboard.troubled_by_a_stop = 2
    assert main(["stop", "birds-1", "--address", dashboard.address, "--json"]) == OK
    assert json.loads(capsys.readouterr().out)["state"] == "stopped"


def test_a_spec_with_a_mistake_is_told_before_any_cluster_is_asked(
    spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", spec, "--set", "sed=1", "--address", "http://127.0.0.1:1"]) == MISTAKE
    assert "did you mean 'seed'?" in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("cluster", "here", "expected"),
    [
        ("disabled", "token", "runs without tokens: .*RAY_AUTH_MODE=disabled to submit all the same"),
        ("token", "disabled", "asks for a token, and RAY_AUTH_MODE=disabled sends none; unset it"),
    ],
)
def test_cluster_and_user_have_to_agree_on_tokens(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, cluster: str, here: str, expected: str
) -> None:
    dashboard.mode = cluster
    monkeypatch.setenv(MODE, here)
    with pytest.raises(FatalError, match=expected):
        Jobs(dashboard.address)


def test_a_cluster_without_tokens_is_used_when_the_user_says_so(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.mode = "disabled"
    monkeypatch.setenv(MODE, "disabled")
    assert Jobs(dashboard.address).all() == []


def test_another_token_than_the_clusters_is_told_and_not_shown(dashboard: Dashboard, ray_token: str) -> None:
    dashboard.token = "another"
    with pytest.raises(FatalError, match=r"the token here is not the cluster's: see ~/\.ray/auth_token") as refused:
        Jobs(dashboard.address)
    assert ray_token not in str(refused.value)


def test_where_nobody_answers_or_somebody_else_does_is_told(dashboard: Dashboard) -> None:
    address = dashboard.address
    with pytest.raises(FatalError, match="answers, and not as the dashboard of a Ray cluster"):
        Jobs(f"{address}/api/version")
    dashboard.__exit__(None, None, None)
    with pytest.raises(FatalError, match=rf"{address}: no Ray cluster answers there \(connection refused\)"):
        Jobs(address)
    dashboard.__enter__()


def test_a_cluster_too_old_for_tokens_runs_without_them(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    dashboard.mode = "unknown"
    with pytest.raises(FatalError, match="runs without tokens"):
        Jobs(dashboard.address)
    monkeypatch.setenv(MODE, "disabled")
    assert Jobs(dashboard.address).all() == []


def test_the_address_is_the_options_else_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265/")
    assert find_address(None) == "http://head:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://ray.example")
    assert find_address(None) == "https://ray.example"
    assert find_address("127.0.0.1:8265") == "http://127.0.0.1:8265"


@pytest.mark.parametrize("address", ["ray://head:10001", "auto", "head", "http://", "http://head:x", "head:0"])
def test_what_is_no_dashboards_address_is_refused(address: str) -> None:
    with pytest.raises(FatalError, match=r"--address: expected the dashboard's address, such as http://127.0.0.1:8265"):
        find_address(address)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(FatalError, match="without a user or password") as refused:
        find_address("http://me:secret@head:8265")
    assert "secret" not in str(refused.value)
