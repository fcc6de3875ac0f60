"""`heatline schedule`: what it prints, writes and installs, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from manifest_case import objects

from cluster.profile import WorkerRange
from jobs.cli import main
from jobs.profile import load_profile

Capture = pytest.CaptureFixture[str]
CRON = ("--cron", "0 3 * * 1")
POD = ("--target", "kubernetes", *CRON, "--image", "heatline:1")
RAY = ("--target", "kuberay", *CRON, "--image", "heatline:1")
ELSEWHERE = ("--set", "output=s3://bucket/x")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jobs.schedule.heatline_command", lambda: Path("/opt/bin/heatline"))
    return tmp_path


def output(capture: Capture, *arguments: str) -> str:
    assert main(["schedule", "quickstart", *arguments]) == 0
    return capture.readouterr().out


def refusal(capture: Capture, *arguments: str) -> str:
    assert main(["schedule", "quickstart", *arguments]) == 2
    found = capture.readouterr()
    assert found.out == ""
    return found.err


def test_the_manifest_alone_goes_to_the_standard_output(capsys: Capture) -> None:
    found = objects(output(capsys, *RAY, *ELSEWHERE))
    assert list(found) == ["ConfigMap", "RayCronJob"]
    spec = yaml.safe_load(found["ConfigMap"]["data"]["spec.yaml"])
    assert spec["output"] == "s3://bucket/x"
    job = found["RayCronJob"]["spec"]["jobTemplate"]
    assert job["entrypoint"] == "heatline run /etc/heatline/spec.yaml --profile cluster-cpu"


@pytest.mark.parametrize(
    ("arguments", "profile"),
    [
        ((*RAY, "--gpus", "1"), "cluster"),
        (RAY, "cluster-cpu"),
        ((*POD, "--gpus", "1"), "node"),
        (POD, "laptop"),
        ((*POD, "--profile", "local"), "local"),
    ],
)
def test_the_profile_fits_the_pods(arguments: tuple[str, ...], profile: str, capsys: Capture) -> None:
    found = objects(output(capsys, *arguments, *ELSEWHERE))
    if "RayCronJob" in found:
        words = found["RayCronJob"]["spec"]["jobTemplate"]["entrypoint"].split()
    else:
        words = found["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert words == ["heatline", "run", "/etc/heatline/spec.yaml", "--profile", profile]


def test_a_profile_of_ones_own_goes_along(here: Path, capsys: Capture) -> None:
    (here / "mine.yaml").write_text("executor: ray\naddress: auto\ncpus_per_worker: 4\n")
    found = objects(output(capsys, *RAY, *ELSEWHERE, "--profile", "mine.yaml"))
    assert yaml.safe_load(found["ConfigMap"]["data"]["profile.yaml"])["cpus_per_worker"] == 4
    assert found["RayCronJob"]["spec"]["jobTemplate"]["entrypoint"].endswith("--profile /etc/heatline/profile.yaml")


def test_where_pods_follow_demand_the_profile_asks_for_them_and_waits(here: Path, capsys: Capture) -> None:
    found = objects(output(capsys, *RAY, *ELSEWHERE, "--workers", "0-6", "--cpus", "5"))
    profile = yaml.safe_load(found["ConfigMap"]["data"]["profile.yaml"])
    assert profile["workers"] == {"min": 1, "max": 12} and profile["wait_s"] == 1800  # two workers of 2 CPU a pod
    assert profile["address"] == "auto" and profile["cpus_per_worker"] == 2
    (here / "kept.yaml").write_text(yaml.safe_dump(profile))
    assert load_profile("kept.yaml") == load_profile("cluster-cpu").model_copy(
        update={"workers": WorkerRange(min=1, max=12), "wait_s": 1800.0}
    )


def test_a_profile_that_says_how_many_workers_keeps_its_number(here: Path, capsys: Capture) -> None:
    text = "address: auto\nworkers: {min: 2, max: 3}\n"
    (here / "mine.yaml").write_text(text)
    found = objects(output(capsys, *RAY, *ELSEWHERE, "--workers", "0-6", "--profile", "mine.yaml"))
    assert found["ConfigMap"]["data"]["profile.yaml"] == text


def test_a_profile_with_more_workers_than_the_pods_hold_is_refused(here: Path, capsys: Capture) -> None:
    (here / "mine.yaml").write_text("address: auto\nworkers: 9\n")
    error = refusal(capsys, *RAY, *ELSEWHERE, "--workers", "0-2", "--profile", "mine.yaml")
    assert "asks for 9 workers of 1 CPU, the pods have room for 8" in error


def test_the_kinds_of_kuberay(capsys: Capture) -> None:
    now = ("--target", "kuberay", "--image", "heatline:1", *ELSEWHERE)
    kinds = {
        kind: list(objects(output(capsys, *now, "--kind", kind, *(CRON if kind.endswith("cronjob") else ()))))
        for kind in ("raycronjob", "cronjob", "rayjob", "raycluster")
    }
    assert kinds == {
        "raycronjob": ["ConfigMap", "RayCronJob"],
        "cronjob": ["ConfigMap", "ServiceAccount", "Role", "RoleBinding", "CronJob"],
        "rayjob": ["ConfigMap", "RayJob"],
        "raycluster": ["RayCluster"],
    }


def test_every_option_of_pods_arrives(capsys: Capture) -> None:
    words = (
        "--namespace n --workers 2-5 --cpus 7 --memory 9Gi --gpus 2 --head-cpus 3 --head-memory 4Gi --volume c:/d/ "
        "--secret s --service-account a --toleration k=v:NoExecute --node-selector x/y=z --suspend --retries 6 "
        "--env A=b=c --image-pull-secret p --keep-seconds 8 --deadline 12 --start-deadline 90m "
        "--name other --ray-version 2.61.0 --time-zone UTC"
    )
    found = objects(output(capsys, *RAY, *words.split(), *ELSEWHERE))["RayCronJob"]
    job = found["spec"]["jobTemplate"]
    group = job["rayClusterSpec"]["workerGroupSpecs"][0]
    head, worker = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"], group["template"]["spec"]
    assert (found["metadata"]["name"], found["metadata"]["namespace"]) == ("heatline-other", "n")
    assert (found["spec"]["suspend"], found["spec"]["timeZone"]) == (True, "UTC")
    assert (job["backoffLimit"], job["ttlSecondsAfterFinished"]) == (6, 8)
    assert (job["activeDeadlineSeconds"], job["preRunningDeadlineSeconds"]) == (43200, 5400)
    assert job["rayClusterSpec"]["rayVersion"] == "2.61.0"
    assert (group["minReplicas"], group["maxReplicas"]) == (2, 5)
    assert worker["containers"][0]["resources"]["limits"] == {"cpu": 7, "memory": "9Gi", "nvidia.com/gpu": 2}
    assert head["containers"][0]["resources"]["limits"] == {"cpu": 3, "memory": "4Gi"}
    assert worker["serviceAccountName"] == head["serviceAccountName"] == "a"
    assert worker["tolerations"] == [{"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute"}]
    assert worker["nodeSelector"] == {"x/y": "z"}
    assert worker["containers"][0]["envFrom"] == [{"secretRef": {"name": "s"}}]
    for pod in (head, worker):
        assert {"name": "A", "value": "b=c"} in pod["containers"][0]["env"]
        assert pod["imagePullSecrets"] == [{"name": "p"}]
    assert worker["containers"][0]["volumeMounts"] == [{"name": "volume-0", "mountPath": "/d", "readOnly": False}]


def test_a_pod_is_tried_again_where_a_ray_job_is_not(capsys: Capture) -> None:
    pod = objects(output(capsys, *POD, *ELSEWHERE))["CronJob"]["spec"]["jobTemplate"]["spec"]
    assert pod["backoffLimit"] == 3
    ray = objects(output(capsys, *RAY, *ELSEWHERE))["RayCronJob"]["spec"]["jobTemplate"]
    assert ray["backoffLimit"] == 0


def test_a_crontab_line_runs_from_here_with_the_same_words(here: Path, capsys: Capture) -> None:
    (here / "mine.yaml").write_text("executor: local\n")
    line = output(capsys, "--target", "cron", *CRON, "--profile", "mine.yaml", "--set", "name=a", "--set", "seed=3")
    assert line == (
        f"0 3 * * 1 cd {here} && /opt/bin/heatline run quickstart --profile {here}/mine.yaml --set name=a --set seed=3 "
        f">> {here}/heatline-a.log 2>&1 # heatline schedule heatline-a\n"
    )


def test_a_spec_file_is_named_by_its_whole_path(here: Path, capsys: Capture) -> None:
    assert main(["init", "specs.yaml"]) == 0
    capsys.readouterr()
    assert main(["schedule", "specs.yaml", "--target", "cron", *CRON]) == 0
    assert f"/opt/bin/heatline run {here}/specs.yaml >>" in capsys.readouterr().out


def test_units_are_printed_with_their_names(here: Path, capsys: Capture) -> None:
    text = output(capsys, "--target", "systemd", *CRON, "--time-zone", "Europe/Berlin")
    service, timer = text.split("\n# heatline-quickstart.timer\n")
    assert service.startswith("# heatline-quickstart.service\n[Unit]\n")
    assert f"WorkingDirectory={here}\nExecStart=/opt/bin/heatline run quickstart\n" in service
    assert "OnCalendar=Mon *-*-* 03:00:00 Europe/Berlin\n" in timer


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (("--target", "systemd", *CRON), ["heatline-quickstart.service", "heatline-quickstart.timer"]),
        (("--target", "cron", *CRON), ["heatline-quickstart.crontab"]),
        ((*RAY, *ELSEWHERE), ["heatline-quickstart.yaml"]),
    ],
)
def test_files_are_written_into_a_folder(
    arguments: tuple[str, ...], files: list[str], here: Path, capsys: Capture
) -> None:
    said = output(capsys, *arguments, "--write", "new/folder")
    assert sorted(file.name for file in (here / "new" / "folder").iterdir()) == files
    wrote, *further = said.splitlines()
    assert wrote == f"wrote {' and '.join(f'new/folder/{file}' for file in files)}"
    assert [line.split()[-1] for line in further] == [file for file in files if file.endswith(".timer")]
    texts = [(here / "new" / "folder" / file).read_text() for file in files]
    printed = output(capsys, *arguments)
    assert all(text in printed for text in texts)


def test_installing_says_what_it_did_and_when_it_runs(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    lines: list[str] = []

    def install(name: str, line: str) -> str:
        lines.append(line)
        return "added"

    monkeypatch.setattr("jobs.schedule.install_line", install)
    said = output(capsys, "--target", "cron", "--install", "--cron", "59 23 31 12 *")
    assert lines[0].startswith("59 23 31 12 * cd ")
    assert said.startswith("heatline-quickstart: added to your crontab; next run ")
    assert "-12-31 23:59; cron skips times at which this machine is off" in said
    assert said.endswith("; remove it with crontab -e\n")
    assert said.count("\n") == 1


def test_installing_a_timer_says_how_to_keep_and_remove_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("jobs.schedule.install_units", lambda name, service, timer: here)
    said = output(capsys, "--target", "systemd", "--install", "--cron", "59 23 31 12 *", "--time-zone", "UTC")
    assert said.startswith(f"heatline-quickstart.timer: started from {here}; next run ")
    assert "-12-31 23:59 UTC; " in said
    assert "loginctl enable-linger, and makes up for a time that it missed" in said
    assert said.endswith("systemctl --user disable --now heatline-quickstart.timer\n")


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        ((), "Missing option '--target'"),
        (("--target", "cron"), "Missing option '--cron'"),
        (("--target", "cron", "--cron", "0 3 * *"), "--cron '0 3 * *': expected five fields"),
        (("--target", "cron", *CRON, "--gpus", "1"), "--gpus goes with --target kuberay or kubernetes alone"),
        ((*POD, "--workers", "3"), "--workers goes with --target kuberay alone"),
        (("--target", "cron", *CRON, "--time-zone", "UTC"), "--time-zone: crond runs in the machine's time zone"),
        ((*RAY, "--time-zone", "Mars"), "--time-zone: no time zone 'Mars'"),
        ((*RAY, "--time-zone", "../etc"), "--time-zone: no time zone '../etc'"),
        (("--target", "kuberay", *CRON), "Missing option '--image'; cluster/Dockerfile builds one"),
        ((*RAY, "--kind", "rayjob"), "--kind rayjob knows no time"),
        ((*POD, "--start-deadline", "1h"), "--start-deadline goes with --target kuberay alone"),
        (
            ("--target", "systemd", *CRON, "--deadline", "1h"),
            "--deadline goes with --target kuberay or kubernetes alone",
        ),
        ((*RAY, "--deadline", "0"), "'--deadline': expected hours, or a duration such as 90m, 12h or 2d, got '0'"),
        ((*RAY, "--deadline", "none"), "'--deadline': expected hours, or a duration"),
        ((*RAY, *ELSEWHERE, "--deadline", "99999d"), "--deadline: expected a whole number from 1 to 2147483647"),
        (
            (*RAY, "--start-deadline", "soon"),
            "'--start-deadline': expected hours, a duration such as 90m, 12h or 2d, or",
        ),
        (
            ("--target", "kuberay", "--kind", "raycluster", "--image", "x", "--deadline", "1h"),
            "--deadline is for runs, and --kind raycluster is none",
        ),
        ((*RAY, "--install"), "--install does not go with this; take: | kubectl apply -f -"),
        (("--target", "cron", *CRON, "--install", "--write", "x"), "--install does not go with this"),
        ((*RAY, "--volume", "data"), "'--volume': expected CLAIM:FOLDER or CLAIM:FOLDER:ro"),
        ((*RAY, "--volume", "Data:/x"), "'--volume': expected CLAIM:FOLDER or CLAIM:FOLDER:ro"),
        ((*RAY, "--volume", "a:/x", "--volume", "b:/x"), "--volume: volumes need folders that are not taken, got /x"),
        ((*RAY, "--toleration", "a:Sometimes"), "'--toleration': expected KEY, KEY=VALUE or KEY=VALUE:EFFECT"),
        ((*RAY, "--node-selector", "a"), "'--node-selector': expected KEY=VALUE"),
        ((*RAY, "--workers", "many"), "'--workers': expected a number, or the least and the most"),
        ((*RAY, "--workers", "5-2"), "--workers: expected the least before the most, got 5-2"),
        ((*RAY, "--workers", "0"), "--workers: expected a whole number of at least 1, got 0"),
        ((*RAY, "--head-memory", "8"), "--head-memory: expected an amount with its unit, such as 16Gi, got '8'"),
        ((*RAY, "--memory", "8"), "--memory: expected an amount with its unit"),
        ((*RAY, "--image", "a b"), "--image: expected an image"),
        (RAY, ": output: '"),
        (
            (*RAY, "--volume", "c:/out:ro", "--set", "output=/out"),
            "--set output=/out: output: '/out' is a folder of this",
        ),
        ((*RAY, *ELSEWHERE, "--profile", "laptop"), "--profile: 'laptop' does not use the cluster; take cluster"),
        ((*RAY, *ELSEWHERE, "--profile", "cluster"), "asks for 2 CPU, 1 GPU a worker, the pods have 4 CPU, 16.0 GiB"),
        ((*POD, *ELSEWHERE, "--profile", "cluster-cpu"), "--profile: 'cluster-cpu' looks for a running Ray at 'auto'"),
        ((*RAY, *ELSEWHERE, "--profile", "clstr"), "no profile or file 'clstr'; did you mean 'cluster'?"),
        (("--target", "cron", *CRON, "--profile", "lptop"), "no profile or file 'lptop'; did you mean 'laptop'?"),
        (("--target", "cron", *CRON, "--set", "sed=1"), "--set sed=1: sed: unknown key; did you mean 'seed'?"),
    ],
)
def test_a_mistake_is_one_line_with_the_mend(arguments: tuple[str, ...], phrase: str, capsys: Capture) -> None:
    error = refusal(capsys, *arguments)
    assert phrase in error
    assert error.count("\n") == 1


def test_a_spec_that_is_too_large_for_a_plain_apply_says_what_to_do(here: Path, capsys: Capture) -> None:
    """Which keeps a copy of the object in an annotation, of 256 KiB at most."""
    assert main(["init", "a.yaml"]) == 0
    capsys.readouterr()
    small = output(capsys, *RAY, *ELSEWHERE)
    assert "kubectl apply -f FILE" in small.splitlines()[0]
    ids = "".join(f"  - digits/{number:060d}\n" for number in range(4_000))
    text = (here / "a.yaml").read_text().replace("  sample: 64 ", f"  ids:\n{ids}  limit: 64 ")
    (here / "a.yaml").write_text(text)
    capsys.readouterr()
    assert main(["schedule", "a.yaml", *RAY, *ELSEWHERE]) == 0
    assert "kubectl apply --server-side -f FILE" in capsys.readouterr().out.splitlines()[0]


def test_a_spec_that_is_too_large_for_a_config_map_is_refused(here: Path, capsys: Capture) -> None:
    assert main(["init", "a.yaml"]) == 0
    ids = "".join(f"  - digits/{number:060d}\n" for number in range(14_500))
    text = (here / "a.yaml").read_text().replace("  sample: 64 ", f"  ids:\n{ids}  limit: 64 ")
    (here / "a.yaml").write_text(text)
    capsys.readouterr()
    assert main(["schedule", "a.yaml", *RAY, *ELSEWHERE]) == 2
    assert "and a ConfigMap holds 1,000,000; shorten its list of ids" in capsys.readouterr().err


def test_without_an_installed_command_nothing_is_scheduled(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.setattr("sys.executable", str(here / "python"))
    monkeypatch.setattr("sys.argv", ["pytest"])
    assert "install it (pip install .) before scheduling it" in refusal(capsys, "--target", "cron", *CRON)
