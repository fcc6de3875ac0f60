"""`heatline schedule --env`: what a run is given, and that no credential is among it."""

from __future__ import annotations

from pathlib import Path

import pytest
from manifest_case import objects

from jobs.cli import main
from pipeline.credential import holds_credential

Capture = pytest.CaptureFixture[str]
CRON = ("--cron", "0 3 * * 1")
KUBERNETES = (*CRON, "--image", "heatline:1", "--set", "output=s3://bucket/x")
TARGETS = {
    "raycronjob": ("--target", "kuberay", *KUBERNETES),
    "pod": ("--target", "kubernetes", *KUBERNETES),
    "cron": ("--target", "cron", *CRON),
    "systemd": ("--target", "systemd", *CRON),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jobs.schedule.heatline_command", lambda: Path("/opt/bin/heatline"))
    return tmp_path


def output(capture: Capture, *arguments: str) -> str:
    assert main(["schedule", "quickstart", *arguments]) == 0
    return capture.readouterr().out


@pytest.mark.parametrize("target", ["raycronjob", "pod"])
def test_pods_get_every_variable(target: str, capsys: Capture) -> None:
    found = objects(output(capsys, *TARGETS[target], "--env", "AWS_REGION=eu-west-1", "--env", "HEATLINE_LOG=-"))
    if target == "pod":
        specs = [found["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]]
    else:
        cluster = found["RayCronJob"]["spec"]["jobTemplate"]["rayClusterSpec"]
        specs = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    for spec in specs:
        given = {one["name"]: one["value"] for one in spec["containers"][0]["env"]}
        assert given == {"RAY_USAGE_STATS_ENABLED": "0", "AWS_REGION": "eu-west-1", "HEATLINE_LOG": "-"}


def test_a_command_on_this_machine_gets_every_variable(capsys: Capture) -> None:
    line = output(capsys, *TARGETS["cron"], "--env", "AWS_REGION=eu-west-1", "--env", "A=b c")
    assert " && AWS_REGION=eu-west-1 A='b c' /opt/bin/heatline run quickstart >> " in line
    units = output(capsys, *TARGETS["systemd"], "--env", "AWS_REGION=eu-west-1", "--env", "A=b c")
    assert '\nEnvironment="AWS_REGION=eu-west-1"\nEnvironment="A=b c"\nExecStart=' in units


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "variable",
    [
        "AWS_SECRET_ACCESS_KEY=hunter2",
        "HF_TOKEN=hunter2",
        "HEATLINE_WEBHOOK=https://hooks.example/hunter2",
        "HTTPS_PROXY=http://me:hunter2@proxy.example",
    ],
)
def test_a_credential_is_refused_and_not_repeated(variable: str, target: str, capsys: Capture) -> None:
    assert main(["schedule", "quickstart", *TARGETS[target], "--env", variable]) == 2
    found = capsys.readouterr()
    name = variable.partition("=")[0]
    assert f"{name} looks like a credential" in found.err and "--secret names a Secret" in found.err
    assert "hunter2" not in found.err + found.out and found.err.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("A",), "expected NAME=VALUE, such as AWS_REGION=eu-west-1, got 'A'"),
        (("A-B=hunter2",), "expected NAME=VALUE, such as AWS_REGION=eu-west-1, got 'A-B=…'"),
        (("A=1", "A=2"), "A is given twice"),
    ],
)
def test_what_is_no_variable_is_refused(given: tuple[str, ...], said: str, capsys: Capture) -> None:
    words = [word for one in given for word in ("--env", one)]
    assert main(["schedule", "quickstart", *TARGETS["pod"], *words]) == 2
    error = capsys.readouterr().err
    assert said in error and "hunter2" not in error


@pytest.mark.parametrize(
    "name",
    ["AWS_ACCESS_KEY_ID", "APIKEY", "hf_token", "DB_PASSWORD", "MYSQL_PWD", "AZURE_SIG", "S3_SECRETS", "GITHUB_PAT"],
)
def test_a_variable_is_a_credential_by_a_word_of_its_name(name: str) -> None:
    assert holds_credential(name, "x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL", "https://objects.example:9000"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("DESIGN", "x"),
        ("NCCL_SIGNAL", "x"),
        ("PATH", "/bin"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/token"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/keys/account.json"),
    ],
)
def test_a_variable_that_only_looks_like_one_is_fine(name: str, value: str) -> None:
    assert not holds_credential(name, value)


def test_a_credential_in_place_of_its_file_is_one() -> None:
    assert holds_credential("GOOGLE_APPLICATION_CREDENTIALS", '{"private_key": "hunter2"}')
