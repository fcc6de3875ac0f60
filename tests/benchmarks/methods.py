"""What a method's wall time is of the time that its passes through the model take.

    python tests/benchmarks/methods.py --weights FILE --images FOLDER gradient rise …

The model's own forward and backward are timed in the same run, between the methods, on the same images and with as
many images a pass. The ratio is wall time ÷ (forwards × forward time + backwards × backward time), with the passes
counted, not declared; 1 is the limit.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
import torch
from pydantic import TypeAdapter
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Setting
from pipeline.methods import METHODS, Method
from pipeline.models import Classifier, ModelConfig, load_classifier
from pipeline.models.pass_counter import counting
from pipeline.noise import Noise
from pipeline.stages.worker import use_full_precision

# Parameters that bring a method to some seconds an image; its ratio does not depend on how long it goes on.
SHORTER: dict[str, dict[str, Any]] = {
    "rise": {"masks": 256},
    "agi": {"classes": 4},
    "dynamic_ablation": {"iterations": 150},
    "extremal_perturbation": {"iterations": 40},
    "meaningful_perturbation": {"iterations": 40},
    "learned_propagation": {"iterations": 10},
    "prune_grad": {"percentile": 60},
    "prune_pgd": {"percentile": 60},
    "captum": {"attribution": "Saliency"},
}


@click.command()
@click.argument("names", nargs=-1)
@click.option("--model", "architecture", default="squeezenet1_0")
@click.option("--weights", default="random", help="A file, an enum or random.")
@click.option("--classes", default=1000)
@click.option("--size", default=224, help="Side of the images.")
@click.option("--count", default=8, help="Images in a batch.")
@click.option("--rows", default=8, help="Images a forward.")
@click.option("--repeats", default=3)
@click.option("--images", type=click.Path(exists=True), help="Folder of images; default: made-up ones.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu")
@click.option("--json", "as_json", is_flag=True)
def main(
    names: tuple[str, ...], architecture: str, weights: str, classes: int, size: int, count: int, rows: int,
    repeats: int, images: str | None, device: str, as_json: bool,
) -> None:  # fmt: skip
    """Print a line for each method: NAMES, or all."""
    use_full_precision()
    model = load_classifier(ModelConfig(name=architecture, weights=weights), classes=classes, device=device)
    model.rows = rows
    pixels = (read(Path(images), count, size) if images else made_up(count, size)).to(device)
    with torch.no_grad():
        targets = torch.cat([model(piece).argmax(1) for piece in torch.split(pixels, rows)])
    batch = Batch(pixels, targets, tuple(map(str, range(count))))
    if not as_json:
        print(f"{architecture}, {size} px, {count} images, {rows} a pass, {hardware(model.device)}")
        print(f"{'method':26}{'F':>9}{'B':>9}{'seconds':>10}{'ratio':>8}   F and B time, ms an image")
    rows_found = []
    for name in names or [
        kind.model_fields["name"].default for kind in METHODS if kind.model_fields["name"].default != "random"
    ]:
        method: AttributionMethod = TypeAdapter(Method).validate_python({"name": name, **SHORTER.get(name, {})})
        if (trouble := method.objection(model, Setting(model.classes, size, size))) is not None:
            print(f"{name:26}{trouble}", file=sys.stderr)
            continue
        found = measure(model, method, batch, repeats)
        rows_found.append({"method": name, **found})
        if not as_json:
            print(
                f"{name:26}{found['forwards']:9.1f}{found['backwards']:9.1f}{found['seconds']:10.3f}{found['ratio']:8.2f}"
                f"   {1000 * found['forward_seconds']:.2f} {1000 * found['backward_seconds']:.2f}",
                flush=True,
            )
    if as_json:
        print(json.dumps(rows_found))


def measure(model: Classifier, method: AttributionMethod, batch: Batch, repeats: int) -> dict[str, float]:
    """Seconds, passes and ratio, an image; the repeat with the median ratio, each between two timings of the model."""
    with counting(model) as counts:
        method.explain(model, batch, Noise())
    forwards, backwards = counts.forwards / len(batch), counts.backwards / len(batch)
    found: list[dict[str, float]] = []
    for _ in range(repeats):
        before = pace(model, batch)
        began = clock(model)
        method.explain(model, batch, Noise())
        seconds = (clock(model) - began) / len(batch)
        after = pace(model, batch)
        forward, backward = ((a + b) / 2 for a, b in zip(before, after, strict=True))
        found.append(
            {
                "forwards": forwards,
                "backwards": backwards,
                "seconds": seconds,
                "forward_seconds": forward,
                "backward_seconds": backward,
                "ratio": seconds / (forwards * forward + backwards * backward),
            }
        )
    return sorted(found, key=lambda one: one["ratio"])[len(found) // 2]


def pace(model: Classifier, batch: Batch) -> tuple[float, float]:
    """Seconds an image of a forward alone, and of what a backward to the pixels adds; the better of two."""
    pieces = torch.split(batch.images, model.rows)
    forward, both = [], []
    for _ in range(2):
        began = clock(model)
        with torch.no_grad():
            for piece in pieces:
                model(piece)
        forward.append(clock(model) - began)
        began = clock(model)
        for piece, target in zip(pieces, torch.split(batch.targets, model.rows), strict=True):
            pixels = piece.detach().requires_grad_(True)
            torch.autograd.grad(model(pixels).gather(1, target[:, None]).sum(), pixels)
        both.append(clock(model) - began)
    return min(forward) / len(batch), (min(both) - min(forward)) / len(batch)


def clock(model: Classifier) -> float:
    """Seconds; on a GPU, after it has finished what it was given."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def hardware(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"


def made_up(count: int, size: int) -> Tensor:
    """Smooth images with a grain."""
    ids = [str(number) for number in range(count)]
    smooth = torch.nn.functional.interpolate(Noise().uniform("image", ids, (3, 8, 8)), size=size, mode="bilinear")
    return 0.8 * smooth + 0.2 * Noise().uniform("grain", ids, (3, size, size))


def read(folder: Path, count: int, size: int) -> Tensor:
    """The first images of a folder, resized and cropped."""
    from pipeline.data import Dataset, build_index
    from pipeline.data.imagefolder import ImageFolder

    config = ImageFolder(path=str(folder), resize=round(size * 8 / 7), crop=size, limit=count)
    shard = Dataset(config, build_index(config), 0).load(range(count))
    return shard.images.float() / 255


if __name__ == "__main__":
    main()
