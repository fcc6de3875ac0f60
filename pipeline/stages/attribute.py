"""Attribute: one method's maps of one model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.commit import Failed, constant_column
from pipeline.contracts import AttributionMethod
from pipeline.errors import ShardError
from pipeline.reduction import reduce_channels
from pipeline.stages.batches import batches
from pipeline.stages.image_cache import Samples
from pipeline.stages.stage import Outcome, Surroundings
from pipeline.stages.variant import Unit, Variant


@dataclass(frozen=True, slots=True)
class Chosen:
    """Samples to explain, each with its target; `failed` are those that have none."""

    samples: Samples
    targets: Tensor
    failed: tuple[Failed, ...]


class Attribute:
    """Maps (1, H, W) float32 after the method's reduction. A map that is not finite is a failure."""

    revision: ClassVar[int] = 1

    def load(self, around: Surroundings, variant: Variant, unit: Unit) -> Chosen:
        """The samples that the data set's `select` keeps, with the class that the method explains."""
        method = _method(variant)
        tables = {
            read.variant: around.output.read(read.variant, unit.start, unit.stop)
            for read in variant.reads
            if read.variant.startswith("predictions/")
        }
        own = tables[variant.prediction_variant] if variant.prediction_variant else None
        if own is None:
            raise ShardError(f"{variant.path}: no predictions for positions {unit.start} to {unit.stop}")
        kept = set(own["position"].to_pylist())
        if around.job.dataset.select != "all":
            for table in tables.values():
                correct = table.filter(table["correct"])["position"].to_pylist() if table is not None else []
                kept &= set(correct)
        rows = [row for row in own.to_pylist() if row["position"] in kept]
        column = method.target  # the predictions' columns are called as the targets are
        failed = tuple(
            Failed(row["position"], row["id"], f"{method.name}: explains the label, this sample has none")
            for row in rows
            if row[column] is None
        )
        rows = [row for row in rows if row[column] is not None]
        samples = around.images.get(unit.start, unit.stop)
        # What could be decoded when it was predicted may have gone since.
        gone = {one.position: one for one in samples.failed}
        failed += tuple(gone[row["position"]] for row in rows if row["position"] in gone)
        rows = [row for row in rows if row["position"] not in gone]
        targets = torch.tensor([row[column] for row in rows], dtype=torch.long)
        return Chosen(samples.at([row["position"] for row in rows]), targets, failed)

    def compute(self, around: Surroundings, variant: Variant, inputs: Chosen) -> Outcome:
        """Rows of position, id, label, target, map."""
        method = _method(variant)
        model = around.classifier(variant)
        samples = inputs.samples
        size = samples.images.shape[-2:]
        pieces = [
            reduce_channels(method(model, batch, around.noise), method.reduction).float().cpu()
            for _, batch in batches(samples, inputs.targets, model)
        ]
        maps = torch.cat(pieces) if pieces else torch.empty(0, 1, *size)
        finite = maps.isfinite().flatten(1).all(1)
        failed = tuple(
            Failed(samples.positions[row], samples.ids[row], f"{variant.method}: the map is not finite")
            for row in (~finite).nonzero()[:, 0].tolist()
        )
        rows = finite.nonzero()[:, 0].numpy()
        labels = samples.labels.numpy()[rows]
        table = pa.table(
            {
                "position": np.asarray(samples.positions, dtype=np.int64)[rows],
                "id": pa.array([samples.ids[row] for row in rows], pa.string()),
                "label": pa.array(labels, pa.int64(), mask=labels < 0),
                "target": inputs.targets.numpy()[rows],
                "model": constant_column(variant.model, len(rows)),
                "method": constant_column(str(variant.method), len(rows)),
                "map": tensor_array(maps if finite.all() else maps[torch.from_numpy(rows)]),
            }
        ).replace_schema_metadata({"heatline": json.dumps(variant.description())})
        every = (*samples.ids, *(one.id for one in inputs.failed))
        return Outcome(table, (*inputs.failed, *failed), every)


def tensor_array(maps: Tensor) -> pa.Array:
    """Maps (B, 1, H, W) float32 as the canonical fixed-shape tensor column of shape (1, H, W)."""
    if len(maps):
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(maps.numpy()))
    kind = pa.fixed_shape_tensor(pa.float32(), tuple(maps.shape[1:]), dim_names=None, permutation=[0, 1, 2])
    return pa.ExtensionArray.from_storage(kind, pa.array([], kind.storage_type))


def _method(variant: Variant) -> AttributionMethod:
    if variant.method_config is None:
        raise ShardError(f"{variant.path}: no method")
    return variant.method_config
