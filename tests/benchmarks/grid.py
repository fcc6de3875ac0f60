"""The wall clock of a grid of trainings against the sum of its parts.

Run: `python tests/benchmarks/grid.py`. Generated images, the arms clean and random. Maps, ranks and statistics are made
beforehand; what is timed runs from the first cell handed out to the last one committed, with as many cells at a time as
workers fit. The parts are the seconds that each training took by its own account, of which every worker has its share:
at most 1.1 × is the goal. Beyond them come a worker's first opening of the data, reading and masking images and ranks,
committing, and the driver. Where cells are no multiple of the workers, some workers are idle at the end: that counts.

On a machine with other work both sides are longer, and the ratio says less; processor seconds of this process are told
for `--here`, which trains one cell after the other in it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from overhead import write_images

from cluster import make_executor
from cluster.executor import Event
from cluster.profile import Profile
from jobs.plan import Plan
from jobs.prepare import prepare
from jobs.spec import load_spec
from pipeline.retrain.grid import read_grid
from pipeline.store import Output

GOAL = 1.1
SPEC = """
version: 1
name: grid
output: {folder}/out
dataset: {{source: parquet, path: {folder}/test.parquet, train_path: {folder}/train.parquet}}
models: [{{name: mnist_cnn2, weights: random, classes: 3}}]
methods: [random]
retrain:
  methods: [random]
  fractions: {fractions}
  repeats: {repeats}
  model: {model}
  epochs: {epochs}
"""


class Clock:
    """When cells were handed out and committed, and how many were under way at a time."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.most = self._now = 0

    def watch(self, event: Event) -> None:
        """See `Watch`."""
        if event.kind in ("again", "lost"):
            raise RuntimeError(event.reason)
        if event.kind == "started":
            self.began = self.began or time.perf_counter()
            self._now += 1
            self.most = max(self.most, self._now)
        elif event.kind == "done":
            self.ended = time.perf_counter()
            self._now -= 1


def plan_of(spec: Path, profile: Profile, *, cells: bool) -> tuple[Output, Plan]:
    """What is left to do: all but the cells, or what is left beside them."""
    output, _, plan = prepare(load_spec(spec), profile, create=True)
    for path, variant in plan.job.variants.items():
        if variant.stage == "retrain" and not cells:
            for unit in list(plan.queue.units(path)):
                plan.queue.lose(unit, "later")
    return output, plan


def main() -> None:
    """Print both sides and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="to train on; a fifth as many are tested on")
    parser.add_argument("--size", type=int, default=32, help="of the images, in pixels")
    parser.add_argument("--model", default="cifar_cnn4")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.1, 0.3, 0.5, 0.7, 0.9])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--cpus", type=float, default=1.0, help="of a worker")
    parser.add_argument("--gpus", type=float, default=0.0, help="of a worker")
    parser.add_argument("--workers", type=int, help="default: as many as fit")
    parser.add_argument("--here", action="store_true", help="one cell after the other in this process")
    arguments = parser.parse_args()
    profile = Profile(
        executor="local" if arguments.here else "ray",
        workers=arguments.workers,
        cpus_per_worker=arguments.cpus,
        gpus_per_worker=arguments.gpus,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "train.parquet", arguments.images, arguments.size)
        write_images(folder / "test.parquet", arguments.images // 5, arguments.size)
        spec = folder / "grid.yaml"
        spec.write_text(SPEC.format(folder=folder, **vars(arguments)))
        _, plan = plan_of(spec, profile, cells=False)
        make_executor(Profile(executor="local")).run(plan.job, plan.queue, Clock().watch)
        output, plan = plan_of(spec, profile, cells=True)
        clock, processor = Clock(), time.process_time()
        make_executor(profile).run(plan.job, plan.queue, clock.watch)
        processor = time.process_time() - processor
        seconds = read_grid(output, plan.job.variants.values()).rows["seconds"].to_pylist()
    wall, parts = clock.ended - clock.began, sum(seconds) / clock.most
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(
        f"{len(seconds)} cells of {arguments.model}, {arguments.images:,} images of {arguments.size} × "
        f"{arguments.size}, {arguments.epochs} epochs; {clock.most} at a time, {os.cpu_count()} cores, load {load:.1f}"
    )
    print(f"wall clock {wall:.2f} s, sum of the parts {parts:.2f} s: {wall / parts:.3f} × (goal at most {GOAL} ×)")
    if arguments.here:
        print(f"processor {processor:.2f} s of this process, for trainings of {sum(seconds):.2f} s by the wall clock")


if __name__ == "__main__":
    main()
