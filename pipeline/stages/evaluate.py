"""Evaluate: one metric's scores of one method's maps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.commit import constant_column
from pipeline.errors import ShardError
from pipeline.stages.batches import batches
from pipeline.stages.image_cache import Samples
from pipeline.stages.stage import Outcome, Surroundings
from pipeline.stages.variant import Unit, Variant

SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("id", pa.string()),
        ("label", pa.int64()),
        ("target", pa.int64()),
        ("model", pa.dictionary(pa.int32(), pa.string())),
        ("method", pa.dictionary(pa.int32(), pa.string())),
        ("metric", pa.dictionary(pa.int32(), pa.string())),
        ("measure", pa.dictionary(pa.int32(), pa.string())),
        ("value", pa.float32()),
        ("curve", pa.list_(pa.float32())),
    ]
)


@dataclass(frozen=True, slots=True)
class Explained:
    """Samples with their targets and maps, (n, 1, H, W) float32."""

    samples: Samples
    targets: Tensor
    maps: Tensor


class Evaluate:
    """One row a sample and measure. A score that is not a number is null."""

    revision: ClassVar[int] = 1

    def load(self, around: Surroundings, variant: Variant, unit: Unit) -> Explained:
        """The unit's committed maps, and their images."""
        table = around.output.read(str(variant.map_variant), unit.start, unit.stop)
        if table is None:
            raise ShardError(f"{variant.path}: no maps for positions {unit.start} to {unit.stop}")
        samples = around.images.get(unit.start, unit.stop).at(table["position"].to_pylist())
        maps = torch.tensor(table["map"].combine_chunks().to_numpy_ndarray())
        return Explained(samples, torch.tensor(table["target"].to_numpy()), maps)

    def compute(self, around: Surroundings, variant: Variant, inputs: Explained) -> Outcome:
        """Rows of `SCHEMA`; the curve stands with the first measure alone."""
        metric = variant.metric_config
        if metric is None:
            raise ShardError(f"{variant.path}: no metric")
        model = around.classifier(variant)
        samples = inputs.samples
        gathered: dict[str, list[Tensor]] = {}
        for rows, batch in batches(samples, inputs.targets, model):
            for name, values in metric(model, batch, inputs.maps[rows].to(around.device)).items():
                gathered.setdefault(name, []).append(values.float().cpu())
        scores = {name: torch.cat(values).numpy() for name, values in gathered.items()}
        return Outcome(_table(variant, inputs, scores), (), samples.ids)


def _table(variant: Variant, inputs: Explained, scores: dict[str, np.ndarray]) -> pa.Table:
    """Scores as rows, the measures of one sample one after the other."""
    curve = scores.pop("curve", None)
    count, measures = len(inputs.samples.ids), list(scores)
    labels = inputs.samples.labels.numpy()
    each = np.repeat(np.arange(count), len(measures))
    values = np.stack([scores[name] for name in measures], axis=1).reshape(-1) if measures else np.empty(0, np.float32)
    curves: list[np.ndarray | None] = [None] * len(each)
    if curve is not None:
        for row in range(count):
            if np.isfinite(curve[row]).all():
                curves[row * len(measures)] = curve[row]
    rows = len(each)
    return pa.table(
        [
            pa.array(np.asarray(inputs.samples.positions, dtype=np.int64)[each]),
            pa.array([inputs.samples.ids[row] for row in each], pa.string()),
            pa.array(labels[each], pa.int64(), mask=labels[each] < 0),
            pa.array(inputs.targets.numpy()[each]),
            constant_column(variant.model, rows),
            constant_column(str(variant.method), rows),
            constant_column(str(variant.metric), rows),
            pa.DictionaryArray.from_arrays(
                pa.array(np.tile(np.arange(len(measures)), count), pa.int32()),
                pa.array(measures, pa.string()),
            ),
            pa.array(values, pa.float32(), mask=~np.isfinite(values)),
            pa.array(curves, pa.list_(pa.float32())),
        ],
        schema=SCHEMA,
    ).replace_schema_metadata({"heatline": json.dumps(variant.description())})
