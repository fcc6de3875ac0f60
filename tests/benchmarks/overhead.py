"""Images a second through decoding, actor and Arrow with a model that costs next to nothing.

Run: `python tests/benchmarks/overhead.py`. Generated data: JPEGs of 32 × 32 and 224 × 224 in parquet. Two stages:
`predict` (decode, actor, predictions) and `attribute` with the gradient (float32 maps on disk as well). Time runs from
the first unit handed out to the last one committed; Ray's start is not in it.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cluster import make_executor
from cluster.executor import Event
from cluster.profile import Profile
from jobs.prepare import prepare
from jobs.spec import load_spec

GOALS = {32: 8000, 224: 2000}
SPEC = """
version: 1
name: overhead
output: {output}
dataset: {{source: parquet, path: {data}}}
models: [{{name: "identity:build", weights: random, id: identity, classes: 3}}]
methods: [{method}]
"""


def write_images(path: Path, count: int, size: int) -> None:
    """Smooth images with a grain, about as hard for a JPEG as photographs are."""
    draw = np.random.Generator(np.random.Philox(0))
    encoded = []
    for small in draw.integers(0, 256, (256, 8, 8, 3), dtype=np.uint8):
        smooth = np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC), dtype=np.int16)
        grain = draw.integers(-12, 13, smooth.shape, dtype=np.int16)
        buffer = io.BytesIO()
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=75)
        encoded.append(buffer.getvalue())
    column = pa.array([encoded[row % 256] for row in range(count)], pa.binary())
    table = pa.table({"image": column, "label": np.arange(count) % 3})
    pq.write_table(table, path, row_group_size=1000 if size == 32 else 128)


def images_a_second(folder: Path, data: Path, method: str, stage: str, profile: Profile) -> float:
    """The rate of one stage, with what it reads done before."""
    spec = folder / "overhead.yaml"
    spec.write_text(SPEC.format(output=folder / "out", data=data, method=method))
    rate = 0.0
    for wanted in ("predict", "attribute"):
        _, _, plan = prepare(load_spec(spec), profile, create=True)
        if wanted == "predict":
            for unit in [one for one in plan.job.variants if plan.job.variants[one].stage != "predict"]:
                for left in list(plan.queue.units(unit)):
                    plan.queue.lose(left, "not now")
        moments: list[float] = []

        def watch(event: Event, moments: list[float] = moments) -> None:
            if event.kind in ("again", "lost"):
                raise RuntimeError(event.reason)
            moments.append(time.perf_counter())

        total = sum(
            len(one) for path in plan.job.variants for one in plan.queue.units(path) if one not in plan.queue.lost
        )
        make_executor(profile).run(plan.job, plan.queue, watch)
        if wanted == stage:
            rate = total / (moments[-1] - moments[0])
            break
    return rate


def main() -> None:
    """Print the rates beside the goals."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", type=int, default=60_000, help="images of 32 × 32")
    parser.add_argument("--large", type=int, default=24_000, help="images of 224 × 224; a quarter of them get maps")
    arguments = parser.parse_args()
    here = str(Path(__file__).parent)
    sys.path.insert(0, here)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    profile = Profile(rows=16, unit_passes=20_000)
    print(f"{os.cpu_count()} cores, actors of one core")
    for size, count in ((32, arguments.small), (224, arguments.large)):
        for stage in ("predict", "attribute"):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                # The maps of 224 × 224 take 200 kB each on disk.
                write_images(
                    folder / "data.parquet", count // 4 if (size, stage) == (224, "attribute") else count, size
                )
                rate = images_a_second(folder, folder / "data.parquet", "gradient", stage, profile)
            print(f"{size} × {size}, {stage}: {rate:,.0f} images a second (goal {GOALS[size]:,})", flush=True)


if __name__ == "__main__":
    main()
