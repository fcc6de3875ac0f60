"""Calibrate: numbers that a method or metric needs for a model, found on a validation split, kept like any result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pyarrow as pa
import torch

from pipeline.contracts import AttributionMethod, Batch
from pipeline.data import Dataset
from pipeline.errors import ShardError
from pipeline.models import Classifier
from pipeline.stages.batches import batches
from pipeline.stages.image_cache import Samples
from pipeline.stages.stage import Outcome, Surroundings
from pipeline.stages.variant import Unit, Variant
from pipeline.store import Output

SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("id", pa.string()),
        ("samples", pa.int32()),
        ("found", pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))),
    ]
)


class Calibrate:
    """One unit: what a calibration found on a seeded sample of the validation split."""

    revision: ClassVar[int] = 1

    def load(self, around: Surroundings, variant: Variant, unit: Unit) -> Samples:
        """The sample, decoded; what cannot be decoded is left out."""
        job = around.job
        if job.validation is None or job.validation_index is None or variant.calibration is None:
            raise ShardError(f"{variant.path}: no validation split")
        dataset = Dataset(job.validation, around.output.open_table(job.validation_index), job.seed)
        count = min(variant.calibration.samples, len(dataset))
        drawn = around.noise.choice("calibrate", "", range(len(dataset)), count)
        shard = dataset.load(sorted(drawn), job.options.decode_threads)
        return Samples(shard.images, shard.labels, shard.ids, shard.positions, ())

    def compute(self, around: Surroundings, variant: Variant, inputs: Samples) -> Outcome:
        """One row of `SCHEMA`."""
        if variant.calibration is None:
            raise ShardError(f"{variant.path}: no calibration")
        if not inputs.ids:
            raise ShardError(f"{variant.path}: no image of the validation split can be decoded")
        found = variant.calibration(around.classifier(variant), _predicted(inputs, around.classifier(variant)))
        row = {
            "position": 0,
            "id": variant.model,
            "samples": len(inputs.ids),
            "found": [{"name": name, "value": value} for name, value in found.items()],
        }
        return Outcome(pa.Table.from_pylist([row], schema=SCHEMA), (), (variant.model,))


def _predicted(samples: Samples, model: Classifier) -> Iterator[Batch]:
    """The samples in batches, each with the class that the model predicts."""
    for _, batch in batches(samples, torch.zeros(len(samples.ids), dtype=torch.long), model):
        with torch.no_grad():
            logits = torch.cat([model(piece) for piece in torch.split(batch.images, model.rows)])
        yield Batch(batch.images, logits.argmax(1), batch.ids)


def calibrated_numbers(output: Output, variant: str) -> dict[str, float]:
    """What a committed calibration found, by name.

    Raises:
        ShardError: nothing is committed.
    """
    table = output.read(variant)
    if table is None:
        raise ShardError(f"{variant}: no calibration")
    return {one["name"]: one["value"] for one in table["found"][0].as_py()}


def calibrated_method(output: Output, variant: Variant) -> AttributionMethod:
    """The method of a variant, with the numbers of its calibration where it needs them.

    Raises:
        ShardError: the variant has no method, or its calibration is not committed.
    """
    if variant.method_config is None:
        raise ShardError(f"{variant.path}: no method")
    if variant.calibration_variant is None:
        return variant.method_config
    return variant.method_config.calibrated(calibrated_numbers(output, variant.calibration_variant))
