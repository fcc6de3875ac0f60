"""Predict: the clean image's classes, which every later stage starts from."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F

from pipeline.part import Failed
from pipeline.stages.image_cache import Samples
from pipeline.stages.stage import Outcome, Surroundings
from pipeline.stages.variant import Unit, Variant

SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("id", pa.string()),
        ("label", pa.int64()),
        ("predicted", pa.int64()),
        ("second", pa.int64()),
        ("probability", pa.float32()),
        ("correct", pa.bool_()),
    ]
)


class Predict:
    """One forward a sample: predicted class, runner-up, probability. Labels that are unknown are null."""

    revision: ClassVar[int] = 1

    def load(self, around: Surroundings, variant: Variant, unit: Unit) -> Samples:
        """The unit's images."""
        return around.images(variant.split).get(unit.start, unit.stop)

    @torch.no_grad()
    def compute(self, around: Surroundings, variant: Variant, inputs: Samples) -> Outcome:
        """Rows of `SCHEMA`; a sample whose logits are not finite is a failure."""
        model = around.classifier(variant)
        logits = torch.cat(
            [model(piece.to(around.device).float().div_(255)).cpu() for piece in torch.split(inputs.images, model.rows)]
        )
        finite = logits.isfinite().all(1)
        failed = [
            Failed(inputs.positions[row], inputs.ids[row], f"{variant.model}: the logits are not finite")
            for row in (~finite).nonzero()[:, 0].tolist()
        ]
        rows = finite.nonzero()[:, 0]
        probability, order = F.softmax(logits[rows], dim=1).topk(min(2, model.classes), dim=1)
        labels = inputs.labels[rows].numpy()
        predicted = order[:, 0].numpy()
        table = pa.table(
            [
                pa.array(np.asarray(inputs.positions, dtype=np.int64)[rows.numpy()]),
                pa.array([inputs.ids[row] for row in rows.tolist()], pa.string()),
                pa.array(labels, mask=labels < 0),
                pa.array(predicted),
                pa.array(order[:, -1].numpy()),
                pa.array(probability[:, 0].numpy()),
                pa.array(predicted == labels, mask=labels < 0),
            ],
            schema=SCHEMA,
        )
        every = (*inputs.ids, *(one.id for one in inputs.failed))
        return Outcome(table, (*inputs.failed, *failed), every)
