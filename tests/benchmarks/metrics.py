"""What the metrics' wall time is of the model's, how much an adaptive curve saves, and Quantus beside them.

    python tests/benchmarks/metrics.py --weights FILE --images FOLDER

Maps are gradient × input, one channel. Three tables: (1) deletion and insertion, wall time ÷ (forwards × the model's
own forward time in the same run); (2) adaptive curves: forwards and error of the area against every point; (3) Quantus'
pixel flipping and our curve of the same definition: black, the same pixels a step, the same images a forward.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from methods import clock, hardware, made_up, pace, read
from torch import Tensor

from pipeline.contracts import Batch
from pipeline.methods import GradientXInput
from pipeline.metrics import Deletion, Insertion, PerturbationCurve
from pipeline.models import Classifier, ModelConfig, load_classifier
from pipeline.models.pass_counter import counting
from pipeline.noise import Noise
from pipeline.reduction import reduce_channels
from pipeline.stages.worker import use_full_precision


@click.command()
@click.option("--model", "architecture", default="squeezenet1_0")
@click.option("--weights", default="random", help="A file, an enum or random.")
@click.option("--classes", default=1000)
@click.option("--size", default=224, help="Side of the images.")
@click.option("--count", default=8, help="Images.")
@click.option("--rows", default=8, help="Images a forward.")
@click.option("--images", type=click.Path(exists=True), help="Folder of images; default: made-up ones.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu")
@click.option("--quantus/--no-quantus", "with_quantus", default=True)
def main(
    architecture: str, weights: str, classes: int, size: int, count: int, rows: int, images: str | None, device: str,
    with_quantus: bool,
) -> None:  # fmt: skip
    """Print the tables."""
    use_full_precision()
    model = load_classifier(ModelConfig(name=architecture, weights=weights), classes=classes, device=device)
    model.rows = rows
    pixels = (read(Path(images), count, size) if images else made_up(count, size)).to(device)
    with torch.no_grad():
        targets = torch.cat([model(piece).argmax(1) for piece in torch.split(pixels, rows)])
    batch = Batch(pixels, targets, tuple(map(str, range(count))))
    method = GradientXInput()
    maps = reduce_channels(method(model, batch, Noise()), method.reduction)
    print(f"{architecture}, {size} px, {count} images, {rows} a forward, {hardware(model.device)}")
    ratio(model, batch, maps)
    adaptive(model, batch, maps)
    if with_quantus:
        pixel_flipping(model, batch, maps)


def ratio(model: Classifier, batch: Batch, maps: Tensor) -> None:
    """Deletion and insertion together, at every point."""
    metrics = (Deletion(), Insertion())
    with counting(model) as counts:
        for metric in metrics:
            metric(model, batch, maps)
    forwards = counts.forwards / len(batch)
    before = pace(model, batch)[0]
    began = clock(model)
    for metric in metrics:
        metric(model, batch, maps)
    seconds = (clock(model) - began) / len(batch)
    forward = (before + pace(model, batch)[0]) / 2
    print(f"deletion + insertion: {forwards:.0f} forwards, {seconds:.2f} s an image, forward {1000 * forward:.2f} ms")
    print(f"  wall time over forwards: {seconds / (forwards * forward):.2f}")


def adaptive(model: Classifier, batch: Batch, maps: Tensor) -> None:
    """Forwards and errors of adaptive curves."""
    for kind in (Deletion, Insertion):
        whole = kind()(model, batch, maps).measures["auc"]
        for tolerance in (0.005, 0.002, 0.001):
            with counting(model) as counts:
                found = kind(tolerance=tolerance)(model, batch, maps).measures["auc"]
            error = (found - whole).abs()
            print(
                f"adaptive {kind.model_fields['name'].default}, tolerance {tolerance}: "
                f"{counts.forwards / len(batch):.1f} forwards an image, error mean {error.mean():.5f}, "
                f"largest {error.max():.5f}, of the mean {abs((found - whole).mean()):.5f}"
            )


def pixel_flipping(model: Classifier, batch: Batch, maps: Tensor) -> None:
    """Quantus' pixel flipping and the same curve, seconds an image and the largest difference."""
    import quantus

    # Quantus wants H × W to be a multiple of its step, which is three features a pixel.
    step = batch.images.shape[-1] // 3 * 3
    maps = maps[..., :step, :step].contiguous()
    batch = Batch(batch.images[..., :step, :step].contiguous(), batch.targets, batch.ids)
    began = clock(model)
    # A feature of Quantus is a channel of a pixel; one map for three channels keeps those of a pixel together.
    theirs = quantus.PixelFlipping(
        features_in_step=3 * step, normalise=False, perturb_baseline=0.0, disable_warnings=True
    )(
        model=Softmax(model).eval(),
        x_batch=batch.images.cpu().numpy(),
        y_batch=batch.targets.cpu().numpy(),
        a_batch=maps.cpu().numpy().repeat(3, axis=1),
        batch_size=model.rows,
        softmax=False,
        device=str(model.device),
    )
    quantus_seconds = (clock(model) - began) / len(batch)
    metric = PerturbationCurve(fill="black", step=step)
    began = clock(model)
    ours = metric(model, batch, maps).curves["auc"]
    seconds = (clock(model) - began) / len(batch)
    difference = np.abs(np.asarray(theirs) - ours[:, 1:].cpu().numpy()).max()
    print(
        f"pixel flipping, {len(theirs[0])} steps: Quantus {quantus_seconds:.2f} s an image, heatline {seconds:.2f} s, "
        f"{quantus_seconds / seconds:.1f} ×; largest difference of a point {difference:.2g}"
    )


class Softmax(torch.nn.Module):
    """Probabilities of a classifier, as Quantus is told to take them."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(N, classes)."""
        probabilities: Tensor = self.model(images.float()).softmax(1)
        return probabilities


if __name__ == "__main__":
    main()
