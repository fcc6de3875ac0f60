"""Retrain: one cell of a remove-and-retrain benchmark, trained on masked images and tested on masked images."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import partial
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import DivergedError, ShardError
from pipeline.models import CheckpointError, Images, ImageShards, TrainedNetwork, train_and_test, with_images
from pipeline.noise import Noise
from pipeline.retrain import Cell
from pipeline.retrain.grid import MEASURED, NAMED
from pipeline.stages.image_statistics import labelled_positions
from pipeline.stages.masked_images import MaskedImages, fill_colour
from pipeline.stages.rank import count_unranked
from pipeline.stages.stage import Outcome, Surroundings
from pipeline.stages.variant import Split, Unit, Variant

SCHEMA = pa.schema([("position", pa.int64()), ("id", pa.string()), *NAMED, *MEASURED])

CHECKPOINT = "_checkpoint.bin"
"""What a training that was stopped goes on from; in the cell's folder, until the worker has committed it."""


SPLITS: tuple[Split, Split] = ("retraining", "explained")
"""What a network is trained on, and what it is tested on."""

WEIGHTS = 1
"""The position of a cell's weights."""


class Retrain:
    """One unit: a network trained from scratch, and its accuracy on the test images.

    The training images are held on the device where they fit, else read again in each epoch; the row's `data` says
    which, and why, and no result depends on it. Samples without a label, or that cannot be decoded, are left out of
    every cell alike; those that the method has no ranks of are masked at random. Both are counted.

    A cell is one position, and where its weights are kept a second one, so that the cell is the same with and without
    them. One that was committed without weights lacks the second position: it is trained once more, and the row there
    says what the weights that are kept have reached.
    """

    revision: ClassVar[int] = 2

    def load(self, around: Surroundings, variant: Variant, unit: Unit) -> tuple[Cell, Unit]:
        """What is trained. The images are read while it is: two cells' would not have to fit beside each other."""
        if variant.cell is None or variant.classes is None:
            raise ShardError(f"{variant.path}: no cell")
        around.statistics(variant)  # found beside other units' computing
        return variant.cell, unit

    def compute(self, around: Surroundings, variant: Variant, inputs: tuple[Cell, Unit]) -> Outcome:
        """A row of `SCHEMA` a position; with the position of the weights, their file."""
        cell, unit = inputs
        fill = fill_colour(cell, around.statistics(variant).mean)
        images = {split: _images(around, variant, split) for split in SPLITS}
        counts = len(images["retraining"]), len(images["explained"])
        if counts[0] < 2 or not counts[1]:
            raise ShardError(
                f"{variant.path}: {counts[0]} training and {counts[1]} test images have a label, "
                "expected two or more and one or more"
            )
        unranked = sum(_unranked(around, variant, cell, split, images[split]) for split in SPLITS)
        training, test = (_shards(around, variant, cell, split, fill, images[split]) for split in SPLITS)
        try:
            network, data = with_images(
                training,
                test,
                partial(_train, around, variant, cell),
                around.device,
                share=around.job.options.device_share,
                processes=around.processes,
                streamed=around.streamed,
            )
        except DivergedError as error:
            # One cell of a grid: the others are trained all the same.
            raise ShardError(f"{variant.path}: {error}") from error
        content = network.to_bytes() if unit.stop > WEIGHTS else b""
        file = f"weights-{hashlib.sha256(content).hexdigest()[:16]}.safetensors" if content else None
        row = {
            "model": variant.model,
            "network": cell.network,
            "kind": cell.kind,
            "method": cell.method,
            "fraction": cell.fraction,
            "repeat": cell.repeat,
            "accuracy": network.test_accuracy,
            "train_accuracy": network.accuracy,
            "train_images": counts[0],
            "test_images": counts[1],
            "left_out": training.total + test.total - sum(counts),
            "unranked": unranked,
            "seconds": network.seconds,
            "fill": fill.tolist() if cell.method is not None else None,
            "data": data,
            "device": network.device,
            "devices": network.devices,
            "precision": network.precision,
            "file": file,
            "history": [asdict(epoch) for epoch in network.history],
        }
        ids = {
            position: f"{cell.id}/weights" if position == WEIGHTS else cell.id
            for position in range(unit.start, unit.stop)
        }
        rows = [{"position": position, "id": name, **row} for position, name in ids.items()]
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        table = table.replace_schema_metadata({"heatline": json.dumps(variant.description())})
        return Outcome(table, (), tuple(ids.values()), {file: content} if file is not None else {})


def _train(around: Surroundings, variant: Variant, cell: Cell, images: Images, test: Images) -> TrainedNetwork:
    """The cell's network, from its checkpoint where there is one."""
    place, output = f"{variant.path}/{CHECKPOINT}", around.output
    statistics = around.statistics(variant)
    train = partial(
        train_and_test,
        cell.network,
        images,
        test,
        config=cell.training,
        mean=statistics.mean,
        std=statistics.std,
        seed=cell_seed(around.noise, cell),
        training_accuracy=True,
        keep=partial(output.write_bytes, place),
        processes=around.processes,
    )
    checkpoint = around.processes.by_lead(lambda: output.read_bytes(place) if output.exists(place) else None)
    try:
        return train(resume=checkpoint)
    except CheckpointError:
        # Of other hardware or another version of PyTorch, or damaged: what it saved is lost, and nothing else.
        return train()


def cell_seed(noise: Noise, cell: Cell) -> int:
    """The seed of a training: by the job's and the repeat alone, so that the arms of a repeat differ in their masks."""
    return int(noise.generator("retrain", "", cell.repeat).integers(2**31))


def _images(around: Surroundings, variant: Variant, split: Split) -> NDArray[np.int64]:
    """Positions of the images that the networks of every arm see."""
    return labelled_positions(around.output, variant.statistics_variants[split], len(around.images(split)))


def _unranked(around: Surroundings, variant: Variant, cell: Cell, split: Split, images: NDArray[np.int64]) -> int:
    """How many images of a split the method has no ranks of.

    Raises:
        ShardError: they are more than the cell is trained with: it would say more of random masks than of the method.
    """
    if split not in variant.rank_variants:
        return 0
    lacking = count_unranked(around.output, variant.rank_variants[split], images)
    if lacking > cell.max_unranked_share * len(images):
        what = "training" if split == "retraining" else "test"
        raise ShardError(
            f"{variant.path}: {cell.method} has no order of the pixels of {lacking:,} of {len(images):,} {what} images "
            f"(its map failed, or is the same everywhere); retrain.max_unranked_share is {cell.max_unranked_share:g}"
        )
    return lacking


def _shards(
    around: Surroundings, variant: Variant, cell: Cell, split: Split, fill: Tensor, images: NDArray[np.int64]
) -> ImageShards:
    """A split as the cell's network sees it, a range at a time."""
    cache = around.images(split)
    source = MaskedImages(around.output, cache, cell, variant.rank_variants.get(split), fill, around.noise)

    def read(start: int, stop: int) -> tuple[Tensor, Tensor]:
        piece = source.read(start, stop)
        known = piece.labels >= 0
        return piece.images[known], piece.labels[known]

    shard = ImageShards(read, len(cache), cache.size, variant.classes or 1).shard
    # A power of two, as the blocks of the cache and the parts of the ranks are: what two shards share is read twice.
    aligned = 1 << (shard.bit_length() - 1)
    counts = np.bincount(images // aligned, minlength=-(-len(cache) // aligned)).tolist()
    return ImageShards(read, len(cache), cache.size, variant.classes or 1, aligned, counts, processes=around.processes)
