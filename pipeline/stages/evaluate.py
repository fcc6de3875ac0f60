"""Evaluate: one metric's scores of one method's maps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.commit import constant_column
from pipeline.contracts import Batch, Context, Metric, Scores
from pipeline.errors import ShardError
from pipeline.models import Classifier
from pipeline.noise import Noise
from pipeline.part import Failed
from pipeline.reduction import reduce_channels
from pipeline.stages.batches import batches
from pipeline.stages.calibrate import calibrated_method, calibrated_numbers
from pipeline.stages.column import stored_tensor
from pipeline.stages.image_cache import Samples
from pipeline.stages.segment import stored_superpixels
from pipeline.stages.shared_work import shared_name
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
    """Samples with their targets and maps.

    Attributes:
        metric: the metric, calibrated where it has to be.
        samples: n samples.
        targets: (n,) int64.
        maps: (n, 1, H, W) float32.
        columns: what else the method found and the metric reads, each (n, …).
        superpixels: (n, H, W) int32, where the method runs again and asks for them.
        regions: where things are, each (n, 1, H, W) bool, where the metric asks for one.
        failed: samples whose regions cannot be known, where the metric asks for one; they are none of the n.
    """

    metric: Metric
    samples: Samples
    targets: Tensor
    maps: Tensor
    columns: Mapping[str, Tensor]
    superpixels: Tensor | None
    regions: Mapping[str, Tensor]
    failed: tuple[Failed, ...]


class Evaluate:
    """One row a sample and measure. A score that is not a number is null; a sample without its mask is a failure."""

    revision: ClassVar[int] = 1

    def load(self, around: Surroundings, variant: Variant, unit: Unit) -> Explained:
        """The unit's committed maps and their images: of the samples that the metric looks at."""
        metric = _metric(around, variant)
        looked_at: NDArray[np.int64] = np.arange(unit.start, unit.stop)
        if metric.samples is not None:
            chosen = chosen_positions(variant.total, metric.samples, around.noise)
            looked_at = chosen[(chosen >= unit.start) & (chosen < unit.stop)]
        # No more than the stretch that is looked at: of a large data set a few maps are wanted from here and there.
        start, stop = (int(looked_at[0]), int(looked_at[-1]) + 1) if len(looked_at) else (unit.start, unit.start + 1)
        table = around.output.read_all(str(variant.map_variant), start, stop)
        if metric.samples is not None:
            table = table.filter(pa.array(np.isin(table["position"].to_numpy(), looked_at)))
        images = around.images(variant.split)
        failed = images.regionless(table["position"].to_pylist()) if metric.region() is not None else ()
        if failed:
            table = table.filter(pa.array(~np.isin(table["position"].to_numpy(), [one.position for one in failed])))
        positions = table["position"].to_pylist()
        samples = images.get(start, stop).at(positions)
        maps = stored_tensor(table["map"])
        if maps.shape[1:] != (1, *samples.images.shape[-2:]):
            height, width = samples.images.shape[-2:]
            raise ShardError(
                f"{variant.map_variant}: maps of {tuple(maps.shape[1:])}, the images are {height} × {width}"
            )
        columns = {name: torch.tensor(table[name].to_numpy()) for name in metric.columns if name in table.column_names}
        superpixels = None
        if variant.superpixel_variant is not None:
            superpixels = stored_superpixels(around.output, variant.superpixel_variant, unit, positions)
        regions = images.regions(positions) if metric.region() is not None else {}
        targets = torch.tensor(table["target"].to_numpy())
        named = tuple(replace(one, reason=f"{variant.metric}: {one.reason}") for one in failed)
        return Explained(metric, samples, targets, maps, columns, superpixels, regions, named)

    def compute(self, around: Surroundings, variant: Variant, inputs: Explained) -> Outcome:
        """Rows of `SCHEMA`, each with the curve of its measure where there is one."""
        model = around.classifier(variant)
        metric, samples = inputs.metric, inputs.samples
        context = _context(around, variant, model, metric)
        found: list[Scores] = []
        for rows, batch in batches(samples, inputs.targets, model):
            device = batch.images.device
            whole = replace(
                batch,
                superpixels=None if inputs.superpixels is None else inputs.superpixels[rows].to(device),
                regions={name: region[rows].to(device) for name, region in inputs.regions.items()},
            )
            columns = {name: column[rows].to(device) for name, column in inputs.columns.items()}
            found.append(metric(model, whole, inputs.maps[rows].to(device), replace(context, columns=columns)))
        every = (*samples.ids, *(one.id for one in inputs.failed))
        return Outcome(_table(variant, inputs, found), inputs.failed, every)


