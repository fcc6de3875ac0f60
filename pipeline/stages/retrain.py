"""Retrain: one cell of a remove-and-retrain benchmark, trained on masked images and tested on masked images."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import ClassVar

import pyarrow as pa
import torch
from torch import Tensor

from pipeline.errors import ShardError
from pipeline.models import ModelConfig, load_classifier, train_network
from pipeline.noise import Noise
from pipeline.retrain import Cell
from pipeline.stages.masked_images import STRETCH, MaskedImages, fill_colour
from pipeline.stages.stage import Outcome, Surroundings
from pipeline.stages.variant import Split, Unit, Variant

SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("id", pa.string()),
        ("model", pa.string()),
        ("network", pa.string()),
        ("kind", pa.string()),
        ("method", pa.string()),
        ("fraction", pa.float64()),
        ("repeat", pa.int32()),
        ("accuracy", pa.float32()),
        ("train_accuracy", pa.float32()),
        ("train_images", pa.int32()),
        ("test_images", pa.int32()),
        ("left_out", pa.int32()),
        ("seconds", pa.float32()),
        ("fill", pa.list_(pa.uint8(), 3)),
        ("file", pa.string()),
        (
            "history",
            pa.list_(pa.struct([("number", pa.int32()), ("loss", pa.float32()), ("accuracy", pa.float32())])),
        ),
    ]
)


@dataclass(frozen=True, slots=True)
class Masks:
    """Both splits as the cell's network sees them.

    Attributes:
        images, labels: by split, (n, 3, H, W) uint8 and (n,) int64.
        left_out: samples of both splits without a label or a map, or that cannot be decoded.
    """

    images: dict[Split, Tensor]
    labels: dict[Split, Tensor]
    left_out: int


class Retrain:
    """One unit: a network trained from scratch, and its accuracy on the test images."""

    revision: ClassVar[int] = 1

    def load(self, around: Surroundings, variant: Variant, unit: Unit) -> Masks:
        """Both splits, decoded and masked."""
        cell = _cell(variant)
        fill = fill_colour(cell, around.statistics()[0])
        images: dict[Split, Tensor] = {}
        labels: dict[Split, Tensor] = {}
        left_out = 0
        for split in ("retraining", "explained"):
            cache = around.images(split)
            masked = MaskedImages(around.output, cache, len(cache), cell, variant.rank_variants.get(split), fill)
            pieces = [masked.read(start, min(start + STRETCH, len(cache))) for start in range(0, len(cache), STRETCH)]
            known = [piece.labels >= 0 for piece in pieces]
            images[split] = torch.cat([piece.images[rows] for piece, rows in zip(pieces, known, strict=True)])
            labels[split] = torch.cat([piece.labels[rows] for piece, rows in zip(pieces, known, strict=True)])
            left_out += len(cache) - len(labels[split])
            if not len(labels[split]):
                raise ShardError(f"{variant.path}: no sample of one split has both a label and a map")
        return Masks(images, labels, left_out)

    def compute(self, around: Surroundings, variant: Variant, inputs: Masks) -> Outcome:
        """One row of `SCHEMA`; with `save_weights`, the weights' file."""
        cell = _cell(variant)
        mean, std = around.statistics()
        trained = train_network(
            cell.network,
            inputs.images["retraining"],
            inputs.labels["retraining"],
            classes=variant.classes,
            config=cell.training,
            mean=mean,
            std=std,
            seed=cell_seed(around.noise, cell),
            device=around.device,
        )
        content = trained.to_bytes()
        accuracy = _accuracy(around, variant, cell, content, inputs)
        file = f"weights-{hashlib.sha256(content).hexdigest()[:16]}.safetensors" if cell.save_weights else None
        row = {
            "position": 0,
            "id": cell.id,
            "model": variant.model,
            "network": cell.network,
            "kind": cell.kind,
            "method": cell.method,
            "fraction": cell.fraction,
            "repeat": cell.repeat,
            "accuracy": accuracy,
            "train_accuracy": trained.accuracy,
            "train_images": len(inputs.labels["retraining"]),
            "test_images": len(inputs.labels["explained"]),
            "left_out": inputs.left_out,
            "seconds": trained.seconds,
            # The report shows masked images, and has no training images to take a mean of.
            "fill": fill_colour(cell, mean).tolist() if cell.method is not None else None,
            "file": file,
            "history": [asdict(epoch) for epoch in trained.history],
        }
        table = pa.Table.from_pylist([row], schema=SCHEMA)
        table = table.replace_schema_metadata({"heatline": json.dumps(variant.description())})
        return Outcome(table, (), (cell.id,), {file: content} if file is not None else {})


def cell_seed(noise: Noise, cell: Cell) -> int:
    """The seed of a training: by the job's and the repeat alone, so that the arms of a repeat differ in their masks."""
    return int(noise.generator("retrain", "", cell.repeat).integers(2**31))


def _cell(variant: Variant) -> Cell:
    if variant.cell is None:
        raise ShardError(f"{variant.path}: no cell")
    return variant.cell


@torch.no_grad()
def _accuracy(around: Surroundings, variant: Variant, cell: Cell, weights: bytes, inputs: Masks) -> float:
    """Share of the test images classified correctly."""
    config = ModelConfig(name=cell.network, weights="train")
    model = load_classifier(config, classes=variant.classes, weights=weights, device=around.device)
    images, labels = inputs.images["explained"], inputs.labels["explained"]
    correct = 0
    for pixels, targets in zip(torch.split(images, 512), torch.split(labels, 512), strict=True):
        predicted = model(pixels.to(around.device).float().div_(255)).argmax(1).cpu()
        correct += int((predicted == targets).sum())
    return correct / len(labels)
