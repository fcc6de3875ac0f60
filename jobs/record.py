"""The record of a run: one JSON file under `runs/`, written at the start and again at the end."""

from __future__ import annotations

import json
import os
import platform
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cluster.profile import Profile
from jobs.plan import Plan
from jobs.spec import JobSpec
from jobs.tally import Tally
from pipeline.credential import without_credentials
from pipeline.data import Dataset
from pipeline.plain_text import plain_line
from pipeline.stages.summarise import Summary
from pipeline.stages.worker import Report
from pipeline.store import Output

# What a repeated run says for itself, whatever the run before it says.
_OWN = ("format", "name", "run", "started")

SUBMISSION_VARIABLE = "HEATLINE_SUBMISSION"
"""Environment variable with the id of the submitted job that this process is; see `jobs.submitted`."""

PACKAGES = ("heatline", "torch", "torchvision", "ray", "pyarrow", "numpy", "scikit-image")


@dataclass
class RunRecord:
    """What a run was asked, did and found. Grows while the run goes on.

    Attributes:
        name: `<time>-<spec's name>`, the record's file under `runs/`.
        started: when the run began.
        facts: what is fixed at the start: spec, seed, data set, versions, variants.
        tally: counts by stage.
        seconds: computing time by variant, this run's and what earlier ones noted.
        samples: positions computed by variant, likewise.
        done: units committed by this run.
        started_units: units that this run handed out.
        elsewhere: units that another run of the output committed meanwhile.
    """

    name: str
    started: datetime
    facts: dict[str, Any]
    tally: Tally
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    samples: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    done: int = 0
    started_units: int = 0
    elsewhere: int = 0

    def note(self, report: Report) -> None:
        """A unit was committed."""
        self.done += 1
        self.seconds[report.unit.variant] += report.compute_seconds
        self.samples[report.unit.variant] += len(report.unit)

    def write(
        self,
        output: Output,
        plan: Plan,
        status: str,
        *,
        failures: int = 0,
        summary: Iterable[Summary] = (),
        reason: str = "",
    ) -> None:
        """Put the record as it stands now.

        Args:
            output: where.
            plan: the run's plan.
            status: `running`, `done`, `failed` or `stopped`.
            failures: samples that failed, over all stages.
            summary: the measures.
            reason: why it stopped, or what cannot be read.
        """
        finished = datetime.now(UTC)
        record = {
            **self.facts,
            "status": status,
            "reason": plain_line(without_credentials(reason)),
            "finished": None if status == "running" else finished.isoformat(timespec="seconds"),
            "seconds": round((finished - self.started).total_seconds(), 3),
            "units": {
                "done": self.done,
                "elsewhere": self.elsewhere,
                "reused": sum(len(parts) for parts in plan.committed.values()),
                "lost": len(plan.queue.lost),
                "stranded": len(plan.queue.stranded),
            },
            "stages": [asdict(stage) for stage in self.tally.stages()],
            "failures": failures,
            "lost": [
                {"variant": unit.variant, "start": unit.start, "stop": unit.stop, "reason": reason}
                for unit, reason in sorted(plan.queue.lost.items())
            ],
            "timings": self._timings(plan),
            "summary": [one.as_dict() for one in summary],
        }
        output.write_bytes(f"runs/{self.name}.json", json.dumps(record, indent=1).encode())

    def write_repeat(self, output: Output, plan: Plan, same: Mapping[str, Any]) -> None:
        """Put a small record in place of a whole one: everything was committed, and an earlier run found the same.

        Args:
            output: where.
            plan: the run's plan, with nothing to do.
            same: the record of that run; `Output.run` takes from it what this one leaves out.
        """
        finished = datetime.now(UTC)
        record = {
            **{key: value for key, value in self.facts.items() if same.get(key) != value or key in _OWN},
            "same_as": same.get("same_as") or same["run"],
            "status": "done",
            "finished": finished.isoformat(timespec="seconds"),
            "seconds": round((finished - self.started).total_seconds(), 3),
            "units": {
                "done": 0,
                "reused": sum(len(parts) for parts in plan.committed.values()),
                "lost": 0,
                "stranded": 0,
            },
            "stages": [asdict(stage) for stage in self.tally.stages()],
        }
        output.write_bytes(f"runs/{self.name}.json", json.dumps(record, indent=1).encode())

    def seconds_since(self) -> float:
        """Seconds since the run began."""
        return (datetime.now(UTC) - self.started).total_seconds()

    def _timings(self, plan: Plan) -> list[dict[str, Any]]:
        return [
            {
                "path": path,
                "model": variant.model,
                "method": variant.method,
                "metric": variant.metric,
                "stage": variant.stage,
                "samples": self.samples[path],
                "seconds": round(self.seconds[path], 3),
                "forwards": variant.cost.forwards,
                "backwards": variant.cost.backwards,
            }
            for path, variant in plan.job.variants.items()
            if self.samples.get(path)
        ]


def new_record(
    spec: JobSpec,
    plan: Plan,
    dataset: Dataset,
    profile: Profile,
    earlier: list[dict[str, Any]],
    taken: Collection[str] = (),
) -> RunRecord:
    """The record of a run that begins now.

    Args:
        spec: the spec.
        plan: its plan.
        dataset: the selected samples.
        profile: where it runs.
        earlier: records of the output, oldest first, whose timings of the same variants are carried on.
        taken: names of runs that there are.
    """
    started = datetime.now(UTC)
    while _run_name(started, spec.name) in taken:
        # A clock that moves in steps, or back: a run never writes over the record of another.
        started += timedelta(microseconds=1)
    facts = {
        "format": 1,
        "name": spec.name,
        "run": _run_name(started, spec.name),
        "started": started.isoformat(timespec="seconds"),
        "submission": os.environ.get(SUBMISSION_VARIABLE),
        "seed": spec.seed,
        "spec": spec.model_dump(mode="json"),
        "dataset": spec.dataset.model_dump(mode="json"),
        "index": plan.job.index,
        "dataset_fingerprint": dataset.fingerprint,
        "class_names": list(dataset.class_names) if dataset.class_names and len(dataset.class_names) <= 1000 else None,
        "samples": len(dataset),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "profile": profile.model_dump(mode="json"),
        "variants": [
            {
                "path": path,
                "stage": variant.stage,
                "model": variant.model,
                "method": variant.method,
                "metric": variant.metric,
                "split": variant.split,
                "total": variant.total,
                "fingerprint": variant.fingerprint,
                "cell": variant.cell.model_dump(mode="json") if variant.cell else None,
            }
            for path, variant in plan.job.variants.items()
        ],
    }
    record = RunRecord(str(facts["run"]), started, facts, Tally(plan))
    for row in (row for one in earlier for row in one.get("timings", [])):
        if plan.committed.get(row.get("path")):
            record.seconds[row["path"]] = row["seconds"]
            record.samples[row["path"]] = row["samples"]
    return record


def _run_name(started: datetime, name: str) -> str:
    return f"{started:%Y%m%dT%H%M%S}.{started.microsecond:06d}Z-{name}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
