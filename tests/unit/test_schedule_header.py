"""What a manifest of `heatline schedule` says about itself."""

from __future__ import annotations

import pytest

from jobs.cli import main

Capture = pytest.CaptureFixture[str]
GIVEN = ("--cron", "0 3 * * 1", "--image", "heatline:1", "--set", "output=s3://bucket/x")
POD = ("--target", "kubernetes", *GIVEN)
RAY = ("--target", "kuberay", *GIVEN)


def output(capture: Capture, *arguments: str) -> str:
    assert main(["schedule", "quickstart", *arguments]) == 0
    return capture.readouterr().out


def test_the_header_tells_what_becomes_of_a_finished_run(capsys: Capture) -> None:
    text = output(capsys, *RAY, "--keep-seconds", "7200", "--namespace", "n")
    assert "# 2 h after the end the Ray cluster is deleted." in text
    assert "#   kubectl get rayjobs --namespace n --selector ray.io/cronjob-name=heatline-quickstart\n" in text
    pod = output(capsys, *POD)
    assert "# Of the last 3 runs that succeeded and the last 3 that failed the pod stays with the log" in pod
    pod = output(capsys, *POD, "--keep-seconds", "604800")
    assert "# For 7 d after the end, and 3 runs of either outcome, the pod stays with the log" in pod


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (RAY, ["No run is ended for taking long (--deadline): a stuck one", "after 6 h fails."]),
        ((*RAY, "--start-deadline", "none"), ["No run is ended for taking long", "it is old and Initializing there."]),
        ((*RAY, "--deadline", "12h"), ["not done after 12 h is ended (--deadline).", "after 6 h fails."]),
        (POD, ["or for waiting for a node (--deadline): a stuck one is old there."]),
        ((*POD, "--deadline", "90m"), ["not done after 90 min is ended, and its pod and log go"]),
    ],
)
def test_the_header_tells_what_ends_a_stuck_run_or_how_it_is_found(
    arguments: tuple[str, ...], said: list[str], capsys: Capture
) -> None:
    text = output(capsys, *arguments)
    assert [one for one in said if one not in text] == []


def test_the_header_tells_that_runs_overlap_and_which_kuberay_it_is_for(capsys: Capture) -> None:
    text = output(capsys, *RAY, "--kind", "cronjob")
    assert "\n# KubeRay 1.6 or newer; with --start-deadline none 1.5.1.\n" in text
    assert "a run starts whether or not the one before has ended" in text
    older = output(capsys, *RAY, "--kind", "cronjob", "--start-deadline", "none")
    assert "\n# KubeRay 1.5.1 or newer.\n" in older and "preRunningDeadlineSeconds" not in older
