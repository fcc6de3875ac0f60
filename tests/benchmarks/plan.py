"""A plan of 1.28 million images × 20 methods, and a resume of it with 99 % done: seconds and memory.

Run: `python tests/benchmarks/plan.py`. Nothing is explained: the list of images and the markers of what is done are
generated, both as a run leaves them. The plan is all that `heatline plan` does, with every check of the model
(ResNet-50, drawn weights). The resume is all that `heatline run` does until the first unit is handed to a worker of
this process; a Ray that has to be started first comes on top. Each is measured in a process of its own, its imports
left out.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from rich.console import Console

import jobs.run
from cluster.executor import Watch, nothing
from cluster.profile import Profile
from cluster.queue import UnitQueue
from jobs.plan import index_name
from jobs.prepare import prepare
from jobs.profile import load_profile
from jobs.progress import Progress
from jobs.spec import JobSpec, load_spec
from pipeline.part import MARKERS, Part, Receipt
from pipeline.stages.variant import Job
from pipeline.stages.worker import Worker
from pipeline.store import open_output

IMAGES = 1_281_167
GOALS = {"plan": "goal 10 s, 1,500 MB", "resume": "goal 15 s"}
METHODS = [
    "random", "gradient", "gradient_x_input", "integrated_gradients", "smoothgrad", "smoothgrad_squared", "deeplift",
    "lrp_epsilon", "grad_cam", "guided_backprop", "guided_grad_cam", "rectgrad", "agi", "dynamic_ablation",
    "learned_propagation", "prune_grad", "prune_pgd", "rise", "occlusion", "full_grad",
]  # fmt: skip


def write_job(folder: Path, metrics: list[str]) -> Path:
    """A spec with its data set's list of images, and folders of classes without any image."""
    for number in range(1000):
        (folder / "images" / f"n{number:08d}").mkdir(parents=True)
    spec = {
        "version": 1,
        "name": "large",
        "output": str(folder / "out"),
        "dataset": {"source": "imagenet", "path": str(folder / "images")},
        "models": [{"name": "resnet50", "weights": "random"}],
        "methods": METHODS,
        "metrics": metrics,
    }
    path = folder / "large.yaml"
    path.write_text(yaml.safe_dump(spec))
    output = open_output(folder / "out", create=True)
    output.cached_table(index_name(load_spec(str(path)).dataset), _index)
    return path


def _index() -> pa.Table:
    labels = np.sort(np.arange(IMAGES) % 1000)
    names = [f"n{label:08d}" for label in range(1000)]
    ids = pa.array([f"{names[label]}/{names[label]}_{number}.JPEG" for number, label in enumerate(labels)])
    table = pa.table({"id": ids, "label": labels, "bytes": np.full(IMAGES, 110_000)})
    facts = {"classes": 1000, "class_names": names, "height": 224, "width": 224, "digest": "0" * 16}
    return table.replace_schema_metadata({name: json.dumps(value) for name, value in facts.items()})


def write_markers(spec: JobSpec, profile: Profile, share: float) -> int:
    """Markers of a share of the units, drawn, as if they were committed; how many units are left."""
    output, _, plan = prepare(spec, profile)
    draw = np.random.Generator(np.random.Philox(0))
    left = 0
    for path in plan.job.variants:
        folder = Path(output.uri) / path / MARKERS
        folder.mkdir(parents=True, exist_ok=True)
        for unit in plan.queue.units(path):
            if draw.random() < share:
                receipt = Receipt(unit.start, unit.stop, len(unit), failures=0, size=0, seconds=0.0)
                marker = Part(unit.start, unit.stop, "0" * 16).marker
                (folder / marker).write_text(json.dumps(asdict(receipt)))
            else:
                left += 1
    return left


class _StartedError(Exception):
    """The first unit was handed out."""


class _FirstUnit:
    """An executor that has a worker, and ends when it would hand it a unit."""

    def run(self, job: Job, queue: UnitQueue, watch: Watch, begin: Callable[[], None] = nothing) -> None:
        """See `Executor`."""
        del watch, begin
        Worker(job)
        if queue.take(0) is None:
            raise RuntimeError("no unit is ready")
        raise _StartedError


def measure(step: str, spec: JobSpec, profile: Profile) -> None:
    """One figure, in this process."""
    began, used, units = time.perf_counter(), time.process_time(), ""
    if step == "plan":
        plan = prepare(spec, profile)[2]
        units = f" ({len(plan.queue):,} units of {len(plan.job.variants)} variants)"
    else:
        jobs.run.make_executor = lambda profile: _FirstUnit()
        with suppress(_StartedError):
            jobs.run.run(spec, profile, Progress(Console(quiet=True)))
    seconds, used = time.perf_counter() - began, time.process_time() - used
    # Of the whole process, in kB on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"{step}{units}: {seconds:.1f} s, {used:.1f} s of a core, {peak:,.0f} MB at most ({GOALS[step]})", flush=True)


def main() -> None:
    """Print the figures beside the goals."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--metrics", nargs="*", default=[], help="metrics of every method, such as deletion mar")
    parser.add_argument("--profile", default="node", help="decides how large units are")
    parser.add_argument("--share", type=float, default=0.99, help="of the units that are committed before the resume")
    parser.add_argument(
        "--step", choices=list(GOALS), help="measure one figure of a job that is there; for this script"
    )
    parser.add_argument("--spec", help="the job; for this script")
    arguments = parser.parse_args()
    profile = load_profile(arguments.profile)
    if arguments.step:
        measure(arguments.step, load_spec(arguments.spec), profile)
        return
    with tempfile.TemporaryDirectory() as name:
        spec = write_job(Path(name), arguments.metrics)
        again = [sys.executable, __file__, "--profile", arguments.profile, "--spec", str(spec), "--step"]
        subprocess.run([*again, "plan"], check=True)
        left = write_markers(load_spec(str(spec)), profile, arguments.share)
        print(f"{left:,} units left")
        subprocess.run([*again, "resume"], check=True)


if __name__ == "__main__":
    main()
