"""Statistics: what is to be known of the images that networks are trained on anew, before the first is trained."""

from __future__ import annotations

import json
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch

from pipeline.stages.image_cache import Samples
from pipeline.stages.stage import Outcome, Surroundings
from pipeline.stages.variant import Unit, Variant

SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("id", pa.string()),
        ("label", pa.int64()),
        ("pixels", pa.int64()),
        ("sums", pa.list_(pa.int64(), 3)),
        ("squares", pa.list_(pa.int64(), 3)),
    ]
)
_TOGETHER = 64


class Statistics:
    """A row for each sample that can be decoded: its label, and the sums of its pixels and of their squares by channel.

    The sums are of the values 0 … 255, so that they are exact and those of a split do not depend on its parts. Labels
    that are unknown are null.
    """

    revision: ClassVar[int] = 1

    def load(self, around: Surroundings, variant: Variant, unit: Unit) -> Samples:
        """The unit's images."""
        return around.images(variant.split).get(unit.start, unit.stop)

    def compute(self, around: Surroundings, variant: Variant, inputs: Samples) -> Outcome:
        """Rows of `SCHEMA`."""
        pieces = [images.flatten(2).long() for images in torch.split(inputs.images, _TOGETHER)]
        sums = torch.cat([piece.sum(2) for piece in pieces])
        squares = torch.cat([piece.square().sum(2) for piece in pieces])
        labels = inputs.labels.numpy()
        table = pa.table(
            [
                pa.array(np.asarray(inputs.positions, dtype=np.int64)),
                pa.array(inputs.ids, pa.string()),
                pa.array(labels, mask=labels < 0),
                pa.array(np.full(len(labels), inputs.images[0, 0].numel() if len(labels) else 0, dtype=np.int64)),
                *(pa.FixedSizeListArray.from_arrays(pa.array(some.flatten().numpy()), 3) for some in (sums, squares)),
            ],
            schema=SCHEMA,
        ).replace_schema_metadata({"heatline": json.dumps(variant.description())})
        return Outcome(table, inputs.failed, (*inputs.ids, *(one.id for one in inputs.failed)))
