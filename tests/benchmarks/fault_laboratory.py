"""The job that is disturbed, in the forms in which it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from fault_cluster import SmallCluster
from fault_output import Difference, LogLine, difference, log_lines
from fault_run import Command, environment

from jobs.cli import OK
from pipeline.store import open_output

METHODS = [
    "random",
    "gradient",
    {"name": "integrated_gradients", "steps": 8},
    "grad_cam",
    {"name": "agi", "classes": 2, "steps": 3},
]
METRICS = [{"name": "deletion", "step": 64}, {"name": "insertion", "step": 64}, {"name": "mar", "grid": 16}]
PROFILE = {"rows": 16, "unit_passes": 3}

UNDISTURBED = "undisturbed"
"""Name of the job that others are held against."""

Form = Literal["cluster", "submitted", "alone"]
"""How a job runs: on the cluster, by a driver here or as a submitted job; or all of it in the driver's process."""


class Laboratory:
    """Folders, specs and commands of jobs that are disturbed.

    Args:
        folder: for all of them.
        cluster: where they run.
        samples: images of a job.
    """

    def __init__(self, folder: Path, cluster: SmallCluster, samples: int) -> None:
        self.folder = folder
        self.cluster = cluster
        self.samples = samples

    def lines(self, skip: int = 0) -> list[LogLine]:
        """What the log of all runs tells of units, without its first so many events.

        Submitted jobs write to it as well, since the cluster's nodes were started with the variable that names it.
        """
        return log_lines(Path(os.environ["HEATLINE_LOG"]))[skip:]

    def output(self, name: str) -> Path:
        """The output of the job of that name."""
        return self.folder / name

    def spec(self, name: str, **changes: object) -> Path:
        """A spec of the job, with changed keys."""
        spec = {
            "version": 1,
            "name": name,
            "output": str(self.output(name)),
            "dataset": {"source": "digits", "limit": self.samples},
            "models": [{"name": "mnist_cnn2", "weights": "random", "id": "network"}],
            "methods": METHODS,
            "metrics": METRICS,
            "report": {"samples": 2},
            **changes,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(spec))
        return path

    def start(self, spec: Path, form: Form = "cluster", **settings: object) -> Command:
        """Start a job, or go on with it.

        Args:
            spec: the job's.
            form: how it runs.
            settings: further keys of the profile.
        """
        where: Mapping[Form, dict[str, object]] = {
            "cluster": {"executor": "ray", "workers": 2, "address": self.cluster.address},
            "submitted": {"executor": "ray", "workers": 2},
            "alone": {"executor": "local", "in_flight": 2},
        }
        profile = spec.with_suffix(f".{form}.profile")
        profile.write_text(yaml.safe_dump({**PROFILE, **where[form], **settings}))
        words: list[str | Path] = ["run", spec, "--profile", profile]
        if form == "submitted":
            words = ["submit", spec, "--profile", profile, "--follow", "--address", self.cluster.dashboard]
        return Command(words, self.folder, environment())

    def run_undisturbed(self, spec: Path) -> float:
        """Run a job in peace, on the cluster; how long it took, in seconds.

        Raises:
            RuntimeError: it failed.
        """
        command = self.start(spec)
        expect(command, OK)
        return time.time() - command.began

    def compare(
        self, name: str, reference: str = UNDISTURBED, failing: frozenset[int] = frozenset(), address: str | None = None
    ) -> Difference:
        """A job's output, which may be at an address of its own, against another's."""
        return difference(open_output(address or self.output(name)), open_output(self.output(reference)), failing)


def expect(command: Command, code: int, said: str = "", seconds: float = 900) -> None:
    """Wait for a command's end.

    Raises:
        RuntimeError: it ended with another code, without saying what it should, or with a traceback.
        subprocess.TimeoutExpired: it did not end.
    """
    found = command.end(seconds)
    if found != code or said not in command.errors or "Traceback" in command.errors:
        raise RuntimeError(f"exit code {found}, expected {code} and '{said}': {command.errors[-2000:]}")
