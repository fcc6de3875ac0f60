"""Retrain: one cell of a remove-and-retrain benchmark, trained on masked images and tested on masked images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import ClassVar

import pyarrow as pa
from torch import Tensor

from pipeline.errors import DivergedError, ShardError
from pipeline.models import CheckpointError, ImageShards, TrainedNetwork, choose_images, train_and_test
from pipeline.noise import Noise
from pipeline.retrain import Cell
from pipeline.stages.masked_images import MaskedImages, fill_colour
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
        ("data", pa.string()),
        ("file", pa.string()),
        (
            "history",
            pa.list_(pa.struct([("number", pa.int32()), ("loss", pa.float32()), ("accuracy", pa.float32())])),
        ),
    ]
)


CHECKPOINT = "_checkpoint.bin"
"""What a training that was stopped goes on from; in the cell's folder, until the worker has committed it."""


class Retrain:
    """One unit: a network trained from scratch, and its accuracy on the test images.

    The training images are held on the device where they fit, else read again in each epoch; the row's `data` says
    which, and why. Samples without a label or a map, or that cannot be decoded, are left out and counted.
    """

    revision: ClassVar[int] = 1

    def load(self, around: Surroundings, variant: Variant, unit: Unit) -> Cell:
        """What is trained. The images are read while it is: two cells' would not have to fit beside each other."""
        del unit
        if variant.cell is None or variant.classes is None:
            raise ShardError(f"{variant.path}: no cell")
        around.statistics()  # found once, beside other units' computing
        return variant.cell

    def compute(self, around: Surroundings, variant: Variant, inputs: Cell) -> Outcome:
        """One row of `SCHEMA`; with `save_weights`, the weights' file."""
        cell, place = inputs, f"{variant.path}/{CHECKPOINT}"
        mean, std = around.statistics()
        fill = fill_colour(cell, mean)
        training, test = (_shards(around, variant, cell, split, fill) for split in ("retraining", "explained"))
        share = around.job.options.device_share
        images, data = choose_images(training, around.device, share=share)
        tested, _ = choose_images(test, around.device, share=share)
        if len(images) < 2 or not len(tested):
            raise ShardError(
                f"{variant.path}: {len(images)} training and {len(tested)} test images have both a label and a map, "
                "expected two or more and one or more"
            )

        def train(resume: bytes | None) -> TrainedNetwork:
            return train_and_test(
                cell.network,
                images,
                tested,
                config=cell.training,
                mean=mean,
                std=std,
                seed=cell_seed(around.noise, cell),
                training_accuracy=True,
                resume=resume,
                keep=lambda checkpoint: around.output.write_bytes(place, checkpoint),
            )

        try:
            trained = _resumed(train, around.output.read_bytes(place) if around.output.exists(place) else None)
        except DivergedError as error:
            # One cell of a grid: the others are trained all the same.
            raise ShardError(f"{variant.path}: {error}") from error
        content = trained.to_bytes() if cell.save_weights else b""
        file = f"weights-{hashlib.sha256(content).hexdigest()[:16]}.safetensors" if content else None
        row = {
            "position": 0,
            "id": cell.id,
            "model": variant.model,
            "network": cell.network,
            "kind": cell.kind,
            "method": cell.method,
            "fraction": cell.fraction,
            "repeat": cell.repeat,
            "accuracy": trained.test_accuracy,
            "train_accuracy": trained.accuracy,
            "train_images": len(images),
            "test_images": len(tested),
            "left_out": training.total + test.total - len(images) - len(tested),
            "seconds": trained.seconds,
            "fill": fill.tolist() if cell.method is not None else None,
            "data": data,
            "file": file,
            "history": [asdict(epoch) for epoch in trained.history],
        }
        table = pa.Table.from_pylist([row], schema=SCHEMA)
        table = table.replace_schema_metadata({"heatline": json.dumps(variant.description())})
        return Outcome(table, (), (cell.id,), {file: content} if file is not None else {})


def cell_seed(noise: Noise, cell: Cell) -> int:
    """The seed of a training: by the job's and the repeat alone, so that the arms of a repeat differ in their masks."""
    return int(noise.generator("retrain", "", cell.repeat).integers(2**31))


def _shards(around: Surroundings, variant: Variant, cell: Cell, split: Split, fill: Tensor) -> ImageShards:
    """A split as the cell's network sees it, a range at a time."""
    cache = around.images(split)
    source = MaskedImages(around.output, cache, len(cache), cell, variant.rank_variants.get(split), fill)

    def read(start: int, stop: int) -> tuple[Tensor, Tensor]:
        piece = source.read(start, stop)
        known = piece.labels >= 0
        return piece.images[known], piece.labels[known]

    shards = ImageShards(read, len(cache), cache.size, variant.classes or 1)
    # A power of two, as the blocks of the cache and the parts of the ranks are: what two shards share is read twice.
    aligned = 1 << (shards.shard.bit_length() - 1)
    return ImageShards(read, len(cache), cache.size, variant.classes or 1, aligned)


def _resumed(train: Callable[[bytes | None], TrainedNetwork], checkpoint: bytes | None) -> TrainedNetwork:
    """The training, from its checkpoint where there is one that fits."""
    try:
        return train(checkpoint)
    except CheckpointError:
        # Of other hardware or another version of PyTorch, or damaged: what it saved is lost, and nothing else.
        return train(None)
