"""The job that is disturbed, in the forms in which it runs, and what was found of each fault."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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

Form = Literal["cluster", "submitted", "alone"]
"""How a job runs: on the cluster, by a driver here or as a submitted job; or all of it in the driver's process."""


class Laboratory:
    """Folders, specs and commands of jobs that are disturbed.

    Args:
        folder: for all of them; also holds the log of their runs.
        cluster: where they run.
        samples: images of a job.
    """

    def __init__(self, folder: Path, cluster: SmallCluster, samples: int) -> None:
        self.folder = folder
        self.cluster = cluster
        self.samples = samples

    @property
    def log(self) -> Path:
        """The log of all runs; the cluster's nodes know it as well, for submitted jobs."""
        return Path(os.environ["HEATLINE_LOG"])

    def lines(self, skip: int = 0) -> list[LogLine]:
        """What the log tells of units, without its first so many events."""
        return log_lines(self.log)[skip:]

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

    def undisturbed(self, spec: Path, form: Form = "cluster") -> float:
        """Run a job in peace; how long it took, in seconds.

        Raises:
            RuntimeError: it failed.
        """
        command = self.start(spec, form)
        expect(command, OK)
        return time.time() - command.began

    def compare(self, name: str, reference: str, failing: frozenset[int] = frozenset()) -> Difference:
        """A job's output against another's."""
        return difference(open_output(self.output(name)), open_output(self.output(reference)), failing)


def expect(command: Command, code: int, said: str = "", seconds: float = 900) -> None:
    """Wait for a command's end.

    Raises:
        RuntimeError: it ended with another code, without saying what it should, or with a traceback.
    """
    found = command.end(seconds)
    if found != code or said not in command.errors or "Traceback" in command.errors:
        raise RuntimeError(f"exit code {found}, expected {code} and '{said}': {command.errors[-2000:]}")


@dataclass
class Found:
    """What was found of one kind of fault.

    Attributes:
        fault: what was done.
        times: how often.
        in_flight: units that were lost with each, and computed again.
        committed: units that had been committed before, and were computed again all the same.
        differences: from the undisturbed output, one a job.
        failing: positions that the fault was to make fail.
        seconds: what each took to be made good: where the fault ended the run, from the same command to the next
            commit; else from the fault to the commit of the last unit that was lost.
    """

    fault: str
    times: int = 0
    in_flight: list[int] = field(default_factory=list)
    committed: int = 0
    differences: list[Difference] = field(default_factory=list)
    failing: frozenset[int] = frozenset()
    seconds: list[float] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        """Nothing lost, doubled or changed beyond rounding, nothing computed in vain, and no other sample failed."""
        return not self.committed and all(
            one.complete and one.largest <= ROUNDING and one.failed == self.failing for one in self.differences
        )

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        samples = sum(one.samples for one in self.differences)
        lost, doubled = (sum(getattr(one, key) for one in self.differences) for key in ("lost", "duplicated"))
        changed, largest = sum(one.changed for one in self.differences), max(one.largest for one in self.differences)
        parts = sum(one.other_parts for one in self.differences)
        bits = "to the bit" if not changed else f"{changed} of {samples} within {largest:.0e}"
        middle = f"{statistics.median(self.seconds):.1f} / {max(self.seconds):.1f}" if self.seconds else ""
        return {
            "fault": self.fault,
            "times": str(self.times),
            "units in flight lost": f"{sum(self.in_flight)} (at most {max(self.in_flight, default=0)})",
            "committed units computed again": str(self.committed),
            "samples": str(samples),
            "lost": str(lost),
            "twice": str(doubled),
            "failed": str(len(self.failing)) if self.fine else str(sorted(self.differences[0].failed)),
            "equal": bits if parts or changed else f"{bits}, same parts",
            "seconds to resume, median / most": middle,
        }

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "fault": self.fault, "times": self.times, "in_flight": self.in_flight, "committed_again": self.committed,
            "samples": sum(one.samples for one in self.differences),
            "lost": sum(one.lost for one in self.differences),
            "duplicated": sum(one.duplicated for one in self.differences),
            "changed": sum(one.changed for one in self.differences),
            "largest_difference": max((one.largest for one in self.differences), default=0.0),
            "failed": sorted(self.failing), "seconds": [round(one, 2) for one in self.seconds], "fine": self.fine,
        }  # fmt: skip


ROUNDING = 1e-5
"""Where units are cut otherwise than in the undisturbed run, forwards hold other images beside a sample."""


def table(found: list[Found]) -> str:
    """Findings as a table in Markdown."""
    rows = [one.cells() for one in found]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
