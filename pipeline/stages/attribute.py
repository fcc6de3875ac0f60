"""Attribute: one method's maps of one model, with what else the method finds."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.commit import constant_column
from pipeline.contracts import AttributionMethod, Batch, Explanation, SharingMethod
from pipeline.errors import ShardError
from pipeline.models import Classifier
from pipeline.part import Failed
from pipeline.reduction import reduce_channels
from pipeline.stages.batches import batches
from pipeline.stages.calibrate import calibrated_method
from pipeline.stages.column import tensor_array
from pipeline.stages.image_cache import Samples
from pipeline.stages.segment import segmented_positions, stored_superpixels
from pipeline.stages.shared_work import shared_name
from pipeline.stages.stage import Outcome, Surroundings
from pipeline.stages.variant import Unit, Variant


@dataclass(frozen=True, slots=True)
class Chosen:
    """Samples to explain, each with its target; `failed` are those that have none.

    Attributes:
        method: the method, calibrated where it has to be.
        samples: n samples.
        targets: (n,) int64.
        failed: samples without a target.
        superpixels: (n, H, W) int32, where the method asks for them.
    """

    method: AttributionMethod
    samples: Samples
    targets: Tensor
    failed: tuple[Failed, ...]
    superpixels: Tensor | None


class Attribute:
    """Maps (1, H, W) float32 after the method's reduction. A map that is not finite is a failure."""

    revision: ClassVar[int] = 1

    def load(self, around: Surroundings, variant: Variant, unit: Unit) -> Chosen:
        """The samples that the data set's `select` keeps, with the class that the method explains."""
        method = calibrated_method(around.output, variant)
        rows = _selected(around, variant, unit)
        column = method.target  # the predictions' columns are called as the targets are
        failed = tuple(
            Failed(row["position"], row["id"], f"{method.name}: explains the label, this sample has none")
            for row in rows
            if row[column] is None
        )
        rows = [row for row in rows if row[column] is not None]
        samples = around.images(variant.split).get(unit.start, unit.stop)
        # What could be decoded when it was predicted may have gone since.
        gone = {one.position: one for one in samples.failed}
        failed += tuple(gone[row["position"]] for row in rows if row["position"] in gone)
        rows = [row for row in rows if row["position"] not in gone]
        if variant.superpixel_variant is not None:
            divided = segmented_positions(around.output, variant.superpixel_variant, unit)
            failed += tuple(
                Failed(row["position"], row["id"], f"{method.name}: its superpixels could not be made")
                for row in rows
                if row["position"] not in divided
            )
            rows = [row for row in rows if row["position"] in divided]
        positions = [row["position"] for row in rows]
        targets = torch.tensor([row[column] for row in rows], dtype=torch.long)
        superpixels = None
        if variant.superpixel_variant is not None:
            superpixels = stored_superpixels(around.output, variant.superpixel_variant, unit, positions)
        return Chosen(method, samples.at(positions), targets, failed, superpixels)

    def compute(self, around: Surroundings, variant: Variant, inputs: Chosen) -> Outcome:
        """Rows of position, id, label, target, model, method, map, and of what else the method found."""
        method, samples = inputs.method, inputs.samples
        model = around.classifier(variant)
        outside = [row for row, target in enumerate(inputs.targets.tolist()) if target >= model.classes]
        if outside:
            row = outside[0]
            raise ShardError(
                f"{variant.path}: {samples.ids[row]} is to be explained for class {int(inputs.targets[row])}, "
                f"the model has {model.classes} classes"
            )
        explanations = []
        for rows, batch in batches(samples, inputs.targets, model):
            if inputs.superpixels is not None:
                batch = replace(batch, superpixels=inputs.superpixels[rows].to(batch.images.device))
            explanations.append((rows.start, _explained(around, variant, method, model, batch)))
        maps = [reduce_channels(one.maps, method.reduction).float().cpu() for _, one in explanations]
        whole = torch.cat(maps) if maps else torch.empty(0, 1, *samples.images.shape[-2:])
        reasons = {start + row: reason for start, one in explanations for row, reason in one.failed.items()}
        finite = whole.isfinite().flatten(1).all(1)
        for row in (~finite).nonzero()[:, 0].tolist():
            reasons.setdefault(row, "the map is not finite")
        failed = tuple(
            Failed(samples.positions[row], samples.ids[row], f"{variant.method}: {reasons[row]}")
            for row in sorted(reasons)
        )
        kept = np.array([row for row in range(len(samples.ids)) if row not in reasons], dtype=np.int64)
        further = _further([one for _, one in explanations], kept)
        table = _table(variant, inputs, whole, kept)
        for name, column in further.items():
            table = table.append_column(name, column)
        every = (*samples.ids, *(one.id for one in inputs.failed))
        return Outcome(table, (*inputs.failed, *failed), every)


def _table(variant: Variant, inputs: Chosen, maps: Tensor, kept: NDArray[np.int64]) -> pa.Table:
    """The rows that every method has."""
    samples = inputs.samples
    labels = samples.labels.numpy()[kept]
    return pa.table(
        {
            "position": np.asarray(samples.positions, dtype=np.int64)[kept],
            "id": pa.array([samples.ids[row] for row in kept], pa.string()),
            "label": pa.array(labels, pa.int64(), mask=labels < 0),
            "target": inputs.targets.numpy()[kept],
            "model": constant_column(variant.model, len(kept)),
            "method": constant_column(str(variant.method), len(kept)),
            "map": tensor_array(maps if len(kept) == len(maps) else maps[torch.from_numpy(kept)]),
        }
    ).replace_schema_metadata({"heatline": json.dumps(variant.description())})


def _further(explanations: list[Explanation], kept: NDArray[np.int64]) -> dict[str, pa.Array]:
    """What a method found beside its maps, as columns."""
    columns: dict[str, pa.Array] = {}
    for name in explanations[0].columns if explanations else ():
        values = [one.columns[name] for one in explanations]
        if all(isinstance(value, Tensor) for value in values):
            joined = torch.cat([value for value in values if isinstance(value, Tensor)]).cpu()
            joined = joined.to(torch.uint8) if joined.dtype == torch.bool and joined.dim() > 1 else joined
            rows = joined[torch.from_numpy(kept)]
            columns[name] = pa.array(rows.numpy()) if rows.dim() == 1 else tensor_array(rows)
        else:
            lists = [row for value in values for row in value]
            columns[name] = pa.array([lists[row] for row in kept], pa.list_(pa.float32()))
    return columns


def _explained(
    around: Surroundings, variant: Variant, method: AttributionMethod, model: Classifier, batch: Batch
) -> Explanation:
    if not isinstance(method, SharingMethod):
        return method.explain(model, batch, around.noise)
    work = around.shared.get(shared_name(variant), method.shared_work(), model, batch, around.noise)
    return Explanation(method.finish(batch, work))


def _selected(around: Surroundings, variant: Variant, unit: Unit) -> list[dict[str, Any]]:
    """The rows of the model's own predictions for the samples that are to be explained."""
    tables = {
        read.variant: around.output.read_all(read.variant, unit.start, unit.stop)
        for read in variant.reads
        if read.variant.startswith("predictions/")
    }
    own = tables[variant.prediction_variant] if variant.prediction_variant else None
    if own is None:
        raise ShardError(f"{variant.path}: no predictions for positions {unit.start} to {unit.stop}")
    kept = set(own["position"].to_pylist())
    if around.job.dataset.select != "all":
        for table in tables.values():
            correct = table.filter(table["correct"])["position"].to_pylist()
            kept &= set(correct)
    return [row for row in own.to_pylist() if row["position"] in kept]