def chosen_positions(total: int, samples: int, noise: Noise) -> NDArray[np.int64]:
    """The positions that a metric looks at which does not look at all: drawn with the job's seed, ascending."""
    if samples >= total:
        return np.arange(total)
    drawn = noise.generator("evaluate", "samples").choice(total, size=samples, replace=False)
    return np.sort(drawn).astype(np.int64)


def _metric(around: Surroundings, variant: Variant) -> Metric:
    if variant.metric_config is None:
        raise ShardError(f"{variant.path}: no metric")
    if variant.metric_config.calibration() is None or variant.metric_calibration_variant is None:
        return variant.metric_config
    return variant.metric_config.calibrated(calibrated_numbers(around.output, variant.metric_calibration_variant))


def _context(around: Surroundings, variant: Variant, model: Classifier, metric: Metric) -> Context:
    """What the metric may use; the method only where it asks for it."""
    replica = shared_name(variant)
    context = Context(
        noise=around.noise,
        share=lambda work, used, batch: around.shared.get(replica, work, used, batch, around.noise),
        randomised=around.randomised,
        permuted=model if metric.permutes else None,
    )
    if not metric.explains:
        return context
    method = calibrated_method(around.output, variant)

    def explain(used: Classifier, batch: Batch) -> Tensor:
        explanation = method.explain(used, batch, around.noise)
        maps = reduce_channels(explanation.maps, method.reduction).float()
        if explanation.failed:
            maps = maps.clone()
            maps[list(explanation.failed)] = torch.nan
        return maps

    return replace(context, explain=explain)


def _table(variant: Variant, inputs: Explained, found: list[Scores]) -> pa.Table:
    """Scores as rows, the measures of one sample one after the other."""
    names = list(found[0].measures) if found else []
    count = len(inputs.samples.ids)
    values = np.empty((count, len(names)), np.float32)
    curves: list[NDArray[np.float32] | None] = [None] * values.size
    for column, name in enumerate(names):
        values[:, column] = torch.cat([one.measures[name] for one in found]).float().cpu().numpy()
        if name in found[0].curves:
            points = torch.cat([one.curves[name] for one in found]).float().cpu().numpy()
            for row in np.isfinite(points).any(axis=1).nonzero()[0]:
                curves[row * len(names) + column] = points[row]
    flat = values.reshape(-1)
    each = np.repeat(np.arange(count), len(names))
    labels = inputs.samples.labels.numpy()
    return pa.table(
        [
            pa.array(np.asarray(inputs.samples.positions, dtype=np.int64)[each]),
            pa.array([inputs.samples.ids[row] for row in each], pa.string()),
            pa.array(labels[each], pa.int64(), mask=labels[each] < 0),
            pa.array(inputs.targets.numpy()[each]),
            constant_column(variant.model, len(flat)),
            constant_column(str(variant.method), len(flat)),
            constant_column(str(variant.metric), len(flat)),
            pa.DictionaryArray.from_arrays(
                pa.array(np.tile(np.arange(len(names)), count), pa.int32()),
                pa.array(names, pa.string()),
            ),
            pa.array(flat, pa.float32(), mask=~np.isfinite(flat)),
            # A point that is not a number is a null in its list.
            pa.array(curves, pa.list_(pa.float32()), from_pandas=True),
        ],
        schema=SCHEMA,
    ).replace_schema_metadata({"heatline": json.dumps(variant.description())})
